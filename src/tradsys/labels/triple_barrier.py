"""Which of three barriers a position meets first: profit, stop, or the end of its time."""

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import polars as pl

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array, Labels
from tradsys.market.true_range import price_matrix, segment_starts, usable_unit, wilder_atr

STOP, TIMEOUT, TARGET = 0, 1, 2


def triple_barrier(
    bars: pl.DataFrame,
    *,
    upper: float,
    lower: float,
    horizon_bars: int,
    atr_bars: int,
    ternary: bool = False,
    side: int | Array = 1,
) -> Labels:
    """Outcome [R] of a position decided at each bar and entered at the next open.

    upper, lower: distance of the profit and the stop barrier from the entry price, in ATRs (Wilder's, over
    `atr_bars`, known at the deciding bar); infinite means no such barrier. horizon_bars: bars it may last.
    Bars t+1..t+H are scanned in price space, an exact touch counts. A bar that opens at or beyond a barrier
    met that one first and fills at its open; else a bar that reaches both met the stop. Neither: out at
    close[t+H].
    y: 1 profit barrier first, else 0; `ternary`: 0 stop, 1 timeout, 2 profit. end: the bar of the exit.
    ret: log return from entry to exit fill, in the trade's direction and without costs. weight: 1.
    side: 1 long; -1 short: profit barrier below the entry, stop above, ret = -log(exit / entry); or one per bar, int8
    [R], where 0 wants no position and stays unlabelled.
    Unlabelled (y -1, end -1, ret NaN, weight 0): no ATR yet or one
    of zero (bars that did not move give no distance, and both barriers would lie on the entry), a NaN in a scanned bar,
    or a segment that ends before a barrier is touched or the horizon is over. A position never spans two segments.
    Raises TradsysError for parameters out of range.
    Source: Lopez de Prado 2018, section 3.4; of two events inside a bar the house takes the worse first.
    """
    check_exits("triple_barrier", horizon_bars, upper=upper, lower=lower)
    side_R = sides(side, bars.height)
    ohlc = price_matrix(bars, ("open", "high", "low", "close"))
    starts = segment_starts(bars)
    atr = usable_unit(wilder_atr(ohlc[:, 1], ohlc[:, 2], ohlc[:, 3], starts, atr_bars), ohlc[:, 3])
    outcome, end, ret = first_touch(ohlc, starts, side_R, (multiple(upper, atr), multiple(lower, atr)), horizon_bars)
    y = outcome if ternary else np.where(outcome > 0, (outcome == TARGET).astype(np.int64), outcome)
    return Labels(y=y, end=end, ret=ret, weight=(outcome >= 0).astype(np.float64))


def multiple(n_atrs: float, atr: Array) -> Array:
    """That many ATRs in price units [R]; infinite for a barrier that is not there; NaN without a usable ATR."""
    return n_atrs * atr if np.isfinite(n_atrs) else np.where(np.isnan(atr), np.nan, np.inf)


def first_touch(
    ohlc: Array, starts: Array, side_R: Array, distances: tuple[Array, Array], horizon_bars: int
) -> tuple[Array, Array, Array]:
    """What a position on each bar's own side met first: STOP, TIMEOUT or TARGET, where, and its log return.

    ohlc: float64 [R, 4]. starts: bool [R], first bar of each segment. side_R: +1, -1, 0 none. distances: of the
    profit and of the stop barrier from the entry, float64 [R] in price units, known at the deciding bar; infinite
    means no such barrier, NaN wants no position, and neither does a distance that leaves a barrier on the entry or on
    its wrong side: zero, negative, or too small for the price's digits. Returns outcome and end, int64 [R], -1 where
    unlabelled, and ret in the trade's direction, float64 [R], NaN there. The rule is `triple_barrier`'s.
    """
    outcome, end, ret = np.full(len(ohlc), -1), np.full(len(ohlc), -1), np.full(len(ohlc), np.nan)
    profit, stop = (np.asarray(d, dtype=np.float64) for d in distances)
    for sign in (1, -1):
        wanted = side_R == sign
        if not wanted.any():
            continue
        # a short is a long of mirrored prices; the sign cancels in exit / entry
        walked = ohlc if sign > 0 else np.ascontiguousarray(-ohlc[:, [0, 2, 1, 3]])
        found = _first_touch(walked, np.where(wanted, profit, np.nan), stop, starts, horizon_bars)
        outcome, end = np.where(wanted, found[0], outcome), np.where(wanted, found[1], end)
        ret = np.where(wanted, sign * found[2], ret)
    return outcome, end, ret


def sides(side: int | Array, n_rows: int) -> Array:
    """int8 [R] of one side for all bars or one each; TradsysError for anything but -1, 0 and 1."""
    side_R = np.broadcast_to(np.asarray(side), (n_rows,)) if np.ndim(side) == 0 else np.asarray(side)
    if side_R.shape != (n_rows,) or not np.isin(side_R, (-1, 0, 1)).all() or (np.ndim(side) == 0 and side == 0):
        raise TradsysError(
            f"labels: side={side}; a side is 1 (long) or -1 (short), or one per bar of {n_rows}, 0 for none; pick one"
        )
    return side_R.astype(np.int8)


@dataclass(frozen=True)
class TripleBarrier:
    """Parameters of `triple_barrier`, as a config group holds them."""

    upper: float = 1.5
    lower: float = 1.5
    horizon_bars: int = 24
    atr_bars: int = 14
    ternary: bool = False
    side: int = 1

    def __post_init__(self) -> None:
        check_bounds(
            "labels",
            self,
            {"upper": "(0, inf]", "lower": "(0, inf]", "horizon_bars": "whole [1, inf)", "atr_bars": "whole [1, inf)"},
            "labels",
        )

    def label(self, bars: pl.DataFrame, side: Array | None = None) -> Labels:
        """Labels [R] of these bars, on the given side [R] or, without one, on the configured; see `triple_barrier`."""
        return triple_barrier(
            bars,
            upper=self.upper,
            lower=self.lower,
            horizon_bars=self.horizon_bars,
            atr_bars=self.atr_bars,
            ternary=self.ternary,
            side=self.side if side is None else side,
        )

    def card(self) -> dict[str, Any]:
        """The exits as serving reads them, and what the classes mean."""
        classes = ["stop", "timeout", "take profit"] if self.ternary else ["stop or timeout", "take profit"]
        sizes = {k: getattr(self, k) for k in ("upper", "lower", "horizon_bars", "atr_bars")}
        if self.side != 1:
            sizes["side"] = self.side
        return {"kind": "triple_barrier", **sizes, "classes": classes}


def check_exits(where: str, horizon_bars: int, **multiples: float) -> None:
    """TradsysError unless every multiple of the ATR is above zero and a position lasts a bar at least."""
    for name, value in multiples.items():
        if not value > 0:
            raise TradsysError(f"{where}: {name}={value}; a barrier lies {name} > 0 ATRs from the entry; use 1.5, say")
    if not horizon_bars >= 1:
        raise TradsysError(f"{where}: horizon_bars={horizon_bars}; a position lasts horizon_bars >= 1; use 24, say")


# not cached on disk: the compile takes half a second, and a read-only install has nowhere to cache
@numba.njit
def _first_touch(
    ohlc: Array, profit: Array, loss: Array, starts: Array, horizon_bars: int
) -> tuple[Array, Array, Array]:
    n_rows = len(ohlc)
    outcome = np.full(n_rows, -1, dtype=np.int64)
    end = np.full(n_rows, -1, dtype=np.int64)
    log_return = np.full(n_rows, np.nan)
    for t in range(n_rows - 1):
        if np.isnan(profit[t] + loss[t]):
            continue
        entry = ohlc[t + 1, 0]
        target = entry + profit[t]
        stop = entry - loss[t]
        if not stop < entry < target:  # a barrier on the entry is met by standing still
            continue
        last = t + horizon_bars
        for j in range(t + 1, min(last + 1, n_rows)):
            open_, high, low, close = ohlc[j]
            if starts[j] or not np.isfinite(open_ + high + low + close):
                break
            if open_ <= stop:
                found, fill = STOP, open_
            elif open_ >= target:
                found, fill = TARGET, open_
            elif low <= stop:
                found, fill = STOP, stop
            elif high >= target:
                found, fill = TARGET, target
            elif j == last:
                found, fill = TIMEOUT, close
            else:
                continue
            outcome[t], end[t], log_return[t] = found, j, math.log(fill / entry)
            break
    return outcome, end, log_return
