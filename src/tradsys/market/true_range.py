"""Wilder's average true range, trailing means and ranges, in one pass over all symbols."""

import operator
from collections import deque
from collections.abc import Sequence
from functools import reduce

import numpy as np
import polars as pl

from tradsys.core.compiled import compiled, read_only
from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array

MIN_UNIT = 1e-9  # share of the price below which an ATR counts as zero; no market quotes so finely


def segment_starts(bars: pl.DataFrame) -> Array:
    """True [R] at the first bar of every segment: no window may reach across it.

    A segment is a run of equal `segment` where that column exists, else all bars of a symbol.
    """
    starts = np.zeros(bars.height, dtype=np.bool_)
    starts[:1] = True
    for name in ("symbol", "segment"):
        if name in bars.columns:
            starts[1:] |= changes(bars[name])
    return starts


def changes(column: pl.Series) -> Array:
    """True [R-1] where a value differs from the one before."""
    return (column.slice(1) != column.slice(0, max(len(column) - 1, 0))).to_numpy()


def price_columns(bars: pl.DataFrame, names: Sequence[str]) -> tuple[Array, ...]:
    """Columns as contiguous float64 [R] each, NaN where null.

    Without a copy where possible.
    """
    return tuple(np.ascontiguousarray(bars[name].cast(pl.Float64).to_numpy()) for name in names)


def price_matrix(bars: pl.DataFrame, names: Sequence[str]) -> Array:
    """Columns side by side, float64 [R, len(names)], NaN where null."""
    return np.stack([bars[name].cast(pl.Float64).to_numpy() for name in names], axis=1)


def wilder_atr(high: Array, low: Array, close: Array, starts: Array, atr_bars: int) -> Array:
    """Average true range [R] in price units, smoothed as Wilder does, float64.

    high, low, close: float64 [R]. starts: bool [R], first bar of each segment.
    NaN for the first `atr_bars` rows of a segment (the true range needs the close before); a NaN in a bar
    gives NaN there and restarts the warm-up after it. Raises TradsysError where atr_bars < 1.
    Source: Wilder 1978; seed (plain mean of the first `atr_bars` true ranges) and warm-up as TA-Lib's ATR.
    """
    if not atr_bars >= 1:
        raise TradsysError(f"ranges: atr_bars={atr_bars}; it must be at least 1; use 14 as Wilder did")
    highs, lows, closes = (np.ascontiguousarray(column, dtype=np.float64) for column in (high, low, close))
    out = np.empty(len(closes))  # numpy's memory: see `compiled`
    _wilder_atr(*read_only((highs, lows, closes, starts)), int(atr_bars), out)
    return out


def atr(bars: pl.DataFrame, atr_bars: int) -> Array:
    """Wilder's average true range, float64 [R] in price units, by segment."""
    high, low, close = price_matrix(bars, ("high", "low", "close")).T
    return wilder_atr(high, low, close, segment_starts(bars), atr_bars)


def log_steps(bars: pl.DataFrame) -> Array:
    """Log return of each bar, close to close, float64 [R].

    NaN at a segment's first bar and where a close is missing.
    """
    close = price_matrix(bars, ("close",))[:, 0]
    out = np.full(len(close), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        out[1:] = np.diff(np.log(close))
    out[segment_starts(bars)] = np.nan
    return out


def usable_unit(unit: Array, price: Array) -> Array:
    """A volatility unit [R] where distances can be measured in it, else NaN.

    Shared by labels and exits. unit: for example an ATR, in price units. price: of the same bar. A unit that is not
    finite, or at most MIN_UNIT of the price, is unusable: its bars did not move, and both barriers would lie on the
    entry. Wilder's mean only approaches zero on flat bars, so a test for exact zero would miss them.
    """
    usable = unit > MIN_UNIT * np.abs(price)  # no comparison holds for a NaN, and none for an infinite price
    usable &= unit < np.inf
    return np.where(usable, unit, np.nan)


def trailing_mean(bars: pl.DataFrame, mean_bars: int) -> Array:
    """Plain mean of the last `mean_bars` closes, float64 [R] in price units.

    NaN until a segment holds so many, and while a NaN close is among them. Summed separately for every row, so that a
    live buffer gives bitwise the batch's values. Raises TradsysError where mean_bars < 1.
    """
    _check_count("mean_bars", mean_bars)
    return _trailing_mean(price_matrix(bars, ("close",))[:, 0], segment_starts(bars), int(mean_bars))


def trailing_log_range(bars: pl.DataFrame, range_bars: int) -> Array:
    """log(highest high / lowest low) of the last `range_bars` bars, float64 [R].

    NaN as in `trailing_mean`.
    """
    _check_count("range_bars", range_bars)
    high, low = price_matrix(bars, ("high", "low")).T
    return _trailing_log_range(high, low, segment_starts(bars), int(range_bars))


class LiveAtr:
    """`wilder_atr` one bar at a time, for symbols at positions 0..S-1.

    The same operations in the same order.
    """

    def __init__(self, atr_bars: int) -> None:
        self.atr_bars = atr_bars
        self._seen = np.zeros(0, dtype=np.int64)
        self._mean, self._before = np.zeros(0), np.zeros(0)

    def push(self, at: Array, hlc: Array, starts: Array) -> Array:
        """float64 [n] after new bars.

        at: positions [n]. hlc: high, low, close float64 [n, 3]. starts: bool [n].
        """
        lacking = int(at.max()) + 1 - len(self._seen)
        if lacking > 0:
            self._seen = np.append(self._seen, np.full(lacking, -1))
            self._mean, self._before = (np.append(a, np.zeros(lacking)) for a in (self._mean, self._before))
        n, before, mean = self.atr_bars, self._before[at], self._mean[at]
        known = np.isfinite(hlc).all(axis=1)
        seen = np.where(known, np.where(starts, -1, self._seen[at]) + 1, -1)
        true_range = np.maximum(hlc[:, 0], before) - np.minimum(hlc[:, 1], before)
        summed = np.where(seen == 1, true_range, mean + true_range)
        seeding = np.where(seen == n, summed / n, summed)
        mean = np.where(seen > n, (mean * (n - 1) + true_range) / n, np.where(seen >= 1, seeding, mean))
        self._seen[at], self._mean[at], self._before[at] = seen, mean, np.where(known, hlc[:, 2], before)
        return np.where(seen >= n, mean, np.nan)


class LiveMean:
    """`trailing_mean` one bar at a time, bitwise equal.

    Each window is summed oldest first.
    """

    def __init__(self, mean_bars: int) -> None:
        _check_count("mean_bars", mean_bars)
        self.mean_bars = mean_bars
        self._closes: dict[int, deque[float]] = {}

    def push(self, at: Array, close: Array, starts: Array) -> Array:
        """float64 [n] after new closes [n] of the symbols at these positions [n].

        starts: bool [n].
        """
        out = np.full(len(at), np.nan)
        for k, position in enumerate(at.tolist()):
            held = self._closes.setdefault(position, deque(maxlen=self.mean_bars))
            if starts[k]:
                held.clear()
            held.append(float(close[k]))
            if len(held) == self.mean_bars:
                out[k] = reduce(operator.add, held, 0.0) / self.mean_bars
        return out


def _check_count(name: str, value: int) -> None:
    if not value >= 1:
        raise TradsysError(f"ranges: {name}={value}; it must be at least 1; use 24, for example")


@compiled
def _trailing_mean(close: Array, starts: Array, mean_bars: int) -> Array:
    out = np.full(len(close), np.nan)
    run = 0
    for t in range(len(close)):
        run = 0 if starts[t] else run
        run += 1
        if run < mean_bars:
            continue
        total = 0.0
        for k in range(t - mean_bars + 1, t + 1):
            total += close[k]
        out[t] = total / mean_bars
    return out


@compiled
def _trailing_log_range(high: Array, low: Array, starts: Array, range_bars: int) -> Array:
    out = np.full(len(high), np.nan)
    run = 0
    for t in range(len(high)):
        run = 0 if starts[t] else run
        run += 1
        if run < range_bars:
            continue
        top, bottom, known = high[t], low[t], True
        for k in range(t - range_bars + 1, t + 1):
            known = known and np.isfinite(high[k] + low[k])
            top, bottom = max(top, high[k]), min(bottom, low[k])
        if known:
            out[t] = np.log(top / bottom)
    return out


@compiled
def _wilder_atr(highs: Array, lows: Array, closes: Array, starts: Array, atr_bars: int, out: Array) -> None:
    n_rows = len(closes)
    seen = -1  # true ranges since the last start; -1: no close before
    mean = 0.0
    before = np.nan
    for t in range(n_rows):
        out[t] = np.nan
        if starts[t]:
            seen = -1
        high, low, close = highs[t], lows[t], closes[t]
        if not np.isfinite(high + low + close):
            seen = -1
            continue
        true_range = max(high, before) - min(low, before)
        before = close
        seen += 1
        if seen < 1:
            continue
        if seen > atr_bars:
            mean = (mean * (atr_bars - 1) + true_range) / atr_bars
        else:
            mean = true_range if seen == 1 else mean + true_range
            if seen == atr_bars:
                mean /= atr_bars
        if seen >= atr_bars:
            out[t] = mean
