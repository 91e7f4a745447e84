"""How far a bar moves: Wilder's average true range, one pass over all symbols."""

from collections.abc import Sequence

import numba
import numpy as np
import polars as pl

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array


def segment_starts(bars: pl.DataFrame) -> Array:
    """True [R] at the first bar of every segment: nothing may look back across it.

    A segment is a run of equal `segment` where that column exists, else all bars of a symbol.
    """
    starts = np.zeros(bars.height, dtype=np.bool_)
    starts[:1] = True
    for name in ("symbol", "segment"):
        if name in bars.columns:
            starts[1:] |= (bars[name].slice(1) != bars[name].slice(0, max(bars.height - 1, 0))).to_numpy()
    return starts


def price_matrix(bars: pl.DataFrame, names: Sequence[str]) -> Array:
    """Columns side by side, float64 [R, len(names)], NaN where null."""
    return np.stack([bars[name].cast(pl.Float64).to_numpy() for name in names], axis=1)


def wilder_atr(high: Array, low: Array, close: Array, starts: Array, atr_bars: int) -> Array:
    """Average true range [R] in price units, smoothed as Wilder does, float64.

    high, low, close: float64 [R]. starts: bool [R], first bar of each segment.
    NaN for the first `atr_bars` rows of a segment (the true range needs the close before); a NaN in a bar
    gives NaN there and starts anew after it. Raises TradsysError where atr_bars < 1.
    Source: Wilder 1978; seed (plain mean of the first `atr_bars` true ranges) and warm-up as TA-Lib's ATR.
    """
    if not atr_bars >= 1:
        raise TradsysError(f"ranges: atr_bars={atr_bars}; a mean is over atr_bars >= 1; use 14 as Wilder did")
    return _wilder_atr(np.stack([high, low, close], axis=1, dtype=np.float64), starts, int(atr_bars))


def atr(bars: pl.DataFrame, atr_bars: int) -> Array:
    """Wilder's average true range of bars, float64 [R] in price units, segment by segment."""
    high, low, close = price_matrix(bars, ("high", "low", "close")).T
    return wilder_atr(high, low, close, segment_starts(bars), atr_bars)


# not cached on disk: the compile takes half a second, and a read-only install has nowhere to cache
@numba.njit
def _wilder_atr(hlc: Array, starts: Array, atr_bars: int) -> Array:
    n_rows = len(hlc)
    out = np.full(n_rows, np.nan)
    seen = -1  # true ranges since the last start; -1: no close before
    mean = 0.0
    before = np.nan
    for t in range(n_rows):
        if starts[t]:
            seen = -1
        high, low, close = hlc[t]
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
    return out
