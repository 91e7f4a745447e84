"""The tear sheet of a backtest: its strategies' records over time, their trades, and prices."""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import polars as pl

from tradsys.core.tables import Array
from tradsys.evidence.track_record import tear_sheet
from tradsys.portfolio.ledger import Ledger

MOST_TRADES = 1500  # of all strategies together, in the page; trades.parquet holds every one
MOST_SYMBOLS, N_PRICES = 12, 400
HOURS = {hour: f"{hour:02d}" for hour in range(24)}
TRADE_FIELDS = (
    *("strategy", "symbol", "side", "entry_time", "exit_time", "entry_price", "exit_price", "net_return", "reason"),
    "bars_held",
)


class StrategySheet(TypedDict):
    """One strategy's record.

    groups: mean returns by `hour`, `weekday` and `regime`, those that have any.
    """

    months: tear_sheet.Months
    rolling: tear_sheet.Rolling
    activity: tear_sheet.Activity
    drawdowns: list[tear_sheet.Drawdown]
    distribution: tear_sheet.TradeDistribution
    groups: dict[str, list[tear_sheet.GroupRow]]


class TearSheet(TypedDict, total=False):
    """Records over time of all strategies, their trades and prices.

    strategies: by name. trades: n, n_shown and columns. prices: time and close by symbol. Empty without a trade.
    """

    strategies: dict[str, StrategySheet]
    trades: dict[str, Any]
    prices: dict[str, dict[str, list[Any]]]
    confidence: float


def tear_sheets(
    ledgers: Mapping[str, Ledger],
    activities: Mapping[str, pl.DataFrame],
    bars: pl.DataFrame,
    regimes: pl.DataFrame | None,
    *,
    periods_per_year: float,
    confidence: float,
) -> TearSheet:
    """Data of the tear sheet.

    activities: exposure and turnover by day of each strategy. regimes: symbol, time and filtered regime at decisions.
    """
    strategies = {
        name: _sheet(ledger, activities[name], regimes, periods_per_year, confidence)
        for name, ledger in ledgers.items()
        if len(ledger.trades) or len(ledger.open_trades)
    }
    trades = pl.concat([_trades_of(ledger, name) for name, ledger in ledgers.items()]) if ledgers else None
    if not strategies or trades is None:
        return {}
    shown = _trades_for_page(trades)
    symbols = trades["symbol"].value_counts(sort=True)["symbol"].to_list()[:MOST_SYMBOLS]
    return {
        "strategies": strategies,
        "trades": {"n": len(trades), "n_shown": len(shown), **_trade_columns(shown)},
        "prices": {symbol: _price(bars, symbol) for symbol in sorted(symbols)},
        "confidence": confidence,
    }


def _sheet(
    ledger: Ledger, active: pl.DataFrame, regimes: pl.DataFrame | None, periods_per_year: float, confidence: float
) -> StrategySheet:
    days, daily = ledger.daily_returns()
    exposure, turnover = (active[name].fill_null(0.0).to_numpy() for name in ("exposure", "turnover"))
    trades = ledger.trades.sort("exit_time")
    # a bar's return belongs to the hour in which it was earned; its time is its close
    opened = ledger.equity["time"].dt.offset_by("-1us")
    weekday = {k: tear_sheet.WEEKDAYS[k] for k in sorted(set(_weekday(days).tolist()))}
    groups = {
        "hour": _by_hour(opened.dt.hour().to_numpy(), ledger.returns(), confidence),
        "weekday": tear_sheet.by_group(daily, _weekday(days), weekday, confidence),
        "regime": _by_regime(trades, regimes, confidence),
    }
    return {
        "months": tear_sheet.monthly_returns(days, daily, confidence),
        "rolling": tear_sheet.rolling(days, daily, periods_per_year, confidence=confidence),
        "activity": tear_sheet.activity(days, exposure, turnover),
        "drawdowns": tear_sheet.drawdown_episodes(days, daily),
        "distribution": tear_sheet.trade_distribution(trades["net_return"].to_numpy(), confidence),
        "groups": {name: rows for name, rows in groups.items() if rows},
    }


def _weekday(days: Array) -> Array:
    """0 is Monday; 1970-01-01 was a Thursday."""
    return (np.asarray(days).astype("datetime64[D]").astype(int) + 3) % 7


def _by_hour(hour_B: Array, returns_B: Array, confidence: float) -> list[tear_sheet.GroupRow]:
    """Mean return of bars by the UTC hour in which they end; nothing for bars of a day or longer."""
    if len(np.unique(hour_B)) < 2:
        return []
    return tear_sheet.by_group(returns_B, hour_B, {h: HOURS[h] for h in sorted(set(hour_B.tolist()))}, confidence)


def _by_regime(trades: pl.DataFrame, regimes: pl.DataFrame | None, confidence: float) -> list[tear_sheet.GroupRow]:
    """Mean net return of trades by the filtered regime of their symbol when they were decided."""
    if regimes is None or trades.is_empty():
        return []
    decided = regimes.select("symbol", "regime", signal_time="time")
    joined = trades.join(decided, on=["symbol", "signal_time"], how="inner", maintain_order="left")
    names = {name: name for name in sorted(joined["regime"].unique().to_list())}
    return tear_sheet.by_group(joined["net_return"].to_numpy(), joined["regime"].to_numpy(), names, confidence)


def _trades_of(ledger: Ledger, name: str) -> pl.DataFrame:
    return ledger.trades.select(pl.lit(name).alias("strategy"), *TRADE_FIELDS[1:])


def _trades_for_page(trades: pl.DataFrame) -> pl.DataFrame:
    """All trades by time of entry, or the first and the last where they are too many for a page."""
    ordered = trades.sort("entry_time", "symbol", "strategy")
    if len(ordered) <= MOST_TRADES:
        return ordered
    half = MOST_TRADES // 2
    return pl.concat([ordered.head(half), ordered.tail(half)])


def _trade_columns(trades: pl.DataFrame) -> dict[str, list[Any]]:
    """Column by column, which is half the size of rows; names as positions in a list of names."""
    names = {key: sorted(trades[key].unique().to_list()) for key in ("strategy", "symbol", "reason")}
    out: dict[str, list[Any]] = {f"{key}_names": values for key, values in names.items()}
    for key in TRADE_FIELDS:
        column = trades[key]
        if key in names:
            out[key] = [names[key].index(value) for value in column.to_list()]
        elif key.endswith("_time"):
            out[key] = column.dt.strftime("%Y-%m-%d %H:%M").to_list()
        elif column.dtype == pl.Float64:
            out[key] = [float(f"{value:.5g}") for value in column.to_list()]
        else:
            out[key] = column.to_list()
    return out


def _price(bars: pl.DataFrame, symbol: str) -> dict[str, list[Any]]:
    """Closes of one symbol, thinned evenly."""
    own = bars.filter(pl.col("symbol") == symbol).select("time", "close")
    thin = own.gather_every(max(1, -(-len(own) // N_PRICES)))
    return {
        "time": thin["time"].dt.strftime("%Y-%m-%d %H:%M").to_list(),
        "close": [float(f"{value:.5g}") for value in thin["close"].to_list()],
    }
