import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.core.errors import DataError
from tradsys.evidence.trials import (
    aligned_trials,
    cluster_correlation,
    independent_trials,
    mean_correlation_trials,
    shared_correlation,
)


def planted(n_periods, sizes, rho, seed):
    """Returns [T, K] of clusters of these sizes whose members correlate by rho, strangers to other clusters."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n_periods, len(sizes))).repeat(sizes, axis=1)
    return np.sqrt(rho) * common + np.sqrt(1 - rho) * rng.normal(size=common.shape)


def clusters_of(returns_TK):
    return cluster_correlation(np.atleast_2d(np.corrcoef(returns_TK, rowvar=False)))


def days(start, n):
    return np.datetime64(start, "D") + np.arange(n)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sizes", "rho"), [([10] * 3, 0.5), ([4] * 10, 0.7), ([3, 20, 8, 5], 0.6)])
def test_planted_clusters_are_found(sizes, rho, seed):
    found = clusters_of(planted(400, sizes, rho, seed))
    assert found.n_clusters == len(sizes)
    np.testing.assert_array_equal(found.labels, np.repeat(np.arange(len(sizes)), sizes))


def test_order_of_trials_does_not_matter():
    returns = planted(300, [5, 5, 5], 0.6, 0)
    mixed = np.random.default_rng(1).permutation(15)
    labels = clusters_of(returns).labels[mixed]
    found = clusters_of(returns[:, mixed]).labels
    assert all((labels[a] == labels[b]) == (found[a] == found[b]) for a in range(15) for b in range(15))


def test_copies_are_one_trial_and_few_are_themselves():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(100, 1))
    assert clusters_of(one).n_clusters == 1
    assert clusters_of(np.hstack([one] * 6)).n_clusters == 1
    assert clusters_of(np.hstack([one, -one])).n_clusters == 2
    copies = np.hstack([one, one * 2, rng.normal(size=(100, 1)), one])
    np.testing.assert_array_equal(clusters_of(copies).labels, [0, 0, 1, 0])


def test_what_deflates_is_the_larger_count_and_never_outside_one_to_all():
    ideas = np.corrcoef(planted(2000, [10, 10], 0.8, 0), rowvar=False)
    assert cluster_correlation(ideas).n_clusters == 2
    assert independent_trials(ideas) == mean_correlation_trials(ideas) == pytest.approx(12.8, abs=0.5)
    # all share one market, beneath which eight groups go their own ways: the mean alone would say three
    market = np.full((40, 40), 0.95)
    for k in range(8):
        market[5 * k : 5 * k + 5, 5 * k : 5 * k + 5] = 0.995
    np.fill_diagonal(market, 1.0)
    assert mean_correlation_trials(market) < 4
    assert independent_trials(market) == 8
    assert independent_trials(np.ones((5, 5))) == 1
    assert independent_trials(np.eye(7)) == 7
    assert [independent_trials(np.ones((k, k))) for k in (1, 2)] == [1, 2]


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 25), st.integers(0, 10**6), st.floats(0, 0.98))
def test_count_is_bounded_whatever_the_trials(n_trials, seed, share):
    rng = np.random.default_rng(seed)
    returns = np.sqrt(share) * rng.normal(size=(60, 1)) + np.sqrt(1 - share) * rng.normal(size=(60, n_trials))
    correlation = np.corrcoef(returns, rowvar=False)
    rho = correlation[~np.eye(n_trials, dtype=bool)].mean()
    assert mean_correlation_trials(correlation) == pytest.approx(n_trials - max(0.0, rho) * (n_trials - 1), rel=1e-9)
    assert max(1, cluster_correlation(correlation).n_clusters) <= independent_trials(correlation) <= n_trials


def test_correlation_over_shared_days_equals_numpy_pair_by_pair():
    rng = np.random.default_rng(2)
    common = dict(zip(days("2021-01-01", 400).tolist(), rng.normal(size=400), strict=True))
    times = [days("2021-01-01", 200), days("2021-04-01", 200), days("2021-03-01", 60), days("2021-01-01", 400)[::2]]
    returns = [0.001 + 0.01 * (np.array([common[d] for d in t.tolist()]) + rng.normal(size=len(t))) for t in times]
    found = shared_correlation(times, returns)
    for a in range(4):
        for b in range(4):
            shared, at, bt = np.intersect1d(times[a], times[b], return_indices=True)
            want = np.corrcoef(returns[a][at], returns[b][bt])[0, 1] if len(shared) >= 30 else 0.0
            assert found[a, b] == pytest.approx(want, abs=1e-12)


def test_unknown_pairs_count_fully():
    series = np.random.default_rng(3).normal(size=100)
    early, late = days("2021-01-01", 100), days("2021-03-25", 100)
    found = shared_correlation([early, early, late, None, early], [series, series, series, series, np.zeros(100)])
    assert found[0, 1] == pytest.approx(1)
    off_diagonal = found - np.eye(5)
    off_diagonal[0, 1] = off_diagonal[1, 0] = 0
    # 17 days shared, no dates, and a trial that never traded: nothing is known of those pairs
    np.testing.assert_array_equal(off_diagonal, 0)


def test_trials_are_cut_to_the_days_they_share():
    time, together = aligned_trials(
        [days("2021-01-01", 60), days("2021-01-11", 60)], [np.arange(60.0), np.arange(60.0)], least=50
    )
    np.testing.assert_array_equal(time, days("2021-01-11", 50))
    np.testing.assert_array_equal(together, np.column_stack([np.arange(10.0, 60.0), np.arange(50.0)]))


SORTED, SERIES = days("2021-01-01", 40), np.random.default_rng(4).normal(size=40)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: aligned_trials([SORTED, SORTED + 30], [SERIES, SERIES]), "share 10 periods, 30 are needed; all"),
        (lambda: aligned_trials([SORTED[::-1]], [SERIES]), "followed by the earlier"),
        (lambda: aligned_trials([np.r_[SORTED[:1], SORTED[:-1]]], [SERIES]), "2021-01-01 of trial 0 comes twice"),
        (lambda: aligned_trials([SORTED], [SERIES[1:]]), "40 times for returns"),
        (lambda: aligned_trials([SORTED], [np.r_[np.nan, SERIES[1:]]]), "trial 0: 1 of 40 returns are not finite"),
        (lambda: aligned_trials([], []), "at least one"),
        (lambda: aligned_trials([SORTED], []), "one each"),
        (lambda: shared_correlation([SORTED, SORTED[::-1]], [SERIES, SERIES]), "trial 1 is followed by the earlier"),
        (lambda: cluster_correlation(np.full((3, 3), np.nan)), "not finite"),
        (lambda: mean_correlation_trials(np.ones((3, 2))), r"give \[K, K\]"),
    ],
)
def test_refuses(call, said):
    with pytest.raises(DataError, match=said):
        call()
