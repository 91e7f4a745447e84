"""Confidence sequences: coverage at all times at once, how long a live record must run, what is refused."""

import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.evidence.sequential import (
    MIN_PERIODS,
    bars_to_confirm,
    followed,
    half_width,
    live_record,
    live_state,
)


def missed_at_any_time(returns_RT, truth, bounds):
    """Share of records [R, T] whose bounds leave the truth out at any time."""
    missed = 0
    for record in returns_RT:
        _, low, high = bounds(record)
        missed += bool((low > truth).any() or (high < truth).any())
    return missed / len(returns_RT)


def for_one_look(record):
    """The negative control: an interval for one evaluation, read daily."""
    n = np.arange(1, len(record) + 1)
    mean, half = record.cumsum() / n, 0.01 * 1.96 / np.sqrt(n)
    half[: MIN_PERIODS - 1] = np.inf
    return mean, mean - half, mean + half


@pytest.mark.parametrize("tails", ["normal", "student"])
def test_the_truth_is_covered_at_all_times_at_once(tails):
    rng = np.random.default_rng(1)
    size = (600, 1000)
    noise = rng.normal(size=size) if tails == "normal" else rng.standard_t(5, size=size)
    assert missed_at_any_time(0.001 + 0.01 * noise, 0.001, followed) <= 0.065
    assert missed_at_any_time(0.001 + 0.01 * noise, 0.001, for_one_look) > 0.25


def rare_losses(n_records, n_days):
    """Small gains, and a loss on one of twenty days that takes all of them: mean zero, deviation one."""
    rng = np.random.default_rng(3)
    return (0.1 - 2.0 * (rng.random((n_records, n_days)) < 0.05)) / np.sqrt(0.19)


def test_a_loss_that_has_not_come_yet_does_not_confirm_a_gain():
    records = rare_losses(400, 500)
    assert missed_at_any_time(records, 0.0, lambda r: followed(r, expected_deviation=1.0)) <= 0.05
    # without the backtest's deviation the record knows nothing of what has not happened: docs/coverage.md says so
    assert missed_at_any_time(records, 0.0, followed) > 0.08


def test_days_that_resemble_their_neighbours_count_as_fewer():
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(500, 600))
    for t in range(1, 600):
        noise[:, t] = 0.25 * noise[:, t - 1] + np.sqrt(1 - 0.25**2) * noise[:, t]
    assert missed_at_any_time(noise, 0.0, followed) <= 0.08
    plain = [np.abs(r.cumsum()[59:] / np.arange(60, 601)) for r in noise]
    width = np.array([half_width(n) for n in range(60, 601)])
    assert np.mean([(mean > r.std() * width).any() for mean, r in zip(plain, noise, strict=True)]) > 0.12


def slow_bounds(record, floor):
    """Bounds of the last day, by loops."""
    n = len(record)
    centred = record - record.mean()
    variance = (centred**2).sum() / (n - 1)
    n_lags, factor = int(1.5 * np.cbrt(n)), 1.0
    for lag in range(1, n_lags + 1):
        pairs = sum(centred[t] * centred[t - lag] for t in range(lag, n))
        factor += 2 * (1 - lag / (n_lags + 1)) * pairs / (n - 1) / variance
    half = np.sqrt(max(variance, floor**2) * max(1.0, factor)) * half_width(n)
    return record.mean() - half, record.mean() + half


@pytest.mark.parametrize("floor", [0.0, 0.03])
def test_each_day_has_the_bounds_of_the_record_so_far(floor):
    rng = np.random.default_rng(2)
    returns = 0.001 + 0.01 * (rng.normal(size=200) + np.r_[0, rng.normal(size=199)].cumsum() / 15)
    mean, low, high = followed(returns, expected_deviation=floor)
    np.testing.assert_allclose(mean, returns.cumsum() / np.arange(1, 201), atol=1e-15)
    assert np.isinf(low[: MIN_PERIODS - 1]).all()
    for day in (60, 61, 125, 200):
        assert (low[day - 1], high[day - 1]) == pytest.approx(slow_bounds(returns[:day], floor), rel=1e-9)
    assert [len(part) for part in followed(np.array([]))] == [0, 0, 0]


def test_a_record_that_never_moved_has_bounds_of_the_backtest():
    mean, low, high = followed(np.full(80, 0.001), expected_deviation=0.01)
    assert low[-1] < 0 < mean[-1] < high[-1]


def test_a_record_confirms_about_when_it_should():
    sharpe = 0.15
    needed = bars_to_confirm(sharpe)
    assert half_width(needed, scale=needed) <= sharpe < half_width(needed - 2, scale=needed - 2)
    assert bars_to_confirm(2 * sharpe) < needed / 3
    assert bars_to_confirm(0.0) is None
    assert bars_to_confirm(1e-4) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_return_that_is_no_number_is_refused(bad):
    with pytest.raises(DataError, match="finite"):
        followed(np.array([0.01, bad]))


def test_a_deviation_below_zero_is_refused():
    with pytest.raises(DataError, match="expected_deviation=-1"):
        followed(np.zeros(3), expected_deviation=-1)


def test_the_expected_bounds_cross_zero_where_the_record_confirms():
    live = live_record(0.12, 365)
    n, low, high = (np.array(live[k]) for k in ("n", "low", "no_edge_high"))
    assert live["periods"] == bars_to_confirm(0.12)
    assert (low[n > live["periods"]] > 0).all()
    assert (low[n < live["periods"]] < 0).all()
    # at the same moment the upper bound of a record without an edge falls below what was promised
    assert (high[n > live["periods"]] < live["sharpe"]).all()
    assert live["sharpe"] == pytest.approx(0.12 * np.sqrt(365))
    assert live_record(1e-4, 365)["periods"] is None
    assert [live_record(s, 365) for s in (0.0, -0.1, None, float("nan"))] == [None] * 4


def test_a_live_record_is_put_in_words():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.01, 900)
    noise -= noise.mean()
    assert live_state(noise[:10], None) == "10 live days; bounds on the mean begin at 60, after 50 more"
    assert live_state(noise, None).endswith("undecided, zero lies within")
    assert live_state(noise, 0.004).endswith("refuted, less than the 40.0 bps a day of its backtest")
    assert "rare and have not come yet" in live_state(noise + 0.004, 0.004)
    assert live_state(noise + 0.004, 0.004, expected_deviation=0.01).endswith("it earns, at whatever day one looks")
    assert "it loses" in live_state(noise - 0.004, 0.004)
