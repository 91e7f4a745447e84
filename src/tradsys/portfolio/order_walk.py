"""Path-dependent half of a backtest, compiled: which trades happen. vectorbt computes fills and money.

Legend: B bars of all symbols one after the other, N wanted entries, K columns (strategy x symbol), M trades,
O orders of the busiest column, U bars of the union clock, G strategies, S symbols. Rules: see `simulator` and
`fills`, with which this compiled code must agree trade for trade.
"""

from dataclasses import dataclass, field

import numpy as np

from tradsys.core.compiled import compiled, read_only
from tradsys.core.tables import Array
from tradsys.market.tradable import TIMEOUT, fills_at_open, touch
from tradsys.portfolio.costs import BUST, Costs

DELISTED, OPEN = 3, 4


@dataclass(frozen=True, eq=False)
class BarArrays:
    """Bars, symbol after symbol.

    Prices float64 [B], segment int64 [B], first int64 [S + 1]: offsets. volume, before [B]: as `fills.Bar`. dividend,
    funding, borrow [B]: money per unit that a long receives from the previous close, that a long pays at the close, and
    that a short pays for the bar; empty where no bar has any. death int64 [B]: as `death_known_at`; empty without
    delistings.
    """

    open: Array
    high: Array
    low: Array
    close: Array
    segment: Array
    first: Array
    volume: Array
    before: Array
    dividend: Array
    funding: Array
    borrow: Array
    death: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class EntryArrays:
    """Wanted entries [N], sorted by (column, bar).

    First int64 [K + 1]: offsets; symbol int64 [K]: codes.
    """

    bar: Array
    side: Array
    size: Array
    take_profit: Array
    stop_loss: Array
    horizon_bars: Array
    first: Array
    symbol: Array


@dataclass(frozen=True, eq=False)
class Walked:
    """Simulated trades, int64 or float64 [M] each, sorted by (column, entry bar).

    entry: index into EntryArrays. entry_bar, exit_bar: rows of BarArrays (an open trade's exit_bar is its symbol's
    last bar, a delisted one's the last before the gap). entry_raw, exit_raw: prices before slippage (an open
    trade's exit_raw is its mark).
    reason: code. size: filled size as a share of the column's equity. carry: money per unit received (+) or paid
    while held. first int64 [K + 1]: offsets of the columns. n_cancelled int64 [K].
    """

    entry: Array
    column: Array
    entry_bar: Array
    exit_bar: Array
    entry_raw: Array
    exit_raw: Array
    reason: Array
    size: Array
    carry: Array
    first: Array
    n_cancelled: Array


@compiled
def locate(symbol: Array, time: Array, first: Array, bar_time: Array) -> Array:
    """Bar int64 [N] of each (symbol code, time), -1 where there is none.

    Fast for increasing times. symbol, time [N]; first [S + 1]: offsets of the symbols in bar_time [B].
    """
    bar = np.empty(len(time), dtype=np.int64)
    b = 0
    for e in range(len(time)):
        bar[e] = -1
        s = symbol[e]
        if e == 0 or s != symbol[e - 1] or time[e] < time[e - 1]:
            b, end = first[s], first[s + 1]
            while b < end:  # bisection
                middle = (b + end) // 2
                if bar_time[middle] < time[e]:
                    b = middle + 1
                else:
                    end = middle
        while b < first[s + 1] and bar_time[b] < time[e]:
            b += 1
        if b < first[s + 1] and bar_time[b] == time[e]:
            bar[e] = b
    return bar


def walk(bars: BarArrays, entries: EntryArrays, *, delay_bars: int, costs: Costs, start_cash: float) -> Walked:
    """Trades of every column, by the rules of `simulate`.

    Fees and slippage matter only for ruin and order size. start_cash: initial cash of each column, in units of an
    account of 1.0.
    """
    n_columns = len(entries.symbol)
    bar_index = np.empty((len(entries.bar), 3), dtype=np.int64)
    money = np.empty((len(entries.bar), 4))
    reason = np.empty(len(entries.bar), dtype=np.int64)
    n_trades = np.zeros(n_columns, dtype=np.int64)
    n_cancelled = np.zeros(n_columns, dtype=np.int64)
    prices = (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.before)
    _walk(
        read_only((*prices, bars.dividend, bars.funding, bars.borrow)),
        read_only((bars.segment, bars.first, bars.death)),
        read_only(
            (
                entries.bar,
                entries.side,
                entries.size,
                entries.take_profit,
                entries.stop_loss,
                entries.horizon_bars,
            )
        ),
        read_only((entries.first, entries.symbol)),
        (
            *(int(delay_bars), float(costs.fee), float(costs.slippage), float(costs.participation), float(start_cash)),
            costs.recovery(1),
        ),
        (bar_index, money, reason, n_trades, n_cancelled),
    )
    # a column's trades are written to the first of its entries' slots
    place = np.arange(len(entries.bar)) - np.repeat(entries.first[:-1], np.diff(entries.first))
    kept = place < np.repeat(n_trades, np.diff(entries.first))
    entry, entry_bar, exit_bar = np.ascontiguousarray(bar_index[kept].T)
    entry_raw, exit_raw, size, carry = np.ascontiguousarray(money[kept].T)
    return Walked(
        entry=entry,
        column=np.repeat(np.arange(n_columns), n_trades),
        entry_bar=entry_bar,
        exit_bar=exit_bar,
        entry_raw=entry_raw,
        exit_raw=exit_raw,
        reason=reason[kept],
        size=size,
        carry=carry,
        first=np.concatenate([[0], np.cumsum(n_trades)]),
        n_cancelled=n_cancelled,
    )


@compiled
def _walk(
    bars: tuple[Array, ...],
    places: tuple[Array, Array, Array],
    entries: tuple[Array, ...],
    columns: tuple[Array, Array],
    terms: tuple[int, float, float, float, float, float],
    out: tuple[Array, ...],
) -> None:
    open_, volume, before = bars[0], bars[4], bars[5]
    segment, first_bar, death = places
    bar, side, size, take_profit, stop_loss, horizon_bars = entries
    first_entry, symbol = columns
    delay, fee, slippage, participation, start_cash, recovery = terms
    bar_index, money, reason, n_trades, n_cancelled = out
    for c in range(len(symbol)):
        end = first_bar[symbol[c] + 1]
        free_from = first_bar[symbol[c]]  # first bar at whose close the column may order again
        wealth = 1.0  # the column's cash after its last trade, as a share of its initial cash
        m = first_entry[c]
        for e in range(first_entry[c], first_entry[c + 1]):
            t = bar[e]
            if t < free_from:
                continue
            start = t + delay
            while start < end and not fills_at_open(open_[start], volume[start], before[start]):
                start += 1
            broken = _first_break(segment, t, min(start, end - 1))
            if broken >= 0:
                n_cancelled[c] += 1
                free_from = broken
                continue
            if start >= end:
                break
            fill = open_[start] * (1 + side[e] * slippage)
            wanted = size[e] * wealth * start_cash / (fill * (1 + fee))
            quantity = min(wanted, _room(volume[start], participation))
            filled = size[e] if quantity == wanted else size[e] * quantity / wanted
            target = open_[start] + side[e] * take_profit[e]
            stop = open_[start] - side[e] * stop_loss[e]
            ruin = np.inf
            if side[e] < 0:
                ruin = fill * (1 / filled + (1 - fee) / (1 + fee)) / (1 + slippage)
            last = start + min(horizon_bars[e], len(open_) + 1) - 1
            levels = (target, stop, ruin, (1 + fee) * (1 + slippage))
            amount = (quantity, participation, recovery)
            x, price, why, carry = _exit(bars, (start, last, end), death, side[e], levels, amount)
            bar_index[m, 0], bar_index[m, 1], bar_index[m, 2] = e, start, x
            reason[m] = why
            money[m, 0], money[m, 1], money[m, 2] = open_[start], price, filled
            if why != OPEN:
                sold = price * (1 - side[e] * slippage)
                kept, carry = _kept((side[e], filled, fee), (fill, sold, carry))
                wealth *= kept
            money[m, 3] = carry
            m += 1
            if why == OPEN or wealth < BUST:
                break
            free_from = x + 1 if why == DELISTED else x  # at the last close the delisting was not known yet
        n_trades[c] = m - first_entry[c]


@compiled
def _kept(terms: tuple[int, float, float], money: tuple[float, float, float]) -> tuple[float, float]:
    """Share of the column's cash after one trade, never below 0, and its carry, limited to that loss."""
    side, filled, fee = terms
    bought, sold, carry = money
    gained = side * (sold * (1 - side * fee) - bought * (1 + side * fee)) + carry
    kept = 1 + filled * gained / (bought * (1 + fee))
    if kept < 0:
        return 0.0, carry - kept * bought * (1 + fee) / filled
    return kept, carry


@compiled
def _room(volume: float, participation: float) -> float:
    """Compiled form of `fills.room`."""
    return participation * volume if np.isfinite(volume) else np.inf


@compiled
def _first_break(segment: Array, t: int, last: int) -> int:
    """First bar after t, up to `last`, in another segment; -1 where there is none."""
    for j in range(t + 1, last + 1):
        if segment[j] != segment[t]:
            return j
    return -1


@compiled
def _exit(
    bars: tuple[Array, ...],
    span: tuple[int, int, int],
    death: Array,
    side: int,
    levels: tuple[float, float, float, float],
    amount: tuple[float, float, float],
) -> tuple[int, float, int, float]:
    """Exit of a position entered at the open of the span's first bar: bar, raw price, reason, carry per unit.

    levels: target, stop, ruin without carry, and costs of covering above the raw price. amount: quantity held,
    participation and a long's share of a delisted symbol's last close. The rules are those of `fills.advance` and
    `fills.close_delisted`.
    """
    start, last, end = span
    open_, high, low, close, volume, before, dividend, funding, borrow = bars
    target, own_stop, first_ruin, covering = levels
    quantity, participation, recovery = amount
    has_events, has_borrow = len(dividend) > 0, len(borrow) > 0
    carry, sold, value, mean, leaving = 0.0, 0.0, 0.0, 0.0, -1
    passed = side == 0  # False; a literal would make numba compile `touch` twice
    for j in range(start, end):
        if has_events and j > start:
            carry += side * dividend[j]
        ruin = max(first_ruin + carry / covering, 0.0) if side < 0 else np.inf
        at_open, price, why = True, 0.0, leaving
        if leaving >= 0:
            price = open_[j] if fills_at_open(open_[j], volume[j], before[j]) else 0.0
        else:
            stop = min(own_stop, ruin) if side < 0 else own_stop
            bar = open_[j], high[j], low[j], close[j], volume[j], before[j]
            why, price, at_open, passed = touch(bar, side, (target, stop), (j >= last, passed))
        leaving = why
        out = False
        if why >= 0 and price > 0:
            part = min(quantity - sold, _room(volume[j], participation))
            sold, value = sold + part, value + part * price
            mean = price if part == quantity else value / quantity
            out = sold >= quantity
        if has_events:
            due = -side * funding[j]
            if out and at_open:
                due = 0.0
            elif out and why != TIMEOUT:  # inside the bar: whether before or after the funding time is unknown
                due = min(due, 0.0)
            carry += due
        if has_borrow and side < 0:
            carry -= borrow[j]
        if out:
            return j, min(mean, ruin), why, carry
        if len(death) > 0 and death[j] >= 0:
            price = close[j] * recovery if side > 0 else close[j]
            mean = price if sold == 0 else (value + (quantity - sold) * price) / quantity
            ruin = max(first_ruin + carry / covering, 0.0) if side < 0 else np.inf
            return j, min(mean, ruin), DELISTED, carry
    return end - 1, close[end - 1], OPEN, carry
