"""Calibration: whether a probability of 0.6 comes true six times in ten.

A forecast is proba [N] of the positive class 1, or proba [N, C] with rows that sum to one. Two classes are
evaluated by the positive class; more by the top class (its probability against whether it was right; Guo et al.
2017).
"""

from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap, cosines
from tradsys.evidence.multiple_testing import wilson_interval

Mass = Literal["width", "equal"]
LEAST = 1e-6  # probabilities are clipped this far from 0 and 1 for their logits
MIN_SPREAD = 1e-9  # of logits, below which forecasts are equal


class ReliabilityBin(TypedDict):
    """One bin of a reliability diagram.

    Mean forecast, observed rate with its interval, n samples.
    """

    mean_predicted: float
    observed: float
    n: int
    observed_low: float
    observed_high: float


def reliability(
    proba: Array,
    y: Array,
    n_bins: int = 10,
    mass: Mass = "width",
    *,
    time_N: Array | None = None,
    min_block: float = 1.0,
    confidence: float = 0.95,
) -> list[ReliabilityBin]:
    """The reliability diagram: one dict per non-empty bin, in order of the forecast.

    Keys: mean_predicted, observed (rate), n, observed_low, observed_high (see `rate_bounds`). time_N: decision times,
    None where each sample has a time of its own, in order. min_block: distinct times that one label spans.
    """
    score_N, hit_N = binary_view(*checked_forecast(proba, y, "reliability"))
    code_N = np.unique(bin_codes(score_N, n_bins, mass), return_inverse=True)[1]
    time = np.arange(len(hit_N)) if time_N is None else np.asarray(time_N)
    low_B, high_B = rate_bounds(code_N, hit_N, time, min_block=min_block, confidence=confidence)
    bins: list[ReliabilityBin] = []
    for code, (low, high) in enumerate(zip(low_B, high_B, strict=True)):
        inside = code_N == code
        bins.append(
            {
                "mean_predicted": float(score_N[inside].mean()),
                "observed": float(hit_N[inside].mean()),
                "n": int(inside.sum()),
                "observed_low": float(low),
                "observed_high": float(high),
            }
        )
    return bins


def rate_bounds(
    code_N: Array, hit_N: Array, time_N: Array, *, min_block: float = 1.0, confidence: float = 0.95
) -> tuple[Array, Array]:
    """Bounds [B], [B] of the rate of hits in each bin.

    Overlapping labels of one bin count once. code_N: bins 0..B-1, none empty. hit_N: 0 or 1. time_N: decision times.
    min_block: distinct times that one label spans. A bin of n samples counts n / (1 + s * near) of them, in Wilson's
    interval with Student's quantile: near is the mean number of other samples of the bin whose label overlaps a
    sample's, one k of H times away counting 1 - k / H; s in [0, 1] is the correlation of such outcomes, one number for
    all bins, estimated by slow cosines (`cosines`). Below 20 effective blocks s is 1, so that the bounds are too wide
    there and never too narrow. Raises DataError for lengths that differ or min_block < 1. Source: the design effect 1 +
    (m - 1) rho, Kish 1965, section 5.4.
    """
    if not np.shape(code_N) == np.shape(hit_N) == np.shape(time_N) or not len(code_N) or not min_block >= 1:
        raise DataError(
            f"reliability: bins {np.shape(code_N)}, outcomes {np.shape(hit_N)}, times {np.shape(time_N)}, min_block "
            f"{min_block}; one of each per sample, at least one, min_block >= 1; pass 1 for labels that do not overlap"
        )
    n_B = np.bincount(code_N)
    rate_B = np.bincount(code_N, weights=hit_N) / n_B
    order, first = bootstrap.time_groups(time_N)
    cell_N = np.repeat(np.arange(len(first) - 1), np.diff(first)) * len(n_B) + code_N[order]
    shape, n_cells = (len(first) - 1, len(n_B)), (len(first) - 1) * len(n_B)
    counts_TB = np.bincount(cell_N, minlength=n_cells).reshape(shape).astype(np.float64)
    miss_TB = np.bincount(cell_N, weights=(hit_N - rate_B[code_N])[order], minlength=n_cells).reshape(shape)
    block = bootstrap.dependence_length(miss_TB.sum(axis=1), min_block)
    near_B = _neighbours(counts_TB, block)
    degrees, alike = None, 1.0
    if bootstrap.too_few_blocks(len(counts_TB), block) is None:
        degrees = cosines.n_cosines(len(counts_TB), block, min_block)
        found_B = ((cosines.projected(miss_TB, degrees) / n_B) ** 2).mean(axis=0)
        alone_B = rate_B * (1 - rate_B) / n_B
        most = float(alone_B @ near_B)
        alike = float(np.clip((found_B - alone_B).sum() / most, 0, 1)) if most > 0 else 0.0
    counted_B = n_B / (1 + alike * near_B)
    bounds = [
        wilson_interval(rate * n, n, confidence, degrees=degrees) for rate, n in zip(rate_B, counted_B, strict=True)
    ]
    low_B, high_B = np.array(bounds).T
    return low_B, high_B


def _neighbours(counts_TB: Array, block: float) -> Array:
    """Other samples of its bin, weighted by their overlap, that a sample of each bin has on average [B]."""
    near_B = (counts_TB**2).sum(axis=0) - counts_TB.sum(axis=0)
    for lag in range(1, min(int(np.ceil(block)), len(counts_TB))):
        near_B += 2 * (1 - lag / block) * (counts_TB[lag:] * counts_TB[:-lag]).sum(axis=0)
    return near_B / counts_TB.sum(axis=0)


@dataclass(frozen=True, eq=False)
class CalibrationLine:
    """Logistic regression of outcomes on forecasts: slope and intercept.

    Also holds the influence of each sample on both. value_M: slope and intercept, NaN where undefined. influence_NM: of
    each sample on both; columns sum to zero. reason: why they are undefined, None where they are not.
    """

    value_M: Array
    influence_NM: Array
    reason: str | None = None


def calibration_line(score_N: Array, hit_N: Array, weight_N: Array) -> CalibrationLine:
    """Slope and intercept of logit P(hit) = intercept + slope * logit(score).

    1 and 0 are calibrated. A slope below 1 means that forecasts are too confident, above 1 too timid. score_N:
    probabilities, clipped to [1e-6, 1 - 1e-6]; hit_N: 0 or 1. The intercept is that of a slope fixed at 1 (calibration
    in the large): above zero the event is more frequent than forecast. Undefined for one class, equal forecasts, and
    outcomes that the scores separate without an error. Source: Cox 1958; Van Calster et al. 2019, p. 3.
    """
    if not (np.isfinite(score_N).all() and np.isfinite(hit_N).all() and len(score_N)):
        raise DataError(
            f"calibration_line: {len(score_N)} scores, {int((~np.isfinite(score_N)).sum())} of them not finite; at "
            "least one, all known; drop rows without a forecast"
        )
    logit_N = np.log(np.clip(score_N, LEAST, 1 - LEAST)) - np.log1p(-np.clip(score_N, LEAST, 1 - LEAST))
    share_N = np.asarray(weight_N, dtype=np.float64) / np.sum(weight_N)
    undefined = np.full(2, np.nan), np.zeros((len(logit_N), 2))
    rate = float(share_N @ hit_N)
    if not 0 < rate < 1:
        return CalibrationLine(*undefined, "one class only; a slope needs both")
    design_N2 = np.column_stack([logit_N, np.ones(len(logit_N))])
    large = _newton(design_N2[:, 1:], hit_N, share_N, offset_N=logit_N)
    line = None if np.ptp(logit_N) <= MIN_SPREAD else _newton(design_N2, hit_N, share_N, offset_N=0 * logit_N)
    found = [np.nan if line is None else line[0][0], np.nan if large is None else large[0][0]]
    influence = [np.zeros(len(logit_N)) if part is None else part[1][:, 0] for part in (line, large)]
    reason = None
    if line is None:
        reason = "all forecasts are equal" if np.ptp(logit_N) <= MIN_SPREAD else "the scores part the classes"
    return CalibrationLine(np.array(found), np.column_stack(influence), reason)


def _newton(
    design_NM: Array, hit_N: Array, share_N: Array, *, offset_N: Array, n_steps: int = 50
) -> tuple[Array, Array] | None:
    """Coefficients and influences [N, M] of a weighted logistic regression; None where it does not converge."""
    beta = np.zeros(design_NM.shape[1])
    for _ in range(n_steps):
        fitted_N = 1 / (1 + np.exp(-np.clip(design_NM @ beta + offset_N, -50, 50)))
        curve = (design_NM * (share_N * fitted_N * (1 - fitted_N))[:, None]).T @ design_NM
        if np.linalg.cond(curve) > 1e12:
            return None
        pull_NM = np.linalg.solve(curve, (design_NM * (share_N * (hit_N - fitted_N))[:, None]).T).T
        step = pull_NM.sum(axis=0)
        if np.abs(step).max() < 1e-10:
            return beta, pull_NM
        beta = beta + step * min(1.0, 2.0 / np.abs(step).max())
    return None


def bin_codes(score_N: Array, n_bins: int, mass: Mass) -> Array:
    """The bin 0..n_bins-1 of every score in [0, 1].

    Bins are (lo, hi], zero in the first.
    """
    if not len(score_N):
        raise DataError("calibration: no score; bins need at least one sample; give data of the span")
    if n_bins < 1 or mass not in ("width", "equal"):
        raise DataError(f"calibration: n_bins {n_bins}, mass {mass!r}; n_bins >= 1 and mass 'width' or 'equal'")
    inner = np.arange(1, n_bins) / n_bins
    # k / n_bins is the double nearest to the decimal, so that 0.7 falls on its edge exactly
    edges = inner if mass == "width" else np.quantile(score_N, inner)
    return np.searchsorted(edges, score_N, side="left")


def brier_losses(proba_NC: Array, y_N: Array) -> Array:
    """Squared errors [N]: of class 1 for two classes, summed over classes for more."""
    if proba_NC.shape[1] == 2:
        return (proba_NC[:, 1] - (y_N == 1)) ** 2
    return ((proba_NC - np.eye(proba_NC.shape[1])[y_N]) ** 2).sum(axis=1)


def binary_view(proba_NC: Array, y_N: Array) -> tuple[Array, Array]:
    """Score and hit (0/1), [N] each: the positive class of two, else the top class."""
    if proba_NC.shape[1] == 2:
        return proba_NC[:, 1], (y_N == 1).astype(np.float64)
    top_N = proba_NC.argmax(axis=1)
    return proba_NC[np.arange(len(top_N)), top_N], (top_N == y_N).astype(np.float64)


def checked_forecast(proba: Array, y: Array, where: str) -> tuple[Array, Array]:
    """Forecast as float64 [N, C] with C >= 2 and labels as int64 [N].

    Raises DataError on anything else.
    """
    values, y_N = np.asarray(proba, dtype=np.float64), np.asarray(y)
    if values.ndim == 1:
        values = np.column_stack([1 - values, values])
    if values.ndim != 2 or values.shape[1] < 2 or y_N.shape != values.shape[:1] or not len(y_N):
        raise DataError(
            f"{where}: probabilities {np.shape(proba)} for labels {y_N.shape}; give [N] or [N, C] with N labels, N >= 1"
        )
    with np.errstate(invalid="ignore"):  # infinities do not fit
        fits_N = ((values >= 0) & (values <= 1)).all(axis=1) & (np.abs(values.sum(axis=1) - 1) <= 1e-4)
    if not fits_N.all():
        row = int(np.argmin(fits_N))
        raise DataError(
            f"{where}: row {row} is {values[row].tolist()}; all lie in [0, 1] and sum to 1; "
            "pass probabilities, not logits"
        )
    if not np.isin(y_N, np.arange(values.shape[1])).all():
        raise DataError(
            f"{where}: labels {np.unique(y_N)[:5].tolist()} for {values.shape[1]} classes; "
            "codes run from 0 to C-1; drop unlabelled rows"
        )
    return values, y_N.astype(np.int64)


def checked_base_rate(base_rate: Array | float, n_classes: int, where: str) -> Array:
    """Class rates float64 [C] that sum to one; a float is the rate of class 1 of two."""
    rate_C = np.atleast_1d(np.asarray(base_rate, dtype=np.float64))
    if len(rate_C) == 1 and n_classes == 2:
        rate_C = np.array([1 - rate_C[0], rate_C[0]])
    if rate_C.shape != (n_classes,) or not ((rate_C >= 0) & (rate_C <= 1)).all() or abs(rate_C.sum() - 1) > 1e-6:
        raise DataError(
            f"{where}: base rate {rate_C.tolist()} for {n_classes} classes; rates in [0, 1] that sum to 1; "
            "count the labels of the training rows"
        )
    return rate_C
