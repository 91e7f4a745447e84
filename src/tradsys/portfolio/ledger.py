"""Result of a backtest: trades, equity per bar, open positions, cancelled orders."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.tables import Array
from tradsys.market.calendars import session_date

UTC_TIME = pl.Datetime("us", "UTC")

REASONS = ("take_profit", "stop_loss", "timeout", "delisted")

TRADES_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "symbol": pl.String,
    "side": pl.Int8,
    "signal_time": UTC_TIME,
    "entry_time": UTC_TIME,
    "exit_time": UTC_TIME,
    "entry_price": pl.Float64,
    "exit_price": pl.Float64,
    "quantity": pl.Float64,
    "gross_pnl": pl.Float64,
    "cost": pl.Float64,
    "carry": pl.Float64,
    "net_pnl": pl.Float64,
    "net_return": pl.Float64,
    "reason": pl.String,
    "bars_held": pl.Int64,
    "spans_gap": pl.Boolean,
}
OPEN_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    {"exit_time": "mark_time", "exit_price": "mark_price"}.get(name, name): dtype
    for name, dtype in TRADES_SCHEMA.items()
    if name != "reason"
}
EQUITY_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "time": UTC_TIME,
    "equity": pl.Float64,
    "exposure": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class Ledger:
    """Result of one backtest of one strategy.

    Money is in units of the initial capital of 1.0.
    trades: closed trades, sorted by (symbol, entry_time), columns as TRADES_SCHEMA. A fill's `time` is the
    close time of the bar in which it happened (the fill itself came somewhere inside that bar);
    `signal_time` is the deciding bar's. entry_price, exit_price: fills, slippage included. gross_pnl: at
    raw prices; cost: fees plus slippage; carry: dividends, funding and borrow fees, received (+) or paid (-);
    net_pnl = gross_pnl - cost + carry. net_return: net_pnl / (quantity *
    entry_price). bars_held: the entry and exit bar included. spans_gap: held while bars were missing.
    open_trades: positions at the last bar, marked at its close, columns as OPEN_SCHEMA; their cost is the
    entry's alone. They count in the equity, never among the trades or in a win rate. equity: time, equity
    at the close, exposure (gross position value / equity) of every bar of the union clock. n_cancelled:
    orders cancelled because a gap began before they could fill. An exit in parts has the time of its last part.
    """

    trades: pl.DataFrame
    equity: pl.DataFrame
    open_trades: pl.DataFrame
    n_cancelled: int

    @property
    def n_spanning_gap(self) -> int:
        """Trades, open ones included, that were held across a gap in the bars."""
        return sum(frame.filter("spans_gap").height for frame in (self.trades, self.open_trades))

    @property
    def final_equity(self) -> float:
        """Equity at the last bar; 1.0 is the start."""
        return float(self.equity["equity"][-1])

    def returns(self) -> Array:
        """Simple return float64 of each bar.

        The first is measured from 1.0, so a first-bar loss counts.
        """
        return _returns(self.equity["equity"].to_numpy())

    def daily_returns(self) -> tuple[Array, Array]:
        """Dates datetime64[D] and simple returns float64 of each UTC day that has bars.

        A bar that closes at midnight belongs to the day it ends. The first day is measured from 1.0. Days
        without bars are absent; their move is in the return of the next day with bars.
        """
        last = self.equity.group_by(session_date().alias("day"), maintain_order=True).agg(pl.col("equity").last())
        return last["day"].to_numpy(), _returns(last["equity"].to_numpy())


def _returns(equity: Array) -> Array:
    """Simple returns, the first from 1.0; 0 after a total loss."""
    before = np.concatenate([[1.0], equity[:-1]])
    return np.divide(equity - before, before, out=np.zeros(len(equity)), where=before > 0)
