"""Intervals for numbers measured on dependent data: the stationary bootstrap over blocks of time.

A draw is kept as how often each time was drawn (counts [D, T]), not as indices: every metric that is a
function of sums over samples then costs one matrix product for many draws at once. Rows that share a time (a
panel's symbols) are drawn together. Legend: D draws, T distinct times, N samples, M sums, K strategies.
Source: Politis & Romano 1994 (stationary bootstrap), Politis & White 2004 with Patton et al. 2009 (block
length).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from tradsys.core.errors import DataError
from tradsys.core.headline import EstimateRow
from tradsys.core.plurals import counted
from tradsys.core.tables import Array

# with fewer blocks in the record an interval would be too narrow
MIN_BLOCKS = 20
# with a larger share of undefined draws the rest no longer represent all
MAX_UNDEFINED = 0.05
CHUNK_CELLS = 1_000_000
# a relative width this small is rounding: the series is constant, so its error is unknown
FLAT_WIDTH = 1e-12
UNMOVED = "it is constant over time, so that its error is unknown"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    What is undefined is None, and `reason` states why; never NaN.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def as_dict(self) -> EstimateRow:
        """The four fields, ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "reason": self.reason}


def automatic_block_length(series_T: Array, min_block: float = 1.0) -> float:
    """Mean block length in periods for the stationary bootstrap, at least `min_block`.

    series_T: the per-period loss or return whose dependence counts. A constant or very short series gives
    `min_block`. Raises DataError on values that are not finite.
    """
    series = np.asarray(series_T, dtype=np.float64)
    if series.ndim != 1 or not np.isfinite(series).all():
        raise DataError(
            f"bootstrap: a series of shape {series.shape} with {int((~np.isfinite(series)).sum())} values that are "
            "not finite; blocks need one complete series [T]; cut the record where it is known"
        )
    if len(series) < 8 or np.ptp(series) <= 1e-12 * np.abs(series).max():
        return max(1.0, float(min_block))
    from arch.bootstrap import optimal_block_length  # noqa: PLC0415 - a second to import

    with np.errstate(divide="ignore", invalid="ignore"):
        chosen = float(optimal_block_length(series)["stationary"].iloc[0])
    # no finite optimum where autocovariances cancel; then the longest length that the method allows
    longest = np.ceil(min(3 * np.sqrt(len(series)), len(series) / 3))
    return max(1.0, float(min_block), chosen if np.isfinite(chosen) else float(longest))


def too_few_blocks(n_times: int, block_length: float) -> str | None:
    """Why `n_times` periods give no interval at this block length, and how many would.

    None where they do.
    """
    if n_times >= MIN_BLOCKS * block_length:
        return None
    needed = int(np.ceil(MIN_BLOCKS * block_length))
    held = np.floor(10 * n_times / block_length) / 10  # never rounded up to what is needed
    return (
        f"{counted(n_times, 'period')} hold {held:.1f} independent blocks of {block_length:.3g}; an interval "
        f"needs {MIN_BLOCKS}: {counted(needed - n_times, 'more period')}"
    )


def dependence_length(series: Array, min_block: float = 1.0) -> float:
    """Periods that count as one independent observation, at least `min_block`.

    The long-run variance of the series over its plain variance (integrated autocorrelation), by the flat-top kernel
    with the automatic bandwidth of Politis & White 2004, section 3.2; of several series [T, K] the longest. It is used
    only where it exceeds `min_block` by half: below that it is mostly estimation noise.
    """
    values = np.asarray(series, dtype=np.float64)
    return float(dependence_lengths(values[:, None] if values.ndim == 1 else values, min_block).max())


def dependence_lengths(series_TK: Array, min_block: float = 1.0) -> Array:
    """`dependence_length` of each of K series [K], in one pass.

    `min_block` for a constant one.
    """
    least = max(1.0, float(min_block))
    values = np.asarray(series_TK, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(
            f"interval: a series of shape {values.shape} with {int((~np.isfinite(values)).sum())} values that are not "
            "finite; blocks need complete series [T]; cut the record where it is known"
        )
    lengths = np.full(values.shape[1], least)
    parts = _flat_top(values)
    if parts is not None:
        _, level, plain = parts
        found = level / plain
        lengths[_moves(values)] = np.where(found > 1.5 * least, found, least)
    return lengths


def bootstrap_draws(
    statistic: Callable[[Array], Array],
    n_times: int,
    block_length: float,
    n_draws: int,
    *,
    seed: int,
    cells_per_draw: int = 1,
) -> Array:
    """A statistic of every draw, [D] or [D, M], in few calls and bounded memory.

    statistic: takes counts float64 [d, T], how often each time occurs in each of d draws (rows sum to T),
    and returns [d] or [d, M]. Blocks start anywhere, wrap around the end, and have geometric length of mean
    `block_length`. cells_per_draw: the size of what `statistic` allocates per draw, which bounds d.
    """
    parts = []
    step = max(1, CHUNK_CELLS // max(n_times, cells_per_draw))
    for draw, start, length, n_rows in _drawn_blocks(n_times, block_length, n_draws, step, seed=seed):
        # +1 where a block starts, -1 where it ends; one that wraps covers the first period as well
        width, end = n_times + 1, start + length
        wraps = end > n_times
        edges = np.bincount(draw * width + start, minlength=n_rows * width)
        edges -= np.bincount(draw * width + np.where(wraps, end - n_times, end), minlength=n_rows * width)
        edges = edges.reshape(n_rows, width)
        edges[:, 0] += np.bincount(draw[wraps], minlength=n_rows)
        parts.append(statistic(np.cumsum(edges[:, :n_times], axis=1, dtype=np.float64)))
    return np.concatenate(parts)


def bootstrap_indices(n_times: int, block_length: float, n_draws: int, *, seed: int) -> Iterator[Array]:
    """The times of one draw after another, int64 [T].

    The draws of `bootstrap_draws` with that seed.
    """
    step = max(1, CHUNK_CELLS // max(1, n_times))
    for _, start, length, n_rows in _drawn_blocks(n_times, block_length, n_draws, step, seed=seed):
        first = np.cumsum(length) - length
        flat = np.repeat(start - first, length) + np.arange(n_rows * n_times)
        yield from (flat % n_times).reshape(n_rows, n_times)


def percentile_interval(draws_D: Array, confidence: float = 0.95) -> tuple[float, float] | None:
    """Bounds of the middle `confidence` share of the draws.

    None where too many are not finite.
    """
    if not 0 < confidence < 1:
        raise DataError(f"bootstrap: confidence {confidence}; it lies between 0 and 1; 0.95 is usual")
    finite = np.isfinite(draws_D)
    if not finite.any() or finite.mean() < 1 - MAX_UNDEFINED:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws_D[finite], [tail, 1 - tail])
    return float(low), float(high)


def estimate(value: float, draws_D: Array | None, confidence: float = 0.95, reason: str | None = None) -> Estimate:
    """A value with the percentile interval of its draws, or with a `reason`.

    The reason states why there is no interval.
    """
    if not np.isfinite(value):
        return Estimate(None, reason=reason or "not defined on these samples")
    if draws_D is None:
        return Estimate(float(value), reason=reason)
    interval = percentile_interval(draws_D, confidence)
    if interval is None:
        return Estimate(float(value), reason=f"undefined in more than {MAX_UNDEFINED:.0%} of the bootstrap draws")
    if value != 0 and interval[1] - interval[0] <= FLAT_WIDTH * abs(value):
        return Estimate(float(value), reason=UNMOVED)
    return Estimate(float(value), *interval, reason)


def time_groups(time_N: Array) -> tuple[Array, Array]:
    """Rows in time order [N], and where each distinct time starts [T + 1]."""
    order = np.argsort(time_N, kind="stable")
    ordered = np.asarray(time_N)[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
    return order, np.append(starts, len(ordered))


def sum_per_time(values_NM: Array, order: Array, first: Array) -> Array:
    """Sums [T, M] (or [T]) of samples that share a time."""
    return np.add.reduceat(np.asarray(values_NM, dtype=np.float64)[order], first[:-1], axis=0)


def mean_per_time(values_N: Array, order: Array, first: Array) -> Array:
    """Means [T] of samples that share a time."""
    return sum_per_time(values_N, order, first) / np.diff(first)


def automatic_block_lengths(series_TK: Array) -> Array:
    """The automatic block length of each of K series [K], at once.

    That of `automatic_block_length`, 1 if constant. Source: Politis & White 2004 with Patton et al. 2009,
    autocorrelations over the overlap alone as in arch, whose loop over lags and series this replaces.
    """
    values = np.asarray(series_TK, dtype=np.float64)
    parts, n, lengths = _flat_top(values), len(values), np.ones(values.shape[1])
    if parts is None:
        return lengths
    slope, level, _ = parts
    longest = float(np.ceil(min(3 * np.sqrt(n), n / 3)))
    with np.errstate(divide="ignore", invalid="ignore"):
        chosen = (slope**2 / level**2 * n) ** (1 / 3)
    lengths[_moves(values)] = np.clip(np.where(np.isfinite(chosen), chosen, longest), 1.0, longest)
    return lengths


def _moves(values_TK: Array) -> Array:
    """Which series [K] are not constant."""
    if not len(values_TK):
        return np.zeros(values_TK.shape[1], dtype=bool)
    return np.ptp(values_TK, axis=0) > 1e-12 * np.abs(values_TK).max(axis=0)


def _flat_top(values: Array) -> tuple[Array, Array, Array] | None:
    """Per non-constant series: sum of |k| R(k), long-run variance, variance; None where there is none or T < 8."""
    n = len(values)
    moving = _moves(values)
    if n < 8 or not moving.any():
        return None
    centred = values[:, moving] - values[:, moving].mean(axis=0)
    needed, most = max(5, int(np.log10(n))), int(np.ceil(np.sqrt(n))) + max(5, int(np.log10(n)))
    products = _lagged_products(centred, most)
    squares = np.concatenate([np.zeros((1, centred.shape[1])), np.cumsum(centred**2, axis=0)])
    lag = np.arange(most + 1)
    # arch leaves out one period more than the lag at each end
    energy = (squares[-1] - squares[np.minimum(lag + 1, n)]) * squares[np.maximum(n - lag - 1, 0)]
    quiet = np.abs(products) < 2 * np.sqrt(np.log10(n) / n) * np.sqrt(energy)
    run = np.lib.stride_tricks.sliding_window_view(quiet[:-1], needed, axis=0).all(axis=-1)
    first = np.where(run.any(axis=0), run.argmax(axis=0), -1)
    width = np.minimum(np.where(first >= 0, 2 * np.maximum(first, 1), most), most)
    share = lag[1:, None] / width
    kernel = np.where(share <= 0.5, 1.0, np.clip(2 * (1 - share), 0.0, None))
    covariance = products / n
    slope = 2 * (kernel * lag[1:, None] * covariance[1:]).sum(axis=0)
    level = covariance[0] + 2 * (kernel * covariance[1:]).sum(axis=0)
    return slope, level, covariance[0]


def _lagged_products(centred_TK: Array, most: int) -> Array:
    """Sums [most + 1, K] of products of each series with itself, lags 0 to `most`; through an FFT, in chunks."""
    n, n_series = centred_TK.shape
    size = next_fast_len(n + most, real=True)
    step = max(1, 4 * CHUNK_CELLS // size)
    parts = []
    for k in range(0, n_series, step):
        power = np.abs(rfft(centred_TK[:, k : k + step], n=size, axis=0)) ** 2
        parts.append(irfft(power, n=size, axis=0)[: most + 1])
    return np.concatenate(parts, axis=1)


def _drawn_blocks(
    n_times: int, block_length: float, n_draws: int, step: int, *, seed: int
) -> Iterator[tuple[Array, Array, Array, int]]:
    """Draw number, start, length of every block, some draws at a time; a draw's lengths sum to n_times."""
    if n_times < 1 or n_draws < 1 or not block_length >= 1:
        raise DataError(
            f"bootstrap: {n_times} times, {n_draws} draws, block length {block_length}; each must be at least 1"
        )
    # one stream for lengths and one for starts, so that the draws do not depend on the step
    for_length, for_start = np.random.default_rng(seed).spawn(2)
    expected = n_times / block_length
    # ten deviations more than expected, so that the last block practically never has to fill the rest
    n_blocks = int(min(n_times, np.ceil(expected + 10 * np.sqrt(expected) + 10)))
    for done in range(0, n_draws, step):
        n_rows = min(step, n_draws - done)
        ends = np.cumsum(for_length.geometric(1 / block_length, size=(n_rows, n_blocks)), axis=1)
        ends = np.minimum(ends, n_times)
        ends[:, -1] = n_times
        length = np.diff(ends, axis=1, prepend=0)
        start = for_start.integers(0, n_times, size=length.shape)
        draw = np.broadcast_to(np.arange(n_rows)[:, None], length.shape)
        kept = length > 0
        yield draw[kept], start[kept], length[kept], n_rows
