"""Label: whether a price rises by a given share within the horizon; delisted instruments count as losses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from tradsys.core.compiled import compiled
from tradsys.core.errors import TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, Labels
from tradsys.labels.settings import BOUNDS, LabelConfig, check_sizes
from tradsys.labels.triple_barrier import sides
from tradsys.market.tradable import (
    TAKE_PROFIT,
    close_before,
    confirmed,
    dies_after,
    fills_at_open,
    order_waits,
    touch,
    traded_volume,
)
from tradsys.market.true_range import price_matrix, segment_starts

MORTAL = {**BOUNDS, "dead_after_bars": "whole [1, inf)"}  # the one label that always has a delisting rule


def explosion(
    bars: pl.DataFrame,
    *,
    rise: float,
    horizon_bars: int,
    dead_after_bars: int,
    delisting_return: float = 0.0,
    side: int | Array = 1,
) -> Labels:
    """1 where a high of bars t+1..t+H reaches open[t+1] * (1 + rise) [R].

    An exact touch counts. What a bar can fill is the simulator's rule (`market.tradable`): a bar without trades is no
    entry, no rise and no exit, and a high that neither the previous close nor the open confirms is no rise. The entry
    waits for a bar that can fill it, H counts from there, and an exit that cannot fill happens at the next open that
    can.

    rise: a share, 0.2 for 20 %. ret: log return of the holder to the end, log(close[t+H] / open[t+1]), without costs
    and without a barrier. end: t+H, also where the rise came earlier, since ret resolves only there. weight: 1.
    An instrument without a bar at `dead_after_bars` of the panel's distinct times counts as delisted
    (`death_known_at`). Its last bars are labelled: y is 1 where the rise came before the end, else 0, ret goes to its
    last close times 1 + delisting_return, end is its last bar. That is known only dead_after_bars later, so a split
    needs an embargo_bars of at least as many.
    Unlabelled (y -1, end -1, ret NaN, weight 0): fewer than H bars are left and the instrument is not delisted, whether
    or not the rise has come already (keeping early risers would be a bias towards winners); a segment that ends
    before t+H while the symbol goes on; a NaN in the entry's open, in a high, or in the last close; a side of 0 (int8
    [R]); and a delisted instrument's very last bar, after which no entry is possible.
    Raises TradsysError for parameters out of range and for a short side: the label is about a rise.
    """
    check_sizes("explosion", MORTAL, rise=rise, horizon_bars=horizon_bars)
    check_sizes("explosion", MORTAL, dead_after_bars=dead_after_bars, delisting_return=delisting_return)
    side_R = sides(side, bars.height)
    if (side_R < 0).any():
        raise TradsysError(
            f"explosion: {int((side_R < 0).sum())} sides of -1; the label is about a rise, which only a long earns; "
            "use features without a short side"
        )
    dead = dies_after(bars, dead_after_bars)
    found = _walk(_tape(bars), segment_starts(bars), dead, horizon_bars, 1 + rise, 1 + delisting_return)
    last, risen, ret = found[1:]
    known = (last >= 0) & np.isfinite(found[0] + ret) & (side_R != 0)
    return Labels(
        y=np.where(known, risen.astype(np.int64), -1),
        end=np.where(known, last, -1),
        ret=np.where(known, ret, np.nan),
        weight=known.astype(np.float64),
    )


def best_move(bars: pl.DataFrame, horizon_bars: int, *, dead_after_bars: int | None = None) -> Array:
    """Largest log rise within t+1..t+H, from the entry's open, float64 [R].

    The rise ends at the highest traded high.
    Negative where the price stayed below the entry.
    NaN as `explosion` leaves a row unlabelled for its highs. dead_after_bars: a delisted instrument counts up to its
    last bar; None leaves its last rows NaN.
    """
    check_sizes("best_move", horizon_bars=horizon_bars, dead_after_bars=dead_after_bars)
    dead = dies_after(bars, dead_after_bars)
    return np.log(_walk(_tape(bars), segment_starts(bars), dead, horizon_bars, 2.0, 1.0)[0])


@dataclass(frozen=True)
class Explosion(LabelConfig):
    """Configuration of `explosion`. atr_bars: of the ATR that a trade plan shows."""

    bounds: ClassVar[Mapping[str, str]] = MORTAL
    rise: float = 0.5
    horizon_bars: int = 20
    atr_bars: int = 14
    dead_after_bars: int = 10
    delisting_return: float = 0.0

    def label(self, bars: pl.DataFrame, side: Array | None = None) -> Labels:
        """Labels [R] of these bars, on the given side [R] or of longs without one.

        See `explosion`.
        """
        return explosion(bars, **self.sizes("atr_bars"), side=1 if side is None else side)

    def card(self) -> Json:
        """Exits for serving, which are by time alone, and the meaning of the classes."""
        sizes = self.sizes(*(() if self.delisting_return else ("delisting_return",)))
        return {"kind": "explosion", **sizes, "classes": ["no explosion", "explosion"]}


def _tape(bars: pl.DataFrame) -> tuple[Array, ...]:
    """Open, high, low, close, volume and previous close, float64 [R] each: the bars of `market.tradable`."""
    opened, high, close = price_matrix(bars, ("open", "high", "close")).T
    columns = (opened, high, np.zeros(bars.height), close)  # a long without a stop uses no low
    return (*(np.ascontiguousarray(c) for c in columns), traded_volume(bars), close_before(bars))


@compiled
def _out_at_close(opened: float, close: float, before: float) -> bool:
    """Whether the previous close or the open confirms a bar's close; NaN counts as confirmed."""
    return np.isnan(close) or confirmed(close, before) or (confirmed(opened, before) and confirmed(close, opened))


@compiled
def _walk(
    bars: tuple[Array, ...], starts: Array, dead: Array, horizon_bars: int, factor: float, recovery: float
) -> tuple[Array, Array, Array, Array]:
    """Highest traded high over the entry's open, the last row, whether the rise was filled, log return; each [R].

    NaN, -1, False and NaN where the segment ends before the horizon without a delisting.
    """
    opened, high, low, close, volume, before = bars
    n_rows = len(opened)
    best, log_return = np.full(n_rows, np.nan), np.full(n_rows, np.nan)
    last, risen = np.full(n_rows, -1, dtype=np.int64), np.zeros(n_rows, dtype=np.bool_)
    for t in range(n_rows - 1):
        first = t + 1  # an order waits for a bar that can fill it
        while first < n_rows and order_waits(starts[first], opened[first], volume[first], before[first]):
            first += 1
        if first >= n_rows or starts[first]:
            continue
        entry, top, rose, passed = opened[first], -np.inf, False, False
        levels = (entry * factor, -np.inf)
        for j in range(first, n_rows):
            if starts[j] or not np.isfinite(high[j]):
                break
            over = j >= first + horizon_bars - 1
            price = 0.0
            if j >= first + horizon_bars:  # the horizon ended in a bar that could not fill
                price = opened[j] if fills_at_open(opened[j], volume[j], before[j]) else 0.0
            else:
                if volume[j] > 0:
                    top = max(top, high[j])
                if not rose:
                    bar = opened[j], high[j], low[j], close[j], volume[j], before[j]
                    reason, at, _, passed = touch(bar, 1, levels, (False, passed))
                    rose = reason == TAKE_PROFIT and at > 0
                if over and volume[j] > 0 and _out_at_close(opened[j], close[j], before[j]):
                    price = close[j]
            if not (price > 0 or (over and np.isnan(price))):
                if not dead[j]:
                    continue
                price = close[j] * recovery
            # an exit above the level is a rise that was filled, though no print within the horizon confirmed it
            best[t], last[t], risen[t] = top / entry, j, rose or price >= levels[0]
            log_return[t] = np.log(price / entry)
            break
    return best, last, risen, log_return
