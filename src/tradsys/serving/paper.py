"""Simulated fills, bar by bar, by the rules of `portfolio.fills`."""

import math
from dataclasses import replace
from datetime import datetime

from tradsys.core.plain_data import Json
from tradsys.portfolio import fills
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.fills import Holding, advance, close_delisted, enter, ruin_price
from tradsys.serving.brokers import Account, Bar, Fill, Order, Position, Report


class PaperBroker:
    """Fills entries at the next open and exits inside the bar.

    The backtest fills alike. It has no state of its own besides the sub-account that is passed in, so a restart loses
    nothing.
    """

    immediate = False
    protects: tuple[str, ...] = ()

    def __init__(self, costs: Costs) -> None:
        self.costs = costs

    def settle(self, account: Account, bar: Bar) -> Report:
        """Fills the pending entry at this bar's open, then books the bar.

        The bar's exits and payments.
        """
        if account.pending is not None and account.broken:
            return Report("canceled", why="bars are missing before the fill")
        if account.position is not None and account.position.carried == bar.time:
            return Report("accepted")  # this bar is booked already
        now, held, cash = _bar(bar, account), _held(account.position), account.cash
        order = account.position.order if account.position else account.pending
        done: list[Fill] = []
        if account.pending is not None:
            entered = enter(_order(account.pending), now, cash, self.costs)
            if entered is None:
                why = "the bar has no trades, or a price too far from the close before"
                return Report("accepted", why=why)
            held, cash = entered
            money = (held.entry_raw, held.entry_fill, held.quantity, held.fee)
            levels = (held.target, held.stop, ruin_price(held, cash, self.costs))
            done.append(_fill(account.pending, bar, "entry", money, levels=levels))
        if held is None or order is None:
            return Report("accepted")
        after, cash, left = advance(held, now, cash, self.costs)
        if left is not None:
            money = (left.raw, left.fill, held.quantity, left.fee)
            done.append(_fill(order, bar, "exit", money, left.reason, cash=cash, carry=after.carry))
            return Report("filled", tuple(done))
        changed = _carried(after, cash) if replace(after, n_bars=held.n_bars) != held else None
        return Report("filled" if done else "accepted", tuple(done), carried=changed)

    def miss(self, account: Account, time: datetime) -> Report:
        """Closes a position whose symbol had no bars for too long.

        The price is its last close times the configured recovery.
        """
        held, after = _held(account.position), self.costs.dead_after_bars
        if held is None or account.position is None or after is None or account.n_missed < after:
            return Report("accepted")
        end, cash, left = close_delisted(held, account.last_close, account.cash, self.costs)
        assert left is not None
        close = account.last_close
        bar = Bar(account.symbol, time, close, close, close, close, 0.0)
        money = (left.raw, left.fill, held.quantity, left.fee)
        order = account.position.order
        return Report("filled", (_fill(order, bar, "exit", money, left.reason, cash=cash, carry=end.carry),))

    def submit(self, order: Order, account: Account) -> Report:
        """Entries wait for the next open.

        A requested exit fills at the last close; barriers need no orders.
        """
        if order.leg != "exit" or account.position is None or account.last_time is None:
            return Report("accepted")
        raw = min(account.last_close, account.position.ruin)
        fill = self.costs.fill_price(raw, -order.side)
        bar = Bar(order.symbol, account.last_time, raw, raw, raw, raw, 0.0)
        money = (raw, fill, order.quantity, order.quantity * fill * self.costs.fee)
        return Report("filled", (_fill(order, bar, "exit", money, order.reason),))

    def cancel(self, client_id: str, account: Account, leg: str) -> Report:  # noqa: ARG002 - one protocol
        """Always `canceled`: there are no resting orders."""
        return Report("canceled")

    def lookup(self, order: Order, account: Account) -> Report | None:  # noqa: ARG002 - one protocol
        """Always `accepted`: no order is ever lost."""
        return Report("accepted")

    def snapshot(self, symbols: list[str]) -> Json:  # noqa: ARG002 - one protocol
        """Always empty: positions and orders exist only in the journal."""
        return {"positions": {}}

    def step_size(self, symbol: str) -> float:  # noqa: ARG002 - one protocol
        """Always 0: any quantity can be traded."""
        return 0.0


def _bar(bar: Bar, account: Account) -> fills.Bar:
    volume = bar.volume if bar.recorded and math.isfinite(bar.volume) else math.inf
    prices = (bar.open, bar.high, bar.low, bar.close)
    before = (account.before, account.years)
    return fills.Bar(bar.time, *prices, 0, volume, *before, bar.funding, bar.dividend)


def _carried(held: Holding, cash: float) -> Json:
    kept = {"carry": held.carry, "passed": held.passed, "leaving": held.leaving}
    return {**kept, "part_out": held.sold, "part_value": held.value, "cash": cash}


def _order(order: Order) -> fills.Order:
    return fills.Order(
        order.signal_time, order.side, order.size, order.take_profit, order.stop_loss, order.horizon_bars
    )


def _held(position: Position | None) -> Holding | None:
    if position is None:
        return None
    p = position
    money = (p.entry_raw, p.entry_price, p.quantity, p.fee, p.target, p.stop)
    under_way = (p.carry, p.passed, p.leaving, p.part_out, p.part_value)
    return Holding(_order(p.order), *money, p.bars_held - 1, *under_way)


def entry_levels(order: Order, raw: float, costs: Costs) -> tuple[float, float, float]:
    """Prices of target, stop and ruin of an entry at this raw price.

    The simulator sets the same.
    """
    entered = enter(_order(order), fills.Bar(order.signal_time, raw, raw, raw, raw), 1.0, costs)
    assert entered is not None, "a bar without recorded volume fills"
    held, cash = entered
    return held.target, held.stop, ruin_price(held, cash, costs)


def _fill(
    order: Order,
    bar: Bar,
    leg: str,
    money: tuple[float, float, float, float],
    reason: str = "",
    *,
    levels: tuple[float, float, float] | None = None,
    cash: float | None = None,
    carry: float = 0.0,
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
        levels=levels,
        cash=cash,
        carry=carry,
    )
