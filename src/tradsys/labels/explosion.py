"""Whether a price rises by a given share within its time, dead instruments included as the losses they were."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.bounds import check_bounds
from tradsys.core.compiled import compiled
from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array, Labels
from tradsys.labels.triple_barrier import sides
from tradsys.market.tradable import last_of_the_dead
from tradsys.market.true_range import price_matrix, segment_starts


def explosion(
    bars: pl.DataFrame, *, rise: float, horizon_bars: int, dead_after_bars: int, side: int | Array = 1
) -> Labels:
    """Outcome [R]: 1 where the high of one of bars t+1..t+H reaches open[t+1] * (1 + rise), an exact touch counts.

    rise: a share, 0.2 for 20 %. ret: log return of the holder to the end, log(close[t+H] / open[t+1]), without costs;
    a holder has no barrier. end: t+H, also where the rise came earlier, since ret is known only there. weight: 1.
    An instrument is dead where more than `dead_after_bars` of the panel's distinct times follow its last bar. Its last
    bars are no missing rows: y is 1 where the rise came before the end, else 0, ret goes to its last close, end is its
    last bar. That the bar was the last is known only dead_after_bars later, so a split needs an embargo_bars of at
    least as many.
    Unlabelled (y -1, end -1, ret NaN, weight 0): fewer than H bars are left and the instrument is not dead, whether or
    not the rise has come already (to keep those that rose early would be to keep winners only); a segment that ends
    before t+H while the symbol goes on; a NaN in the entry's open, in a high, or in the last close; a side of 0 (int8
    [R]); and a dead instrument's very last bar, after which nobody can enter.
    Raises TradsysError for parameters out of range and for a short side: no rise of any size is a fall.
    """
    _check(rise, horizon_bars, dead_after_bars)
    side_R = sides(side, bars.height)
    if (side_R < 0).any():
        raise TradsysError(
            f"explosion: {int((side_R < 0).sum())} sides of -1; the label asks for a rise, which only a long earns; "
            "use features without a short side"
        )
    ohc = price_matrix(bars, ("open", "high", "close"))
    best, last = _walk(ohc, segment_starts(bars), last_of_the_dead(bars, dead_after_bars), horizon_bars)
    entry = _next_open(ohc[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        ret = np.log(ohc[last, 2] / entry)
    known = (last >= 0) & np.isfinite(best + ret) & (side_R != 0)
    return Labels(
        y=np.where(known, (best >= entry * (1 + rise)).astype(np.int64), -1),
        end=np.where(known, last, -1),
        ret=np.where(known, ret, np.nan),
        weight=known.astype(np.float64),
    )


def best_move(bars: pl.DataFrame, horizon_bars: int, *, dead_after_bars: int | None = None) -> Array:
    """Largest log rise on offer, log(highest high of t+1..t+H / open[t+1]), float64 [R]; negative where none came.

    NaN as `explosion` leaves a row unlabelled for its highs. dead_after_bars: an instrument that died counts up to its
    last bar; None leaves its last rows NaN.
    """
    _check(1.0, horizon_bars, 1 if dead_after_bars is None else dead_after_bars)
    ohc = price_matrix(bars, ("open", "high", "close"))
    dead = np.zeros(bars.height, dtype=np.bool_)
    if dead_after_bars is not None:
        dead = last_of_the_dead(bars, dead_after_bars)
    best = _walk(ohc, segment_starts(bars), dead, horizon_bars)[0]
    return np.log(best / _next_open(ohc[:, 0]))


@dataclass(frozen=True)
class Explosion:
    """Parameters of `explosion`, as a config group holds them. atr_bars: of the range that a trade plan shows."""

    rise: float = 0.5
    horizon_bars: int = 20
    atr_bars: int = 14
    dead_after_bars: int = 10

    def __post_init__(self) -> None:
        check_bounds(
            "labels",
            self,
            {
                "rise": "(0, inf)",
                "horizon_bars": "whole [1, inf)",
                "atr_bars": "whole [1, inf)",
                "dead_after_bars": "whole [1, inf)",
            },
            "labels",
        )

    def label(self, bars: pl.DataFrame, side: Array | None = None) -> Labels:
        """Labels [R] of these bars, without a side [R] of long positions; see `explosion`."""
        sizes = {k: getattr(self, k) for k in ("rise", "horizon_bars", "dead_after_bars")}
        return explosion(bars, **sizes, side=1 if side is None else side)

    def card(self) -> dict[str, Any]:
        """The exits as serving reads them, which are time alone, and what the classes mean."""
        sizes = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return {"kind": "explosion", **sizes, "classes": ["no explosion", "explosion"]}


def _check(rise: float, horizon_bars: int, dead_after_bars: int) -> None:
    if not (0 < rise < np.inf and horizon_bars >= 1 and dead_after_bars >= 1):
        raise TradsysError(
            f"explosion: rise={rise}, horizon_bars={horizon_bars}, dead_after_bars={dead_after_bars}; the rise is a "
            "share above 0 and both counts are at least 1; use 0.2, 20 and 10, say"
        )


def _next_open(open_: Array) -> Array:
    """open[t+1] [R], NaN in the last row; another symbol's where a symbol ends, which the walk leaves unresolved."""
    return np.append(open_[1:], np.nan)[: len(open_)]


@compiled
def _walk(ohc: Array, starts: Array, dead: Array, horizon_bars: int) -> tuple[Array, Array]:
    """Highest high of bars t+1..last [R] and `last` [R]: t+H or the last bar of the dead; NaN and -1 unresolved."""
    n_rows = len(ohc)
    best = np.full(n_rows, np.nan)
    last = np.full(n_rows, -1, dtype=np.int64)
    for t in range(n_rows):
        top = -np.inf
        for j in range(t + 1, min(t + horizon_bars, n_rows - 1) + 1):
            if starts[j] or not np.isfinite(ohc[j, 1]):
                break
            top = max(top, ohc[j, 1])
            if j == t + horizon_bars or dead[j]:
                best[t], last[t] = top, j
                break
    return best, last
