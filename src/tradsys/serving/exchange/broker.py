"""Real orders through ccxt: checked before they are sent, looked up by client id if unanswered."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from tradsys.core.plain_data import Json
from tradsys.portfolio.costs import Costs
from tradsys.serving.brokers import Account, Bar, Fill, Order, Report
from tradsys.serving.exchange.client import Client, ExchangeError, answered
from tradsys.serving.paper import entry_levels

REASONS = {"stop": "stop_loss", "target": "take_profit"}
ENDED = {"closed": "filled", "canceled": "canceled", "expired": "canceled", "rejected": "rejected"}
POLLS = 10


class ExchangeBroker:
    """Trades at an exchange: entries, and stop and target at rest there.

    Entries are market or limit orders; resting orders where the exchange supports them. costs: the configured ones, for
    sizes and for fees that the exchange charges in a third currency. minutes: bar length.
    """

    immediate = True

    def __init__(self, client: Client, costs: Costs, minutes: int) -> None:
        self.client, self.costs, self.length = client, costs, timedelta(minutes=minutes)
        # spot: a resting sale locks the coins, so the target is checked at every close instead
        self.protects: tuple[str, ...] = ("stop", "target") if client.spec.kind == "linear" else ("stop",)

    def settle(self, account: Account, bar: Bar) -> Report:  # noqa: ARG002 - one protocol
        """Unused: real orders are looked up one by one."""
        return Report("accepted")

    def miss(self, account: Account, time: datetime) -> Report:  # noqa: ARG002 - one protocol
        """No action: the exchange itself closes positions."""
        return Report("accepted")

    def submit(self, order: Order, account: Account) -> Report:
        """Sends an order, never twice.

        If the answer is lost, looks it up by client id before sending it again.
        """
        market = self.client.market(order.symbol)
        quantity, why = self._quantity(order, account, market)
        if why:
            return Report("rejected", why=why)
        ccxt = self.client.ccxt
        for _ in range(self.client.spec.attempts):
            try:
                self._create(order, account, market, quantity)
            except ccxt.OperationFailed:
                time.sleep(min(self.client.spec.wait_seconds, 5.0))
                found = self.lookup(order, account)
                if found is not None:
                    return found
                continue  # it never arrived, so the same order may be sent again
            except (ccxt.ExchangeError, ccxt.BadRequest) as error:
                found = self.lookup(order, account)
                return found if found is not None else Report("rejected", why=answered(error))
            return self._finished(order, account)
        return Report("unknown", why="the exchange does not answer")

    def _create(self, order: Order, account: Account, market: Any, quantity: float) -> None:
        opening = order.leg == "entry"
        buys = (order.side > 0) == opening
        params: dict[str, Any] = {"newClientOrderId": order.client_id}
        if self.client.spec.kind == "linear" and not opening:
            params["reduceOnly"] = True
        kind, price = "market", None
        if order.leg in REASONS:
            params["stopLossPrice" if order.leg == "stop" else "takeProfitPrice"] = order.price
        elif opening and self.client.spec.entry == "limit":
            limit = account.last_close * (1 + order.side * self.client.spec.limit_bps * 1e-4)
            kind, price = "limit", float(self.client.raw.price_to_precision(market["symbol"], limit))
        raw = self.client.raw
        raw.create_order(market["symbol"], kind, "buy" if buys else "sell", quantity, price, params)

    def _quantity(self, order: Order, account: Account, market: Any) -> tuple[float, str]:
        """Base units in the exchange's precision; or 0, and why the order is not sent."""
        if order.leg != "entry":
            # sums of fills may be a few bits below a full step, which truncation would lose
            wanted = order.quantity + 1e-6 * self.step_size(order.symbol)
        elif order.side < 0 and self.client.spec.kind == "spot":
            return 0.0, "a spot account cannot sell short; use exchange=binance_futures or a long-only profile"
        else:
            price = account.last_close * (1 + self.costs.slippage)
            wanted = order.size * account.cash / (price * (1 + self.costs.fee))
        limits = market["limits"]
        try:
            quantity = float(self.client.raw.amount_to_precision(market["symbol"], wanted))
        except self.client.ccxt.InvalidOrder:
            quantity = 0.0
        least, cost = limits["amount"]["min"] or 0.0, limits["cost"]["min"] or 0.0
        if quantity <= 0 or quantity < least:
            return 0.0, f"quantity {wanted:.8g} is below the exchange's least {least:.8g}"
        notional = quantity * account.last_close
        if order.leg == "entry" and notional < cost:
            return 0.0, f"order value {notional:.6g} is below the exchange's least {cost:.6g}"
        if order.leg == "entry":
            free = self.free_quote()
            needed = notional * (1 + self.costs.fee) if self.client.spec.kind == "spot" else notional * self.costs.fee
            if free < needed:
                return 0.0, f"free balance {free:.6g} is below the {needed:.6g} that the order needs"
        return quantity, ""

    def free_quote(self) -> float:
        """Free quote units of the account."""
        balance = self.client.call(self.client.raw.fetch_balance)
        return float(balance["free"].get("USDT") or 0.0)

    def _finished(self, order: Order, account: Account) -> Report:
        """The order's report; a market order is polled until it is no longer open."""
        report = self.lookup(order, account)
        for _ in range(POLLS):
            resting = order.leg in REASONS or (order.leg == "entry" and self.client.spec.entry == "limit")
            if report is None or report.status != "accepted" or resting:
                break
            time.sleep(min(self.client.spec.wait_seconds, 1.0))
            report = self.lookup(order, account)
        return report or Report("unknown", why="accepted, and not found afterwards")

    def cancel(self, client_id: str, account: Account, leg: str) -> Report:
        """Cancels an order; one that is no longer open is no error."""
        market = self.client.market(account.symbol)
        try:
            self.client.call(self.client.raw.cancel_order, None, market["symbol"], self._named(client_id, leg))
        except self.client.ccxt.OrderNotFound:
            return Report("canceled", why="it was not open")
        return Report("canceled")

    def lookup(self, order: Order, account: Account) -> Report | None:  # noqa: ARG002 - one protocol
        """Status and executions by client id; None where the exchange has no such order."""
        market, raw = self.client.market(order.symbol), self.client.raw
        try:
            named = self._named(order.client_id, order.leg)
            found = self.client.call(raw.fetch_order, None, market["symbol"], named)
            conditional = order.leg in REASONS and self.client.spec.kind == "linear"
            number, status = found["id"], found["status"]
            if conditional:
                actual = (found["info"] or {}).get("actualOrderId")
                if not actual:
                    return Report(ENDED.get(status, "accepted"))
                found = self.client.call(raw.fetch_order, actual, market["symbol"])
                number, status = found["id"], found["status"]
        except self.client.ccxt.OrderNotFound:
            return None
        fills = self._fills(order, market, number) if found["filled"] or status == "closed" else ()
        return Report(ENDED.get(status, "accepted"), fills)

    def _named(self, client_id: str, leg: str) -> dict[str, Any]:
        if leg in REASONS and self.client.spec.kind == "linear":
            return {"clientAlgoId": client_id, "conditional": True}
        return {"origClientOrderId": client_id}

    def _fills(self, order: Order, market: Any, number: str) -> tuple[Fill, ...]:
        trades = self.client.call(self.client.raw.fetch_my_trades, market["symbol"], None, None, {"orderId": number})
        unique = {t["id"]: t for t in trades if str(t["order"]) == str(number)}
        fills = []
        for trade in sorted(unique.values(), key=lambda t: (t["timestamp"], int(t["id"]))):
            fills.append(self._fill(order, market, trade))
        return tuple(fills)

    def _fill(self, order: Order, market: Any, trade: Any) -> Fill:
        price, quantity = float(trade["price"]), float(trade["amount"])
        fee, currency = float(trade["fee"]["cost"] or 0.0), trade["fee"]["currency"]
        if currency == market["base"]:
            quantity, fee = quantity - fee, fee * price
        elif currency != market["quote"]:
            fee = quantity * price * self.costs.fee  # charged in a third currency: valued at the configured rate
        opening = order.leg == "entry"
        at = datetime.fromtimestamp(trade["timestamp"] / 1000, UTC)
        inside = _close_of(at, self.length)
        by_hand = order.leg == "exit"
        return Fill(
            client_id=order.client_id,
            symbol=order.symbol,
            leg="entry" if opening else "exit",
            reason="" if opening else REASONS.get(order.leg, order.reason),
            side=order.side,
            time=order.signal_time if by_hand else inside,
            raw=price,
            price=price,
            quantity=quantity,
            fee=fee,
            trade_id=f"{order.symbol}:{trade['id']}",
            levels=entry_levels(order, price, self.costs) if opening else None,
            step=0.0 if opening else self.step_size(order.symbol),
        )

    def snapshot(self, symbols: list[str]) -> Json:
        """Signed base units by symbol.

        Positions of a contract account, coins of a spot account.
        """
        raw, held = self.client.raw, dict.fromkeys(symbols, 0.0)
        if self.client.spec.kind == "linear":
            names = {self.client.market(s)["symbol"]: s for s in symbols}
            for row in self.client.call(raw.fetch_positions):
                if row["symbol"] in names:
                    sign = -1 if row["side"] == "short" else 1
                    held[names[row["symbol"]]] = sign * float(row["contracts"] or 0.0)
        else:
            balance = self.client.call(raw.fetch_balance)["total"]
            held = {s: float(balance.get(self.client.market(s)["base"]) or 0.0) for s in symbols}
        return {"positions": held}

    def step_size(self, symbol: str) -> float:
        """The smallest step of quantities, in base units."""
        return float(self.client.market(symbol)["precision"]["amount"] or 0.0)

    def check_rights(self) -> None:
        """Raises ExchangeError where the account may not trade."""
        info = self.client.call(self.client.raw.fetch_balance)["info"]
        if isinstance(info, dict) and str(info.get("canTrade", True)).lower() == "false":
            raise ExchangeError(
                f"exchange {self.client.spec.id}: the key may not trade; allow trading for the key in "
                f"{self.client.spec.key}"
            )


def _close_of(moment: datetime, length: timedelta) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + ((moment - epoch) // length + 1) * length
