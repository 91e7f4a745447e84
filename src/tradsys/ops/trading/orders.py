"""Real orders of a position: protective orders, exits by time or request, unanswered orders."""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from tradsys.ops.trading.events import order_body
from tradsys.serving.brokers import FULL, Account, Bar, Order, Position, Report, client_id

if TYPE_CHECKING:
    from tradsys.ops.trading.engine import Engine

LEGS = ("stop", "target")


def poll(engine: "Engine", account: Account) -> None:
    """Looks up every open order of a symbol and books its fills.

    A limit entry is valid for one bar.
    """
    for order in [o for o in engine.state.open_orders.values() if o.symbol == account.symbol]:
        report = engine.broker.lookup(order, account)
        if report is None:
            report = Report("rejected", why="the exchange has no such order")
        elif report.status == "accepted" and order.leg == "entry" and order.signal_time != account.last_time:
            ended = engine.broker.cancel(order.client_id, account, order.leg)
            report = engine.broker.lookup(order, account) or ended
        engine.take(report, order)
    tidy(engine, account)


def tidy(engine: "Engine", account: Account) -> None:
    """Cancels protective orders of a closed position."""
    if account.position is None:
        for order in [o for o in engine.state.open_orders.values() if o.symbol == account.symbol and o.leg in LEGS]:
            withdraw(engine, account, order)


def withdraw(engine: "Engine", account: Account, order: Order) -> None:
    """Cancels one order and books its fills until then."""
    ended = engine.broker.cancel(order.client_id, account, order.leg)
    found = engine.broker.lookup(order, account)
    engine.take(ended if found is None or found.status == "accepted" else found, order)


def protect(engine: "Engine", account: Account) -> None:
    """Sends the position's stop and target as resting orders.

    Where the exchange supports them.
    """
    held = account.position
    if held is None:
        return
    for leg, price in zip(LEGS, (stop_price(held), held.target), strict=True):
        if leg not in engine.broker.protects or not 0 < price < float("inf"):
            continue
        resting = engine.state.open_orders.get(held.protective.get(leg, ""))
        step = engine.broker.step_size(account.symbol)
        if resting is not None and abs(resting.quantity - held.left) <= max(step / 2, held.quantity * (1 - FULL)):
            continue
        if resting is not None:
            withdraw(engine, account, resting)
            if account.position is None:
                return
        if held.attempts >= engine.max_protective:
            engine.halt(
                "protection", f"{leg} of {account.symbol} was refused {held.attempts} times; watched at each close"
            )
            return
        name = client_id(engine.digest, account.symbol, held.order.signal_time, leg, held.attempts)
        order = replace(held.order, client_id=name, leg=leg, quantity=held.left, price=price, reason="")
        engine.record(("intent", order_body(order)))
        engine.send(order)


def book_funding(engine: "Engine", account: Account, bar: Bar, *, at_close: bool = True) -> None:
    """Books funding of this bar into a real position's account, once.

    The rule is that of `portfolio.fills`. Before fills are looked up (at_close False) only funding to be paid is
    booked,
    which an exit inside the bar owes as well; afterwards funding of either sign on the quantity held at the close.
    """
    held = account.position
    if held is None or not bar.funding or held.carried == bar.time or bar.time < held.entry_time:
        return
    due = -held.order.side * held.left * bar.funding * bar.close
    if due > 0 and not at_close:
        return
    kept = {name: getattr(held, name) for name in ("passed", "leaving", "part_out", "part_value")}
    body = {"symbol": bar.symbol, "time": bar.time.isoformat(), **kept}
    engine.record(("carry", {**body, "carry": held.carry + due, "cash": account.cash + due}))


def stop_price(held: Position) -> float:
    """The stop price.

    A short's is at most the price at which covering uses up its capital.
    """
    return min(held.stop, held.ruin) if held.order.side < 0 else held.stop


def leave(engine: "Engine", account: Account, reason: str, moment: datetime) -> None:
    """Closes a position at the market.

    Cancels protective orders, then sells the remaining quantity.
    """
    for leg in LEGS:
        held = account.position
        resting = engine.state.open_orders.get(held.protective.get(leg, "")) if held else None
        if resting is not None:
            withdraw(engine, account, resting)
    held = account.position
    if held is None:
        return
    name = client_id(engine.digest, account.symbol, moment, "exit", held.exits)
    order = replace(held.order, client_id=name, leg="exit", quantity=held.left, reason=reason, signal_time=moment)
    engine.record(("intent", order_body(order)))
    report = engine.send(order)
    if report.status == "rejected":
        engine.halt("exit", f"the exit of {account.symbol} was refused: {report.why}; it is retried at every bar")


def watch(engine: "Engine", account: Account, bar: Bar) -> None:
    """Carries out exits that have no resting order.

    Barriers reached at the close, and the longest holding time.
    """
    held = account.position
    if held is None or bar.time < held.entry_time:
        return
    side = held.order.side
    best, worst = (bar.high, bar.low) if side > 0 else (bar.low, bar.high)
    if "stop" not in held.protective and side * worst <= side * stop_price(held):
        leave(engine, account, "stop_loss", bar.time)
    elif "target" not in held.protective and side * best >= side * held.target:
        leave(engine, account, "take_profit", bar.time)
    elif held.bars_held >= held.order.horizon_bars:
        leave(engine, account, "timeout", bar.time)
