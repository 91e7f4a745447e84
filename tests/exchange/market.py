"""A small exchange in memory: stored bars, simulated time, an order matcher, spot balances or USD-M positions."""

import bisect
import itertools
import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal

STEP, TICK, MIN_NOTIONAL = Decimal("0.00001"), Decimal("0.01"), Decimal("5")


class RefusedError(Exception):
    """An answer with one of Binance's error codes."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass
class Faults:
    """What goes wrong, each a probability per request unless said otherwise; times are simulated milliseconds."""

    too_many: float = 0.0  # 429 with Retry-After
    banned: float = 0.0  # 418
    server_error: float = 0.0  # 503 before anything is done
    lost_answer: float = 0.0  # the order is accepted, the answer never comes
    partial: float = 0.0  # a market order fills in two parts, the second at the next request
    duplicate_trades: float = 0.0  # the list of trades names one twice
    retry_after: float = 0.02  # seconds
    clock_offset_ms: int = 0
    maintenance: tuple[tuple[int, int], ...] = ()
    holes: tuple[tuple[str, int], ...] = ()  # (symbol, open time) of bars that never come
    corrected: tuple[tuple[str, int], ...] = ()  # (symbol, open time) of bars that are wrong for their next bar's time
    ends: tuple[tuple[str, int], ...] = ()  # (symbol, open time) of a listing's last bar


@dataclass
class Order:
    """A plain or conditional order, with what was executed of it."""

    id: int
    client_id: str
    symbol: str
    side: str
    type: str
    quantity: Decimal
    time: int
    price: Decimal = Decimal(0)
    trigger: Decimal = Decimal(0)
    reduce_only: bool = False
    conditional: bool = False
    status: str = "NEW"
    executed: Decimal = Decimal(0)
    quote: Decimal = Decimal(0)
    actual_id: int | None = None
    updated: int = 0
    rest: Decimal = field(default=Decimal(0))


@dataclass(frozen=True)
class Trade:
    """One execution."""

    id: int
    order_id: int
    symbol: str
    side: str
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    time: int


class Market:
    """Prices, orders and balances of one account.

    bars: symbol -> rows (open time ms, open, high, low, close, volume), sorted. funding: symbol -> (ms, rate), each
    paid by who is long at that moment, at the close of the bar that ends then. kind: spot or linear. tick_ms: how far
    simulated time moves with every request for the time. fee: of each fill.
    """

    def __init__(self, bars, *, kind="linear", start_ms, length_ms=3_600_000, tick_ms=900_000, cash="10000",
                 fee="0.001", slippage="0", faults=None, seed=0, can_trade=True, funding=None) -> None:  # fmt: skip
        self.funding = funding or {}
        self.bars = {s: list(rows) for s, rows in bars.items()}
        self.opens = {s: [r[0] for r in rows] for s, rows in self.bars.items()}
        self.kind, self.length, self.tick, self.now = kind, length_ms, tick_ms, start_ms
        self.fee, self.slippage = Decimal(fee), Decimal(slippage)
        self.faults, self.random = faults or Faults(), random.Random(seed)
        self.can_trade = can_trade
        self.balances = defaultdict(Decimal, {"USDT": Decimal(cash)})
        self.positions: dict[str, Decimal] = defaultdict(Decimal)
        self.entry_price: dict[str, Decimal] = defaultdict(Decimal)
        self.orders: dict[int, Order] = {}
        self.trades: list[Trade] = []
        self.ids = itertools.count(1000)
        self.happened: dict[str, int] = defaultdict(int)

    # time and prices

    def ask_time(self) -> int:
        """The time; every question moves it on, and the orders that rest are matched with the bars that passed."""
        self.advance(self.tick)
        return self.now + self.faults.clock_offset_ms

    def advance(self, by_ms: int) -> None:
        """Moves simulated time, bar by bar."""
        until = self.now + by_ms
        while True:
            edge = (self.now // self.length + 1) * self.length
            if edge > until:
                break
            self.now = edge - 1
            self._match(edge - self.length)
            self._fund(edge)
            self.now = edge
        self.now = until

    def _fund(self, edge: int) -> None:
        for symbol, rates in self.funding.items():
            row = self.bar(symbol, edge - self.length)
            due = sum(rate for ms, rate in rates if round(ms / 60_000) * 60_000 == edge)
            if row is not None and due:
                self.balances["USDT"] -= self.positions[symbol] * Decimal(str(row[4])) * Decimal(str(due))

    def funding_rates(self, symbol: str, start: int, limit: int) -> list[dict]:
        """Settled rates, as Binance gives them: the stamp lies some milliseconds after the hour."""
        rows = [(t, r) for t, r in self.funding.get(symbol, []) if start <= t <= self.now][:limit]
        return [{"symbol": symbol, "fundingTime": t, "fundingRate": str(r), "markPrice": "1"} for t, r in rows]

    def bar(self, symbol: str, open_ms: int):
        """The stored bar that opens then, or None."""
        k = bisect.bisect_left(self.opens[symbol], open_ms)
        return self.bars[symbol][k] if k < len(self.opens[symbol]) and self.opens[symbol][k] == open_ms else None

    def price(self, symbol: str) -> Decimal:
        """The open of the bar in progress, else the newest close before."""
        k = bisect.bisect_right(self.opens[symbol], self.now) - 1
        row = self.bars[symbol][max(k, 0)]
        inside = self.now < row[0] + self.length
        return Decimal(str(row[1] if inside else row[4]))

    def klines(self, symbol: str, start: int | None, end: int | None, limit: int) -> list[list]:
        """Bars by opening time, the one in progress included, as Binance gives them."""
        gone = {t for s, t in self.faults.holes if s == symbol}
        last = min([t for s, t in self.faults.ends if s == symbol] or [self.now])
        wrong = {t for s, t in self.faults.corrected if s == symbol}
        hi = bisect.bisect_right(self.opens[symbol], min(self.now, last, self.now if end is None else end))
        lo = max(0, hi - limit) if start is None else bisect.bisect_left(self.opens[symbol], start)
        rows = [r for r in self.bars[symbol][lo:hi] if r[0] not in gone][:limit]
        out = []
        for t, o, high, low, c, v in rows:
            prices = (o, high, low, c)
            if t + self.length > self.now:  # not closed yet: what a careless reader would take for a bar
                prices = (o, o, o, o)
            elif t in wrong and self.now < t + 2 * self.length:
                prices = (o, high, low, (o + c) / 2)
            out.append([t, *map(str, prices), str(v), t + self.length - 1, "0", 1, "0", "0", "0"])
        return out

    # orders

    def place(self, symbol, side, kind, quantity, client_id, *, price="0", trigger="0", reduce_only=False,
              conditional=False) -> Order:  # fmt: skip
        """Accepts, fills or refuses an order; a client id that is still open is refused."""
        quantity, price, trigger = Decimal(quantity), Decimal(price or "0"), Decimal(trigger or "0")
        if not self.can_trade:
            raise RefusedError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        if any(o.client_id == client_id and o.status in ("NEW", "PARTIALLY_FILLED") for o in self.orders.values()):
            raise RefusedError(-4116 if self.kind == "linear" else -2010, "Duplicate order sent.")
        if quantity <= 0 or quantity % STEP:
            raise RefusedError(-1111, "Precision is over the maximum defined for this asset.")
        if any(t and t % TICK for t in (price, trigger)):
            raise RefusedError(-1111, "Precision is over the maximum defined for this asset.")
        if quantity * self.price(symbol) < MIN_NOTIONAL and not reduce_only:
            raise RefusedError(-4164 if self.kind == "linear" else -1013, "Filter failure: NOTIONAL")
        order = Order(next(self.ids), client_id, symbol, side, kind, quantity, self.now, price, trigger, reduce_only,
                      conditional, updated=self.now)  # fmt: skip
        self._check_funds(order)
        self.orders[order.id] = order
        if kind == "MARKET":
            part = quantity
            if self._by_chance("partial") and quantity >= 2 * STEP:
                part = (quantity / 2).quantize(STEP)
            self._fill(order, part, self._market_price(order))
        return order

    def cancel(self, order: Order) -> Order:
        """Takes an open order back."""
        if order.status not in ("NEW", "PARTIALLY_FILLED"):
            raise RefusedError(-2011, "Unknown order sent.")
        order.status, order.updated = "CANCELED", self.now
        return order

    def finish_partials(self) -> None:
        """Market orders of which a part is left are filled; called before every request."""
        for order in self.orders.values():
            if order.type == "MARKET" and order.status == "PARTIALLY_FILLED":
                self._fill(order, order.quantity - order.executed, self._market_price(order))

    def find(self, symbol: str, client_id: str | None, order_id: str | None, *, conditional: bool) -> Order:
        """The newest order of that name or number."""
        for order in reversed(self.orders.values()):
            named = order.client_id == client_id if client_id else str(order.id) == str(order_id)
            if named and order.symbol == symbol and order.conditional == conditional:
                return order
        raise RefusedError(-2013, "Order does not exist.")

    def open_orders(self, symbol: str | None, *, conditional: bool) -> list[Order]:
        """Resting orders."""
        return [o for o in self.orders.values() if o.status in ("NEW", "PARTIALLY_FILLED")
                and o.conditional == conditional and symbol in (None, o.symbol)]  # fmt: skip

    def _check_funds(self, order: Order) -> None:
        notional = order.quantity * self.price(order.symbol)
        if order.reduce_only:
            if self.kind == "linear" and order.type == "MARKET" and not self.positions[order.symbol]:
                raise RefusedError(-2022, "ReduceOnly Order is rejected.")
            return
        if self.kind == "spot":
            have = self.balances["USDT"] if order.side == "BUY" else self.balances[base_of(order.symbol)]
            need = notional if order.side == "BUY" else order.quantity
            if have < need:
                raise RefusedError(-2010, "Account has insufficient balance for requested action.")
        elif self.balances["USDT"] < notional * self.fee + notional / 20:
            raise RefusedError(-2019, "Margin is insufficient.")

    def _market_price(self, order: Order) -> Decimal:
        sign = 1 if order.side == "BUY" else -1
        return self.price(order.symbol) * (1 + sign * self.slippage)

    def _fill(self, order: Order, quantity: Decimal, price: Decimal) -> None:
        if self.kind == "linear" and order.reduce_only:
            held = self.positions[order.symbol]
            quantity = min(quantity, abs(held))
            if not quantity:
                order.status, order.updated = "EXPIRED", self.now
                return
        base, sign = base_of(order.symbol), 1 if order.side == "BUY" else -1
        fee, asset = quantity * price * self.fee, "USDT"
        if self.kind == "spot":
            if order.side == "BUY":
                fee, asset = quantity * self.fee, base
            self.balances[base] += sign * quantity
            self.balances["USDT"] -= sign * quantity * price
            self.balances[asset] -= fee
        else:
            self._move_position(order.symbol, sign * quantity, price)
            self.balances["USDT"] -= fee
        order.executed += quantity
        order.quote += quantity * price
        order.updated = self.now
        order.status = "FILLED" if order.executed >= order.quantity or order.reduce_only else "PARTIALLY_FILLED"
        self.trades.append(
            Trade(next(self.ids), order.id, order.symbol, order.side, price, quantity, fee, asset, self.now)
        )

    def _move_position(self, symbol: str, change: Decimal, price: Decimal) -> None:
        held = self.positions[symbol]
        if held == 0 or (held > 0) == (change > 0):
            whole = held + change
            self.entry_price[symbol] = (self.entry_price[symbol] * held + price * change) / whole
        else:
            closed = min(abs(change), abs(held)) * (1 if held > 0 else -1)
            self.balances["USDT"] += closed * (price - self.entry_price[symbol])
        self.positions[symbol] = held + change

    def _match(self, open_ms: int) -> None:
        """Resting orders against the bar that just ended: gaps first, then the stop, then the target."""
        self.finish_partials()
        for symbol in self.bars:
            row = self.bar(symbol, open_ms)
            if row is None:
                continue
            resting = [o for o in self.orders.values() if o.symbol == symbol and o.status == "NEW" and o.trigger]
            resting.sort(key=lambda o: not o.type.startswith("STOP"))
            for at_open in (True, False):
                for order in resting:
                    if order.status == "NEW":
                        self._trigger(order, row, at_open=at_open and order.time < open_ms)

    def _trigger(self, order: Order, row, *, at_open: bool) -> None:
        _, open_, high, low, _, _ = (Decimal(str(x)) for x in row)
        falls = (order.side == "SELL") == order.type.startswith("STOP")  # triggers when the price falls
        if at_open:
            hit, price = (open_ <= order.trigger if falls else open_ >= order.trigger), open_
        else:
            hit, price = (low <= order.trigger if falls else high >= order.trigger), order.trigger
        if not hit:
            return
        if not order.conditional:
            self._fill(order, order.quantity, price)
            return
        order.status = "FINISHED"
        actual = Order(next(self.ids), f"{order.client_id}", order.symbol, order.side, "MARKET", order.quantity,
                       self.now, reduce_only=order.reduce_only)  # fmt: skip
        order.actual_id, order.updated = actual.id, self.now
        self.orders[actual.id] = actual
        self._fill(actual, order.quantity, price)

    def _by_chance(self, name: str) -> bool:
        rate = getattr(self.faults, name)
        hit = rate > 0 and self.random.random() < rate
        self.happened[name] += hit
        return hit


def base_of(symbol: str) -> str:
    """The coin of a pair against USDT."""
    return symbol.removesuffix("USDT")
