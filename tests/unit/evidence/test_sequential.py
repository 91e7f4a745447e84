"""Confidence sequences: coverage at all times at once, how long a live record must run, what is refused."""

import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.evidence.sequential import (
    MIN_PERIODS,
    ConfidenceSequence,
    bars_to_confirm,
    followed,
    half_width,
    live_record,
    live_state,
)


def missed_at_any_time(returns_RT, truth, widths_T):
    """Share of records [R, T] whose running mean ever lies farther from the truth than the width allows."""
    n = np.arange(1, returns_RT.shape[1] + 1)
    mean = returns_RT.cumsum(axis=1) / n
    spread = (returns_RT**2).cumsum(axis=1) / n - mean**2
    deviation = np.sqrt(np.maximum(spread * n / np.maximum(n - 1, 1), 0))
    return (np.abs(mean - truth) > deviation * widths_T)[:, MIN_PERIODS - 1 :].any(axis=1).mean()


@pytest.mark.parametrize("tails", ["normal", "student"])
def test_the_truth_is_covered_at_all_times_at_once(tails):
    rng = np.random.default_rng(1)
    size = (1000, 1500)
    noise = rng.normal(size=size) if tails == "normal" else rng.standard_t(5, size=size)
    widths = np.array([half_width(n) for n in range(1, size[1] + 1)])
    assert missed_at_any_time(0.001 + 0.01 * noise, 0.001, widths) <= 0.065
    # the negative control: an interval for one look, looked at daily
    assert missed_at_any_time(0.001 + 0.01 * noise, 0.001, 1.96 / np.sqrt(np.arange(1, size[1] + 1))) > 0.3


def test_one_return_at_a_time_gives_what_the_whole_record_gives():
    returns = np.random.default_rng(2).normal(0.001, 0.01, 200)
    sequence = ConfidenceSequence()
    for ret in returns:
        low, high = sequence.update(ret)
    half = returns.std(ddof=1) * half_width(200)
    assert (low, high) == pytest.approx((returns.mean() - half, returns.mean() + half))
    assert ConfidenceSequence().update(0.01) == (-np.inf, np.inf)


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
        ConfidenceSequence().update(bad)


def test_settings_out_of_range_are_refused():
    with pytest.raises(DataError, match="alpha"):
        ConfidenceSequence(alpha=1.0)


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


def test_a_followed_record_is_the_sequence_day_by_day():
    returns = np.random.default_rng(0).normal(0.001, 0.01, 80)
    mean, low, high = followed(returns)
    np.testing.assert_allclose(mean, np.cumsum(returns) / np.arange(1, 81))
    assert np.isinf(low[:29]).all()
    half = returns[:50].std(ddof=1) * half_width(50)
    assert (low[49], high[49]) == pytest.approx((mean[49] - half, mean[49] + half))
    assert [len(part) for part in followed(np.array([]))] == [0, 0, 0]


def test_a_live_record_is_put_in_words():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.01, 900)
    noise -= noise.mean()
    assert live_state(noise[:10], None) == "10 days lived; bounds on the mean begin at 30, in 20 more"
    assert live_state(noise, None).endswith("undecided, zero lies within")
    assert live_state(noise, 0.004).endswith("refuted, less than the 40.0 bps a day of its backtest")
    assert "it earns" in live_state(noise + 0.004, 0.004)
    assert "it loses" in live_state(noise - 0.004, 0.004)
