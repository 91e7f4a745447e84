"""Multiple testing: intervals for win counts, and p-values adjusted for a family of tests."""

import numpy as np
from scipy import special

from tradsys.core.errors import DataError
from tradsys.core.tables import Array


def wilson_interval(
    successes: float, n: float, confidence: float = 0.95, *, degrees: int | None = None
) -> tuple[float, float]:
    """Bounds of a success rate.

    Unlike p +- z*se they stay inside [0, 1] and are wide for small n. successes: how many of the n trials succeeded;
    fractions are allowed for effective counts. degrees: of freedom of an estimated effective count; Student's quantile
    then replaces the normal one. Returns (low, high); n = 0 gives (0, 1). Raises DataError where not 0 <= successes <=
    n. Source: Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4.
    """
    if not 0 <= successes <= n:
        raise DataError(
            f"wilson_interval: {successes} successes of {n}; 0 <= successes <= n must hold; correct the counts"
        )
    if not 0 < confidence < 1:
        raise DataError(f"wilson_interval: confidence {confidence}; it lies between 0 and 1; 0.95 is usual")
    if n == 0:
        return 0.0, 1.0
    if degrees is not None:  # the normal confidence whose quantile equals Student's
        confidence = 1 - 2 * float(special.ndtr(-special.stdtrit(degrees, 0.5 + confidence / 2)))
    from statsmodels.stats.proportion import proportion_confint  # noqa: PLC0415 - seconds to import

    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == n else float(high))


def holm(p_values: Array) -> Array:
    """Adjusted p-values [M] that hold the family-wise error under any dependence.

    p_values: [M] in [0, 1], any order; the result keeps that order. Raises DataError on NaN or out of range.
    Source: Holm 1979.
    """
    p_M = _checked_p_values(p_values, "holm")
    # not statsmodels' multipletests: it runs the garbage collector at every call, half a second in a large process
    order = np.argsort(p_M)
    adjusted = np.empty_like(p_M)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_M[order] * np.arange(len(p_M), 0, -1)), 1.0)
    return adjusted


def _checked_p_values(p_values: Array, where: str) -> Array:
    p_M = np.asarray(p_values, dtype=np.float64)
    if p_M.ndim != 1 or not len(p_M):
        raise DataError(f"{where}: p-values of shape {p_M.shape}; give one dimension [M] with M >= 1")
    if not ((p_M >= 0) & (p_M <= 1)).all():
        bad = p_M[~((p_M >= 0) & (p_M <= 1))][:3].tolist()
        raise DataError(f"{where}: p-values {bad} outside [0, 1]; drop the tests that could not be computed")
    return p_M
