"""One step of the bot: reads bars, books fills, decides, sends orders, and journals each part."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.ops.trading import orders
from tradsys.ops.trading.events import Listener, NewEvent, Row, bar_body, fill_body, order_body
from tradsys.ops.trading.risk import Risk
from tradsys.ops.trading.state import State
from tradsys.ops.trading.store import TradeJournal
from tradsys.serving.brokers import Account, Bar, Broker, Order, Report, client_id
from tradsys.serving.feeds import Moment, frame_of
from tradsys.serving.joined import StaleColumnsError
from tradsys.serving.strategy import Strategy

MAX_PROTECTIVE = 20  # failed protective orders per position before the bot halts
SHOWN = ("probability", "score", "regime", "audit", "side")


class Predictor(Protocol):
    """Forecasts for the bars that just closed; `serving.session.Session` is one."""

    def step(self, closed: pl.DataFrame) -> pl.DataFrame:
        """Predictions for these bars, one row per symbol with a full window."""


class Engine:
    """The step shared by replay, paper and live trading.

    Every change is first an event in the journal and then applied to the state, so that the state can always be
    rebuilt. `listen` is called with each event worth a notice (fill, halt, stop, error).
    """

    def __init__(
        self,
        strategy: Strategy,
        predictor: Predictor,
        broker: Broker,
        journal: TradeJournal,
        state: State,
        risk: Risk,
        *,
        digest: str,
        listen: Listener = lambda _kind, _body: None,
    ) -> None:
        self.strategy, self.predictor, self.broker = strategy, predictor, broker
        self.journal, self.state, self.risk = journal, state, risk
        self.digest, self.listen = digest, listen
        self.max_protective = MAX_PROTECTIVE
        self.on_predictions: Callable[[pl.DataFrame | None, Array | None], None] = lambda _rows, _features: None
        self._news: list[NewEvent] = []  # applied, listeners not called yet
        self._in_step = False
        self.refused: dict[str, bool] = {}  # newer bundles that were refused

    def record(self, *events: NewEvent) -> None:
        """Journals events in one transaction, then applies them.

        Within a step they wait for its one transaction.
        """
        for event in self.journal.append(events):
            self.state.apply(event)
            self._news.append((event.kind, event.body))
        if not self._in_step:
            self._written()

    def _written(self) -> None:
        """Flushes the journal, then calls the listener for each new event."""
        self.journal.flush()
        news, self._news = self._news, []
        for kind, body in news:
            self.listen(kind, body)

    def step(self, moment: Moment) -> None:
        """Processes one moment: book, settle, decide, send.

        It can be repeated after a crash at any point. Without orders all of its events are one transaction. Before an
        order is sent, its intent is on disk.
        """
        self._in_step = True
        try:
            with self.journal.together():
                self._take_through(moment)
        finally:
            self._in_step = False
            self._written()

    def _take_through(self, moment: Moment) -> None:
        self._book(moment)
        for bar in self._traded(moment):
            account = self.state.accounts[bar.symbol]
            if not self.broker.immediate:
                self.take(self.broker.settle(account, bar), account.pending, bar)
                continue
            orders.book_funding(self, account, bar, at_close=False)
            if not moment.late:
                orders.poll(self, account)
                orders.book_funding(self, account, bar)
                self._compare(account, bar)
                orders.watch(self, account, bar)
            else:
                orders.book_funding(self, account, bar)
        for account in self.state.accounts.values():
            if account.n_missed and account.position is not None:
                self.take(self.broker.miss(account, moment.time), None)
        self._check_losses()
        if self.state.decided != moment.time:
            self._decide(moment)
        self.send_waiting(None if moment.late else moment.time)

    def _traded(self, moment: Moment) -> list[Bar]:
        """The bars of symbols that have a sub-account; others serve features only."""
        return [bar for bar in moment.bars if bar.symbol in self.state.accounts]

    def _book(self, moment: Moment) -> None:
        if self.state.moment == moment.time:
            return
        events: list[NewEvent] = []
        for before, after in moment.corrected:
            events.append(("correction", {"before": bar_body(before), "after": bar_body(after)}))
        for symbol, ratio in moment.splits:
            events.append(("split", {"symbol": symbol, "ratio": ratio, "time": moment.time.isoformat()}))
        if moment.missing:
            events.append(("gap", {"time": moment.time.isoformat(), "symbols": list(moment.missing)}))
        body = {"time": moment.time.isoformat(), "late": moment.late, "bars": [bar_body(b) for b in moment.bars]}
        if moment.source is not None:
            body["source"] = {**moment.source.body(), "age_seconds": moment.age}
        self.record(*events, ("bars", body))
        for symbol, ratio in moment.splits:
            self.halt(
                "split",
                f"{symbol} was split, {ratio:.6g} new units for one; positions were converted, but features still use "
                "old units; stop the bot, start it again and lift the halt with `trade resume`",
            )

    def take(self, report: Report, order: Order | None, bar: Bar | None = None) -> None:
        """Journals a broker's report.

        Fills, the end of an order, and the position's changes in this bar.
        """
        events: list[NewEvent] = [
            ("fill", fill_body(fill)) for fill in report.fills if fill.trade_id not in self.state.seen_trades
        ]
        known = order is not None and report.status == "accepted" and order.client_id in self.state.acknowledged
        if order is not None and order.client_id in self.state.open_orders and not known:
            events.append(("order", {"client_id": order.client_id, "status": report.status, "why": report.why}))
        if report.carried is not None and bar is not None:
            events.append(("carry", {"symbol": bar.symbol, "time": bar.time.isoformat(), **report.carried}))
        if events:
            self.record(*events)

    def _compare(self, account: Account, bar: Bar) -> None:
        """Journals an entry's price relative to its bar's open, at which the backtest fills."""
        held = account.position
        if held is None or held.entry_time != bar.time or held.bars_held != 1:
            return
        bps = held.order.side * (held.entry_price / bar.open - 1) * 1e4
        body = {"symbol": bar.symbol, "time": bar.time.isoformat(), "bps": bps, "client_id": held.order.client_id}
        if not any(row["client_id"] == held.order.client_id for row in self.state.slippage_bps):
            self.record(("slippage", body))

    def _check_losses(self) -> None:
        breach = self.risk.breach(self.state)
        if breach is not None:
            self.halt(*breach)

    def halt(self, rule: str, why: str) -> None:
        """Stops new entries until a person lifts the halt.

        Open positions keep their exits.
        """
        if rule not in self.state.halts:
            self.record(("halt", {"rule": rule, "why": why, "time": str(self.state.moment)}))

    def _decide(self, moment: Moment) -> None:
        closed, why = frame_of(moment.bars), "no bar"
        predictions = None
        if moment.corrected:
            self._correct(moment)
        try:
            predictions = self.predictor.step(closed) if moment.bars else None
        except DataError as error:
            why = str(error)
            what = "columns" if isinstance(error, StaleColumnsError) else "bars"
            self.record(("note", {"what": what, "why": why}))
        self.on_predictions(predictions, getattr(self.predictor, "newest", None))
        rows = {} if predictions is None else {row["symbol"]: row for row in predictions.iter_rows(named=True)}
        wanted: dict[str, Row] = {}
        if predictions is not None and predictions.height:
            targets = self.strategy.targets(closed, moment.time, predictions)
            wanted = {row["symbol"]: row for row in targets.iter_rows(named=True)}
        decisions: dict[str, Row] = {}
        entries: list[Order] = []
        for bar in self._traded(moment):
            row = rows.get(bar.symbol)
            shown = {} if row is None else {key: row[key] for key in SHOWN if key in row}
            order, reason = self._order(bar, wanted.get(bar.symbol), moment)
            if row is None:
                reason = "no full window" if predictions is not None else why
            if order is not None:
                entries.append(order)
            decisions[bar.symbol] = {**shown, "action": reason}
        time = moment.time.isoformat()
        body = {"time": time, "late": moment.late, "rows": decisions}
        events = [("prediction", {"time": time, "rows": rows})] if rows else []
        self.record(*events, ("decision", body), *(("intent", order_body(order)) for order in entries))

    def _correct(self, moment: Moment) -> None:
        """Puts corrected bars into the session's buffer for later features."""
        past = getattr(self.predictor, "past", None)
        if past is not None:
            right = frame_of([after for _, after in moment.corrected])
            kept = past.join(right, on=["symbol", "time"], how="anti")
            self.predictor.past = pl.concat([kept, right], how="diagonal").sort("symbol", "time")  # type: ignore[attr-defined]

    def _order(self, bar: Bar, wanted: Row | None, moment: Moment) -> tuple[Order | None, str]:
        """The entry order after this bar, or None with the reason."""
        account = self.state.accounts[bar.symbol]
        if wanted is None or wanted["side"] == 0:
            return None, "no signal"
        way = "long" if wanted["side"] > 0 else "short"
        if reason := self._barred(account, moment):
            return None, f"{way}, not taken: {reason}"
        many = self.risk.too_many_orders(self.state, moment.time)
        if many is not None:
            self.halt(*many)
            return None, f"{way}, not taken: {many[1]}"
        size = self.risk.size_allowed(self.state, bar.symbol, float(wanted["size"]))
        if size <= 0:
            return None, f"{way}, not taken: the exposure limit is used up"
        fields = {k: wanted[k] for k in ("side", "take_profit", "stop_loss", "horizon_bars")}
        name = client_id(self.digest, bar.symbol, moment.time, "entry")
        return Order(name, bar.symbol, "entry", signal_time=moment.time, size=size, **fields), f"enter {way}"

    def _barred(self, account: Account, moment: Moment) -> str:
        if self.state.halts:
            return f"halted by {', '.join(self.state.halts)}"
        oldest = self.risk.max_bar_age_seconds
        checks = {
            "the bar is late": moment.late,
            f"the bar is {moment.age:.0f} s old": oldest is not None and moment.age > oldest,
            "the symbol has a position that is not the bot's": account.foreign,
            "a position is open": account.position is not None,
            "an order is waiting": account.pending is not None,
            "the sub-account is used up": account.bust,
        }
        return next((reason for reason, true in checks.items() if true), "")

    def send_waiting(self, moment: datetime | None) -> None:
        """Sends journaled entries decided at this moment, then protective orders.

        moment: None if every waiting entry is too late.
        """
        if not self.broker.immediate:
            return  # they wait for the next open
        for order in [o for o in self.state.open_orders.values() if o.leg == "entry"]:
            if order.client_id in self.state.acknowledged:
                continue
            if order.signal_time == moment:
                self.send(order)
            else:
                self.take(Report("rejected", why="not sent in time"), order)
        for account in self.state.accounts.values():
            orders.protect(self, account)

    def send(self, order: Order) -> Report:
        """Sends one journaled order and journals the broker's report."""
        self._written()
        report = self.broker.submit(order, self.state.accounts[order.symbol])
        self.take(report, order)
        return report
