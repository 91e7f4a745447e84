"""All strategies and symbols as columns of one vectorbt call. The only file that imports vectorbt.

Columns never share cash, so a column needs no clock: row 2n of the order grid is its n-th entry, row 2n + 1 that
trade's exit. `walk` says which trades happen and at which raw prices; vectorbt (Rust engine, never Numba) sizes,
fills, charges and books them; its cash and holdings, carried to the bars' clock, are the equity. The grid is as
long as the busiest column trades, not as long as the bars: 200 columns of 60,000 bars fit in a few megabytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import polars as pl
import vectorbt as vbt
from vectorbt.portfolio.enums import SizeType, TradeStatus

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.ledger import OPEN_SCHEMA, REASONS, TRADES_SCHEMA, Ledger
from tradsys.portfolio.simulator import PRICES, check_bars, check_delay, check_entries, check_placed
from tradsys.portfolio.walk import OPEN, BarArrays, EntryArrays, Walked, mark, walk

ENGINE = "rust"
# vectorbt rounds amounts below 1e-12 to zero; a power of two as unit of money keeps them large and exact.
UNIT = 2.0**30


def simulate_many(
    bars: pl.DataFrame, targets_by_name: Mapping[str, pl.DataFrame], costs: Costs, delay_bars: int = 1
) -> dict[str, Ledger]:
    """Ledger of each strategy, as `simulator.simulate` would give it, from one vectorbt call.

    bars, targets, costs, delay_bars: see `simulate`; so are the rules and what raises. A strategy without entries
    keeps its cash. Agrees with `simulate` trade for trade, money to about 1e-9 (vectorbt rounds differences
    below 1e-9 of an amount to zero).
    """
    check_delay(delay_bars)
    if not targets_by_name:
        return {}
    panel = _Panel.of(check_bars(bars))
    wanted, entries = _entries(targets_by_name, panel)
    walked = walk(panel.arrays, entries, delay_bars=delay_bars, fee=costs.fee, slippage=costs.slippage)
    start_cash = UNIT / len(panel.symbols)
    portfolio = _portfolio(panel, entries, walked, costs, start_cash)
    equity_GU, exposure_GU = mark(
        panel.arrays,
        walked,
        panel.bar_at_SU,
        portfolio.cash().to_numpy(),
        portfolio.assets().to_numpy(),
        start_cash,
    )
    equity_GU /= UNIT
    trades, opened, n_cancelled = _trades(panel, wanted, entries, walked, portfolio)
    n_symbols = len(panel.symbols)
    ledgers = {}
    for g, name in enumerate(targets_by_name):
        ledgers[name] = Ledger(
            trades=trades.of(g),
            equity=pl.DataFrame({"time": panel.clock, "equity": equity_GU[g], "exposure": exposure_GU[g]}),
            open_trades=opened.of(g),
            n_cancelled=int(n_cancelled[g * n_symbols : (g + 1) * n_symbols].sum()),
        )
    return ledgers
