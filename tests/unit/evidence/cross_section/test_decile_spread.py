import math
import statistics

import numpy as np
import pytest

from tests.unit.evidence.cross_section.test_rank_ic import panel
from tradsys.core.errors import DataError
from tradsys.evidence.cross_section.rank_ic import decile_codes, decile_spread


def plain_groups(scores, n):
    """Group of each of one date's scores by counting, -1 with too few."""
    m = len(scores)
    out = []
    for s in scores:
        rank = sum(o < s for o in scores) + (sum(o == s for o in scores) + 1) / 2
        out.append(math.floor(n * (rank - 0.5) / m) if m >= n else -1)
    return out


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_equals_a_loop_over_dates(n, ties):
    score, ret, time = panel(n, ties=ties)
    spreads, by_date = {}, []
    for date in np.unique(time):
        rows = np.flatnonzero((time == date) & np.isfinite(score) & np.isfinite(ret))
        groups = plain_groups(score[rows].tolist(), n)
        means = [
            statistics.mean(own) if (own := [ret[r] for r, g in zip(rows, groups, strict=True) if g == k]) else math.nan
            for k in range(n)
        ]
        if not (math.isnan(means[0]) or math.isnan(means[-1])):
            spreads[date] = means[-1] - means[0]
            by_date.append(means)
    times, spread, by_group = decile_spread(score, ret, time, n)
    np.testing.assert_array_equal(times, list(spreads))
    np.testing.assert_allclose(spread, list(spreads.values()), rtol=0, atol=1e-12)
    if by_date:
        columns = [[x for x in column if not math.isnan(x)] for column in zip(*by_date, strict=True)]
        expected = [statistics.mean(c) if c else math.nan for c in columns]
        np.testing.assert_allclose(by_group, expected, rtol=0, atol=1e-12)
    assert len(times) > 3 or (ties and n == 10)


def test_groups_are_equal_and_rise_with_the_score():
    score = np.random.default_rng(0).permutation(25).astype(float)
    codes = decile_codes(score, np.zeros(25), 10)
    assert set(np.bincount(codes)) == {2, 3}
    np.testing.assert_array_equal(codes[np.argsort(score)], np.sort(codes))


def test_equal_scores_share_a_group_and_a_date_without_ends_is_left_out():
    assert set(decile_codes(np.ones(20), np.zeros(20), 10)) == {5}
    assert len(decile_spread(np.ones(20), np.arange(20.0), np.zeros(20))[0]) == 0


def test_too_few_names_and_nan_scores_have_no_group():
    codes = decile_codes(np.array([1.0, np.nan, 2.0, 3.0]), np.array([1, 1, 1, 2]), 2)
    assert codes.tolist() == [0, -1, 1, -1]


def test_no_row_at_all_is_no_date():
    times, spread, by_group = decile_spread(np.full(4, np.nan), np.zeros(4), np.zeros(4), 2)
    assert len(times) == len(spread) == 0
    assert np.isnan(by_group).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="n >= 2 groups"):
        decile_codes(np.zeros(3), np.zeros(3), 1)
    with pytest.raises(DataError, match="one return per score"):
        decile_spread(np.zeros(3), np.zeros(2), np.zeros(3))
