"""Reference backtest as a plain loop over bars: slow and simple; every faster one must agree with it.

Rules, bar by bar, for each symbol by itself:
- The capital of 1.0 is split equally among the symbols of `bars`; the sub-accounts are never rebalanced.
- An entry wanted at the close of bar t becomes an order if the sub-account is then flat and no order is
pending. It fills at the open of bar t + delay_bars. Signals while a position is held, or an order pending,
are ignored. A signal at the close of the bar in which an exit happened counts: the sub-account is flat by
then.
- An order is stale where its bars break off before it fills (another `segment` begins): cancelled and counted.
A position is held across a gap, because the gap cannot be foreseen; it is flagged `spans_gap`.
- Barriers lie at the raw entry price plus and minus their distances. They are checked from the entry bar
  on, for horizon_bars bars: a bar that opens at or beyond a barrier fills at its open; else a bar that
  reaches both hits the stop; an exact touch counts. Neither: exit at the close of the last of them. Labels
  follow the same rules.
- quantity = size * equity / (fill price * (1 + fee)), so a long of size 1 spends its cash to zero, never
  below.
- What a bar can fill (volume, participation, unconfirmed prints) and what holding costs or earns
(dividends, funding, borrow fee) are the rules of `fills`, one bar at a time. An order waits for a bar that can
fill it, within its segment.
- A short receives its proceeds as cash and owes the quantity. Where covering would
cost more than the sub-account has, it is covered at the price that takes all its cash (a stop, tighter
than its own if need be; no fill beyond it). The loss is total but bounded, as on an isolated margin
account; a venue with recourse could demand more.
- A sub-account with less than BUST of its initial cash stops trading.
- Every fill is worsened by slippage and pays its fee: entries, barriers, gaps, timeouts alike.
- A position in a delisted symbol is closed at the configured recovery: see `fills`. The delisting is known, and the
trade ends, `costs.dead_after_bars` times of the union clock after its last bar; until then it is marked at its last
close.
- What is open at the last bar is marked at its close, listed as open, and is no trade.
- Equity of the union clock is the sum of the sub-accounts at that bar's close; a sub-account without a bar
there counts with its last equity.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import polars as pl

from tradsys.core.errors import DataError, TradsysError
from tradsys.market.bars import utc_bars
from tradsys.market.tradable import close_before, death_known_at, event, traded_volume, years_since
from tradsys.portfolio.costs import BUST, Costs
from tradsys.portfolio.fills import Bar, Holding, Order, Step, advance, close_delisted, enter
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
    """Ledger of the entries wanted in `targets`.

    The rules stand at the top of this module. bars: symbol, time, open, high, low, close, optionally segment, volume,
    funding_due (rate) and dividend_due (money per unit, on the ex-date's bar; see `market.events`); sorted by (symbol,
    time). targets: at most one row per (symbol, time) of the bars; side +1 long, -1 short, 0 none; size: fraction 0..1
    of the symbol's equity; take_profit, stop_loss: price distances > 0 from the entry (infinite: no such barrier);
    horizon_bars >= 1. Absent rows, side 0 and size 0 want no entry. delay_bars >= 1: bars from decision to fill. Raises
    DataError for bars or targets that break this, TradsysError for a delay below 1.
    """
    check_delay(delay_bars)
    bars = check_bars(bars)
    entries = check_entries(targets).select(*TARGETS_SCHEMA)
    check_placed(entries, bars)
    symbols = bars["symbol"].unique(maintain_order=True).to_list()
    death = delisted_at(bars, costs)
    accounts = []
    for symbol in symbols:
        rows = bars.filter(pl.col("symbol") == symbol)
        own = entries.filter(pl.col("symbol") == symbol)
        wanted = {row["time"]: Order(**row) for row in own.drop("symbol").iter_rows(named=True)}
        account = _Account(symbol=symbol, costs=costs, cash=1 / len(symbols))
        account.run(_bars_of(rows), wanted, delay_bars, death.filter(bars["symbol"] == symbol))
        accounts.append(account)
    equity = _union_equity(accounts, bars, 1 / len(symbols))
    check_equity(equity)
    return Ledger(
        trades=pl.DataFrame([t for a in accounts for t in a.trades], schema=TRADES_SCHEMA, orient="row"),
        equity=equity,
        open_trades=pl.DataFrame([t for a in accounts for t in a.open_trades], schema=OPEN_SCHEMA, orient="row"),
        n_cancelled=sum(a.n_cancelled for a in accounts),
    )


def _bars_of(rows: pl.DataFrame) -> Iterator[Bar]:
    """One symbol's rows as the bars of the fill rule, one at a time: all as objects would take much memory."""
    extra = rows.select("time", *PRICES, "segment").with_columns(
        volume=pl.Series(traded_volume(rows)),
        before=pl.Series(close_before(rows)),
        years=pl.Series(years_since(rows)),
        funding=pl.Series(event(rows, "funding_due")),
        dividend=pl.Series(event(rows, "dividend_due")),
    )
    return (Bar(*row) for row in extra.iter_rows())


def delisted_at(bars: pl.DataFrame, costs: Costs) -> pl.Series:
    """Time [R] at which the gap after each bar is known to be a delisting.

    Null where there is none.
    """
    clock = bars["time"].unique().sort()
    if costs.dead_after_bars is None:
        return pl.Series([None] * bars.height, dtype=clock.dtype)
    known = pl.Series(death_known_at(bars, costs.dead_after_bars))
    return clock.gather(known.replace(-1, None))


class _Account:
    """One symbol's share of the capital."""

    def __init__(self, symbol: str, costs: Costs, cash: float) -> None:
        self.symbol, self.costs, self.cash, self.first_cash = symbol, costs, cash, cash
        self.held: Holding | None = None
        self.entry_bar: tuple[int, Bar] | None = None
        self.n_cancelled = 0
        self.trades: list[dict[str, Any]] = []
        self.open_trades: list[dict[str, Any]] = []
        self.marks: list[tuple[datetime, float, float]] = []

    def run(self, bars: Iterable[Bar], wanted: dict[datetime, Order], delay_bars: int, death: pl.Series) -> None:
        """Runs over the bars: order, position, signal, valuation.

        A delisting that follows a bar is booked there.
        """
        pending: tuple[int, Bar, Order] | None = None
        for i, (bar, moment) in enumerate(zip(bars, death, strict=True)):
            if pending and bar.segment != pending[1].segment:
                self.n_cancelled += 1
                pending = None
            elif pending and i >= pending[0] + delay_bars and self._enter(pending[2], i, bar):
                pending = None
            if self.held:
                self._advance(self.held, i, bar)
            if not self.held and not pending and not self._bust() and bar.time in wanted:
                pending = (i, bar, wanted[bar.time])
            value = self.held.order.side * self.held.quantity * bar.close if self.held else 0.0
            self.marks.append((bar.time, max(self.cash + value, 0.0), abs(value)))
            if self.held and moment is not None:
                self._close(close_delisted(self.held, bar.close, self.cash, self.costs), i, bar, moment)
                self.marks.append((moment, self.cash, 0.0))
        if self.held:  # past the last bar
            row = self._row(self.held, i, bar)
            money = _money(self.held, bar.close, bar.close, self.held.fee)
            self.open_trades.append(row | money | {"mark_time": bar.time, "mark_price": bar.close})

    def _enter(self, order: Order, i: int, bar: Bar) -> bool:
        entered = enter(order, bar, self.cash, self.costs)
        if entered:
            self.held, self.cash = entered
            self.entry_bar = (i, bar)
        return entered is not None

    def _advance(self, held: Holding, i: int, bar: Bar) -> None:
        self._close(advance(held, bar, self.cash, self.costs), i, bar, bar.time)

    def _close(self, step: Step, i: int, bar: Bar, time: datetime) -> None:
        """Applies a step, and books the trade where it closed the position. bar: the last one held."""
        self.held, self.cash, left = step
        if left:
            money = _money(self.held, left.raw, left.fill, self.held.fee + left.fee)
            row = self._row(self.held, i, bar) | money
            self.trades.append(row | {"exit_time": time, "exit_price": left.fill, "reason": left.reason})
            self.held = None

    def _bust(self) -> bool:
        return self.cash < BUST * self.first_cash

    def _row(self, held: Holding, i: int, bar: Bar) -> dict[str, Any]:
        assert self.entry_bar is not None
        first, entry_bar = self.entry_bar
        return {
            "symbol": self.symbol,
            "side": held.order.side,
            "signal_time": held.order.time,
            "entry_time": entry_bar.time,
            "entry_price": held.entry_fill,
            "quantity": held.quantity,
            "bars_held": i - first + 1,
            "spans_gap": bar.segment != entry_bar.segment,
        }


def _money(held: Holding, raw: float, fill: float, fees: float) -> dict[str, float]:
    gross = held.order.side * held.quantity * (raw - held.entry_raw)
    traded = held.order.side * held.quantity * (fill - held.entry_fill) - fees
    net = traded + held.carry
    notional = held.quantity * held.entry_fill
    return {
        "gross_pnl": gross,
        "cost": gross - traded,
        "carry": held.carry,
        "net_pnl": net,
        "net_return": net / notional,
    }


def _union_equity(accounts: list[_Account], bars: pl.DataFrame, share: float) -> pl.DataFrame:
    # differences from the share: an account that never traded adds exactly nothing; k * (1 / k) need not be 1
    total = bars.select(pl.col("time").unique().sort()).with_columns(equity=pl.lit(1.0), held=pl.lit(0.0))
    for account in accounts:
        marks = pl.DataFrame(account.marks, schema={"time": UTC_TIME, "v": pl.Float64, "h": pl.Float64}, orient="row")
        total = total.join(marks, on="time", how="left", maintain_order="left").select(
            "time",
            pl.col("equity") + (pl.col("v").forward_fill().fill_null(share) - share),
            pl.col("held") + pl.col("h").forward_fill().fill_null(0.0),
        )
    exposure = pl.when(pl.col("equity") > 0).then(pl.col("held") / pl.col("equity")).otherwise(0.0)
    return total.select("time", "equity", exposure=exposure).cast(EQUITY_SCHEMA)  # type: ignore[arg-type]


def check_equity(equity: pl.DataFrame, strategy: str = "") -> None:
    """Raises DataError where equity leaves the range of floating point."""
    beyond = equity.filter(~pl.col("equity").is_finite())
    if beyond.height:
        raise beyond_numbers(f"at {beyond['time'][0]}", strategy)


def beyond_numbers(when: str, strategy: str = "") -> DataError:
    """The error of an account that left the range of floating-point numbers."""
    named = f" of strategy {strategy!r}" if strategy else ""
    return DataError(
        f"simulate: the account{named} leaves the range of numbers {when}; no market pays 1e300 times the capital; "
        "check the bars' prices, and the edge and number of bars of a made-up market"
    )


def check_delay(delay_bars: int) -> None:
    """Raises TradsysError unless delay_bars >= 1.

    A decision cannot fill before the next open.
    """
    if delay_bars < 1:
        raise TradsysError(f"simulate: delay_bars={delay_bars}; a fill comes delay_bars >= 1 after its decision; use 1")


def check_bars(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars with time in UTC and a `segment` column.

    One per symbol where there was none. Raises DataError where columns lack, there are no bars, they are not sorted by
    (symbol, time) and unique, or a price is not finite and positive.
    """
    missing = {"symbol", "time", *PRICES} - set(bars.columns)
    if missing or bars.is_empty():
        raise DataError(f"simulate: {len(bars)} bars without columns {sorted(missing)}; load bars with OHLC and time")
    bars = utc_bars(bars, name="simulate: bars")
    symbol, time = pl.col("symbol"), pl.col("time")
    disorder = (symbol < symbol.shift(1)) | ((symbol == symbol.shift(1)) & (time <= time.shift(1)))
    disorder = disorder | symbol.is_null() | time.is_null()
    n_disorder = bars.select(disorder.sum()).item()
    if n_disorder:
        raise DataError(
            f"simulate: {n_disorder} bars not after the one before; bars must be sorted by (symbol, time) and "
            "unique; sort them first"
        )
    sound = pl.all_horizontal((pl.col(c) > 0) & pl.col(c).is_finite() for c in PRICES)
    unsound = bars.filter(sound.not_().fill_null(True))
    if len(unsound):
        first = unsound.row(0, named=True)
        raise DataError(
            f"simulate: {len(unsound)} bars with a price that is not finite and > 0, the first "
            f"{first['symbol']} at {first['time']}; prices are never filled silently; fix or drop these bars"
        )
    if "segment" in bars.columns:
        return bars
    return bars.with_columns(segment=pl.col("symbol").rank("dense").cast(pl.UInt32))


def check_columns(targets: pl.DataFrame) -> pl.DataFrame:
    """The targets with time in UTC.

    Raises DataError unless they have the columns of TARGETS_SCHEMA.
    """
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
