"""Simulated fills, bar by bar, by the very rules of `portfolio.simulator`."""

from typing import Any

from tradsys.portfolio import simulator
from tradsys.portfolio.costs import Costs
from tradsys.serving.brokers import Account, Bar, Fill, Order, Position, Report


class PaperBroker:
    """Fills entries at the next bar's open and exits inside the bar, as the backtest does.

    It keeps nothing of its own: the sub-account that is passed in is all it knows, so a restart loses nothing.
    """

    immediate = False
    protects: tuple[str, ...] = ()

    def __init__(self, costs: Costs) -> None:
        self.costs = costs

    def settle(self, account: Account, bar: Bar) -> Report:
        """The pending entry at this bar's open, then the exit inside this bar, if any."""
        if account.pending is not None and account.broken:
            return Report("canceled", why="bars are missing before the fill")
        fills: list[Fill] = []
        book, now = _book(account, self.costs), _bar(bar)
        held, since = _held(account.position), 0 if account.position is None else account.position.bars_held - 1
        order = account.position.order if account.position else account.pending
        if account.pending is not None:
            held, since = book._enter(_order(account.pending), 0, now), 0
            money = (held.entry_raw, held.entry_fill, held.quantity, held.fee)
            fills.append(_fill(account.pending, bar, "entry", money, levels=(held.target, held.stop, held.ruin)))
        if held is not None and order is not None:
            fills += self._exit(held, order, bar, since)
        return Report("filled" if fills else "accepted", tuple(fills))

    def _exit(self, held: Any, order: Order, bar: Bar, since: int) -> list[Fill]:
        reason, price = simulator._touch(held, since, _bar(bar))
        if not reason:
            return []
        price = min(price, held.ruin)
        fill = self.costs.fill_price(price, -order.side)
        money = (price, fill, held.quantity, held.quantity * fill * self.costs.fee)
        return [_fill(order, bar, "exit", money, reason, ruined=price == held.ruin)]

    def submit(self, order: Order, account: Account) -> Report:
        """Entries wait for the next open; an exit by hand fills at the last close; barriers need no order here."""
        if order.leg != "exit" or account.position is None or account.last_time is None:
            return Report("accepted")
        raw = min(account.last_close, account.position.ruin)
        fill = self.costs.fill_price(raw, -order.side)
        bar = Bar(order.symbol, account.last_time, raw, raw, raw, raw, 0.0)
        money = (raw, fill, order.quantity, order.quantity * fill * self.costs.fee)
        return Report("filled", (_fill(order, bar, "exit", money, order.reason),))

    def cancel(self, client_id: str, account: Account, leg: str) -> Report:  # noqa: ARG002 - one protocol
        """Nothing rests anywhere."""
        return Report("canceled")

    def lookup(self, order: Order, account: Account) -> Report | None:  # noqa: ARG002 - one protocol
        """A journaled order is as good as accepted."""
        return Report("accepted")

    def snapshot(self, symbols: list[str]) -> dict[str, Any]:  # noqa: ARG002 - one protocol
        """There is no exchange that could know more than the journal."""
        return {"positions": {}}

    def step_size(self, symbol: str) -> float:  # noqa: ARG002 - one protocol
        """Any quantity is possible."""
        return 0.0


def _book(account: Account, costs: Costs) -> Any:
    return simulator._Account(symbol=account.symbol, costs=costs, cash=account.cash)


def _bar(bar: Bar) -> Any:
    return simulator._Bar(bar.time, bar.open, bar.high, bar.low, bar.close, 0)


def _order(order: Order) -> Any:
    return simulator._Order(
        order.signal_time, order.side, order.size, order.take_profit, order.stop_loss, order.horizon_bars
    )


def _held(position: Position | None) -> Any:
    if position is None:
        return None
    p = position
    return simulator._Position(
        _order(p.order), 0, p.entry_raw, p.entry_price, p.quantity, p.fee, p.target, p.stop, p.ruin
    )


def entry_levels(order: Order, raw: float, costs: Costs) -> tuple[float, float, float]:
    """Prices of target, stop and ruin of an entry at this raw price, as the simulator sets them."""
    book = simulator._Account(symbol=order.symbol, costs=costs, cash=1.0)
    held = book._enter(_order(order), 0, simulator._Bar(order.signal_time, raw, raw, raw, raw, 0))
    return held.target, held.stop, held.ruin


def _fill(
    order: Order,
    bar: Bar,
    leg: str,
    money: tuple[float, float, float, float],
    reason: str = "",
    *,
    ruined: bool = False,
    levels: tuple[float, float, float] | None = None,
) -> Fill:
    raw, price, quantity, fee = money
    return Fill(
        client_id=order.client_id,
        symbol=order.symbol,
        leg=leg,
        reason=reason,
        side=order.side,
        time=bar.time,
        raw=raw,
        price=price,
        quantity=quantity,
        fee=fee,
        trade_id=f"{order.client_id}/{leg}",
        ruined=ruined,
        levels=levels,
    )
