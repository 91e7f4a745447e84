"""Which trial wins: the one whose skill is surely high, not the one that was lucky once."""

from typing import Any

import numpy as np
from scipy import stats

from tradsys.core.tables import Array


def lower_bound(values: Array, confidence: float) -> float | None:
    """mean - t * sd / sqrt(n), the one-sided lower confidence bound of a mean; None of fewer than two values.

    values: skills of any shape. Folds overlap in their training data and seeds share a fold, so the values are not
    independent and the bound is a rule to rank by, not a test. Student 1908.
    """
    flat = np.asarray(values, dtype=float).ravel()
    n = len(flat)
    if n < 2:
        return None
    return float(flat.mean() - stats.t.ppf(confidence, n - 1) * flat.std(ddof=1) / np.sqrt(n))


def stability(skill_FS: Array) -> float:
    """Minus the standard deviation over folds of the mean over seeds; higher is steadier. Needs two folds."""
    return -float(np.asarray(skill_FS).mean(axis=1).std(ddof=1))


def spreads(skill_FS: Array) -> tuple[float | None, float | None]:
    """Standard deviation over folds of the seeds' mean, and mean over folds of that over seeds; None of one alone."""
    skill_FS = np.asarray(skill_FS, dtype=float)
    folds, seeds = skill_FS.shape
    over_folds = float(skill_FS.mean(axis=1).std(ddof=1)) if folds > 1 else None
    return over_folds, float(skill_FS.std(axis=1, ddof=1).mean()) if seeds > 1 else None


def paired_gain(new_FS: Array, old_FS: Array, confidence: float) -> dict[str, Any]:
    """How much better the new is than the old on the same folds under the same seeds, with a two-sided t interval.

    Seeds are averaged within a fold first, so that n is the number of folds: more seeds make each fold's difference
    surer, but are no further folds. exceeds_noise: whether the whole interval lies above 0; False of one fold.
    """
    gain_F = (np.asarray(new_FS, dtype=float) - np.asarray(old_FS, dtype=float)).mean(axis=1)
    n, mean = len(gain_F), float(gain_F.mean())
    if n < 2:
        return {"value": mean, "low": None, "high": None, "n_folds": n, "exceeds_noise": False}
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * gain_F.std(ddof=1) / np.sqrt(n))
    return {"value": mean, "low": mean - half, "high": mean + half, "n_folds": n, "exceeds_noise": mean - half > 0}
