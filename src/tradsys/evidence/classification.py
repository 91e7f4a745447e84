"""Metrics of probabilities beyond the level and against the training base rate, with intervals over time.

Labels overlap and symbols move together, so samples of one time count together and intervals account for dependence
over time (see `cosines`). Legend: N samples, C classes, T distinct times, M metrics.
"""

from collections.abc import Iterator
from typing import TypedDict, cast

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.headline import HEADLINE, OVER_BASE_RATE, EstimateRow
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap, cosines
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.calibration import (
    CalibrationLine,
    bin_codes,
    binary_view,
    brier_losses,
    calibration_line,
    checked_base_rate,
    checked_forecast,
)
from tradsys.evidence.skill import levelled_losses, log_losses

N_BINS = 10
METRICS = ("log_loss", "base_log_loss", HEADLINE, OVER_BASE_RATE, "auc", "brier", "brier_skill")
# steps of the grid over the size of calibration gaps
_SCALES = 61


def auc(proba: Array, y: Array, weight: Array | None = None) -> float | None:
    """Probability that a positive scores above a negative, ties half.

    proba: [N] of class 1 or [N, C] (three or more: mean of one-vs-rest). weight: [N] >= 0.
    None where some class has no sample, since it is undefined. Source: Mann & Whitney 1947.
    """
    proba_NC, y_N = checked_forecast(proba, y, "auc")
    weight_N = np.ones(len(y_N)) if weight is None else np.asarray(weight, dtype=np.float64)
    value, _ = _auc(proba_NC, y_N, weight_N)
    return value if np.isfinite(value) else None


class ForecastMetrics(TypedDict):
    """Metrics of one set of forecasts, see `evaluate`. base_rate, observed_rate: [C]."""

    log_loss: EstimateRow
    base_log_loss: EstimateRow
    skill_beyond_level: EstimateRow
    skill_over_base_rate: EstimateRow
    auc: EstimateRow
    brier: EstimateRow
    brier_skill: EstimateRow
    ece: EstimateRow
    ece_equal_mass: EstimateRow
    calibration_slope: EstimateRow
    calibration_intercept: EstimateRow
    n: int
    n_times: int
    base_rate: list[float]
    observed_rate: list[float]
    block_length: float
    confidence: float
    n_draws: int


def evaluate(
    proba_NC: Array,
    y_N: Array,
    base_rate_C: Array,
    *,
    time_N: Array,
    weight_N: Array | None = None,
    score_N: Array | None = None,
    fold_N: Array | None = None,
    min_block: float = 1.0,
    n_draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ForecastMetrics:
    """All metrics of one set of forecasts, ready for JSON: numbers or None, never NaN.

    proba_NC: [N, C] (or [N] of class 1). base_rate_C: class rates [C] of the TRAINING rows (or the rate of
    class 1), or [N, C] where several folds were trained on rows of their own. time_N: decision time or its
    code; rows of one time count together. weight_N: sample weights >= 0. score_N: raw P(1), or any score that orders
    two classes, used for auc, since calibration ties scores together; every other metric uses
    proba_NC. fold_N: code of the fit that forecast each row, where there are several: each has a level of its own.
    min_block: shortest block in distinct times, at least the label's horizon in bars, since labels overlap.
    Each metric is {value, low, high, reason}: log_loss, base_log_loss, skill_beyond_level (the headline, see
    `skill`), skill_over_base_rate (1 - log_loss / base_log_loss), auc, brier, brier_skill (over the base rate), ece,
    ece_equal_mass (both corrected for the noise of the bins, `total_gap`), calibration_slope and calibration_intercept
    (1 and 0 are calibrated, see `calibration_line`). Further keys: n, n_times, base_rate [C],
    observed_rate [C], block_length, confidence, n_draws. Intervals are Student's over slow
    cosines (`cosines`); None, with the reason, where the record holds fewer than 20 effective blocks. Raises DataError
    on malformed input.
    """
    proba, y = checked_forecast(proba_NC, y_N, "evaluate")
    several = np.ndim(base_rate_C) == 2
    rate = (
        checked_forecast(base_rate_C, y_N, "evaluate, base rates")[0]
        if several
        else checked_base_rate(base_rate_C, proba.shape[1], "evaluate")
    )
    weight = _checked_weight(weight_N, len(y))
    if np.shape(time_N) != y.shape:
        raise DataError(f"evaluate: {np.shape(time_N)} times for {len(y)} samples; give one time per sample")
    order, first = bootstrap.time_groups(time_N)
    score = proba if score_N is None else _checked_scores(score_N, proba)
    levelled = levelled_losses(proba, y, weight, fold_N)
    line = calibration_line(*binary_view(proba, y), weight)
    value_M, influence_TM = _metrics(
        proba, y, np.broadcast_to(rate, proba.shape), weight, score, (levelled.forecast, levelled.constant),
        line, (order, first),
    )  # fmt: skip
    n_times = len(first) - 1
    loss_T = bootstrap.mean_per_time(log_losses(proba, y), order, first)
    found = cosines.spread_of_influences(value_M, influence_TM, loss_T, min_block=min_block)
    parts = np.split(np.arange(len(value_M)), np.cumsum([len(METRICS), N_BINS, N_BINS]))
    plain, width, equal, slopes = (found.columns(part) for part in parts)
    estimates = dict(zip(METRICS, plain.estimates(confidence), strict=True))
    estimates["auc"] = cosines.within_unit(estimates["auc"])
    for name, gaps in (("ece", width), ("ece_equal_mass", equal)):
        estimates[name] = total_gap(gaps, n_draws=n_draws, confidence=confidence, seed=seed)
    reasons = [None if np.isfinite(v) else line.reason for v in line.value_M]
    both = slopes.estimates(confidence, reasons)
    estimates |= dict(zip(("calibration_slope", "calibration_intercept"), both, strict=True))
    with_interval = {name: one.as_dict() for name, one in estimates.items()}
    counts = {
        "n": len(y),
        "n_times": n_times,
        "base_rate": (rate.mean(axis=0) if several else rate).tolist(),
        "observed_rate": (np.bincount(y, weights=weight, minlength=proba.shape[1]) / weight.sum()).tolist(),
        "block_length": found.block_length,
        "confidence": confidence,
        "n_draws": n_draws,
    }
    return cast("ForecastMetrics", with_interval | counts)


def total_gap(gaps: cosines.Spread, *, n_draws: int = 1000, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Calibration error: sum of the absolute true gaps of all bins.

    It is corrected for the noise of the bins. Absolute values of noisy gaps add up even where every true gap is zero,
    so the plain sum is too large and its resampled interval never holds 0. The true gaps are modelled as s times the
    observed ones, s >= 0; Student draws of the gaps give the distribution of the sum for each s. value: where half of
    the draws exceed the observed sum (median-unbiased), 0 where no s >= 0 does. Interval: all s that the observed sum
    does not reject. Without an interval the value is the plain sum, because the noise is unknown. Source: the bias and
    why to correct it, Kumar, Liang & Ma 2019, section 4; inversion of a test, Casella & Berger 2002, section 9.2.
    """
    observed = float(np.abs(gaps.value_M).sum())
    if gaps.reason is not None:
        return Estimate(observed, reason=f"{gaps.reason}; the value is not corrected for noise")
    noise_DM = gaps.draws(n_draws, seed=seed) - gaps.value_M
    scale_G = np.linspace(0.0, 1.0, _SCALES) ** 2 * (2 + 4 * _noise_share(noise_DM, observed))
    below_G = np.array([(np.abs(s * gaps.value_M + noise_DM).sum(axis=1) <= observed).mean() for s in scale_G])
    # the share of draws below the observed sum falls as the true gaps grow
    below_G = np.minimum.accumulate(below_G)
    tail = (1 - confidence) / 2
    high, value, low = (observed * _crossing(scale_G, below_G, level) for level in (tail, 0.5, 1 - tail))
    return Estimate(value, min(low, value), max(high, value))


def _noise_share(noise_DM: Array, observed: float) -> float:
    return float(np.abs(noise_DM).sum(axis=1).mean() / observed) if observed > 0 else 0.0


def _crossing(scale_G: Array, below_G: Array, level: float) -> float:
    """The scale where the falling share of draws passes `level`; 0 where it lies below from the start."""
    if below_G[0] <= level:
        return 0.0
    after = int(np.argmax(below_G <= level)) if (below_G <= level).any() else len(scale_G) - 1
    span = below_G[after - 1] - below_G[after]
    part = (below_G[after - 1] - level) / span if span > 0 else 1.0
    return float(scale_G[after - 1] + min(1.0, part) * (scale_G[after] - scale_G[after - 1]))


def _auc(score_NC: Array, y_N: Array, weight_N: Array) -> tuple[float, Array]:
    """The weighted area and its derivative by the weight of each sample, times that weight [N].

    The mean of one class against the rest where there are three or more. NaN where some class has no weight.
    """
    classes = [1] if score_NC.shape[1] == 2 else range(score_NC.shape[1])
    parts = [_one_auc(score_NC[:, c], y_N == c, weight_N) for c in classes]
    return float(np.mean([value for value, _ in parts])), np.mean([influence for _, influence in parts], axis=0)


def _one_auc(score_N: Array, positive_N: Array, weight_N: Array) -> tuple[float, Array]:
    order = np.argsort(score_N, kind="stable")
    ends = order[positive_N[order]], order[~positive_N[order]]
    mass = [weight_N[end].sum() for end in ends]
    if not all(mass):
        return np.nan, np.full(len(score_N), np.nan)
    up, down = ends
    # the share of the other class below (of a negative: above) each sample, ties half
    beaten = _mass_below(score_N[down], weight_N[down], score_N[up]) / mass[1]
    beating = 1 - _mass_below(score_N[up], weight_N[up], score_N[down]) / mass[0]
    value = float(weight_N[up] @ beaten / mass[0])
    influence_N = np.empty(len(score_N))
    influence_N[up] = weight_N[up] * (beaten - value) / mass[0]
    influence_N[down] = weight_N[down] * (beating - value) / mass[1]
    return value, influence_N


def _mass_below(score_M: Array, weight_M: Array, at_K: Array) -> Array:
    """Weight of the samples M below each score of K, those of an equal score half [K]; both are sorted."""
    cumulative = np.append(0.0, np.cumsum(weight_M))
    below, below_or_tied = (np.searchsorted(score_M, at_K, side=side) for side in ("left", "right"))
    return (cumulative[below] + cumulative[below_or_tied]) / 2


def _metrics(
    proba: Array, y: Array, constant: Array, weight: Array, ordering: Array, levelled: tuple[Array, Array],
    line: CalibrationLine, groups: tuple[Array, Array],
) -> tuple[Array, Array]:  # fmt: skip
    """Values of all metrics [M] and their derivatives by the weight of each time [T, M].

    The columns: METRICS, the gaps of the bins of equal width, those of equal mass, slope and intercept of `line`.
    """
    score, hit = binary_view(proba, y)
    gap_N = (score - hit) * weight
    losses = [log_losses(proba, y), log_losses(constant, y), brier_losses(proba, y), brier_losses(constant, y)]
    area, area_N = _auc(ordering, y, weight)
    codes = [bin_codes(score, N_BINS, mass) for mass in ("width", "equal")]

    def columns() -> Iterator[Array]:  # one at a time: together they would be most of the memory
        yield weight
        yield from (loss_N * weight for loss_N in (*losses, *levelled))
        yield from (np.where(code_N == k, gap_N, 0.0) for code_N in codes for k in range(N_BINS))
        yield from (area_N, *line.influence_NM.T)

    sums_TM = np.column_stack([bootstrap.sum_per_time(values_N, *groups) for values_N in columns()])
    weight_T, loss_TM, lean_TM = sums_TM[:, 0], sums_TM[:, 1:-3], sums_TM[:, -3:]
    mean_M = loss_TM.sum(axis=0) / weight_T.sum()
    mean_TM = (loss_TM - mean_M * weight_T[:, None]) / weight_T.sum()

    loss, base, brier, base_brier, beyond, level, *bins = zip(mean_M, mean_TM.T, strict=True)
    found_M = [
        loss,
        base,
        _skill(beyond, level),
        _skill(loss, base),
        (area, lean_TM[:, 0]),
        brier,
        _skill(brier, base_brier),
        *bins,
        *zip(line.value_M, lean_TM[:, 1:].T, strict=True),
    ]
    return np.array([value for value, _ in found_M]), np.column_stack([slope_T for _, slope_T in found_M])


def _skill(loss: tuple[float, Array], reference: tuple[float, Array]) -> tuple[float, Array]:
    """1 - loss / reference and its derivatives [T], from those of both; NaN for a reference of zero."""
    (value, slope_T), (least, least_slope_T) = loss, reference
    if not least > 0:
        return np.nan, np.full(len(slope_T), np.nan)
    return 1 - value / least, -(slope_T - value / least * least_slope_T) / least


def _checked_scores(score_N: Array, proba_NC: Array) -> Array:
    """Scores of two classes as [N, 2], of which the second is read."""
    score = np.asarray(score_N, dtype=np.float64)
    if score.shape != proba_NC.shape[:1] or proba_NC.shape[1] != 2 or not np.isfinite(score).all():
        raise DataError(
            f"evaluate: scores {score.shape} for probabilities {proba_NC.shape}; every forecast of two "
            "classes needs one finite score; pass score_N [N]"
        )
    return np.column_stack([-score, score])


def _checked_weight(weight_N: Array | None, n: int) -> Array:
    weight = np.ones(n) if weight_N is None else np.asarray(weight_N, dtype=np.float64)
    if weight.shape != (n,) or not (weight >= 0).all() or not np.isfinite(weight).all() or weight.sum() == 0:
        raise DataError(
            f"evaluate: weights of shape {weight.shape} for {n} samples; weights must be finite, >= 0 and not all "
            "zero; pass one per sample"
        )
    return weight
