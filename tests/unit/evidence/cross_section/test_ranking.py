import itertools
import statistics

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tradsys.core.errors import DataError
from tradsys.evidence.cross_section.ranking import lift_at_k, pr_auc, precision_at_k


def panel(seed, n_dates=200, ties=False, skill=1.0):
    """Scores, rare outcomes and dates in no order; a stretch of dates has them more often."""
    rng = np.random.default_rng(seed)
    time = np.repeat(np.arange(n_dates), rng.integers(2, 9, n_dates))
    score = rng.normal(size=len(time))
    rate = np.where(time // 40 % 2 == 1, -1.0, -3.0)
    y = (rng.random(len(time)) < 1 / (1 + np.exp(-rate - skill * score))).astype(np.int64)
    score = np.round(score) if ties else score
    mixed = rng.permutation(len(time))
    return score[mixed], y[mixed], time[mixed]


def hits_by_lot(score, y, k):
    """Mean number of positives among the k best over all orders in which ties may fall."""
    every = [
        sum(y[i] for i in sorted(range(len(score)), key=lambda i: (-score[i], order[i]))[:k])
        for order in itertools.permutations(range(len(score)))
    ]
    return statistics.mean(map(float, every))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_lift_equal_a_walk_over_dates(k, ties):
    score, y, time = panel(k, n_dates=25, ties=ties)
    keep = np.array([(time[: i + 1] == t).sum() <= 5 for i, t in enumerate(time)])  # 120 orders a date are enough
    score, y, time = score[keep], y[keep], time[keep]
    hits, picked, positives, n = 0.0, 0, 0, 0
    for date in np.unique(time):
        rows = np.flatnonzero(time == date)
        if len(rows) < k:
            continue
        hits += hits_by_lot(score[rows].tolist(), y[rows].tolist(), k)
        picked, positives, n = picked + k, positives + y[rows].sum(), n + len(rows)
    assert precision_at_k(score, y, time, k).value == pytest.approx(hits / picked, rel=1e-12)
    assert lift_at_k(score, y, time, k).value == pytest.approx(hits / picked / (positives / n), rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pr_auc_is_sklearns_average_precision(seed, ties):
    score, y, time = panel(seed, ties=ties)
    assert pr_auc(score, y, time).value == pytest.approx(average_precision_score(y, score), rel=1e-12)


def test_lift_tells_skill_from_none():
    """Without skill about 95 of 100 intervals hold 1 (92 were measured over 300); with it none does."""
    held = {0.0: 0, 1.5: 0}
    for seed, skill in itertools.product(range(60), held):
        found = lift_at_k(*panel(seed, n_dates=600, skill=skill), 1, min_block=5.0)
        held[skill] += found.low <= 1 <= found.high
    assert 51 <= held[0.0] < 60
    assert held[1.5] == 0


def test_events_of_one_date_are_one_event():
    """The same samples as fifty names on each of 40 dates or on dates of their own: the first knows far less."""
    rng = np.random.default_rng(0)
    y = np.repeat((rng.random(40) < 0.3).astype(np.int64), 50)
    score = y + rng.normal(size=2000)
    together = pr_auc(score, y, np.repeat(np.arange(40), 50))
    apart = pr_auc(score[(mixed := rng.permutation(2000))], y[mixed], np.arange(2000))
    assert together.value == pytest.approx(apart.value)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_what_cannot_be_known_is_none_with_a_reason():
    score, time = np.arange(60.0), np.repeat(np.arange(30), 2)
    none = np.zeros(60, dtype=int)
    assert precision_at_k(score, none, time, 3).reason == "nothing was picked: no time has enough names"
    assert precision_at_k(score, none, time, 1).value == 0
    for found in (lift_at_k(score, none, time, 1), pr_auc(score, none, time)):
        assert (found.value, found.reason) == (None, "no positive among the samples")
    few = precision_at_k(score, np.tile([0, 1], 30), time, 1, min_block=5)
    assert (few.value, few.low) == (1.0, None)
    assert "6.0 independent blocks" in few.reason


@pytest.mark.parametrize(
    ("score", "y", "k", "words"),
    [
        (np.zeros(3), np.zeros(4), 1, "one length"),
        (np.array([0.0, np.nan, 1, 2]), np.zeros(4), 1, "1 scores are not finite"),
        (np.zeros(4), np.array([0, 1, -1, 1]), 1, "1 outcomes are not 0 or 1"),
        (np.zeros(4), np.zeros(4), 0, "k=0"),
    ],
)
def test_what_does_not_fit_is_refused(score, y, k, words):
    with pytest.raises(DataError, match=words):
        precision_at_k(score, y, np.arange(4), k)
