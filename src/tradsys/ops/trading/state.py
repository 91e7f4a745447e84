"""The bot's state, rebuilt from its journal: the same events always give the same state."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

import polars as pl

from tradsys.ops.trading import events
from tradsys.ops.trading.events import Row, bar_from, fill_from, order_from
from tradsys.ops.trading.store import Event
from tradsys.portfolio.ledger import EQUITY_SCHEMA, OPEN_SCHEMA, TRADES_SCHEMA, Ledger
from tradsys.serving.brokers import FULL, Account, Fill, Order, Position

YEAR = timedelta(days=365)
KEPT_DECISIONS = 30
KEPT_NOTES = 50
NOTED = {"halt", "resume", "note", "start", "stop", "gap", "correction", "reject", "swap", "foreign", "split"}
WATCHED = 1000  # moments whose forecasts, outcomes and signals are compared with the run's


@dataclass
class State:
    """The bot's complete state. Only `apply` changes it.

    settings: of the start event. accounts: by symbol. orders: intents by client id; open_orders: those whose end is
    not journaled yet. halts: reason by rule, until lifted. equity: (time, equity, exposure) per moment, quote units.
    """

    settings: events.Settings = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    open_orders: dict[str, Order] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)  # open orders that the exchange has acknowledged
    seen_trades: dict[str, None] = field(default_factory=dict)
    halts: dict[str, str] = field(default_factory=dict)
    trades: list[Row] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    equity: list[float] = field(default_factory=list)
    exposure: list[float] = field(default_factory=list)
    decisions: deque[events.Decision] = field(default_factory=lambda: deque(maxlen=KEPT_DECISIONS))
    notes: deque[Row] = field(default_factory=lambda: deque(maxlen=KEPT_NOTES))
    slippage_bps: deque[events.Slippage] = field(default_factory=lambda: deque(maxlen=200))
    sent: deque[datetime] = field(default_factory=lambda: deque(maxlen=1000))
    moment: datetime | None = None  # newest bar time whose bars are journaled
    decided: datetime | None = None  # newest bar time whose decisions are journaled
    peak: float = 0.0
    n_cancelled: int = 0
    last_request: int = 0
    last_event: int = 0
    stopped: str = ""
    watch: events.Watch = field(default_factory=events.Watch)
    source: Row = field(default_factory=dict)  # `events.SourceBody` of the newest bar; empty for stored bars
    forecasts: deque[tuple[datetime, dict[str, tuple[float, float]]]] = field(
        default_factory=lambda: deque(maxlen=WATCHED)
    )  # probability and score by symbol
    outcomes: deque[tuple[datetime, list[tuple[float, int]]]] = field(
        default_factory=lambda: deque(maxlen=WATCHED)
    )  # probability and label of each forecast whose label is resolved
    signals: deque[float] = field(default_factory=lambda: deque(maxlen=WATCHED))  # share of a moment's bars
    n_rows: int = 0
    n_signals: int = 0

    def replay(self, journaled: Iterable[Event]) -> "State":
        """Applies events in order; returns itself."""
        for event in journaled:
            self.apply(event)
        return self

    def apply(self, event: Event) -> None:
        """Applies one event; kinds without state are ignored."""
        self.last_event = event.id
        handler = self._HANDLERS.get(event.kind)
        if handler is not None:
            handler(self, event.body)
        if event.kind in NOTED:
            self.notes.append({"written": event.written, "kind": event.kind, **event.body})

    @property
    def capital(self) -> float:
        """The initial capital in quote units."""
        return float(self.settings.get("capital", 1.0))

    @property
    def bar_minutes(self) -> float:
        """Bar length, minutes."""
        return float(self.settings.get("bar_minutes", 60.0))

    @property
    def signal_share(self) -> float | None:
        """Share of decided bars with a signal; None before the first."""
        return self.n_signals / self.n_rows if self.n_rows else None

    @property
    def total(self) -> float:
        """Equity at the newest closes, quote units."""
        return sum(account.equity for account in self.accounts.values())

    @property
    def max_gap(self) -> timedelta | None:
        """Longest step between bars that is no gap."""
        minutes = self.settings.get("max_gap_minutes")
        return None if minutes is None else timedelta(minutes=minutes)

    def ledger(self) -> Ledger:
        """The trade ledger in a backtest's form: money in units of the initial capital."""
        unit = 1.0 / self.capital
        money = ("quantity", "gross_pnl", "cost", "carry", "net_pnl")
        closed = sorted(self.trades, key=lambda t: (t["symbol"], t["entry_time"]))
        opened = [self._open_row(a) for _, a in sorted(self.accounts.items()) if a.position is not None]
        scaled = [[{k: v * unit if k in money else v for k, v in t.items()} for t in rows] for rows in (closed, opened)]
        return Ledger(
            trades=pl.DataFrame(scaled[0], schema=TRADES_SCHEMA, orient="row"),
            equity=pl.DataFrame(
                {"time": self.times, "equity": [e * unit for e in self.equity], "exposure": self.exposure},
                schema=EQUITY_SCHEMA,
            ),
            open_trades=pl.DataFrame(scaled[1], schema=OPEN_SCHEMA, orient="row"),
            n_cancelled=self.n_cancelled,
        )

    def _start(self, body: events.Settings) -> None:
        self.stopped = ""
        if not self.accounts:
            symbols = body["symbols"]
            share = body["capital"] / len(symbols)
            self.accounts = {s: Account(s, share, share) for s in symbols}
        self.settings = {**self.settings, **body}

    def _bars(self, body: events.Bars) -> None:
        for held in self.accounts.values():
            held.n_missed += held.last_time is not None
        for row in body["bars"]:
            bar = bar_from(row)
            account = self.accounts.get(bar.symbol)
            if account is None:  # a symbol that serves features only
                continue
            before, gap = account.last_time, self.max_gap
            account.broken = before is not None and gap is not None and bar.time - before > gap
            account.before = account.last_close if before is not None else math.nan
            account.years = 0.0 if before is None else (bar.time - before) / YEAR
            account.last_time, account.last_close, account.n_missed = bar.time, bar.close, 0
            if account.position is not None:
                account.position.bars_held += 1
                account.position.spans_gap |= account.broken
        self.moment = datetime.fromisoformat(body["time"])
        self.source = dict(body.get("source", {}))

    def _intent(self, body: Row) -> None:
        order = order_from(body)
        account = self.accounts[order.symbol]
        self.open_orders[order.client_id] = order
        self.sent.append(order.signal_time)
        if order.leg == "entry":
            account.pending = order
        elif account.position is not None:
            if order.leg == "exit":
                account.position.exits += 1
            else:
                account.position.protective[order.leg] = order.client_id
                account.position.attempts += 1

    def _order(self, body: events.OrderEnd) -> None:
        status, order = body["status"], self.open_orders.get(body["client_id"])
        if order is None:
            return
        if status in ("accepted", "unknown"):
            self.acknowledged.add(order.client_id)
            return
        account = self.accounts[order.symbol]
        if status in ("canceled", "rejected", "filled"):
            self.open_orders.pop(order.client_id)
            self.acknowledged.discard(order.client_id)
            if order.leg == "entry" and account.pending is not None:
                account.pending = None
                self.n_cancelled += status == "canceled"
            if account.position is not None and account.position.protective.get(order.leg) == order.client_id:
                account.position.protective.pop(order.leg)

    def _fill(self, body: Row) -> None:
        fill = fill_from(body)
        if fill.trade_id in self.seen_trades:
            return
        self.seen_trades[fill.trade_id] = None
        if len(self.seen_trades) > 5000:
            self.seen_trades.pop(next(iter(self.seen_trades)))
        account = self.accounts[fill.symbol]
        if fill.leg == "entry":
            self._enter(account, fill)
        else:
            self._exit(account, fill)

    def _enter(self, account: Account, fill: Fill) -> None:
        order = self.open_orders.get(fill.client_id) or account.pending
        account.cash -= fill.side * fill.quantity * fill.price + fill.fee
        held = account.position
        if held is None:
            assert order is not None, fill
            assert fill.levels is not None, fill
            entry = (fill.time, fill.raw, fill.price, fill.quantity, fill.fee, *fill.levels)
            account.position = Position(order, *entry, bars_held=int(fill.time == account.last_time))
            account.pending = None
            return
        total = held.quantity + fill.quantity
        held.entry_price += (fill.price - held.entry_price) * fill.quantity / total
        held.entry_raw += (fill.raw - held.entry_raw) * fill.quantity / total
        held.quantity, held.fee = total, held.fee + fill.fee
        if fill.levels is not None:
            held.target, held.stop, held.ruin = fill.levels

    def _exit(self, account: Account, fill: Fill) -> None:
        held = account.position
        assert held is not None, fill
        account.cash += fill.side * fill.quantity * fill.price - fill.fee
        held.sold += fill.quantity
        held.sold_quote += fill.quantity * fill.price
        held.sold_raw += fill.quantity * fill.raw
        held.exit_fee += fill.fee
        if fill.cash is not None:
            account.cash, held.carry = fill.cash, fill.carry
        if held.sold < held.quantity * FULL and held.left >= fill.step * FULL:
            return
        account.dust += held.order.side * held.left
        raw, price = held.sold_raw / held.sold, held.sold_quote / held.sold
        if held.sold == fill.quantity:  # a single fill: its exact price, without rounding of a quotient
            raw, price = fill.raw, fill.price
        if account.last_time is not None and fill.time < account.last_time:  # the fill was seen bars later
            since = (account.last_time - fill.time) / timedelta(minutes=self.bar_minutes)
            held.bars_held = max(1, held.bars_held - round(since))
        row = _trade_row(account.symbol, held, raw, price, held.fee + held.exit_fee)
        self.trades.append(row | {"exit_time": fill.time, "exit_price": price, "reason": fill.reason})
        account.position = None

    def _open_row(self, account: Account) -> Row:
        held = account.position
        assert held is not None
        row = _trade_row(account.symbol, held, account.last_close, account.last_close, held.fee)
        return row | {"mark_time": account.last_time, "mark_price": account.last_close}

    def _decision(self, body: events.Decision) -> None:
        self.decided = datetime.fromisoformat(body["time"])
        total = self.total
        gross = sum(abs(a.held) for a in self.accounts.values())
        self.peak = max(self.peak, total)
        self.times.append(self.decided)
        self.equity.append(total)
        self.exposure.append(gross / total if total > 0 else 0.0)
        self.decisions.append(body)
        n_signals = sum(row["action"].startswith(("enter", "long", "short")) for row in body["rows"].values())
        self.n_rows += len(body["rows"])
        self.n_signals += n_signals
        if body["rows"]:
            self.signals.append(n_signals / len(body["rows"]))

    def _halt(self, body: events.Halt) -> None:
        self.halts[body["rule"]] = body["why"]

    def _resume(self, _body: events.Why) -> None:
        self.halts.clear()

    def _request(self, body: events.Request) -> None:
        self.last_request = body["id"]

    def _foreign(self, body: events.Foreign) -> None:
        if body["symbol"] in self.accounts:
            self.accounts[body["symbol"]].foreign = body["foreign"]

    def _stop(self, body: events.Why) -> None:
        self.stopped = body["why"]

    def _swap(self, body: events.Settings) -> None:
        self.settings = {**self.settings, **body}
        self.watch = {}
        for of_the_old in (self.forecasts, self.outcomes, self.signals):
            of_the_old.clear()

    def _prediction(self, body: events.Prediction) -> None:
        rows = {s: (row["probability"], row["score"]) for s, row in body["rows"].items() if "score" in row}
        if rows:
            self.forecasts.append((datetime.fromisoformat(body["time"]), rows))

    def _watch(self, body: events.Watch) -> None:
        for time, pairs in body.get("resolved", {}).items():
            self.outcomes.append((datetime.fromisoformat(time), [(p, y) for p, y in pairs]))
        self.watch = body.copy()
        self.watch.pop("resolved", None)

    def _carry(self, body: events.Carry) -> None:
        account = self.accounts[body["symbol"]]
        held = account.position
        assert held is not None, body
        account.cash, held.carried = body["cash"], datetime.fromisoformat(body["time"])
        held.carry, held.passed, held.leaving = body["carry"], body["passed"], body["leaving"]
        held.part_out, held.part_value = body["part_out"], body["part_value"]

    def _split(self, body: events.Split) -> None:
        account, ratio = self.accounts.get(body["symbol"]), float(body["ratio"])
        if account is None:
            return
        account.last_close /= ratio
        account.dust *= ratio
        if account.pending is not None:
            account.pending = _in_new_units(account.pending, ratio)
        held = account.position
        if held is None:
            return
        held.order = _in_new_units(held.order, ratio)
        for name in ("quantity", "sold", "part_out"):
            setattr(held, name, getattr(held, name) * ratio)
        for name in ("entry_raw", "entry_price", "target", "stop", "ruin"):
            setattr(held, name, getattr(held, name) / ratio)

    _HANDLERS: ClassVar[dict[str, Callable[["State", Any], None]]] = {
        "start": _start,
        "bars": _bars,
        "note": lambda state, body: state.source.update(body.get("source", {})),
        "intent": _intent,
        "order": _order,
        "fill": _fill,
        "decision": _decision,
        "halt": _halt,
        "resume": _resume,
        "request": _request,
        "foreign": _foreign,
        "stop": _stop,
        "swap": _swap,
        "carry": _carry,
        "slippage": lambda state, body: state.slippage_bps.append(body),
        "split": _split,
        "prediction": _prediction,
        "watch": _watch,
    }


def _in_new_units(order: Order, ratio: float) -> Order:
    """The order after a split of `ratio` new units per old: distances per unit shrink as prices do."""
    distances = {name: getattr(order, name) / ratio for name in ("take_profit", "stop_loss", "price")}
    return replace(order, quantity=order.quantity * ratio, **distances)


def _trade_row(symbol: str, held: Position, raw: float, price: float, fees: float) -> Row:
    side, quantity = held.order.side, held.quantity
    gross = side * quantity * (raw - held.entry_raw)
    traded = side * quantity * (price - held.entry_price) - fees
    net = traded + held.carry
    return {
        "symbol": symbol,
        "side": side,
        "signal_time": held.order.signal_time,
        "entry_time": held.entry_time,
        "entry_price": held.entry_price,
        "quantity": quantity,
        "gross_pnl": gross,
        "cost": gross - traded,
        "carry": held.carry,
        "net_pnl": net,
        "net_return": net / (quantity * held.entry_price),
        "bars_held": held.bars_held,
        "spans_gap": held.spans_gap,
    }
