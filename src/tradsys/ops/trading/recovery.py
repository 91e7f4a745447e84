"""Reconciles the journal with the exchange on every start, before new decisions."""

from typing import TYPE_CHECKING

from tradsys.ops.trading import orders
from tradsys.ops.trading.events import Foreign
from tradsys.serving.brokers import Report

if TYPE_CHECKING:
    from tradsys.ops.trading.engine import Engine


def reconcile(engine: "Engine", *, adopt: bool = False) -> list[str]:
    """Books missed fills, settles unanswered orders, marks foreign positions.

    Returns findings in words. Orders are looked up by client id. An entry that never arrived is dropped: its bar is
    over, or the repeated step sends it again. A position at the exchange that the journal does not explain is not
    touched, and its symbol is not traded unless `adopt`; a position smaller than the journal's halts the bot.
    """
    if not engine.broker.immediate:
        return []
    found: list[str] = []
    for order in list(engine.state.open_orders.values()):
        account = engine.state.accounts[order.symbol]
        report = engine.broker.lookup(order, account)
        fresh = order.leg == "entry" and engine.state.decided == order.signal_time
        if report is None and fresh:
            continue  # journaled and never sent: the repeated step sends it, if its bar is still the newest
        report = report or Report("rejected", why="it never reached the exchange")
        n_before = len(engine.state.seen_trades)
        engine.take(report, order)
        n_new = len(engine.state.seen_trades) - n_before
        if n_new or report.status not in ("accepted",):
            found.append(f"{order.leg} of {order.symbol}: {report.status}, {n_new} fills booked")
    for account in engine.state.accounts.values():
        orders.tidy(engine, account)
    found += _positions(engine, adopt)
    for account in engine.state.accounts.values():
        orders.protect(engine, account)
    if found:
        engine.record(("note", {"what": "recovery", "why": "; ".join(found)}))
    return found


def _positions(engine: "Engine", adopt: bool) -> list[str]:
    snapshot = engine.broker.snapshot(list(engine.state.accounts))
    found = []
    for symbol, there in snapshot["positions"].items():
        account = engine.state.accounts[symbol]
        held = account.position
        ours = held.order.side * held.left if held else 0.0
        tolerance = 2 * engine.broker.step_size(symbol) + 1e-3 * abs(ours)
        apart = there - ours - account.dust
        if held is not None and held.order.side * apart < -tolerance:
            why = f"the journal holds {ours:.8g} {symbol}, the exchange {there:.8g}; close or restore it, then resume"
            engine.halt("position", why)
            found.append(why)
        foreign = abs(apart) > tolerance and not (held is not None and held.order.side * apart < 0)
        if foreign != account.foreign or (foreign and adopt):
            body: Foreign = {"symbol": symbol, "quantity": apart, "foreign": foreign and not adopt}
            if body["foreign"] != account.foreign:
                engine.record(("foreign", body))
        if foreign:
            found.append(
                f"{apart:.8g} {symbol} at the exchange is not the bot's; it is not touched"
                + ("" if adopt else " and the symbol is not traded (adopt=true trades it)")
            )
    return found
