"""A tear sheet as a backtest leaves it, made by the very code that makes one."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import numpy as np
import polars as pl

from tradsys.portfolio.ledger import OPEN_SCHEMA, TRADES_SCHEMA, Ledger
from tradsys.research.pipeline.records.tear_sheet import tear_sheets


def tear_sheet(daily, start, symbol, n_trades=60) -> dict[str, Any]:
    """Of daily returns by strategy from a date on; trades of one symbol in two regimes."""
    first = datetime.combine(start, time(0), UTC) + timedelta(days=1)
    ledgers, activities = {}, {}
    for name, returns in daily.items():
        if not returns.any():
            continue
        times = [first + timedelta(days=k) for k in range(len(returns))]
        equity = pl.DataFrame(
            {"time": times, "equity": np.cumprod(1 + returns), "exposure": np.full(len(returns), 0.5)}
        )
        equity = equity.with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
        ledgers[name] = Ledger(_trades(times, symbol, n_trades), equity, pl.DataFrame(schema=OPEN_SCHEMA), 0)
        activities[name] = pl.DataFrame({"exposure": np.full(len(returns), 0.5), "turnover": np.abs(returns)})
    times = next(iter(ledgers.values())).equity["time"]
    bars = pl.DataFrame({"symbol": symbol, "time": times, "close": np.linspace(100, 120, len(times))})
    regimes = bars.select("symbol", "time", regime=pl.Series([("calm", "storm")[k % 2] for k in range(len(times))]))
    return tear_sheets(ledgers, activities, bars, regimes, periods_per_year=365, confidence=0.95)


def _trades(times, symbol, n):
    rng = np.random.default_rng(3)
    at = np.sort(rng.choice(len(times) - 3, n, replace=False))
    net = rng.normal(0.001, 0.01, n)
    rows = {
        "symbol": [symbol] * n, "side": rng.choice([-1, 1], n), "signal_time": [times[k] for k in at],
        "entry_time": [times[k + 1] for k in at], "exit_time": [times[k + 2] for k in at],
        "entry_price": 100.0 + at / 20, "exit_price": (100.0 + at / 20) * (1 + net),
        "quantity": np.full(n, 0.01), "gross_pnl": net / 100,
        "cost": np.full(n, 1e-5), "carry": np.zeros(n), "net_pnl": net / 100, "net_return": net,
        "reason": [("take_profit", "stop_loss")[k % 2] for k in range(n)],
        "bars_held": np.full(n, 2),
        "spans_gap": np.zeros(n, dtype=bool),
    }  # fmt: skip
    return pl.DataFrame(rows, schema=TRADES_SCHEMA)
