"""Metrics of probabilities beyond the level and against the training base rate, with intervals over time.

Labels overlap and symbols move together, so samples of one time count together and intervals account for dependence
over time (see `cosines`). Legend: N samples, C classes, T distinct times, d weightings of time.
"""

from typing import TypedDict, cast

import numpy as np

from tradsys.core.compiled import compiled
from tradsys.core.errors import DataError
from tradsys.core.headline import HEADLINE, OVER_BASE_RATE, EstimateRow
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap, cosines
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.calibration import (
    bin_codes,
    binary_view,
    brier_losses,
    calibration_line,
    checked_base_rate,
    checked_forecast,
)
from tradsys.evidence.skill import levelled_losses, log_losses

N_BINS = 10
# steps of the grid over the size of calibration gaps
_SCALES = 61
# up to this many distinct times, wins are counted once between any two of them: a few megabytes
MOST_TIMES = 1500


def auc(proba: Array, y: Array, weight: Array | None = None) -> float | None:
    """Probability that a positive scores above a negative, ties half.

    proba: [N] of class 1 or [N, C] (three or more: mean of one-vs-rest). weight: [N] >= 0.
    None where some class has no sample, since it is undefined. Source: Mann & Whitney 1947.
    """
    proba_NC, y_N = checked_forecast(proba, y, "auc")
    weight_N = np.ones(len(y_N)) if weight is None else np.asarray(weight, dtype=np.float64)
    value = _Auc(proba_NC, y_N).of(weight_N[None, :])[0]
    return float(value) if np.isfinite(value) else None


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
    metrics = _Metrics(proba, y, rate, weight, score, (levelled.forecast, levelled.constant), order=order, first=first)
    n_times = len(first) - 1
    loss_T = bootstrap.mean_per_time(log_losses(proba, y), order, first)
    found = cosines.spread(metrics.of, n_times, loss_T, min_block=min_block, cells=metrics.cells)
    estimates = dict(zip(_Metrics.names, found.estimates(confidence), strict=True))
    estimates["auc"] = cosines.within_unit(estimates["auc"])
    gaps = cosines.Spread(metrics.gaps_M, metrics.gap_slopes(found), found.block_length, found.reason)
    for k, name in enumerate(("ece", "ece_equal_mass")):
        part = slice(k * N_BINS, (k + 1) * N_BINS)
        one = cosines.Spread(gaps.value_M[part], gaps.slope_BM[:, part], gaps.block_length, gaps.reason)
        estimates[name] = total_gap(one, n_draws=n_draws, confidence=confidence, seed=seed)
    estimates |= _calibration(proba, y, weight, (order, first), found, confidence)
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


def _calibration(
    proba: Array, y: Array, weight: Array, groups: tuple[Array, Array], found: cosines.Spread, confidence: float
) -> dict[str, Estimate]:
    """Slope and intercept with intervals from the cosines of the other metrics."""
    line = calibration_line(*binary_view(proba, y), weight)
    lean_TM = bootstrap.sum_per_time(line.influence_NM, *groups)
    slopes = cosines.cosines(len(lean_TM), found.degrees) @ lean_TM if found.degrees else np.empty((0, 2))
    spread = cosines.Spread(line.value_M, slopes, found.block_length, found.reason)
    reasons = [None if np.isfinite(v) else line.reason for v in line.value_M]
    both = spread.estimates(confidence, reasons)
    return dict(zip(("calibration_slope", "calibration_intercept"), both, strict=True))


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


class _Auc:
    """AUC of many weightings of the same scores: sorted once, then one cumulative sum each."""

    def __init__(self, proba_NC: Array, y_N: Array) -> None:
        classes = [1] if proba_NC.shape[1] == 2 else range(proba_NC.shape[1])
        self.parts = [self._sorted(proba_NC[:, c], y_N == c) for c in classes]

    @staticmethod
    def _sorted(score_N: Array, positive_N: Array) -> tuple[Array, Array, Array, Array]:
        order = np.argsort(score_N, kind="stable")
        score, positive = score_N[order], positive_N[order]
        up, down = np.flatnonzero(positive), np.flatnonzero(~positive)
        # negatives strictly below each positive, and those below or tied: half of their sum counts ties half
        below = np.searchsorted(score[down], score[up], side="left")
        below_or_tied = np.searchsorted(score[down], score[up], side="right")
        return order[up], order[down], below, below_or_tied

    def of(self, weight_dN: Array) -> Array:
        """AUC [d] of each weighting; NaN where a class has no weight."""
        return np.mean([self._one(weight_dN, *part) for part in self.parts], axis=0)

    @staticmethod
    def _one(weight_dN: Array, up: Array, down: Array, below: Array, tied: Array) -> Array:
        if not len(up) or not len(down):
            return np.full(len(weight_dN), np.nan)
        cumulative = np.zeros((len(weight_dN), len(down) + 1))
        np.cumsum(weight_dN[:, down], axis=1, out=cumulative[:, 1:])
        weight_up = weight_dN[:, up]
        beaten = cumulative[:, below] + cumulative[:, tied]
        pairs = weight_up.sum(axis=1) * cumulative[:, -1]
        wins = np.einsum("dn,dn->d", weight_up, beaten) / 2
        return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


class _AucByTime:
    """AUC of many draws of times: wins between any two times are counted once, then a bilinear form per draw.

    For panels, with many samples per time: a draw then costs T^2, not N.
    """

    def __init__(self, score_NC: Array, y_N: Array, weight_N: Array, time_N: Array, n_times: int) -> None:
        classes = [1] if score_NC.shape[1] == 2 else range(score_NC.shape[1])
        self.parts = [self._counted(score_NC[:, c], y_N == c, weight_N, time_N, n_times) for c in classes]

    @staticmethod
    def _counted(score: Array, positive: Array, weight: Array, time: Array, n_times: int) -> tuple[Array, Array, Array]:
        order = np.argsort(score, kind="stable")
        wins_TT = _wins(score[order], positive[order], weight[order], time[order], n_times)
        up, down = (np.bincount(time[side], weight[side], n_times) for side in (positive, ~positive))
        return wins_TT, up, down

    def of(self, weight_dT: Array) -> Array:
        """AUC [d] of each draw; NaN where a class has no weight."""
        return np.mean([self._one(weight_dT, *part) for part in self.parts], axis=0)

    @staticmethod
    def _one(weight_dT: Array, wins_TT: Array, up_T: Array, down_T: Array) -> Array:
        pairs = (weight_dT @ up_T) * (weight_dT @ down_T)
        wins = np.einsum("dt,dt->d", weight_dT @ wins_TT, weight_dT)
        return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


@compiled
def _wins(score: Array, positive: Array, weight: Array, time: Array, n_times: int) -> Array:
    """Weighted wins [T, T] of positives of one time over negatives of another, ties half; input sorted by score."""
    wins, below = np.zeros((n_times, n_times)), np.zeros(n_times)
    i, n = 0, len(score)
    while i < n:
        j = i
        while j < n and score[j] == score[i]:
            if not positive[j]:
                below[time[j]] += weight[j] / 2
            j += 1
        for k in range(i, j):
            if positive[k]:
                own, mass = wins[time[k]], weight[k]
                for t in range(n_times):  # a plain loop compiles in a tenth of the time of an array expression
                    own[t] += mass * below[t]
        for k in range(i, j):
            if not positive[k]:
                below[time[k]] += weight[k] / 2
        i = j
    return wins


class _Metrics:
    """All metrics of many draws at once, from sums per time; `of` maps counts [d, T] to [d, M]."""

    names = (
        *("log_loss", "base_log_loss", HEADLINE, OVER_BASE_RATE),
        *("auc", "brier", "brier_skill", "ece", "ece_equal_mass"),
    )

    def __init__(
        self,
        proba: Array,
        y: Array,
        rate: Array,
        weight: Array,
        ordering: Array,
        levelled: tuple[Array, Array],
        *,
        order: Array,
        first: Array,
    ) -> None:
        constant = np.broadcast_to(rate, proba.shape)
        score, hit = binary_view(proba, y)
        losses = [
            log_losses(proba, y),
            log_losses(constant, y),
            brier_losses(proba, y),
            brier_losses(constant, y),
            *levelled,
        ]
        gaps = [np.eye(N_BINS)[bin_codes(score, N_BINS, mass)] * (score - hit)[:, None] for mass in ("width", "equal")]
        columns = np.column_stack([np.ones(len(y)), *losses, *gaps]) * weight[:, None]
        self.sums_TM = bootstrap.sum_per_time(columns, order, first)
        self.weight_N, n_times = weight[order], len(first) - 1
        self.time_of_N = np.repeat(np.arange(n_times), np.diff(first))
        self.by_time = n_times <= min(MOST_TIMES, len(y) // 4)
        self.cells = n_times if self.by_time else len(y)  # allocated per draw
        sorted_by_time = ordering[order], y[order]
        self.auc: _Auc | _AucByTime = (
            _AucByTime(*sorted_by_time, self.weight_N, self.time_of_N, n_times)
            if self.by_time
            else _Auc(*sorted_by_time)
        )

    @property
    def gaps_M(self) -> Array:
        """Predicted less observed of each bin, as a share of all samples.

        First the bins of equal width, then those of equal mass.
        """
        return self.sums_TM[:, 7:].sum(axis=0) / self.sums_TM[:, 0].sum()

    def gap_slopes(self, found: cosines.Spread) -> Array:
        """Slopes of the gaps along each cosine of `found` [B, M]."""
        if not found.degrees:
            return np.empty((0, self.sums_TM.shape[1] - 7))
        lean_TM = self.sums_TM[:, 7:] - self.gaps_M * self.sums_TM[:, :1]
        return cosines.cosines(len(self.sums_TM), found.degrees) @ lean_TM / self.sums_TM[:, 0].sum()

    def of(self, weight_dT: Array) -> Array:
        """Metrics [d, M] in the order of `names`.

        NaN where a weighting does not define one.
        """
        sums = weight_dT @ self.sums_TM
        total = sums[:, 0]
        log_loss, base, brier, base_brier, beyond, level = np.divide(
            sums[:, 1:7], total[:, None], out=np.full((len(sums), 6), np.nan), where=total[:, None] > 0
        ).T
        width, equal = sums[:, 7 : 7 + N_BINS], sums[:, 7 + N_BINS :]
        eces = [np.abs(gap).sum(axis=1) / np.where(total > 0, total, np.nan) for gap in (width, equal)]
        drawn = weight_dT if self.by_time else weight_dT[:, self.time_of_N] * self.weight_N
        auc_d = self.auc.of(drawn)
        skills = _skill(beyond, level), _skill(log_loss, base)
        return np.column_stack([log_loss, base, *skills, auc_d, brier, _skill(brier, base_brier), *eces])


def _skill(loss: Array, reference: Array) -> Array:
    return 1 - np.divide(loss, reference, out=np.full_like(loss, np.nan), where=reference > 0)


def _checked_scores(score_N: Array, proba_NC: Array) -> Array:
    """Scores of two classes as [N, 2], of which the second is read."""
    score = np.asarray(score_N, dtype=np.float64)
    if score.shape != proba_NC.shape[:1] or proba_NC.shape[1] != 2 or not np.isfinite(score).all():
        raise DataError(
            f"evaluate: scores {score.shape} for probabilities {proba_NC.shape}; one finite score each, of two classes"
        )
    return np.column_stack([-score, score])


def _checked_weight(weight_N: Array | None, n: int) -> Array:
    weight = np.ones(n) if weight_N is None else np.asarray(weight_N, dtype=np.float64)
    if weight.shape != (n,) or not (weight >= 0).all() or not np.isfinite(weight).all() or weight.sum() == 0:
        raise DataError(f"evaluate: weights of shape {weight.shape} for {n} samples; finite, >= 0, not all zero")
    return weight
