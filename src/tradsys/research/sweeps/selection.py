"""Selection of the winning trial: the one whose skill is reliably high, not the luckiest."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from scipy import special

from tradsys.core.tables import Array
from tradsys.evidence.overfitting import pbo_of_scores

LEAST_TRIALS, MOST_BLOCKS = 3, 16  # fewest trials for a choice; blocks whose halves can still be enumerated quickly


class Gain(TypedDict):
    """A paired gain over n_folds.

    exceeds_noise: whether the complete interval lies above 0; False for one fold.
    """

    value: float
    low: float | None
    high: float | None
    n_folds: int
    exceeds_noise: bool


class Overfitting(TypedDict):
    """Probability of backtest overfitting of a sweep's choice; None with the reason."""

    pbo: float | None
    n_trials: int
    n_blocks: int
    n_splits: int | None
    reason: str | None


def lower_bound(values: Array, confidence: float) -> float | None:
    """mean - t * sd / sqrt(n), the one-sided lower confidence bound of a mean.

    None of fewer than two values. values: skills of any shape. Folds overlap in their training data and seeds share a
    fold, so the values are not independent and the bound is a rule to rank by, not a test. Student 1908.
    """
    flat = np.asarray(values, dtype=float).ravel()
    n = len(flat)
    if n < 2:
        return None
    return float(flat.mean() - special.stdtrit(n - 1, confidence) * flat.std(ddof=1) / np.sqrt(n))


def stability(skill_FS: Array) -> float:
    """Minus the standard deviation over folds of the mean over seeds.

    Higher is steadier. Needs two folds.
    """
    return -float(np.asarray(skill_FS).mean(axis=1).std(ddof=1))


def spreads(skill_FS: Array) -> tuple[float | None, float | None]:
    """Standard deviations over folds and over seeds; None for one alone.

    Over folds of the seeds' mean, and the mean over folds of that over seeds.
    """
    skill_FS = np.asarray(skill_FS, dtype=float)
    folds, seeds = skill_FS.shape
    over_folds = float(skill_FS.mean(axis=1).std(ddof=1)) if folds > 1 else None
    return over_folds, float(skill_FS.std(axis=1, ddof=1).mean()) if seeds > 1 else None


def paired_gain(new_FS: Array, old_FS: Array, confidence: float) -> Gain:
    """Gain of the new over the old, with a two-sided t interval.

    Both have the same folds under the same seeds. Seeds are averaged within a fold first, so that n is the number
    of folds:
    more seeds make each fold's difference more precise, but are no further folds.
    """
    gain_F = (np.asarray(new_FS, dtype=float) - np.asarray(old_FS, dtype=float)).mean(axis=1)
    n, mean = len(gain_F), float(gain_F.mean())
    if n < 2:
        return {"value": mean, "low": None, "high": None, "n_folds": n, "exceeds_noise": False}
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2) * gain_F.std(ddof=1) / np.sqrt(n))
    return {"value": mean, "low": mean - half, "high": mean + half, "n_folds": n, "exceeds_noise": mean - half > 0}


def out_of_race(new_FS: Array, best_FS: Array, confidence: float) -> bool:
    """Whether a trial is significantly worse than the best finished one.

    Compared are the folds that both have. new_FS: skills [folds so far, seeds] of the running trial. best_FS:
    [folds, seeds] of
    the finished one, all folds. True where the upper bound of the paired gain (t, over folds) lies below 0. The bounds
    of all checks of a trial, one after each fold from the second on, share 1 - confidence (Bonferroni), so that more
    folds do not prune more. The best finished trial is best by luck too, so more equally good trials than that share
    are pruned: see docs/sweeps.md.
    """
    new_FS, best_FS = np.asarray(new_FS, dtype=float), np.asarray(best_FS, dtype=float)
    n_folds, n_checks = len(new_FS), len(best_FS) - 1
    if n_folds < 2 or new_FS.shape[1] != best_FS.shape[1]:
        return False
    each = 1 - (1 - confidence) / n_checks
    high = paired_gain(new_FS, best_FS[:n_folds], 2 * each - 1)["high"]  # two-sided level of that one-sided bound
    return bool(high is not None and high < 0)


def overfitting(block_gains: Sequence[Sequence[float] | None]) -> Overfitting:
    """Probability of backtest overfitting of choosing the best trial.

    Where there is none, the reason is returned. block_gains: of each finished trial, gains over equal stretches of
    the folds' test
    samples, None where a fit failed. Bailey et al. 2017.
    """
    kept = [list(gains) for gains in block_gains if gains is not None]
    n_blocks = len(kept[0]) if kept else 0
    out: Overfitting = {"pbo": None, "n_trials": len(kept), "n_blocks": n_blocks, "n_splits": None, "reason": None}
    if len(kept) < LEAST_TRIALS:
        return out | {"reason": f"{len(kept)} trials fitted every fold; the choice of the best needs {LEAST_TRIALS}"}
    if len({len(gains) for gains in kept}) > 1 or n_blocks < 4:
        return out | {"reason": f"{n_blocks} stretches of time; halves of them need 4 in every trial"}
    scores_SN = np.array(kept).T
    while len(scores_SN) > MOST_BLOCKS:  # joins neighbours; where the number is odd the first is dropped
        scores_SN = scores_SN[len(scores_SN) % 2 :].reshape(-1, 2, len(kept)).mean(axis=1)
    scores_SN = scores_SN[len(scores_SN) % 2 :]
    if (np.ptp(scores_SN, axis=1) <= 1e-12).all():
        return out | {"reason": "all trials score the same; there was nothing to choose"}
    found = pbo_of_scores(scores_SN)
    return out | {"pbo": found.pbo, "n_blocks": len(scores_SN), "n_splits": len(found.logits)}
