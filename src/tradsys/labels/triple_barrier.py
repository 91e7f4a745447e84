"""Triple-barrier label: which barrier a position meets first: profit, stop, or the time limit."""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.compiled import compiled, read_only
from tradsys.core.errors import TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, Labels
from tradsys.labels.settings import DEATH, LabelConfig, check_sizes
from tradsys.market.tradable import (
    STOP_LOSS,
    TAKE_PROFIT,
    close_before,
    dies_after,
    fills_at_open,
    lies_within,
    order_waits,
    touch,
    traded_volume,
)
from tradsys.market.true_range import price_columns, segment_starts, usable_unit, wilder_atr

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
    dead_after_bars: int | None = None,
    delisting_return: float = 0.0,
) -> Labels:
    """Outcome [R] of a position decided at each bar and entered at the next open.

    upper, lower: distance of the profit and the stop barrier from the entry price, in ATRs (Wilder's, over
    `atr_bars`, at the deciding bar); infinite means no such barrier. horizon_bars: longest holding period in bars.
    Bars t+1..t+H are scanned in price space, an exact touch counts. A bar that opens at or beyond a barrier
    met that one first and fills at its open; else a bar that reaches both hits the stop. Neither: exit at
    close[t+H]. What a bar can fill is the simulator's rule (`market.tradable`): where nothing traded there is neither
    entry nor exit, so both wait for a bar that can fill them, and H counts from the entry's bar.
    dead_after_bars: a symbol without a bar at so many of the panel's distinct times counts as delisted, and the
    position is closed at its last close times 1 + delisting_return (a short at the last close), as in the simulator;
    None ignores delistings and leaves the last labels missing. A split needs an embargo of as many bars, because a
    delisting is known only then.
    y: 1 profit barrier first, else 0; `ternary`: 0 stop, 1 timeout, 2 profit. end: the bar of the exit.
    ret: log return from entry to exit fill, in the trade's direction and without costs. weight: 1.
    side: 1 long; -1 short: profit barrier below the entry, stop above, ret = -log(exit / entry); or one per bar, int8
    [R], where 0 wants no position and stays unlabelled.
    Unlabelled (y -1, end -1, ret NaN, weight 0): no ATR yet or one
    of zero (bars that did not move give no distance, and both barriers would lie on the entry), a NaN in a scanned bar,
    or a segment that ends before a barrier is touched or the horizon is over. A position never spans two segments.
    Raises TradsysError for parameters out of range.
    Source: Lopez de Prado 2018, section 3.4; of two events inside a bar tradsys takes the worse first.
    """
    check_sizes("triple_barrier", horizon_bars=horizon_bars, upper=upper, lower=lower)
    check_sizes("triple_barrier", dead_after_bars=dead_after_bars, delisting_return=delisting_return)
    side_R = sides(side, bars.height)
    prices = price_columns(bars, ("open", "high", "low", "close"))
    starts = segment_starts(bars)
    atr = usable_unit(wilder_atr(prices[1], prices[2], prices[3], starts, atr_bars), prices[3])
    tape = Tape.of(bars, dies_after(bars, dead_after_bars), delisting_return)
    y, end, ret = _touched(prices, starts, side_R, (atr, atr), (upper, lower), horizon_bars, tape)
    weight = np.greater_equal(y, 0, out=np.empty(len(y)))
    if not ternary:
        y -= y > 0  # in place: -1, stop 0, timeout 1, target 2 become -1, 0, 0, 1
    return Labels(y=y, end=end, ret=ret, weight=weight)


def multiple(n_atrs: float, atr: Array) -> Array:
    """That many ATRs in price units [R].

    Infinite where there is no barrier; NaN without a usable ATR.
    """
    return n_atrs * atr if np.isfinite(n_atrs) else np.where(np.isnan(atr), np.nan, np.inf)


@dataclass(frozen=True, eq=False)
class Tape:
    """Trading data that decide fills: volume, previous close, delistings.

    [R] each, as in `market.tradable`. dead: bool [R], bars after which the symbol is delisted. delisting_return: return
    from the last close after that.
    """

    volume: Array
    before: Array
    dead: Array
    delisting_return: float = 0.0

    @classmethod
    def of(cls, bars: pl.DataFrame, dead: Array | None = None, delisting_return: float = 0.0) -> "Tape":
        """The tape of these bars, whose volume may be missing."""
        alive = np.zeros(bars.height, dtype=np.bool_)
        return cls(traded_volume(bars), close_before(bars), alive if dead is None else dead, delisting_return)

    @classmethod
    def unknown(cls, n_rows: int) -> "Tape":
        """A tape on which every bar traded and every print counts."""
        none = np.zeros(n_rows, dtype=np.bool_)
        return cls(np.full(n_rows, np.inf), np.full(n_rows, np.nan), none)


def first_touch(
    ohlc: Array,
    starts: Array,
    side_R: Array,
    distances: tuple[Array, Array],
    horizon_bars: int,
    tape: Tape | None = None,
) -> tuple[Array, Array, Array]:
    """First barrier met by a position, its row, and its log return.

    STOP, TIMEOUT or TARGET, on each bar's own side. ohlc: float64 [R, 4]. starts: bool [R], first bar of each segment.
    side_R: +1, -1, 0 none. distances: of the profit and of the stop barrier from the entry, float64 [R] in price
    units, point in time; infinite means no such barrier, NaN wants no position, and neither does a distance that leaves
    a barrier on the entry or on its wrong side: zero, negative, or too small for the price's digits. Returns outcome
    and end, int64 [R], -1 where unlabelled, and ret in the trade's direction, float64 [R], NaN there. The rule is
    `triple_barrier`'s. tape: what could be traded; None: everything.
    """
    prices = tuple(np.ascontiguousarray(ohlc[:, k]) for k in range(4))
    tape = Tape.unknown(len(ohlc)) if tape is None else tape
    return _touched(prices, starts, side_R, distances, (1.0, 1.0), horizon_bars, tape)


def _touched(
    prices: tuple[Array, ...],
    starts: Array,
    side_R: Array,
    units: tuple[Array, Array],
    multiples: tuple[float, float],
    horizon_bars: int,
    tape: Tape,
) -> tuple[Array, Array, Array]:
    """`first_touch` on columns, with barriers at multiples of units: nothing of the size of the bars is copied."""
    profit, stop = read_only((np.asarray(units[0], dtype=np.float64), np.asarray(units[1], dtype=np.float64)))
    dead, starts, side = read_only((np.asarray(tape.dead, dtype=np.bool_), starts, np.asarray(side_R, dtype=np.int8)))
    wide = (float(multiples[0]), float(multiples[1]))
    bars = read_only((*prices, tape.volume, tape.before))
    n_rows = len(starts)
    out = np.empty(n_rows, np.int64), np.empty(n_rows, np.int64), np.empty(n_rows)  # numpy's memory: see `compiled`
    _first_touch(bars, side, (profit, stop), wide, starts, horizon_bars, (dead, float(tape.delisting_return)), out)
    return out


def sides(side: int | Array, n_rows: int) -> Array:
    """int8 [R] of one side for all bars or one each.

    Raises TradsysError for anything but -1, 0 and 1.
    """
    one = np.ndim(side) == 0
    side_R = np.asarray(side)
    if not (one or side_R.shape == (n_rows,)) or not np.isin(side_R, (-1, 0, 1)).all() or (one and side == 0):
        raise TradsysError(
            f"labels: side={side}; a side is 1 (long) or -1 (short), or one per bar of {n_rows}, 0 for none; pick one"
        )
    return np.full(n_rows, side_R, dtype=np.int8) if one else side_R.astype(np.int8)


@dataclass(frozen=True)
class TripleBarrier(LabelConfig):
    """Configuration of `triple_barrier`."""

    upper: float = 1.5
    lower: float = 1.5
    horizon_bars: int = 24
    atr_bars: int = 14
    ternary: bool = False
    side: int = 1
    dead_after_bars: int | None = None
    delisting_return: float = 0.0

    def label(self, bars: pl.DataFrame, side: Array | None = None) -> Labels:
        """Labels [R] of these bars, on the given side [R] or else the configured one.

        See `triple_barrier`.
        """
        return triple_barrier(bars, **self.sizes("side"), side=self.side if side is None else side)

    def card(self) -> Json:
        """Exits for serving, and the meaning of the classes."""
        classes = ["stop", "timeout", "take profit"] if self.ternary else ["stop or timeout", "take profit"]
        sizes = self.sizes("ternary", *DEATH, *(("side",) if self.side == 1 else ()))
        return {"kind": "triple_barrier", **sizes, **self.delisting_rule(), "classes": classes}


@compiled
def _first_touch(
    bars: tuple[Array, ...],
    side_R: Array,
    units: tuple[Array, Array],
    multiples: tuple[float, float],
    starts: Array,
    horizon_bars: int,
    death: tuple[Array, float],
    out: tuple[Array, Array, Array],
) -> None:
    open_, high, low, close, volume, before = bars
    dead, delisting_return = death
    profit, loss = units
    upper, lower = multiples
    outcome, end, log_return = out
    n_rows = len(open_)
    for t in range(n_rows):
        outcome[t], end[t], log_return[t] = -1, -1, np.nan
        side = 0 + int(side_R[t])  # int64 as in the order walk, so that numba compiles `touch` once
        wanted = side != 0 and not np.isnan(profit[t] + loss[t])
        first = t + 1  # an order waits for a bar that can fill it
        while wanted and first < n_rows and order_waits(starts[first], open_[first], volume[first], before[first]):
            first += 1
        if not wanted or first >= n_rows or starts[first]:
            continue
        entry = open_[first]
        target, stop = entry + side * (upper * profit[t]), entry - side * (lower * loss[t])
        if not side * stop < side * entry < side * target:  # a barrier on the entry is met without a move
            continue
        leaving, passed = -1, side == 0  # False; a literal would make numba compile `touch` twice
        for j in range(first, n_rows):
            bar, over = (open_[j], high[j], low[j], close[j], volume[j], before[j]), j >= first + horizon_bars - 1
            if leaving < 0 and lies_within(bar, (target, stop)) and not (over or starts[j] or dead[j]):
                continue
            if starts[j] or not np.isfinite(open_[j] + high[j] + low[j] + close[j]):
                break
            if leaving >= 0:
                price = open_[j] if fills_at_open(open_[j], volume[j], before[j]) else 0.0
            else:
                leaving, price, _, passed = touch(bar, side, (target, stop), (over, passed))
            if leaving >= 0 and price > 0:
                outcome[t] = TARGET if leaving == TAKE_PROFIT else (STOP if leaving == STOP_LOSS else TIMEOUT)
            elif dead[j]:
                price = close[j] * (1 + delisting_return) if side > 0 else close[j]
                outcome[t] = STOP if side * price <= side * stop else TIMEOUT
            else:
                continue
            end[t] = j
            log_return[t] = side * math.log(price / entry)
            break
