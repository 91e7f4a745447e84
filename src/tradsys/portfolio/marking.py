"""Marks simulated trades to market: equity and exposure on the bars' clock, compiled.

Legend: B bars, M trades, K columns (strategy x symbol), O orders of the busiest column, U bars of the union clock,
G strategies, S symbols.
"""

from itertools import pairwise

import numpy as np

from tradsys.core.compiled import compiled
from tradsys.core.tables import Array
from tradsys.portfolio.order_walk import DELISTED, OPEN, BarArrays, Walked


def mark(
    bars: BarArrays, walked: Walked, *, bar_at_SU: Array, cash_KO: Array, held_KO: Array, start_cash: float
) -> tuple[Array, Array]:
    """Equity and exposure [G, U] of every strategy at each bar of the union clock.

    bar_at_SU: each symbol's last bar up to that time, -1 before its first. cash_KO, held_KO: cash and signed
    quantity of each column after its n-th order (2n: its n-th entry, 2n + 1: that trade's exit). start_cash:
    of each column. Columns are ordered by strategy, then symbol. Exposure is 0 where the equity is lost.
    """
    n_symbols, n_times = bar_at_SU.shape
    equity_GU = np.empty((len(cash_KO) // n_symbols, n_times))
    exposure_GU = np.empty_like(equity_GU)
    carry_long, carry_short = _accrued(bars, walked)
    # index in the clock of each order's bar; the exit of an open trade lies beyond it
    own = zip(bar_at_SU, pairwise(bars.first), strict=True)
    clock = np.concatenate([np.searchsorted(bar_at, np.arange(a, b)) for bar_at, (a, b) in own])
    exit_at = np.where(walked.reason == OPEN, n_times, clock[walked.exit_bar])
    died = walked.reason == DELISTED
    exit_at[died] = bars.death[walked.exit_bar[died]]
    order_at = np.stack([clock[walked.entry_bar], exit_at], axis=1).ravel()
    _mark(
        (bars.close, order_at, walked.first),
        (*carry_long, *carry_short),
        bar_at_SU,
        (cash_KO, held_KO),
        start_cash,
        (equity_GU, exposure_GU),
    )
    return equity_GU, exposure_GU


def _accrued(bars: BarArrays, walked: Walked) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Running sums [B] of carry per unit long and of borrow fees per unit short, and each trade's base [M]."""
    if not len(bars.dividend) and not len(bars.borrow):
        none = np.empty(0)
        return (none, none), (none, none)
    zero = np.zeros(len(bars.close))
    dividend, funding = (bars.dividend, bars.funding) if len(bars.dividend) else (zero, zero)
    borrow = bars.borrow if len(bars.borrow) else zero
    received, paid = np.cumsum(dividend - funding), np.cumsum(borrow)
    at = walked.entry_bar
    return (received, received[at] + funding[at]), (paid, paid[at] - borrow[at])


@compiled
def _mark(
    rows: tuple[Array, Array, Array],
    carries: tuple[Array, Array, Array, Array],
    bar_at_SU: Array,
    books: tuple[Array, Array],
    start_cash: float,
    out: tuple[Array, Array],
) -> None:
    close, order_at, first = rows
    received, received_base, paid, paid_base = carries
    cash_KO, held_KO = books
    equity_GU, exposure_GU = out
    n_symbols, n_times = bar_at_SU.shape
    gross_U = np.empty(n_times)
    for g in range(len(equity_GU)):
        equity_U = equity_GU[g]
        for v in range(n_times):
            equity_U[v], gross_U[v] = 1.0, 0.0
        for s in range(n_symbols):
            c = g * n_symbols + s
            u, cash, held = 0, start_cash, 0.0
            for k in range(2 * (first[c + 1] - first[c]) + 1):
                at = 2 * first[c] + k
                until = order_at[at] if at < 2 * first[c + 1] else n_times
                # differences: a column that never traded adds exactly nothing, though k * (1 / k) need not be 1
                if held == 0:
                    for v in range(u, until):
                        equity_U[v] += cash - start_cash
                else:
                    trade = first[c] + (k - 1) // 2
                    for v in range(u, until):
                        b = bar_at_SU[s, v]
                        value = held * close[b]
                        gross_U[v] += abs(value)
                        if len(received) > 0:
                            value += held * (received[b] - received_base[trade])
                            value += min(held, 0.0) * (paid[b] - paid_base[trade])
                        equity_U[v] += max(cash + value, 0.0) - start_cash
                if until == n_times:
                    break
                u, cash, held = until, cash_KO[c, k], held_KO[c, k]
        for v in range(n_times):
            exposure_GU[g, v] = gross_U[v] / equity_U[v] if equity_U[v] > 0 else 0.0
