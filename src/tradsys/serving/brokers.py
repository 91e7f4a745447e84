"""Orders, fills, sub-accounts and the protocol of brokers, simulated and real."""

import hashlib
import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from tradsys.core.plain_data import Json
from tradsys.portfolio.costs import BUST

FULL = 1 - 1e-9  # an order with this share of its quantity counts as filled


class Bar(NamedTuple):
    """One closed bar of one symbol; time is its close in UTC.

    funding: sum of the rates due since the close before, as a fraction of notional. dividend: money per unit. recorded:
    False where the source has no volumes, so that a volume of 0 does not mean a bar without trades.
    """

    symbol: str
    time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    funding: float = 0.0
    dividend: float = 0.0
    recorded: bool = True


@dataclass(frozen=True)
class Order:
    """An order before it is sent.

    leg: entry, exit, stop or target. side: of the position, +1 long, -1 short. signal_time: close of the bar that
    decided. size: share of the sub-account's cash (entries). take_profit, stop_loss: price distances from the entry's
    raw price. horizon_bars: longest holding time. quantity, price: of exits and protective orders, base units and
    trigger price. reason: why an exit is sent.
    """

    client_id: str
    symbol: str
    leg: str
    side: int
    signal_time: datetime
    size: float = 0.0
    take_profit: float = 0.0
    stop_loss: float = 0.0
    horizon_bars: int = 0
    quantity: float = 0.0
    price: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Fill:
    """A part of an order that was executed.

    time: close stamp of the bar in which it happened. raw: price before slippage; for a real fill the order's reference
    price. price: paid or received. fee: in quote units. trade_id: the exchange's own number, by which a fill that is
    reported twice is booked once. levels: prices of target, stop and ruin for an entry at this raw price; None for
    exits. step: the exchange's least quantity; a smaller rest cannot be sold. cash, carry: the account's cash after a
    simulated exit, and the payments received (+) or paid (-) while it was held; None and 0 for real fills.
    """

    client_id: str
    symbol: str
    leg: str
    reason: str
    side: int
    time: datetime
    raw: float
    price: float
    quantity: float
    fee: float
    trade_id: str
    levels: tuple[float, float, float] | None = None
    step: float = 0.0
    cash: float | None = None
    carry: float = 0.0


@dataclass
class Position:
    """A sub-account's position and its exits.

    Quantity and fee grow with partial entry fills.
    """

    order: Order
    entry_time: datetime
    entry_raw: float
    entry_price: float
    quantity: float
    fee: float
    target: float
    stop: float
    ruin: float
    bars_held: int = 1
    spans_gap: bool = False
    sold: float = 0.0
    sold_quote: float = 0.0
    sold_raw: float = 0.0
    exit_fee: float = 0.0
    protective: dict[str, str] = field(default_factory=dict)  # leg -> client id of the resting order
    carry: float = 0.0  # received (+) or paid (-) so far: dividends, funding, borrow fee
    passed: bool = False  # the profit barrier was passed by a bad print
    leaving: str = ""  # reason of a partly filled simulated exit, with units sold and their value at raw prices
    part_out: float = 0.0
    part_value: float = 0.0
    carried: datetime | None = None  # bar whose carry is booked
    attempts: int = 0  # protective orders sent for this position
    exits: int = 0  # exits sent for this position

    @property
    def left(self) -> float:
        """Base units that are still held."""
        return self.quantity - self.sold


@dataclass
class Account:
    """One symbol's share of the capital.

    Cash in quote units; pending: an entry that has not filled yet.
    """

    symbol: str
    cash: float
    first_cash: float
    position: Position | None = None
    pending: Order | None = None
    last_time: datetime | None = None
    last_close: float = 0.0
    before: float = math.nan  # close before the newest bar
    years: float = 0.0  # from that close to the newest, years of 365 days
    n_missed: int = 0  # bar times of the others since the newest bar
    broken: bool = False  # a gap lies between the newest bar and the one before
    dust: float = 0.0  # remaining base units, too few to sell
    foreign: bool = False  # the exchange has a position here that is not the bot's; the symbol is not traded

    @property
    def held(self) -> float:
        """Signed value of the position at the last close, quote units."""
        return self.position.order.side * self.position.left * self.last_close if self.position else 0.0

    @property
    def equity(self) -> float:
        """Cash and position at the last close, quote units."""
        return max(self.cash + self.held, 0.0)

    @property
    def bust(self) -> bool:
        """Whether the equity is too small for further trading."""
        return self.cash < BUST * self.first_cash


@dataclass(frozen=True)
class Report:
    """Status of a submitted order: accepted, filled, rejected, canceled or unknown.

    Fills so far, and why. carried: changes of a simulated position that stays open: cash and the changed fields of
    `Position`.
    """

    status: str
    fills: tuple[Fill, ...] = ()
    why: str = ""
    carried: Json | None = None


class Broker(Protocol):
    """Executes orders.

    The only part that differs between replay, paper and live trading.
    """

    immediate: bool  # entries fill when they are sent; else with the next bar's open
    protects: tuple[str, ...]  # legs (stop, target) that are resting orders

    def settle(self, account: Account, bar: Bar) -> Report:
        """Settles the account's orders up to this bar's close.

        Called once per bar, before any decision.
        """

    def miss(self, account: Account, time: datetime) -> Report:
        """Handles a position whose symbol has no bar at this close.

        `account.n_missed` counts such closes.
        """

    def submit(self, order: Order, account: Account) -> Report:
        """Sends one order. Sending an order twice must not execute it twice."""

    def cancel(self, client_id: str, account: Account, leg: str) -> Report:
        """Cancels an order and reports its fills until then."""

    def lookup(self, order: Order, account: Account) -> Report | None:
        """The status of an order that may have arrived; None where it never did."""

    def snapshot(self, symbols: list[str]) -> Json:
        """The exchange's positions: {"positions": signed base units by symbol}."""

    def step_size(self, symbol: str) -> float:
        """The smallest step of quantities, in base units."""


def client_id(bundle_digest: str, symbol: str, bar: datetime, leg: str, attempt: int = 0) -> str:
    """The client id of an order, the same on every repetition.

    30 characters that are valid at every exchange. attempt: counts protective orders of one leg that replace each
    other.
    """
    text = f"{bundle_digest}|{symbol}|{bar.isoformat()}|{leg}|{attempt}"
    return f"ts-{leg[:2]}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
