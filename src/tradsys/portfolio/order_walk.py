"""Which trades happen: the path-dependent half of a backtest, compiled. Fills and money are vectorbt's.

Legend: B bars of all symbols one after the other, N entries wanted, K columns (strategy x symbol), M trades,
O orders of the busiest column, U bars of the union clock, G strategies, S symbols. Rules: see `simulator`.
"""

from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np

from tradsys.core.tables import Array
from tradsys.portfolio.costs import BUST

TAKE_PROFIT, STOP_LOSS, TIMEOUT, OPEN = 0, 1, 2, 3


@dataclass(frozen=True, eq=False)
class BarArrays:
    """Bars, symbol after symbol. Prices float64 [B], segment int64 [B], first int64 [S + 1]: offsets."""

    open: Array
    high: Array
    low: Array
    close: Array
    segment: Array
    first: Array


@dataclass(frozen=True, eq=False)
class EntryArrays:
    """Entries wanted [N], sorted by (column, bar); first int64 [K + 1]: offsets; symbol int64 [K]: codes."""

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
    """Trades that happen, int64 or float64 [M] each, sorted by (column, entry bar).

    entry: position into EntryArrays. entry_bar, exit_bar: rows of BarArrays (an open trade's exit_bar is
    its symbol's last). entry_raw, exit_raw: prices before slippage (an open trade's exit_raw is its mark).
    reason: code. first int64 [K + 1]: offsets of the columns. n_cancelled int64 [K].
    """

    entry: Array
    column: Array
    entry_bar: Array
    exit_bar: Array
    entry_raw: Array
    exit_raw: Array
    reason: Array
    first: Array
    n_cancelled: Array


@numba.njit
def locate(symbol: Array, time: Array, first: Array, bar_time: Array) -> Array:
    """Bar int64 [N] of each (symbol code, time), -1 where there is none. Fast where times come in order.

    symbol, time [N]; first [S + 1]: offsets of the symbols in bar_time [B].
    """
    bar = np.full(len(time), -1, dtype=np.int64)
    b = 0
    for e in range(len(time)):
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


def walk(bars: BarArrays, entries: EntryArrays, *, delay_bars: int, fee: float, slippage: float) -> Walked:
    """Trades of every column, by the rules of `simulator`. Costs enter only into ruin."""
    n_columns = len(entries.symbol)
    bar_index = np.empty((len(entries.bar), 3), dtype=np.int64)
    raw = np.empty((len(entries.bar), 2))
    reason = np.empty(len(entries.bar), dtype=np.int64)
    n_trades = np.zeros(n_columns, dtype=np.int64)
    n_cancelled = np.zeros(n_columns, dtype=np.int64)
    _walk(
        (bars.open, bars.high, bars.low, bars.close, bars.segment, bars.first),
        (
            entries.bar,
            entries.side,
            entries.size,
            entries.take_profit,
            entries.stop_loss,
            entries.horizon_bars,
        ),
        (entries.first, entries.symbol),
        (int(delay_bars), float(fee), float(slippage)),
        (bar_index, raw, reason, n_trades, n_cancelled),
    )
    # a column's trades lie at the head of its entries' places
    place = np.arange(len(entries.bar)) - np.repeat(entries.first[:-1], np.diff(entries.first))
    kept = place < np.repeat(n_trades, np.diff(entries.first))
    entry, entry_bar, exit_bar = np.ascontiguousarray(bar_index[kept].T)
    return Walked(
        entry=entry,
        column=np.repeat(np.arange(n_columns), n_trades),
        entry_bar=entry_bar,
        exit_bar=exit_bar,
        entry_raw=raw[kept, 0],
        exit_raw=raw[kept, 1],
        reason=reason[kept],
        first=np.concatenate([[0], np.cumsum(n_trades)]),
        n_cancelled=n_cancelled,
    )


# Not cached on disk, like the labels' kernel: the compile takes a second, a read-only install has no cache.
@numba.njit
def _walk(
    bars: tuple[Array, ...],
    entries: tuple[Array, ...],
    columns: tuple[Array, Array],
    terms: tuple[int, float, float],
    out: tuple[Array, ...],
) -> None:
    open_, _, _, _, segment, first_bar = bars
    bar, side, size, take_profit, stop_loss, horizon_bars = entries
    first_entry, symbol = columns
    delay, fee, slippage = terms
    bar_index, raw, reason, n_trades, n_cancelled = out
    for c in range(len(symbol)):
        end = first_bar[symbol[c] + 1]
        free_from = first_bar[symbol[c]]  # first bar at whose close the column may order again
        wealth = 1.0  # the column's cash after its last trade, as a share of its first
        m = first_entry[c]
        for e in range(first_entry[c], first_entry[c + 1]):
            t = bar[e]
            if t < free_from:
                continue
            broken = _first_break(segment, t, min(t + delay, end - 1))
            if broken >= 0:
                n_cancelled[c] += 1
                free_from = broken
                continue
            start = t + delay
            if start >= end:
                break
            stop = open_[start] - side[e] * stop_loss[e]
            target = open_[start] + side[e] * take_profit[e]
            fill = open_[start] * (1 + side[e] * slippage)
            ruin = np.inf
            if side[e] < 0:
                ruin = fill * (1 / size[e] + (1 - fee) / (1 + fee)) / (1 + slippage)
                stop = min(stop, ruin)
            last = start + min(horizon_bars[e], len(open_) + 1) - 1
            x, price, why = _exit(bars, (start, last, end), side[e], target, stop)
            price = min(price, ruin)
            bar_index[m, 0], bar_index[m, 1], bar_index[m, 2] = e, start, x
            raw[m, 0], raw[m, 1] = open_[start], price
            reason[m] = why
            m += 1
            if why == OPEN:
                break
            sold = price * (1 - side[e] * slippage) / fill
            in_fee, out_fee = 1 + side[e] * fee, 1 - side[e] * fee
            wealth *= 1 + size[e] * side[e] * (sold * out_fee - in_fee) / (1 + fee)
            if wealth < BUST:
                break
            free_from = x
        n_trades[c] = m - first_entry[c]


@numba.njit
def _first_break(segment: Array, t: int, last: int) -> int:
    """First bar after t, up to `last`, in another segment; -1 where there is none."""
    for j in range(t + 1, last + 1):
        if segment[j] != segment[t]:
            return j
    return -1


@numba.njit
def _exit(
    bars: tuple[Array, ...], span: tuple[int, int, int], side: int, target: float, stop: float
) -> tuple[int, float, int]:
    """Bar, raw price and reason of the exit of a position entered at the open of the span's first bar."""
    start, last, end = span
    open_, high, low, close, _, _ = bars
    for j in range(start, min(last + 1, end)):
        best, worst = (high[j], low[j]) if side > 0 else (low[j], high[j])
        if side * open_[j] <= side * stop:
            return j, open_[j], STOP_LOSS
        if side * open_[j] >= side * target:
            return j, open_[j], TAKE_PROFIT
        if side * worst <= side * stop:
            return j, stop, STOP_LOSS
        if side * best >= side * target:
            return j, target, TAKE_PROFIT
        if j == last:
            return j, close[j], TIMEOUT
    return end - 1, close[end - 1], OPEN


def mark(
    bars: BarArrays, walked: Walked, *, bar_at_SU: Array, cash_KO: Array, held_KO: Array, start_cash: float
) -> tuple[Array, Array]:
    """Equity and exposure [G, U] of every strategy at each bar of the union clock.

    bar_at_SU: each symbol's last bar up to that time, -1 before its first. cash_KO, held_KO: cash and signed
    quantity of each column after its n-th order (2n: its n-th entry, 2n + 1: that trade's exit). start_cash:
    of each column. Columns are strategy by strategy, symbol by symbol. Exposure is 0 where nothing is left.
    """
    n_symbols, n_times = bar_at_SU.shape
    equity_GU = np.empty((len(cash_KO) // n_symbols, n_times))
    exposure_GU = np.empty_like(equity_GU)
    # position in the clock of each order's bar; the exit of an open trade lies beyond it
    own = zip(bar_at_SU, pairwise(bars.first), strict=True)
    clock = np.concatenate([np.searchsorted(bar_at, np.arange(a, b)) for bar_at, (a, b) in own])
    exit_at = np.where(walked.reason == OPEN, n_times, clock[walked.exit_bar])
    order_at = np.stack([clock[walked.entry_bar], exit_at], axis=1).ravel()
    _mark(
        (bars.close, order_at, walked.first),
        bar_at_SU,
        (cash_KO, held_KO),
        start_cash,
        (equity_GU, exposure_GU),
    )
    return equity_GU, exposure_GU


@numba.njit
def _mark(
    rows: tuple[Array, Array, Array],
    bar_at_SU: Array,
    books: tuple[Array, Array],
    start_cash: float,
    out: tuple[Array, Array],
) -> None:
    close, order_at, first = rows
    cash_KO, held_KO = books
    equity_GU, exposure_GU = out
    n_symbols, n_times = bar_at_SU.shape
    gross_U = np.empty(n_times)
    for g in range(len(equity_GU)):
        equity_U = equity_GU[g]
        for v in range(n_times):
            equity_U[v] = gross_U[v] = 0.0
        for s in range(n_symbols):
            c = g * n_symbols + s
            u, cash, held = 0, start_cash, 0.0
            for k in range(2 * (first[c + 1] - first[c]) + 1):
                at = 2 * first[c] + k
                until = order_at[at] if at < 2 * first[c + 1] else n_times
                for v in range(u, until):
                    equity_U[v] += cash
                if held != 0:
                    for v in range(u, until):
                        value = held * close[bar_at_SU[s, v]]
                        equity_U[v] += value
                        gross_U[v] += abs(value)
                if until == n_times:
                    break
                u, cash, held = until, cash_KO[c, k], held_KO[c, k]
        for v in range(n_times):
            exposure_GU[g, v] = gross_U[v] / equity_U[v] if equity_U[v] > 0 else 0.0
