"""What the exchange says against what the journal says, on every start, before anything new is decided."""

from typing import TYPE_CHECKING, Any

from tradsys.ops.trading import orders
from tradsys.serving.brokers import Report

if TYPE_CHECKING:
    from tradsys.ops.trading.engine import Engine


def reconcile(engine: "Engine", *, adopt: bool = False) -> list[str]:
    """Takes over lost fills, settles orders of unknown fate, marks foreign positions; returns what was found, in words.

    Orders are looked up by client id: an entry that never arrived is dropped (its bar is gone or it is sent again by
    the step that is repeated). A position at the exchange that the journal does not explain is left alone and its
    symbol is not traded unless `adopt`; one that is smaller than the journal's halts the bot.
    """
    if not engine.broker.immediate:
        return []
    found: list[str] = []
    for order in list(engine.state.open_orders.values()):
        account = engine.state.accounts[order.symbol]
        report = engine.broker.lookup(order, account)
        fresh = order.leg == "entry" and engine.state.decided == order.signal_time
        if report is None and fresh:
            continue  # journaled and never sent: the step that was cut off sends it, if its bar is still the newest
        report = report or Report("rejected", why="it never reached the exchange")
        n_before = len(engine.state.seen_trades)
        engine.take(report, order)
        n_new = len(engine.state.seen_trades) - n_before
        if n_new or report.status not in ("accepted",):
            found.append(f"{order.leg} of {order.symbol}: {report.status}, {n_new} fills taken over")
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
            body: dict[str, Any] = {"symbol": symbol, "quantity": apart, "foreign": foreign and not adopt}
            if body["foreign"] != account.foreign:
                engine.record(("foreign", body))
        if foreign:
            found.append(
                f"{apart:.8g} {symbol} at the exchange is not ours; it is left alone"
                + ("" if adopt else " and the symbol is not traded (adopt=true trades it)")
            )
    return found
