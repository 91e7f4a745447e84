"""Fill rules of one bar: what happens to an order or a position. Used by `simulate` and by brokers bar by bar.

- A bar in which nothing traded (a recorded volume of 0) fills nothing. Bars without recorded volume count as traded.
- An open more than a factor of MAX_PRINT_FACTOR from the previous close is no fill: the order waits for the next bar.
- At most `costs.max_participation` of the bar's volume fills. The unfilled rest of an entry is cancelled; the rest
of an exit fills at the following opens and is booked at the mean price, with its last part.
- A bar that opens at or beyond a barrier fills at its open; a bar that reaches both barriers hits the stop. A profit
barrier beyond a print that neither the previous close nor the open confirms is not met, and from then on fills at its
own price, never better. An adverse print counts always. A timeout that cannot fill exits at the next open that can.
- A dividend belongs to the holder at the previous close: longs receive, shorts pay. Funding is due from the holder at
a bar's close, at that close: longs pay a positive rate, shorts receive it. In the bar of a barrier's exit funding due
is paid, funding receivable is not received; an exit at the open has none. A short pays the borrow fee of every bar
that it is held in, counted from the previous close.
- A short is covered where covering would take the last of the account's cash, which includes carry.
- A symbol that had no bar for `costs.dead_after_bars` bar times of the others counts as delisted: its position, or the
rest of an exit under way, is closed at its last close times 1 + `costs.delisting_return`, a short at the last close.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from tradsys.market.tradable import MAX_PRINT_FACTOR
from tradsys.portfolio.costs import Costs

TAKE_PROFIT, STOP_LOSS, TIMEOUT, DELISTED = "take_profit", "stop_loss", "timeout", "delisted"
AT_OPEN, INSIDE, AT_CLOSE = 0, 1, 2


class Bar(NamedTuple):
    """One bar of one instrument, with its funding and dividend.

    volume: units traded, infinite where not recorded. before: previous close, NaN at the first bar. years: since
    that close, in years of 365 days. funding: sum of the rates due in (previous close, close], a fraction of notional.
    dividend: money per unit, for the holder at the previous close.
    """

    time: datetime
    open: float
    high: float
    low: float
    close: float
    segment: int = 0
    volume: float = math.inf
    before: float = math.nan
    years: float = 0.0
    funding: float = 0.0
    dividend: float = 0.0


@dataclass(frozen=True)
class Order:
    """An entry decided at the close of a bar.

    Distances are in price units from the entry; infinite: no barrier.
    """

    time: datetime
    side: int
    size: float
    take_profit: float
    stop_loss: float
    horizon_bars: int


@dataclass(frozen=True)
class Holding:
    """A position between two bars.

    Prices per unit; `carry`: money received (+) or paid (-) while held.
    entry_raw, entry_fill: before and after slippage. n_bars: bars held. passed: an unconfirmed print lay beyond the
    profit barrier. leaving: reason of an exit under way, of which `sold` units brought `value`
    at raw prices.
    """

    order: Order
    entry_raw: float
    entry_fill: float
    quantity: float
    fee: float
    target: float
    stop: float
    n_bars: int = 0
    carry: float = 0.0
    passed: bool = False
    leaving: str = ""
    sold: float = 0.0
    value: float = 0.0


@dataclass(frozen=True)
class Exit:
    """A closed position.

    Reason, raw price (the mean of its parts), fill after slippage, fee in money.
    """

    reason: str
    raw: float
    fill: float
    fee: float


class Step(NamedTuple):
    """State after one bar: position, the account's cash, exit.

    position: None once closed; the exit if there was one.
    """

    held: Holding
    cash: float
    exit: Exit | None


def confirmed(price: float, *anchors: float) -> bool:
    """Whether a price lies within MAX_PRINT_FACTOR of an anchor.

    True with a NaN anchor (before the first bar).
    """
    return any(
        math.isnan(anchor) or anchor / MAX_PRINT_FACTOR <= price <= anchor * MAX_PRINT_FACTOR for anchor in anchors
    )


def fills_at_open(bar: Bar) -> bool:
    """Whether an order can fill at this bar's open at all."""
    return bar.volume > 0 and confirmed(bar.open, bar.before)


def room(bar: Bar, costs: Costs) -> float:
    """Largest order in units for this bar.

    The account's 1.0 stands for `costs.capital`.
    """
    return costs.participation * bar.volume if math.isfinite(bar.volume) else math.inf


def enter(order: Order, bar: Bar, cash: float, costs: Costs) -> tuple[Holding, float] | None:
    """The position opened at this bar's open, and the cash left.

    None where the order cannot fill. quantity = size * cash / (fill * (1 + fee)), cut to the bar's room.
    """
    if not fills_at_open(bar):
        return None
    fill = costs.fill_price(bar.open, order.side)
    quantity = min(order.size * cash / (fill * (1 + costs.fee)), room(bar, costs))
    fee = quantity * fill * costs.fee
    target = bar.open + order.side * order.take_profit
    stop = bar.open - order.side * order.stop_loss
    held = Holding(order, bar.open, fill, quantity, fee, target, stop)
    return held, cash - order.side * quantity * fill - fee


def ruin_price(held: Holding, cash: float, costs: Costs) -> float:
    """Raw price at which covering a short takes the last of this cash.

    Infinite for a long.
    """
    if held.order.side > 0:
        return math.inf
    return max(cash, 0.0) / (held.quantity * (1 + costs.fee)) / (1 + costs.slippage)


def touch(held: Holding, bar: Bar, stop: float) -> tuple[str, float, int, bool]:
    """Which exit this bar triggers, at which raw price and moment.

    Reason "" for none; also the new `passed`.
    """
    side, target, passed = held.order.side, held.target, held.passed
    last = held.n_bars + 1 >= held.order.horizon_bars
    best, worst = (bar.high, bar.low) if side > 0 else (bar.low, bar.high)
    believed = confirmed(bar.open, bar.before)
    anchors = (bar.before, bar.open) if believed else (bar.before,)
    reason, price, moment = TIMEOUT if last else "", 0.0, AT_CLOSE
    if not bar.volume > 0:
        pass
    elif side * bar.open <= side * stop:
        reason, price, moment = STOP_LOSS, bar.open, AT_OPEN
    elif side * bar.open >= side * target and believed:
        reason, price, moment = TAKE_PROFIT, target if passed else bar.open, AT_OPEN
    elif side * worst <= side * stop:
        reason, price, moment = STOP_LOSS, stop, INSIDE
    elif side * best >= side * target and confirmed(best, *anchors):
        reason, price, moment = TAKE_PROFIT, target, INSIDE
    elif side * best >= side * target:
        passed = True
    elif last and confirmed(bar.close, *anchors):
        price = bar.close
    return reason, price, moment, passed


def advance(held: Holding, bar: Bar, cash: float, costs: Costs) -> Step:
    """Position and cash after one bar, by the rules of this module.

    After dividend, exit, funding and borrow fee.
    """
    side, quantity = held.order.side, held.quantity
    dividend = side * quantity * bar.dividend if held.n_bars else 0.0
    cash += dividend
    ruin = ruin_price(held, cash, costs)
    reason, raw, moment, passed = held.leaving, bar.open if fills_at_open(bar) else 0.0, AT_OPEN, held.passed
    if not reason:
        reason, raw, moment, passed = touch(held, bar, min(held.stop, ruin) if side < 0 else held.stop)
    sold, value, mean = held.sold, held.value, 0.0
    if reason and raw > 0:
        part = min(quantity - sold, room(bar, costs))
        sold, value = sold + part, value + part * raw
        mean = raw if part == quantity else value / quantity
    out = bool(reason) and sold >= quantity
    due = -side * quantity * bar.funding * bar.close
    if out and moment != AT_CLOSE:
        due = min(due, 0.0) if moment == INSIDE else 0.0
    due -= quantity * bar.close * bar.years * costs.borrow_per_year if side < 0 else 0.0
    carry = held.carry + dividend + due
    exit_: Exit | None = None
    if out:
        exit_, cash = _out(held, reason, (mean, ruin), cash, costs)
    cash += due
    if out and cash < 0:  # the loss is bounded by the account
        carry, cash = carry - cash, 0.0
    after = replace(held, n_bars=held.n_bars + 1, carry=carry, passed=passed, leaving=reason, sold=sold, value=value)
    return Step(after, cash, exit_)


def close_delisted(held: Holding, last_close: float, cash: float, costs: Costs) -> Step:
    """Closes a position in a delisted symbol.

    The price is its last close times the configured recovery.
    """
    raw = last_close * costs.recovery(held.order.side)
    mean = raw if not held.sold else (held.value + (held.quantity - held.sold) * raw) / held.quantity
    exit_, cash = _out(held, DELISTED, (mean, ruin_price(held, cash, costs)), cash, costs)
    carry = held.carry - min(cash, 0.0)  # the loss is bounded by the account
    return Step(replace(held, carry=carry), max(cash, 0.0), exit_)


def _out(held: Holding, reason: str, prices: tuple[float, float], cash: float, costs: Costs) -> tuple[Exit, float]:
    """The exit at the better of `prices` (mean raw price, ruin) for the account, and the cash after it."""
    side, price = held.order.side, min(prices)
    fill = costs.fill_price(price, -side)
    exit_ = Exit(reason, price, fill, held.quantity * fill * costs.fee)
    return exit_, 0.0 if price == prices[1] else cash + side * held.quantity * fill - exit_.fee
