"""Simulated fills, bar by bar, by the very rules of `portfolio.fills`."""

from dataclasses import replace
from typing import Any

from tradsys.portfolio import fills
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.fills import Holding, enter, ruin_price, touch
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
        done: list[Fill] = []
        now = _bar(bar)
        held, order = _held(account.position), account.position.order if account.position else account.pending
        if account.pending is not None:
            entered = enter(_order(account.pending), now, account.cash, self.costs)
            if entered is None:
                return Report(
                    "accepted", why="nothing traded in the bar, or not at a price that its neighbours confirm"
                )
            held = entered[0]
            money = (held.entry_raw, held.entry_fill, held.quantity, held.fee)
            done.append(_fill(account.pending, bar, "entry", money, levels=_levels(*entered, self.costs)))
            held = replace(held, stop=_levels(*entered, self.costs)[1])
        if held is not None and order is not None:
            ruin = account.position.ruin if account.position else _levels(held, entered[1], self.costs)[2]  # type: ignore[index]
            done += self._exit(held, order, bar, ruin)
        return Report("filled" if done else "accepted", tuple(done))

    def _exit(self, held: Holding, order: Order, bar: Bar, ruin: float) -> list[Fill]:
        reason, price, _, _ = touch(held, _bar(bar), held.stop)
        if not reason or not price > 0:
            return []
        price = min(price, ruin)
        fill = self.costs.fill_price(price, -order.side)
        money = (price, fill, held.quantity, held.quantity * fill * self.costs.fee)
        return [_fill(order, bar, "exit", money, reason, ruined=price == ruin)]

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


def _bar(bar: Bar) -> fills.Bar:
    return fills.Bar(bar.time, bar.open, bar.high, bar.low, bar.close, volume=bar.volume)


def _order(order: Order) -> fills.Order:
    return fills.Order(
        order.signal_time, order.side, order.size, order.take_profit, order.stop_loss, order.horizon_bars
    )


def _held(position: Position | None) -> Holding | None:
    if position is None:
        return None
    p = position
    return Holding(
        _order(p.order), p.entry_raw, p.entry_price, p.quantity, p.fee, p.target, p.stop, n_bars=p.bars_held - 1
    )


def _levels(held: Holding, cash: float, costs: Costs) -> tuple[float, float, float]:
    """Target, stop and ruin of a position just entered; a short's stop is no further than its ruin."""
    ruin = ruin_price(held, cash, costs)
    return held.target, min(held.stop, ruin) if held.order.side < 0 else held.stop, ruin


def entry_levels(order: Order, raw: float, costs: Costs) -> tuple[float, float, float]:
    """Prices of target, stop and ruin of an entry at this raw price, as the simulator sets them."""
    entered = enter(_order(order), fills.Bar(order.signal_time, raw, raw, raw, raw), 1.0, costs)
    assert entered is not None, "a bar without recorded volume fills"
    return _levels(*entered, costs)


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
