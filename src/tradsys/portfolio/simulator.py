"""The backtest as a plain walk over bars: slow, obvious, and the rule that every faster one must agree with.

Rules, bar by bar, for each symbol by itself:
- The capital of 1.0 is split equally among the symbols of `bars`; the sub-accounts are never rebalanced.
- An entry wanted at the close of bar t becomes an order if the sub-account is then flat and no order is
  pending. It fills at the open of bar t + delay_bars. Signals that come while a position is held, or an
  order pending, are ignored. A signal at the close of the very bar in which an exit happened counts: the
  sub-account is flat by then.
- An order whose bars break off before it fills (another `segment` begins) is stale: cancelled and counted.
  A held position goes on through a gap, as one cannot know of it beforehand; it is flagged `spans_gap`.
- Barriers lie at the raw entry price plus and minus their distances. They are checked from the entry bar
  on, for horizon_bars bars: a bar that opens at or beyond a barrier fills at its open; else a bar that
  reaches both met the stop; an exact touch counts. Neither: out at the close of the last of them. Labels
  follow the same rules.
- quantity = size * equity / (fill price * (1 + fee)), so a long of size 1 spends its cash to zero, never
  below.
- A short receives its proceeds as cash, owes the quantity, and pays no borrow fee. Where covering would
  cost more than the sub-account has, it is covered at the price that takes the last cent (a stop, tighter
  than its own if need be; no fill beyond it). The loss is total but bounded, as on an isolated margin
  account; a venue with recourse could ask for more.
- A sub-account with less than BUST of its first cash left trades no more.
- Every fill is worsened by slippage and pays its fee: entries, barriers, gaps, timeouts alike.
- What is open at the last bar is marked at its close, listed as open, and is no trade.
- Equity of the union clock is the sum of the sub-accounts at that bar's close, the last known where one has
  no bar.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from tradsys.core.errors import DataError, TradsysError
from tradsys.market.bars import utc_bars
from tradsys.portfolio.costs import BUST, Costs
from tradsys.portfolio.ledger import EQUITY_SCHEMA, OPEN_SCHEMA, TRADES_SCHEMA, UTC_TIME, Ledger

PRICES = ("open", "high", "low", "close")
TARGETS_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "symbol": pl.String,
    "time": UTC_TIME,
    "side": pl.Int8,
    "size": pl.Float64,
    "take_profit": pl.Float64,
    "stop_loss": pl.Float64,
    "horizon_bars": pl.Int64,
}


def simulate(bars: pl.DataFrame, targets: pl.DataFrame, costs: Costs, delay_bars: int = 1) -> Ledger:
    """Ledger of the entries wanted in `targets`, under the rules at the top of this file.

    bars: symbol, time, open, high, low, close, optionally segment; sorted by (symbol, time). targets: at
    most one row per (symbol, time) of the bars; side +1 long, -1 short, 0 none; size: fraction 0..1 of the
    symbol's equity; take_profit, stop_loss: price distances > 0 from the entry (infinite: no such barrier);
    horizon_bars >= 1. Absent rows, side 0 and size 0 want no entry. delay_bars >= 1: bars from decision to
    fill. Raises DataError for bars or targets that break this, TradsysError for the delay.
    """
    check_delay(delay_bars)
    bars = check_bars(bars)
    entries = check_entries(targets).select(*TARGETS_SCHEMA)
    check_placed(entries, bars)
    symbols = bars["symbol"].unique(maintain_order=True).to_list()
    accounts = []
    for symbol in symbols:
        rows = bars.filter(pl.col("symbol") == symbol)
        own = entries.filter(pl.col("symbol") == symbol)
        wanted = {row["time"]: _Order(**row) for row in own.drop("symbol").iter_rows(named=True)}
        account = _Account(symbol=symbol, costs=costs, cash=1 / len(symbols))
        account.run([_Bar(*row) for row in rows.select("time", *PRICES, "segment").iter_rows()], wanted, delay_bars)
        accounts.append(account)
    return Ledger(
        trades=pl.DataFrame([t for a in accounts for t in a.trades], schema=TRADES_SCHEMA, orient="row"),
        equity=_union_equity(accounts, bars, 1 / len(symbols)),
        open_trades=pl.DataFrame([t for a in accounts for t in a.open_trades], schema=OPEN_SCHEMA, orient="row"),
        n_cancelled=sum(a.n_cancelled for a in accounts),
    )


class _Bar(NamedTuple):
    time: datetime
    open: float
    high: float
    low: float
    close: float
    segment: int


class _Order(NamedTuple):
    time: datetime
    side: int
    size: float
    take_profit: float
    stop_loss: float
    horizon_bars: int


@dataclass
class _Position:
    order: _Order
    entry_bar: int
    entry_raw: float
    entry_fill: float
    quantity: float
    fee: float
    target: float
    stop: float
    ruin: float


class _Account:
    """One symbol's share of the capital."""

    def __init__(self, symbol: str, costs: Costs, cash: float) -> None:
        self.symbol, self.costs, self.cash, self.first_cash = symbol, costs, cash, cash
        self.position: _Position | None = None
        self.n_cancelled = 0
        self.trades: list[dict[str, Any]] = []
        self.open_trades: list[dict[str, Any]] = []
        self.marks: list[tuple[datetime, float, float]] = []

    def run(self, bars: list[_Bar], wanted: dict[datetime, _Order], delay_bars: int) -> None:
        """Walks the bars: order, position, signal, valuation."""
        pending: tuple[int, _Order] | None = None
        for i, bar in enumerate(bars):
            if pending and bar.segment != bars[pending[0]].segment:
                self.n_cancelled += 1
                pending = None
            elif pending and i == pending[0] + delay_bars:
                self.position = self._enter(pending[1], i, bar)
                pending = None
            if self.position:
                self._maybe_exit(self.position, i, bar, bars[self.position.entry_bar])
            if not self.position and not pending and not self._bust() and bar.time in wanted:
                pending = (i, wanted[bar.time])
            held = self._signed_quantity() * bar.close
            self.marks.append((bar.time, self.cash + held, abs(held)))
        if self.position:
            row = self._row(self.position, len(bars) - 1, bars[-1], bars[self.position.entry_bar])
            self.open_trades.append(row | self._open_money(self.position, bars[-1]))

    def _enter(self, order: _Order, i: int, bar: _Bar) -> _Position:
        fill = self.costs.fill_price(bar.open, order.side)
        quantity = order.size * self.cash / (fill * (1 + self.costs.fee))
        fee = quantity * fill * self.costs.fee
        self.cash -= order.side * quantity * fill + fee
        stop, ruin = bar.open - order.side * order.stop_loss, float("inf")
        if order.side < 0:
            ruin = self.costs.liquidation_price(bar.open, order.size)
            stop = min(stop, ruin)
        target = bar.open + order.side * order.take_profit
        return _Position(order, i, bar.open, fill, quantity, fee, target, stop, ruin)

    def _maybe_exit(self, held: _Position, i: int, bar: _Bar, entry_bar: _Bar) -> None:
        reason, price = _touch(held, i, bar)
        if not reason:
            return
        price = min(price, held.ruin)
        fill = self.costs.fill_price(price, -held.order.side)
        fee = held.quantity * fill * self.costs.fee
        self.cash += held.order.side * held.quantity * fill - fee
        if price == held.ruin:
            self.cash = 0.0
        money = self._money(held, price, fill, held.fee + fee)
        row = self._row(held, i, bar, entry_bar)
        self.trades.append(row | money | {"exit_time": bar.time, "exit_price": fill, "reason": reason})
        self.position = None

    def _bust(self) -> bool:
        return self.cash < BUST * self.first_cash

    def _signed_quantity(self) -> float:
        return self.position.order.side * self.position.quantity if self.position else 0.0

    def _row(self, held: _Position, i: int, bar: _Bar, entry_bar: _Bar) -> dict[str, Any]:
        return {
            "symbol": self.symbol,
            "side": held.order.side,
            "signal_time": held.order.time,
            "entry_time": entry_bar.time,
            "entry_price": held.entry_fill,
            "quantity": held.quantity,
            "bars_held": i - held.entry_bar + 1,
            "spans_gap": bar.segment != entry_bar.segment,
        }

    def _money(self, held: _Position, raw: float, fill: float, fees: float) -> dict[str, float]:
        gross = held.order.side * held.quantity * (raw - held.entry_raw)
        net = held.order.side * held.quantity * (fill - held.entry_fill) - fees
        notional = held.quantity * held.entry_fill
        return {"gross_pnl": gross, "cost": gross - net, "net_pnl": net, "net_return": net / notional}

    def _open_money(self, held: _Position, bar: _Bar) -> dict[str, Any]:
        money = self._money(held, bar.close, bar.close, held.fee)
        return money | {"mark_time": bar.time, "mark_price": bar.close}


def _touch(held: _Position, i: int, bar: _Bar) -> tuple[str, float]:
    """Reason and raw price of the exit in this bar; an empty reason where there is none."""
    side = held.order.side
    best, worst = (bar.high, bar.low) if side > 0 else (bar.low, bar.high)
    if side * bar.open <= side * held.stop:
        return "stop_loss", bar.open
    if side * bar.open >= side * held.target:
        return "take_profit", bar.open
    if side * worst <= side * held.stop:
        return "stop_loss", held.stop
    if side * best >= side * held.target:
        return "take_profit", held.target
    if i == held.entry_bar + held.order.horizon_bars - 1:
        return "timeout", bar.close
    return "", 0.0


def _union_equity(accounts: list[_Account], bars: pl.DataFrame, share: float) -> pl.DataFrame:
    total = bars.select(pl.col("time").unique().sort()).with_columns(equity=pl.lit(0.0), held=pl.lit(0.0))
    for account in accounts:
        marks = pl.DataFrame(account.marks, schema={"time": UTC_TIME, "v": pl.Float64, "h": pl.Float64}, orient="row")
        total = total.join(marks, on="time", how="left", maintain_order="left").select(
            "time",
            pl.col("equity") + pl.col("v").forward_fill().fill_null(share),
            pl.col("held") + pl.col("h").forward_fill().fill_null(0.0),
        )
    exposure = pl.when(pl.col("equity") > 0).then(pl.col("held") / pl.col("equity")).otherwise(0.0)
    return total.select("time", "equity", exposure=exposure).cast(EQUITY_SCHEMA)  # type: ignore[arg-type]


def check_delay(delay_bars: int) -> None:
    """Raises TradsysError unless delay_bars >= 1: a decision cannot fill before the next open."""
    if delay_bars < 1:
        raise TradsysError(f"simulate: delay_bars={delay_bars}; a fill comes delay_bars >= 1 after its decision; use 1")


def check_bars(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars with time in UTC and a `segment` column; one per symbol where there was none.

    Raises DataError where columns lack, there are no bars, they are not sorted by (symbol, time) and
    unique, or a price is not finite and positive.
    """
    missing = {"symbol", "time", *PRICES} - set(bars.columns)
    if missing or bars.is_empty():
        raise DataError(f"simulate: {len(bars)} bars without columns {sorted(missing)}; load bars with OHLC and time")
    bars = utc_bars(bars, name="simulate: bars")
    symbol, time = pl.col("symbol"), pl.col("time")
    disorder = (symbol < symbol.shift(1)) | ((symbol == symbol.shift(1)) & (time <= time.shift(1)))
    n_disorder = bars.select(disorder.sum()).item()
    if n_disorder:
        raise DataError(
            f"simulate: {n_disorder} bars not after the one before; bars are sorted by (symbol, time), unique"
        )
    sound = pl.all_horizontal((pl.col(c) > 0) & pl.col(c).is_finite() for c in PRICES)
    unsound = bars.filter(sound.not_().fill_null(True))
    if len(unsound):
        first = unsound.row(0, named=True)
        raise DataError(
            f"simulate: {len(unsound)} bars with a price that is not finite and > 0, the first "
            f"{first['symbol']} at {first['time']}; prices are never filled silently; mend or drop these bars"
        )
    if "segment" in bars.columns:
        return bars
    return bars.with_columns(segment=pl.col("symbol").rank("dense").cast(pl.UInt32))


def check_columns(targets: pl.DataFrame) -> pl.DataFrame:
    """The targets with time in UTC; DataError unless they have the columns of TARGETS_SCHEMA."""
    missing = set(TARGETS_SCHEMA) - set(targets.columns)
    if missing:
        raise DataError(
            f"simulate: targets lack columns {sorted(missing)}; a target is {list(TARGETS_SCHEMA)}; pass "
            f"what Strategy.targets returns"
        )
    return utc_bars(targets, name="simulate: targets")


def check_entries(targets: pl.DataFrame) -> pl.DataFrame:
    """The rows that want an entry, in the types of TARGETS_SCHEMA; other columns stay.

    Raises DataError where columns lack or a value is out of range: side -1, 0, 1; size 0..1; distances > 0;
    horizon_bars >= 1; nothing null or NaN.
    """
    entries = check_columns(targets).cast(TARGETS_SCHEMA)  # type: ignore[arg-type]
    entries = entries.filter(((pl.col("side") == 0) | (pl.col("size") == 0)).fill_null(False).not_())
    sound = {
        "side": pl.col("side").abs() == 1,
        "size": pl.col("size").is_between(0, 1),
        "take_profit": (pl.col("take_profit") > 0) & pl.col("take_profit").is_not_nan(),
        "stop_loss": (pl.col("stop_loss") > 0) & pl.col("stop_loss").is_not_nan(),
        "horizon_bars": pl.col("horizon_bars") >= 1,
    }
    broken = (rule.not_().fill_null(True).sum().alias(name) for name, rule in sound.items())
    counts = {name: n for name, n in entries.select(broken).row(0, named=True).items() if n}
    if counts:
        raise DataError(
            f"simulate: target rows out of range, by column: {counts}; side is -1, 0 or 1, 0 <= size <= 1, "
            f"distances > 0, horizon_bars >= 1, none null or NaN; give no row where the ATR is not warmed up"
        )
    return entries


def check_placed(entries: pl.DataFrame, bars: pl.DataFrame, name: str = "simulate") -> None:
    """Raises DataError, under that name, unless each entry has a bar and none has two."""
    keys = ["symbol", "time"]
    n_stray = len(entries.join(bars.select(keys), on=keys, how="anti"))
    n_twice = len(entries) - entries.n_unique(keys)
    if n_stray or n_twice:
        raise DataError(
            f"{name}: of {len(entries)} target rows, {n_stray} lie at no bar and {n_twice} share one; a "
            f"target is at most one row per (symbol, time) of the bars; build targets from these very bars"
        )
