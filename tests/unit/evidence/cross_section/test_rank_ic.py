import itertools

import numpy as np
import pytest
from scipy import stats

from tradsys.core.errors import DataError
from tradsys.evidence.cross_section.rank_ic import newey_west_lags, newey_west_mean, rank_ic, ranks_within


def panel(seed, n_dates=60, ties=False):
    """Scores, returns and dates of a ragged panel in no order, with some NaN."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 15, n_dates)
    time = np.repeat(np.datetime64("2020-01-01") + np.arange(n_dates), sizes)
    score = rng.integers(0, 4, len(time)).astype(float) if ties else rng.normal(size=len(time))
    ret = score * rng.normal(size=len(time)) + rng.normal(size=len(time))
    score[rng.random(len(time)) < 0.03] = np.nan
    ret[rng.random(len(time)) < 0.03] = np.nan
    mixed = rng.permutation(len(time))
    return score[mixed], ret[mixed], time[mixed]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scipy_date_by_date(seed, ties):
    score, ret, time = panel(seed, ties=ties)
    expected = {}
    for date in np.unique(time):
        rows = (time == date) & np.isfinite(score) & np.isfinite(ret)
        if rows.sum() >= 5 and np.ptp(score[rows]) > 0 and np.ptp(ret[rows]) > 0:
            expected[date] = stats.spearmanr(score[rows], ret[rows]).statistic
    times, ic = rank_ic(score, ret, time)
    np.testing.assert_array_equal(times, list(expected))
    np.testing.assert_allclose(ic, list(expected.values()), rtol=0, atol=1e-12)
    assert len(times) > 20


def test_ranks_equal_scipys_within_each_code():
    rng = np.random.default_rng(0)
    values, code = rng.integers(0, 5, 200).astype(float), rng.integers(0, 9, 200)
    got = ranks_within(values, code)
    for k in range(9):
        np.testing.assert_array_equal(got[code == k], stats.rankdata(values[code == k]))


def test_dates_without_an_order_are_left_out():
    time = np.repeat([1, 2, 3], 5)
    score = np.array([*range(5), *[1.0] * 5, *range(5)])
    ret = np.array([*range(5), *range(5), *[0.0] * 5])
    times, ic = rank_ic(score, ret, time)
    assert (times.tolist(), ic.tolist()) == ([1], [pytest.approx(1.0)])
    assert len(rank_ic(score, ret, time, least=6)[0]) == 0


@pytest.mark.parametrize(("score", "least"), [(np.zeros(3), 5), (np.zeros(4), 1)])
def test_what_does_not_fit_is_refused(score, least):
    with pytest.raises(DataError, match="two names at least have an order"):
        rank_ic(score, np.zeros(4), np.zeros(4), least)


@pytest.mark.parametrize("lags", [0, 1, 7])
def test_newey_west_equals_its_formula(lags):
    """S = g_0 + 2 sum_l (1 - l / (L + 1)) g_l, variance of the mean S / T * T / (T - 1); Newey and West 1987, eq. 5."""
    rng = np.random.default_rng(lags)
    x = np.convolve(rng.normal(size=206), np.ones(7), "valid")
    n, e = len(x), x - x.mean()
    total = sum(a * a for a in e)
    for lag in range(1, lags + 1):
        total += 2 * (1 - lag / (lags + 1)) * sum(a * b for a, b in zip(e[lag:], e[:-lag], strict=True))
    error = np.sqrt(total / n / n * n / (n - 1))
    half = stats.t.ppf(0.975, n - 1) * error
    found = newey_west_mean(x, lags)
    assert found.value == pytest.approx(x.mean(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half), rel=1e-9)


def test_overlap_needs_its_lags():
    """Sums of five steps, one each step: with enough lags about 95 of 100 intervals hold zero, with none far fewer."""
    rng = np.random.default_rng(3)
    held = {0: 0, 12: 0}
    for _, lags in itertools.product(range(300), held):
        found = newey_west_mean(np.convolve(rng.normal(size=604), np.ones(5), "valid"), lags)
        held[lags] += found.low <= 0 <= found.high
    assert held[0] / 300 < 0.75
    assert 0.89 < held[12] / 300 < 0.98


def test_what_cannot_be_known_is_none_with_a_reason():
    assert newey_west_mean(np.empty(0), 0).value is None
    short = newey_west_mean(np.arange(59.0), 5)
    assert (short.value, short.low) == (29.0, None)
    assert "fewer than 10 times the 6" in short.reason
    assert newey_west_mean(np.arange(60.0), 5).low is not None
    assert newey_west_mean(np.ones(50), 0).reason == "the series never moves"
    with pytest.raises(DataError, match="1 values that are not finite"):
        newey_west_mean(np.array([1.0, np.nan]), 0)
    with pytest.raises(DataError, match="lags=-1"):
        newey_west_mean(np.ones(5), -1)


@pytest.mark.parametrize(("n", "horizon", "lags"), [(252, 1, 4), (252, 5, 4), (252, 20, 19), (2000, 1, 7)])
def test_lags_cover_the_overlap(n, horizon, lags):
    assert newey_west_lags(n, horizon) == lags
