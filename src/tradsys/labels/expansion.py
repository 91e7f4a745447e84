"""Label: whether the range of the next bars exceeds the band of past ranges. It is about size, not direction."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.compiled import compiled
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, Labels
from tradsys.labels.settings import DEATH, LabelConfig, check_sizes
from tradsys.labels.triple_barrier import (
    Tape,
    first_touch,
    multiple,
    sides,
)
from tradsys.market.tradable import dies_after
from tradsys.market.true_range import (
    MIN_UNIT,
    price_matrix,
    segment_starts,
    trailing_log_range,
    usable_unit,
    wilder_atr,
)


def range_expansion(
    bars: pl.DataFrame,
    *,
    horizon_bars: int,
    band_bars: int,
    width: float,
    upper: float,
    lower: float,
    atr_bars: int,
    side: int | Array = 1,
    dead_after_bars: int | None = None,
    delisting_return: float = 0.0,
) -> Labels:
    """1 where the range of bars t+1..t+H exceeds the band at t, else 0 [R].

    The range is log(highest high / lowest low).
    The band ends at mean + width * deviation (ddof 1) of the log ranges of H bars that ended at t-band_bars+1..t, all
    of them complete at t. end: t+H, always, as a range may still grow in the last bar. weight: 1.
    ret: log return, in its direction and without costs, of the breakout position that serving would take on `side`
    (int8 [R] or one for all): in at open[t+1], out at `upper` or `lower` ATRs as in `triple_barrier`, else at
    close[t+H]; with both infinite it is side * log(close[t+H] / open[t+1]). A side of 0 takes no position, ret 0, and
    is labelled all the same: y is not about direction.
    dead_after_bars, delisting_return: delistings as in `triple_barrier`. A name delisted within the H bars is labelled
    by the range of those it had, its last close times 1 + delisting_return included; end is its last bar then.
    Unlabelled (y -1, end -1, ret NaN, weight 0): a band or an ATR still in warm-up or of zero width (bars that did
    not move), a NaN in the bars used, or a segment
    that ends before t+H. Raises TradsysError for parameters out of range.
    """
    check_sizes("expansion", horizon_bars=horizon_bars, band_bars=band_bars, width=width, upper=upper, lower=lower)
    check_sizes("expansion", dead_after_bars=dead_after_bars, delisting_return=delisting_return)
    side_R = sides(side, bars.height)
    ohlc, starts = price_matrix(bars, ("open", "high", "low", "close")), segment_starts(bars)
    past = trailing_log_range(bars, horizon_bars)
    band = _band(past, starts, band_bars, float(width))
    ahead = _ahead(past, ohlc, starts, horizon_bars)
    atr = usable_unit(wilder_atr(ohlc[:, 1], ohlc[:, 2], ohlc[:, 3], starts, atr_bars), ohlc[:, 3])
    distances = (multiple(upper, atr), multiple(lower, atr))
    dead = dies_after(bars, dead_after_bars)
    ahead, end = _cut_short(ahead, ohlc, starts, dead, horizon_bars, 1 + delisting_return)
    tape = Tape.of(bars, dead, delisting_return)
    _, left, found = first_touch(ohlc, starts, side_R, distances, horizon_bars, tape)
    ret = np.where(side_R == 0, 0.0, found)
    known = np.isfinite(band + ahead + atr + ret)
    return Labels(
        y=np.where(known, (ahead > band).astype(np.int64), -1),
        end=np.where(known, end, -1),
        ret=np.where(known, ret, np.nan),
        weight=known.astype(np.float64),
        left=np.where(known, left, -1),
    )


@dataclass(frozen=True)
class RangeExpansion(LabelConfig):
    """Configuration of `range_expansion`."""

    horizon_bars: int = 24
    band_bars: int = 168
    width: float = 1.0
    upper: float = 3.0
    lower: float = 1.5
    atr_bars: int = 14
    dead_after_bars: int | None = None
    delisting_return: float = 0.0

    def label(self, bars: pl.DataFrame, side: Array | None = None) -> Labels:
        """Labels [R] of these bars, on the given side [R] or of longs without one."""
        return range_expansion(bars, **self.sizes(), side=1 if side is None else side)

    def card(self) -> Json:
        """Exits for serving, and the meaning of the classes.

        memory_bars: bars of past that a decision uses.
        """
        sizes = self.sizes(*DEATH) | self.delisting_rule()
        memory = self.horizon_bars + self.band_bars
        return {"kind": "expansion", **sizes, "memory_bars": memory, "classes": ["inside the band", "expansion"]}


def _cut_short(
    ahead: Array, ohlc: Array, starts: Array, dead: Array, horizon_bars: int, recovery: float
) -> tuple[Array, Array]:
    """`ahead` [R] and the row [R] where it resolves, cut at a delisting within the horizon."""
    end = np.arange(len(ahead)) + horizon_bars
    ahead = ahead.copy()
    for last in np.flatnonzero(dead).tolist():
        lowest, highest = ohlc[last, 3] * recovery, -np.inf
        for t in range(last - 1, max(last - horizon_bars, -1), -1):
            lowest, highest = min(lowest, ohlc[t + 1, 2]), max(highest, ohlc[t + 1, 1])
            if starts[t + 1]:
                break
            if np.isfinite(highest + lowest) and lowest > 0:
                ahead[t], end[t] = np.log(highest / lowest), last
    return ahead, end


def _ahead(past: Array, ohlc: Array, starts: Array, horizon_bars: int) -> Array:
    """Log range [R] of bars t+1..t+H, NaN where one of their prices is missing or the segment ends first."""
    n_rows = len(past)
    out = np.full(n_rows, np.nan)
    rows = np.arange(max(n_rows - horizon_bars, 0))
    segment = np.cumsum(starts)
    broken = np.concatenate([[0], np.cumsum(~np.isfinite(ohlc.sum(axis=1)))])
    unbroken = broken[rows + horizon_bars + 1] == broken[rows + 1]
    held = rows[unbroken & (segment[rows] == segment[rows + horizon_bars])]
    out[held] = past[held + horizon_bars]
    return out


@compiled
def _band(past: Array, starts: Array, band_bars: int, width: float) -> Array:
    """Upper end of the band [R], summed anew for every row so that no row depends on bars before its window."""
    out = np.full(len(past), np.nan)
    run = 0
    for t in range(len(past)):
        run = 0 if starts[t] else run
        run += 1
        if run < band_bars:
            continue
        window = past[t - band_bars + 1 : t + 1]
        mean = window.mean()
        deviation = np.sqrt(((window - mean) ** 2).sum() / (band_bars - 1))
        if deviation > MIN_UNIT:  # a log range is relative to the price already
            out[t] = mean + width * deviation
    return out
