"""Label: whether a position held for a fixed time gains."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, Labels
from tradsys.labels.settings import DEATH, LabelConfig, check_sizes
from tradsys.labels.triple_barrier import Tape, first_touch, sides
from tradsys.market.tradable import dies_after, fillable_prices
from tradsys.market.true_range import price_columns, price_matrix, segment_starts


def forward_return(
    bars: pl.DataFrame,
    *,
    horizon_bars: int,
    side: int | Array = 1,
    dead_after_bars: int | None = None,
    delisting_return: float = 0.0,
) -> Labels:
    """Outcome [R] of entering at open[t+1] and leaving at close[t+H].

    The position is on the given side.
    Where the bar of entry or exit cannot fill (`market.tradable`), it waits for one that can, as in the simulator.
    y: 1 where the log return in the side's direction is above zero, else 0. end: row t+H. ret: that log return,
    without costs. weight: 1. side: +1 or -1 for all bars, or int8 [R] with 0 for no candidate.
    dead_after_bars, delisting_return: delistings as in `triple_barrier`, so that a name delisted while it is held is
    labelled too; None ignores delistings.
    Unlabelled (y -1, end -1, ret NaN, weight 0): the segment ends before t+H, one of the two prices is NaN (a NaN
    between them does not matter), or a side of 0. Raises TradsysError where horizon_bars < 1 or for another side.
    """
    check_sizes("forward_return", horizon_bars=horizon_bars)
    check_sizes("forward_return", dead_after_bars=dead_after_bars, delisting_return=delisting_return)
    n_rows = bars.height
    side_R = sides(side, n_rows)
    open_, close = price_columns(bars, ("open", "close"))
    segment = np.cumsum(segment_starts(bars))
    rows = np.arange(max(n_rows - horizon_bars, 0))
    log_return = np.full(n_rows, np.nan)
    held = rows[(segment[rows] == segment[rows + horizon_bars]) & (side_R[rows] != 0)]
    log_return[held] = side_R[held] * np.log(close[held + horizon_bars] / open_[held + 1])
    end = np.arange(n_rows) + horizon_bars
    fills, leaves = fillable_prices(bars)
    dead = dies_after(bars, dead_after_bars)
    waiting = np.append(rows[~(fills[rows + 1] & leaves[rows + horizon_bars])], _before_a_delisting(dead, horizon_bars))
    if len(waiting):
        own, log_return[waiting] = np.zeros(n_rows, np.int8), np.nan
        own[waiting] = side_R[waiting]
        never = np.full(n_rows, np.inf)
        ohlc = price_matrix(bars, ("open", "high", "low", "close"))
        tape = Tape.of(bars, dead, delisting_return)
        found = first_touch(ohlc, segment_starts(bars), own, (never, never), horizon_bars, tape)
        log_return[waiting], end[waiting] = found[2][waiting], found[1][waiting]
    known = np.isfinite(log_return)
    return Labels(
        y=np.where(known, (log_return > 0).astype(np.int64), -1),
        end=np.where(known, end, -1),
        ret=np.where(known, log_return, np.nan),
        weight=known.astype(np.float64),
    )


def _before_a_delisting(dead: Array, horizon_bars: int) -> Array:
    """Rows whose position a delisting may end: one follows within horizon_bars, waits for a fill included."""
    if not dead.any():
        return np.empty(0, dtype=np.int64)
    following = np.where(dead, np.arange(len(dead)), 2 * len(dead) + horizon_bars)
    nearest = np.minimum.accumulate(following[::-1])[::-1]
    return np.flatnonzero(nearest - np.arange(len(dead)) <= 2 * horizon_bars)


@dataclass(frozen=True)
class ForwardReturn(LabelConfig):
    """Configuration of `forward_return`. atr_bars: of the ATR that a trade plan shows."""

    horizon_bars: int = 24
    atr_bars: int = 14
    dead_after_bars: int | None = None
    delisting_return: float = 0.0

    def label(self, bars: pl.DataFrame, side: Array | None = None) -> Labels:
        """Labels [R] of these bars, on the given side [R] or of longs without one.

        See `forward_return`.
        """
        return forward_return(bars, **self.sizes("atr_bars"), side=1 if side is None else side)

    def card(self) -> Json:
        """Exits for serving, which are by time alone, and the meaning of the classes."""
        return {"kind": "forward_return", **self.sizes(*DEATH), **self.delisting_rule(), "classes": ["no gain", "gain"]}
