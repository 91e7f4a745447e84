"""Label: whether a price that has left its mean returns to that mean before it meets its stop."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, Labels
from tradsys.labels.settings import DEATH, LabelConfig, check_sizes
from tradsys.labels.triple_barrier import (
    TARGET,
    Tape,
    first_touch,
    multiple,
    sides,
)
from tradsys.market.tradable import dies_after
from tradsys.market.true_range import price_matrix, segment_starts, trailing_mean, usable_unit, wilder_atr


def mean_reached(
    bars: pl.DataFrame,
    *,
    mean_bars: int,
    lower: float,
    horizon_bars: int,
    atr_bars: int,
    side: int | Array = 1,
    dead_after_bars: int | None = None,
    delisting_return: float = 0.0,
) -> Labels:
    """Outcome [R] of a position towards the mean, entered at the next open.

    It is decided at each bar.
    The distance is d = |close[t] - mean[t]|, with the plain mean of the last `mean_bars` closes. The profit barrier
    lies at entry + side * d, the stop at entry - side * lower * ATR[t] (Wilder's, over `atr_bars`). Which is met first,
    and where it fills, is `triple_barrier`'s rule: both in one bar counts as the stop, neither exits at close[t+H].
    y: 1 if the distance was covered before the stop, else 0. end: the bar of the exit. ret: log return from entry
    to exit fill, in the trade's direction and without costs. weight: 1. side: +1 or -1 for all bars, or int8 [R].
    dead_after_bars, delisting_return: delistings as in `triple_barrier`.
    Unlabelled (y -1, end -1, ret NaN, weight 0): as in `triple_barrier`; and side 0, no mean yet, or a close that
    already lies on the mean or beyond it as seen from the side.
    Raises TradsysError for parameters out of range.
    """
    check_sizes("mean_reached", horizon_bars=horizon_bars, mean_bars=mean_bars, lower=lower)
    check_sizes("mean_reached", dead_after_bars=dead_after_bars, delisting_return=delisting_return)
    side_R = sides(side, bars.height)
    ohlc = price_matrix(bars, ("open", "high", "low", "close"))
    starts = segment_starts(bars)
    atr = usable_unit(wilder_atr(ohlc[:, 1], ohlc[:, 2], ohlc[:, 3], starts, atr_bars), ohlc[:, 3])
    way = side_R * (trailing_mean(bars, mean_bars) - ohlc[:, 3])
    distances = (np.where(way > 0, way, np.nan), multiple(lower, atr))
    tape = Tape.of(bars, dies_after(bars, dead_after_bars), delisting_return)
    outcome, end, ret = first_touch(ohlc, starts, side_R, distances, horizon_bars, tape)
    y = np.where(outcome >= 0, (outcome == TARGET).astype(np.int64), -1)
    return Labels(y=y, end=end, ret=ret, weight=(outcome >= 0).astype(np.float64))


@dataclass(frozen=True)
class MeanReached(LabelConfig):
    """Configuration of `mean_reached`."""

    mean_bars: int = 72
    lower: float = 2.0
    horizon_bars: int = 48
    atr_bars: int = 14
    dead_after_bars: int | None = None
    delisting_return: float = 0.0

    def label(self, bars: pl.DataFrame, side: Array | None = None) -> Labels:
        """Labels [R] of these bars, on the given side [R] or of longs without one.

        See `mean_reached`.
        """
        return mean_reached(bars, **self.sizes(), side=1 if side is None else side)

    def card(self) -> Json:
        """Exits for serving, and the meaning of the classes.

        memory_bars: bars of past that a decision uses.
        """
        sizes = self.sizes(*DEATH) | self.delisting_rule()
        classes = ["stop or timeout", "mean reached"]
        return {"kind": "mean_reached", **sizes, "memory_bars": self.mean_bars, "classes": classes}
