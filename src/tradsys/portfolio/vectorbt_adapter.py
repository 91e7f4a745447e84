"""All strategies and symbols as columns of one vectorbt call. The only file that imports vectorbt.

Columns never share cash, so a column needs no clock: row 2n of the order grid is its n-th entry, row 2n + 1
that trade's exit. `walk` computes which trades happen and at which raw prices; vectorbt (Rust engine, never
Numba) sizes, fills, charges and books them; its cash and holdings on the bars' clock are the
equity. The grid is as long as the busiest column trades, not as long as the bars: 200 columns of 60,000
bars fit in a few megabytes.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from tradsys.core.compiled import read_only
from tradsys.core.tables import Array
from tradsys.market.tradable import close_before, death_known_at, traded_volume
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.ledger import OPEN_SCHEMA, REASONS, TRADES_SCHEMA, Ledger
from tradsys.portfolio.marking import mark
from tradsys.portfolio.order_walk import DELISTED, OPEN, BarArrays, EntryArrays, Walked, locate, walk
from tradsys.portfolio.simulator import (
    PRICES,
    TARGETS_SCHEMA,
    beyond_numbers,
    check_bars,
    check_columns,
    check_delay,
    check_entries,
    check_equity,
    check_placed,
    event,
    years_since,
)

if TYPE_CHECKING:
    import vectorbt as vbt

ENGINE = "rust"
# vectorbt rounds amounts below 1e-12 to zero; a power of two as unit of money keeps them large and exact.
UNIT = 2.0**60
TINY = 1e-12  # least price passed to vectorbt: for a long that owed more than it is worth


def simulate_many(
    bars: pl.DataFrame, targets_by_name: Mapping[str, pl.DataFrame], costs: Costs, delay_bars: int = 1
) -> dict[str, Ledger]:
    """Ledger of each strategy, from one vectorbt call.

    Equal to that of `simulator.simulate`.
    bars, targets, costs, delay_bars, rules and errors: see `simulate`. A strategy without
    entries keeps its cash. Agrees with `simulate` trade for trade, money to about 1e-9 (vectorbt rounds
    differences below 1e-9 of an amount to zero).
    """
    check_delay(delay_bars)
    if not targets_by_name:
        return {}
    panel = _Panel.of(check_bars(bars), costs)
    entries = _entries(targets_by_name, panel)
    start_cash = UNIT / len(panel.symbols)
    walked = walk(panel.arrays, entries, delay_bars=delay_bars, costs=costs, start_cash=start_cash / UNIT)
    try:
        portfolio = _portfolio(panel, entries, walked, costs, start_cash)
    except ValueError as error:  # bars and orders are checked: what is left to refuse is an overflow on the way
        raise beyond_numbers(f"before {panel.clock[-1]} (vectorbt: {error})", ", ".join(targets_by_name)) from error
    equity_GU, exposure_GU = mark(
        panel.arrays,
        walked,
        bar_at_SU=panel.bar_at,
        cash_KO=np.ascontiguousarray(portfolio.cash().to_numpy().T) / UNIT,
        held_KO=np.ascontiguousarray(portfolio.assets().to_numpy().T) / UNIT,
        start_cash=start_cash / UNIT,
    )
    # through arrow, which does not copy
    equity, exposure = (pl.Series(pa.array(values.ravel())) for values in (equity_GU, exposure_GU))
    n_times = len(panel.clock)
    trades, opened = _trades_by_strategy(panel, entries, walked, portfolio, costs)
    n_cancelled_G = walked.n_cancelled.reshape(len(targets_by_name), -1).sum(axis=1)
    ledgers = {
        name: Ledger(
            trades=trades[g],
            equity=pl.DataFrame(
                {
                    "time": panel.clock,
                    "equity": equity.slice(g * n_times, n_times),
                    "exposure": exposure.slice(g * n_times, n_times),
                }
            ),
            open_trades=opened[g],
            n_cancelled=int(n_cancelled_G[g]),
        )
        for g, name in enumerate(targets_by_name)
    }
    for name, ledger in ledgers.items():
        check_equity(ledger.equity, name)
    return ledgers


@dataclass(frozen=True, eq=False)
class _Panel:
    """Bars as arrays. time [B]; clock [U]: distinct times; bar_at [S, U]: see `mark`."""

    frame: pl.DataFrame
    symbols: list[str]
    arrays: BarArrays
    time: pl.Series
    clock: pl.Series
    bar_at: Array

    @classmethod
    def of(cls, bars: pl.DataFrame, costs: Costs) -> "_Panel":
        lengths = bars.group_by("symbol", maintain_order=True).len()
        first = np.concatenate([[0], np.cumsum(lengths["len"].to_numpy())]).astype(np.int64)
        open_, high, low, close = (np.ascontiguousarray(bars[c].to_numpy(), dtype=np.float64) for c in PRICES)
        segment = bars["segment"].cast(pl.Int64).to_numpy()
        clock = bars["time"].unique().sort()
        stamps, ticks = bars["time"].to_physical().to_numpy(), clock.to_physical().to_numpy()
        bar_at = np.empty((len(lengths), len(ticks)), dtype=np.int64)
        for s, (a, b) in enumerate(pairwise(first)):
            n_before = np.searchsorted(stamps[a:b], ticks, side="right")
            bar_at[s] = np.where(n_before > 0, a + n_before - 1, -1)
        arrays = BarArrays(
            *(open_, high, low, close, segment, first),
            *(traded_volume(bars), close_before(bars)),
            *_event_money(bars, close, costs),
            death=_delistings(bars, costs),
        )
        return cls(bars, lengths["symbol"].to_list(), arrays, bars["time"], clock, bar_at)


def _event_money(bars: pl.DataFrame, close: Array, costs: Costs) -> tuple[Array, Array, Array]:
    """Money per unit of dividends, funding and borrow fee, float64 [B] each; empty where no bar has any."""
    dividend, funding = event(bars, "dividend_due"), event(bars, "funding_due") * close
    borrow = years_since(bars) * close * costs.borrow_per_year
    has_events = bool(dividend.any() or funding.any())
    none = np.empty(0)
    return (dividend, funding, borrow) if has_events else (none, none, borrow if borrow.any() else none)


def _delistings(bars: pl.DataFrame, costs: Costs) -> Array:
    """`death_known_at` int64 [B]; empty without delistings."""
    if costs.dead_after_bars is None or bars["symbol"].n_unique() == 1:
        return np.empty(0, dtype=np.int64)
    known = death_known_at(bars, costs.dead_after_bars)
    return known if (known >= 0).any() else np.empty(0, dtype=np.int64)


def _entries(targets_by_name: Mapping[str, pl.DataFrame], panel: _Panel) -> EntryArrays:
    """Entries of all strategies with their bars, sorted by (column, bar). Raises DataError as `simulate`."""
    wanted_by_name = [check_columns(targets) for targets in targets_by_name.values()]
    n_strategies, n_symbols = len(targets_by_name), len(panel.symbols)
    together = pl.concat([t.select(*TARGETS_SCHEMA) for t in wanted_by_name], how="vertical_relaxed")
    heights = [targets.height for targets in targets_by_name.values()]
    strategy = pl.Series("strategy", np.repeat(np.arange(n_strategies), heights))
    entries = check_entries(together.with_columns(strategy))
    code = entries["symbol"].cast(pl.Enum(panel.symbols), strict=False).to_physical().cast(pl.Int64)
    known = code.fill_null(0).to_numpy()
    entry_time, bar_time = (time.to_physical().to_numpy() for time in (entries["time"], panel.time))
    bar = locate(*read_only((known, entry_time, panel.arrays.first, bar_time)))
    column = entries["strategy"].to_numpy() * n_symbols + known
    rank = column * len(panel.time) + bar
    order = None if (np.diff(rank) > 0).all() else np.argsort(rank, kind="stable")
    if code.null_count() or (bar < 0).any() or (order is not None and (np.diff(rank[order]) == 0).any()):
        for g, name in enumerate(targets_by_name):  # errors name the strategy, as in `simulate`
            check_placed(entries.filter(pl.col("strategy") == g), panel.frame, name)
    wanted = entries.with_columns(bar=bar, column=column, side=pl.col("side").cast(pl.Int64))
    wanted = wanted if order is None else wanted[order]
    names = ("bar", "side", "size", "take_profit", "stop_loss", "horizon_bars")
    return EntryArrays(
        **{name: wanted[name].to_numpy() for name in names},
        first=np.searchsorted(wanted["column"].to_numpy(), np.arange(n_strategies * n_symbols + 1)),
        symbol=np.tile(np.arange(n_symbols), n_strategies),
    )


def loaded_vectorbt() -> Any:
    """The package vectorbt, imported without ccxt.

    ccxt would load a hundred exchanges, 47 MB, to name one type. A ccxt that is loaded already stays; whoever imports
    it later gets it.
    """
    hidden = "ccxt" not in sys.modules
    if hidden:
        sys.modules["ccxt"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("vectorbt")
    finally:
        if hidden:
            sys.modules.pop("ccxt", None)


def _portfolio(panel: _Panel, entries: EntryArrays, walked: Walked, costs: Costs, start_cash: float) -> "vbt.Portfolio":
    """vectorbt's account of every column. Grid [O, K]: even rows enter by a share of cash, odd close."""
    vbt = loaded_vectorbt()
    import pandas as pd  # noqa: PLC0415 - takes half a second; only simulations import it
    from vectorbt.portfolio.enums import SizeType  # noqa: PLC0415

    n_trades = np.diff(walked.first)
    shape = (2 * max(1, int(n_trades.max())), len(n_trades))
    size_OK, price_OK = np.full(shape, np.nan), np.full(shape, np.nan)
    row = 2 * (np.arange(len(walked.entry)) - np.repeat(walked.first[:-1], n_trades))
    size_OK[row, walked.column] = entries.side[walked.entry] * walked.size
    price_OK[row, walked.column] = walked.entry_raw
    closed = walked.reason != OPEN
    row, column = row[closed] + 1, walked.column[closed]
    size_OK[row, column] = 0.0
    # carry is settled with the exit: the raw price at which the sale alone leaves the same cash
    side = entries.side[walked.entry[closed]]
    settled = side * walked.carry[closed] / ((1 - side * costs.slippage) * (1 - side * costs.fee))
    price_OK[row, column] = np.maximum(walked.exit_raw[closed] + settled, TINY)
    last_close = panel.arrays.close[panel.arrays.first[1:] - 1][entries.symbol]
    return vbt.Portfolio.from_orders(
        close=pd.DataFrame(np.broadcast_to(last_close, shape)),
        size=size_OK,
        size_type=np.tile([[SizeType.Percent], [SizeType.TargetAmount]], (shape[0] // 2, 1)),
        price=price_OK,
        fees=costs.fee,
        slippage=costs.slippage,
        min_size=0.0,
        init_cash=start_cash,
        raise_reject=True,
        max_orders=2 * len(walked.entry) + 1,
        engine=ENGINE,
    )


def _trades_by_strategy(
    panel: _Panel, entries: EntryArrays, walked: Walked, portfolio: "vbt.Portfolio", costs: Costs
) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
    """Closed and open trades of each strategy: vectorbt's fills, sizes and results, at the bars' times."""
    from vectorbt.portfolio.enums import TradeStatus  # noqa: PLC0415 - as above

    records = portfolio.exit_trades.values
    is_open = walked.reason == OPEN
    assert np.array_equal(records["col"], walked.column), "vectorbt booked other trades than `walk` returned"
    assert np.array_equal(records["status"] == TradeStatus.Open, is_open), "vectorbt left other trades open"
    strategy = walked.column // len(panel.symbols)
    n_strategies = len(entries.symbol) // len(panel.symbols)
    closed, held = np.flatnonzero(~is_open), np.flatnonzero(is_open)
    trades = _frame(panel, entries, walked, records, closed, costs)
    opened = _frame(panel, entries, walked, records, held, costs)
    opened = opened.rename({"exit_time": "mark_time", "exit_price": "mark_price"}).select(*OPEN_SCHEMA)
    return _split_strategies(trades, strategy[closed], n_strategies), _split_strategies(
        opened, strategy[held], n_strategies
    )


def _frame(
    panel: _Panel, entries: EntryArrays, walked: Walked, records: Array, rows: Array, costs: Costs
) -> pl.DataFrame:
    entry, entry_bar, exit_bar = walked.entry[rows], walked.entry_bar[rows], walked.exit_bar[rows]
    side, quantity, net = entries.side[entry], records["size"][rows] / UNIT, records["pnl"][rows] / UNIT
    is_open = walked.reason[rows] == OPEN
    carry = quantity * walked.carry[rows]
    net = np.where(is_open, net + carry, net)  # vectorbt marks open trades without it
    gross = side * quantity * (walked.exit_raw - walked.entry_raw)[rows]
    exit_price = walked.exit_raw[rows] * np.where(is_open, 1.0, 1 - side * costs.slippage)
    segment = panel.arrays.segment
    died = walked.reason[rows] == DELISTED
    exit_time = panel.time[exit_bar]
    if died.any():
        known = panel.clock.gather(panel.arrays.death[exit_bar[died]])
        exit_time = exit_time.scatter(np.flatnonzero(died), known)
    columns = {
        "symbol": pl.Series(panel.symbols)[entries.symbol[walked.column[rows]]],
        "side": side.astype(np.int8),
        "signal_time": panel.time[entries.bar[entry]],
        "entry_time": panel.time[entry_bar],
        "exit_time": exit_time,
        "entry_price": records["entry_price"][rows],
        "exit_price": exit_price,
        "quantity": quantity,
        "gross_pnl": gross,
        "cost": gross - net + carry,
        "carry": carry,
        "net_pnl": net,
        "net_return": net / (quantity * records["entry_price"][rows]),
        "reason": pl.Series([*REASONS, ""])[walked.reason[rows]],
        "bars_held": exit_bar - entry_bar + 1,
        "spans_gap": segment[exit_bar] != segment[entry_bar],
    }
    return pl.DataFrame(columns, schema=TRADES_SCHEMA)


def _split_strategies(frame: pl.DataFrame, strategy: Array, n_strategies: int) -> list[pl.DataFrame]:
    """Rows of each strategy, as slices; `strategy` [rows] is sorted."""
    first = np.searchsorted(strategy, np.arange(n_strategies + 1))
    return [frame.slice(a, b - a) for a, b in pairwise(first)]
