"""Intervals on dependent data: variances from a few slow cosines, Student's t for the error of the variance.

A statistic is a function of weights of time, all 1 on the record. Its slope along sqrt(2) cos(pi j (t - 1/2) / T), for
j = 1..B, is its sensitivity to slow swings of the record; the mean square of B slopes is its variance, with B degrees
of freedom. So the interval includes the uncertainty of the variance, which a block bootstrap leaves out: its intervals
are too narrow where few blocks remain. Statistics on one set of cosines share their draws, so differences are paired.
Legend: T distinct times, B cosines, M statistics, D draws, d weightings.
Source: Mueller 2004 and Lazarus, Lewis, Stock & Watson 2018 (equal-weighted cosine estimator, B = 0.4 T^(2/3) at most).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, special

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import (
    CHUNK_CELLS,
    FLAT_WIDTH,
    UNMOVED,
    Estimate,
    dependence_length,
    too_few_blocks,
)
from tradsys.evidence.sharpe import checked_returns, is_flat

# cosines per effective block: faster ones vary within the dependence and see too little variance. Label overlap
# has a known, sharp end; estimated dependence decays, so that it needs slower cosines
PER_KNOWN_BLOCK, PER_ESTIMATED_BLOCK = 0.35, 0.2
# finite difference of the slopes; weights stay positive
_STEP = 1e-3


@dataclass(frozen=True, eq=False)
class Spread:
    """Statistics of one record and their sensitivity to time.

    value_M: on the record. slope_BM: along each cosine. block_length: periods of one effective block. reason: why
    there is no interval, None where there is one; without it slope_BM has no rows.
    """

    value_M: Array
    slope_BM: Array
    block_length: float
    reason: str | None

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the variance: the number of cosines."""
        return len(self.slope_BM)

    def columns(self, some: Array) -> "Spread":
        """Some of the statistics, by their numbers."""
        return Spread(self.value_M[some], self.slope_BM[:, some], self.block_length, self.reason)

    @property
    def error_M(self) -> Array:
        """Standard errors [M]; NaN without an interval."""
        if not self.degrees:
            return np.full(len(self.value_M), np.nan)
        return np.sqrt((self.slope_BM**2).mean(axis=0))

    def estimates(self, confidence: float = 0.95, reasons: Sequence[str | None] | None = None) -> list[Estimate]:
        """Values with Student's intervals.

        None with a reason where undefined or the record is too short.
        """
        half_M = student_quantile(confidence, self.degrees) * self.error_M if self.degrees else self.error_M
        why = reasons or [None] * len(self.value_M)
        return [
            _estimate(float(v), float(h), given or self.reason)
            for v, h, given in zip(self.value_M, half_M, why, strict=True)
        ]

    def above(self, level: float) -> Array:
        """Confidence [M] that each true value exceeds `level`; NaN without an interval."""
        error_M = self.error_M
        score = np.divide(self.value_M - level, error_M, out=np.full(len(error_M), np.nan), where=error_M > 0)
        return special.stdtr(max(1, self.degrees), score)

    def p_values(self) -> Array:
        """Two-sided p-values [M] of a true value of zero; NaN without an interval."""
        above_M = self.above(0.0)
        return 2 * np.minimum(above_M, 1 - above_M)

    def draws(self, n_draws: int, *, seed: int) -> Array:
        """Draws [D, M] of Student's t around the values, same t for all M.

        They have the covariance of the slopes.
        """
        rng = np.random.default_rng(seed)
        normal_DB = rng.standard_normal((n_draws, self.degrees))
        shrink_D = np.sqrt(rng.chisquare(self.degrees, (n_draws, 1)))
        return self.value_M + normal_DB @ self.slope_BM / shrink_D


def spread(
    statistic: Callable[[Array], Array],
    n_times: int,
    series: Array,
    *,
    min_block: float = 1.0,
    cells: int = 1,
    step: float = _STEP,
    slow: bool = False,
) -> Spread:
    """Values and slopes of `statistic`, which maps weights of time [d, T] to [d, M].

    series: [T] or [T, K], the losses or gains that determine the dependence. min_block: periods that one label or
    position spans. cells: numbers that the statistic allocates per weighting, which bounds how many it gets at once.
    step: of the finite difference, below 0.7 so that weights stay positive; a statistic that jumps from sample to
    sample, such as one with a cut at a rank, needs a step that passes several of them. slow: as few cosines as where
    dependence is estimated, for a statistic that depends on how runs of labels coincide.
    """
    _check_periods(n_times)
    value_M = statistic(np.ones((1, n_times)))[0]
    block = dependence_length(series, min_block)
    reason = too_few_blocks(n_times, block)
    if reason is not None:
        return Spread(value_M, np.empty((0, len(value_M))), block, reason)
    n_waves = n_cosines(n_times, block, 0.0 if slow else min_block)
    at_once = max(1, CHUNK_CELLS // max(n_times, cells))
    parts = []
    for k in range(0, n_waves, at_once):
        lean_dT = step * cosines(n_times, min(at_once, n_waves - k), first=k + 1)
        parts.append((statistic(1 + lean_dT) - statistic(1 - lean_dT)) / (2 * step))
    return Spread(value_M, np.concatenate(parts), block, None)


def _check_periods(n_times: int) -> None:
    if n_times < 1:
        raise DataError("interval: no period at all; a record needs at least one; give data of the span")


def spread_of_means(series: Array, *, min_block: float = 1.0, values: Array | None = None) -> Spread:
    """`spread` of the means of series [T] or [T, M].

    Of influence functions where `values` [M] are given.
    """
    series_TM = np.asarray(series, dtype=np.float64)
    series_TM = series_TM[:, None] if series_TM.ndim == 1 else series_TM
    _check_periods(len(series_TM))
    value_M = series_TM.mean(axis=0) if values is None else np.atleast_1d(values)
    return spread_of_influences(value_M, series_TM / len(series_TM), series_TM, min_block=min_block)


def spread_of_influences(value_M: Array, influence_TM: Array, series: Array, *, min_block: float = 1.0) -> Spread:
    """`spread` of statistics with known derivatives by each time's weight.

    value_M: on the record. influence_TM: those derivatives, each column with sum zero but for a constant. series and
    min_block: as in `spread`.
    """
    n_times = len(influence_TM)
    _check_periods(n_times)
    block = dependence_length(series, min_block)
    reason = too_few_blocks(n_times, block)
    if reason is not None:
        return Spread(value_M, np.empty((0, len(value_M))), block, reason)
    return Spread(value_M, projected(influence_TM, n_cosines(n_times, block, min_block)), block, None)


def mean_interval(series_T: Array, *, min_block: float = 1.0, confidence: float = 0.95) -> Estimate:
    """Mean, with its interval, of a serially dependent series.

    For example of daily rank correlations. series_T: finite, in time order. min_block: bars that one label lasts. None,
    with the reason, for an empty series, one that never moves, and fewer than 20 effective blocks. Raises DataError on
    NaN.
    """
    series = np.asarray(series_T, dtype=np.float64)
    if series.ndim != 1 or not np.isfinite(series).all() or not 0 < confidence < 1 or not min_block >= 1:
        raise DataError(
            f"mean_interval: series {series.shape} with {int((~np.isfinite(series)).sum())} values that are not "
            f"finite, min_block={min_block}, confidence={confidence}; one complete series, min_block >= 1, "
            "0 < confidence < 1"
        )
    if not len(series):
        return Estimate(None, reason="no date has a value")
    if np.ptp(series) <= 1e-12 * np.abs(series).max():
        return Estimate(float(series.mean()), reason="the series never moves")
    return spread_of_means(series, min_block=min_block).estimates(confidence)[0]


def sharpe_spread(returns: Array, *, min_block: float = 1.0) -> Spread:
    """`spread` of per-period Sharpe ratios (ddof 1) of returns [T] or [T, K].

    The returns are not flat.
    """
    values = checked_returns(returns, "sharpe_spread")
    values = values[:, None] if values.ndim == 1 else values
    if np.any(is_flat(values)):
        raise DataError("sharpe_spread: returns without variance; a Sharpe ratio needs risk; leave such series out")
    deviation_K = values.std(axis=0, ddof=1)
    sharpe_K = values.mean(axis=0) / deviation_K
    scaled = (values - values.mean(axis=0)) / deviation_K
    # influence of a period on mean over deviation: the delta method
    return spread_of_means(scaled - sharpe_K / 2 * (scaled**2 - 1), min_block=min_block, values=sharpe_K)


def sharpe_intervals(returns_TK: Array, *, confidence: float = 0.95, min_block: float = 1.0) -> list[Estimate]:
    """Per-period Sharpe ratios of K strategies with intervals, in one pass.

    Deviations have ddof 1. returns_TK: [T, K], same periods for all; blocks have the length that the most dependent
    strategy needs, so that intervals can be compared. A strategy that never traded has no value but a reason; too few
    blocks give values without intervals. Raises DataError on NaN or fewer than 2 periods.
    """
    values = checked_returns(returns_TK, "sharpe_intervals")
    values = values[:, None] if values.ndim == 1 else values
    flat_K = np.atleast_1d(is_flat(values))
    idle = Estimate(None, reason="the returns never differ, as of a strategy that never traded; a Sharpe needs risk")
    moving = iter(
        sharpe_spread(values[:, ~flat_K], min_block=min_block).estimates(confidence) if not flat_K.all() else []
    )
    return [idle if flat else next(moving) for flat in flat_K]


def n_cosines(n_times: int, block_length: float, min_block: float = 1.0) -> int:
    """Number of cosines for `n_times` periods, 0.4 T^(2/3).

    Fewer where blocks are long.
    """
    share = PER_KNOWN_BLOCK if block_length <= max(1.0, min_block) else PER_ESTIMATED_BLOCK
    return max(2, int(min(0.4 * n_times ** (2 / 3), share * n_times / block_length)))


def cosines(n_times: int, n_waves: int, first: int = 1) -> Array:
    """sqrt(2) cos(pi j (t - 1/2) / T) for j = first..first + B - 1, float64 [B, T].

    Each sums to zero, mean square one.
    """
    phase = np.pi * (np.arange(n_times) + 0.5) / n_times
    return np.sqrt(2) * np.cos(np.arange(first, first + n_waves)[:, None] * phase)


def projected(series_TM: Array, n_waves: int) -> Array:
    """Sums of series [T, M] or [T] along the first B cosines, [B, M] or [B].

    `cosines` times the series, by a fast cosine transform (type 2).
    """
    if not len(series_TM):
        return np.zeros((n_waves, *np.shape(series_TM)[1:]))
    return fft.dct(series_TM, axis=0)[1 : n_waves + 1] / np.sqrt(2)


def student_quantile(confidence: float, degrees: int) -> float:
    """Two-sided Student quantile.

    Raises DataError where confidence is not within (0, 1).
    """
    if not 0 < confidence < 1:
        raise DataError(f"interval: confidence {confidence}; it lies between 0 and 1; 0.95 is usual")
    return float(special.stdtrit(degrees, 0.5 + confidence / 2))


def within_unit(plain: Estimate) -> Estimate:
    """Interval of an area under a curve, computed on the logit scale.

    So it stays within (0, 1) and is skewed as areas are. No interval at exactly 0 or 1, where the error is unknown.
    Source: Boyd, Eng & Page 2013, section 4 (logit intervals, delta method).
    """
    value = plain.value
    if value is None or plain.low is None:
        return plain
    if not 0 < value < 1:
        return Estimate(value, reason="no pair is ranked otherwise, so that its error is not known")
    centre, half = np.log(value / (1 - value)), (value - plain.low) / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-half, half]))))
    return Estimate(value, float(low), float(high))


def _estimate(value: float, half: float, reason: str | None) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, reason=reason or "not defined on these samples")
    if reason is not None:
        return Estimate(value, reason=reason)
    if abs(value) > FLAT_WIDTH and half <= FLAT_WIDTH * abs(value):  # zero is exact: a reference against itself
        return Estimate(value, reason=UNMOVED)
    if not np.isfinite(half):
        return Estimate(value, reason="its error is not defined on these samples")
    return Estimate(value, value - half, value + half)
