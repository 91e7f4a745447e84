import numpy as np
import pytest
from scipy import stats

from tradsys.core.errors import DataError
from tradsys.evidence.cross_section.rank_ic import rank_ic, ranks_within


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
