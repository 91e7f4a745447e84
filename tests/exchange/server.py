"""The market behind the part of Binance's spot and USD-M interface that ccxt calls, as an ASGI app."""

import asyncio
import contextlib
import hashlib
import hmac
import socket
import threading
import time
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.exchange.market import MIN_NOTIONAL, STEP, TICK, Market, Order, RefusedError, base_of
from tests.exchange.streams import Paced, Streams

KEY, SECRET = "test-key", "test-secret"
RECV_WINDOW_MS = 10_000
FAULTY = ("too_many", "banned", "server_error")


class Api:
    """One market's routes. Every private call is checked for key, signature and time.

    streams: its websockets. pace: of simulated time, see `Paced`; None: questions for the time move it.
    """

    def __init__(self, market: Market, streams: Streams | None = None, pace: Paced | None = None) -> None:
        self.market, self.streams, self.pace = market, streams or Streams(market), pace
        self.n_times = 0
        self.lock = threading.Lock()
        self.n_requests = 0

    def app(self) -> Starlette:
        spot = {
            "GET time": self.time, "GET exchangeInfo": self.info, "GET klines": self.klines,
            "GET account": self.account, "POST order": self.new_order, "GET order": self.get_order,
            "DELETE order": self.cancel, "GET openOrders": self.open_orders, "GET allOrders": self.all_orders,
            "GET myTrades": self.my_trades, "GET ping": lambda _: {},
        }  # fmt: skip
        linear = {
            **spot, "GET userTrades": self.my_trades, "POST algoOrder": self.new_algo, "GET algoOrder": self.get_algo,
            "DELETE algoOrder": self.cancel_algo, "GET openAlgoOrders": self.open_algos,
            "GET positionRisk": self.positions, "GET leverageBracket": self.brackets, "POST leverage": lambda q: q,
            "POST marginType": lambda _: {"code": 200, "msg": "success"}, "GET fundingRate": self.funding_rates,
        }  # fmt: skip
        routes = []
        versions = ("/api/v3",) if self.market.kind == "spot" else ("/fapi/v1", "/fapi/v2", "/fapi/v3")
        for prefix in versions:
            for name, handler in (spot if self.market.kind == "spot" else linear).items():
                verb, path = name.split()
                routes.append(Route(f"{prefix}/{path}", self._wrapped(handler, path), methods=[verb]))
        return Starlette(routes=[*routes, *self.streams.routes()])

    def _wrapped(self, handler, path):
        public = path in ("time", "exchangeInfo", "klines", "ping", "fundingRate")

        async def answer(request: Request) -> Response:
            body = (await request.body()).decode()
            raw = body or request.url.query
            if body and request.url.query:
                raw = f"{request.url.query}&{body}"
            lost = False
            with self.lock:
                self.n_requests += 1
                market = self.market
                try:
                    self._misbehave()
                    market.finish_partials()
                    if not public:
                        self._check(request, raw)
                    content = handler(dict(parse_qsl(raw)))
                    lost = request.method == "POST" and "rder" in path and market._by_chance("lost_answer")
                except RefusedError as error:
                    headers = {"Retry-After": str(market.faults.retry_after)} if error.status in (418, 429) else {}
                    body = {"code": error.code, "msg": str(error)}
                    return JSONResponse(body, status_code=error.status, headers=headers)
            if path == "time":
                self.n_times += 1
                await (self.streams.follow() if self.pace is None else self.pace.asked())
            if lost:
                await asyncio.sleep(0.001)
                return JSONResponse({"code": -1007, "msg": "Timeout waiting for response from backend server."}, 504)
            return JSONResponse(content)

        return answer

    def _misbehave(self) -> None:
        market = self.market
        for begin, end in market.faults.maintenance:
            if begin <= market.now < end:
                market.advance(min(60_000, end - market.now))
                market.happened["maintenance"] += 1
                raise RefusedError(-1001, "System maintenance", 503)
        if market._by_chance("too_many"):
            raise RefusedError(-1003, "Too many requests; please use the websocket for live updates.", 429)
        if market._by_chance("banned"):
            raise RefusedError(-1003, "Way too many requests; IP banned until later.", 418)
        if market._by_chance("server_error"):
            raise RefusedError(-1000, "An unknown error occurred while processing the request.", 503)

    def _check(self, request: Request, raw: str) -> None:
        if request.headers.get("x-mbx-apikey") != KEY:
            raise RefusedError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        unsigned, _, signature = raw.rpartition("&signature=")
        wanted = hmac.new(SECRET.encode(), unsigned.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, wanted):
            raise RefusedError(-1022, "Signature for this request is not valid.")
        stamp = int(dict(parse_qsl(raw))["timestamp"])
        now = self.market.now + self.market.faults.clock_offset_ms
        if stamp > now + 1000 or now - stamp > RECV_WINDOW_MS:
            raise RefusedError(-1021, "Timestamp for this request is outside of the recvWindow.")

    def time(self, _query):
        return {"serverTime": self.market.ask_time()}

    def info(self, _query):
        spot = self.market.kind == "spot"
        symbols = []
        for symbol in self.market.bars:
            ended = any(s == symbol and t + self.market.length <= self.market.now for s, t in self.market.faults.ends)
            kinds = ["LIMIT", "MARKET"]
            kinds += ["STOP_LOSS", "TAKE_PROFIT"] if spot else ["STOP_MARKET", "TAKE_PROFIT_MARKET"]
            one = {
                "symbol": symbol, "status": "BREAK" if ended else "TRADING", "baseAsset": base_of(symbol),
                "quoteAsset": "USDT", "baseAssetPrecision": 8, "quotePrecision": 8, "quantityPrecision": 5,
                "pricePrecision": 2, "orderTypes": kinds, "isSpotTradingAllowed": spot, "permissions": ["SPOT"],
                "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": str(TICK), "maxPrice": "1000000", "tickSize": str(TICK)},
                    {"filterType": "LOT_SIZE", "minQty": str(STEP), "maxQty": "9000", "stepSize": str(STEP)},
                    {"filterType": "NOTIONAL", "minNotional": str(MIN_NOTIONAL)},
                    {"filterType": "MIN_NOTIONAL", "notional": str(MIN_NOTIONAL)},
                ],
            }  # fmt: skip
            if not spot:
                one |= {"contractType": "PERPETUAL", "marginAsset": "USDT", "deliveryDate": 4133404800000}
            symbols.append(one)
        return {"timezone": "UTC", "serverTime": self.market.now, "rateLimits": [], "symbols": symbols}

    def klines(self, q):
        if q["symbol"] not in self.market.bars:
            raise RefusedError(-1121, "Invalid symbol.")
        times = {k: int(q[k]) if k in q else None for k in ("startTime", "endTime")}
        return self.market.klines(q["symbol"], times["startTime"], times["endTime"], int(q.get("limit", 500)))

    def funding_rates(self, q):
        return self.market.funding_rates(q["symbol"], int(q.get("startTime", 0)), int(q.get("limit", 100)))

    def account(self, _query):
        market = self.market
        if market.kind == "spot":
            rows = [{"asset": a, "free": str(v), "locked": "0"} for a, v in market.balances.items()]
            return {"canTrade": market.can_trade, "accountType": "SPOT", "balances": rows, "permissions": ["SPOT"]}
        cash = str(market.balances["USDT"])
        asset = {"asset": "USDT", "walletBalance": cash, "availableBalance": cash, "marginBalance": cash,
                 "crossWalletBalance": cash, "initialMargin": "0", "maintMargin": "0"}  # fmt: skip
        return {"canTrade": market.can_trade, "assets": [asset], "positions": self.positions({})}

    def positions(self, _query):
        return [
            {
                "symbol": s, "positionAmt": str(p), "positionSide": "BOTH", "notional": str(p * self.market.price(s)),
                "entryPrice": str(self.market.entry_price[s]), "markPrice": str(self.market.price(s)),
                "unRealizedProfit": "0", "liquidationPrice": "0", "isolatedMargin": "0", "initialMargin": "0",
                "maintMargin": "0", "marginAsset": "USDT", "updateTime": self.market.now,
            }
            for s, p in self.market.positions.items() if p
        ]  # fmt: skip

    def brackets(self, _query):
        bracket = {"bracket": 1, "initialLeverage": 20, "notionalFloor": 0, "maintMarginRatio": 0.01, "cum": 0}
        return [{"symbol": s, "brackets": [bracket]} for s in self.market.bars]

    def new_order(self, q):
        order = self.market.place(
            q["symbol"], q["side"], q["type"], q.get("quantity", "0"), q["newClientOrderId"],
            price=q.get("price"), trigger=q.get("stopPrice"), reduce_only=q.get("reduceOnly") == "true",
        )  # fmt: skip
        return self._order(order)

    def new_algo(self, q):
        order = self.market.place(
            q["symbol"], q["side"], q["type"], q["quantity"], q["clientAlgoId"], trigger=q["triggerPrice"],
            reduce_only=q.get("reduceOnly") == "true", conditional=True,
        )  # fmt: skip
        return self._algo(order)

    def get_order(self, q):
        return self._order(
            self.market.find(q["symbol"], q.get("origClientOrderId"), q.get("orderId"), conditional=False)
        )

    def get_algo(self, q):
        for symbol in self.market.bars:
            with contextlib.suppress(RefusedError):
                return self._algo(self.market.find(symbol, q.get("clientAlgoId"), q.get("algoId"), conditional=True))
        raise RefusedError(-2013, "Order does not exist.")

    def cancel(self, q):
        found = self.market.find(q["symbol"], q.get("origClientOrderId"), q.get("orderId"), conditional=False)
        return self._order(self.market.cancel(found))

    def cancel_algo(self, q):
        for symbol in self.market.bars:
            with contextlib.suppress(RefusedError):
                found = self.market.find(symbol, q.get("clientAlgoId"), q.get("algoId"), conditional=True)
                return self._algo(self.market.cancel(found))
        raise RefusedError(-2011, "Unknown order sent.")

    def open_orders(self, q):
        return [self._order(o) for o in self.market.open_orders(q.get("symbol"), conditional=False)]

    def open_algos(self, q):
        return [self._algo(o) for o in self.market.open_orders(q.get("symbol"), conditional=True)]

    def all_orders(self, q):
        return [self._order(o) for o in self.market.orders.values() if o.symbol == q["symbol"] and not o.conditional]

    def my_trades(self, q):
        wanted = [t for t in self.market.trades if t.symbol == q["symbol"]]
        if "orderId" in q:
            wanted = [t for t in wanted if str(t.order_id) == q["orderId"]]
        if "startTime" in q:
            wanted = [t for t in wanted if t.time >= int(q["startTime"])]
        if wanted and self.market._by_chance("duplicate_trades"):
            wanted = [*wanted, wanted[-1]]
        return [
            {
                "symbol": t.symbol, "id": t.id, "orderId": t.order_id, "price": str(t.price), "qty": str(t.quantity),
                "quoteQty": str(t.price * t.quantity), "commission": str(t.fee), "commissionAsset": t.fee_asset,
                "time": t.time, "isBuyer": t.side == "BUY", "isMaker": False, "side": t.side, "buyer": t.side == "BUY",
                "maker": False, "positionSide": "BOTH",
            }
            for t in wanted
        ]  # fmt: skip

    def _order(self, order: Order):
        average = order.quote / order.executed if order.executed else 0
        shown = {
            "symbol": order.symbol, "orderId": order.id, "clientOrderId": order.client_id, "side": order.side,
            "type": order.type, "origQty": str(order.quantity), "executedQty": str(order.executed),
            "price": str(order.price), "stopPrice": str(order.trigger), "status": order.status, "timeInForce": "GTC",
            "time": order.time, "updateTime": order.updated, "avgPrice": str(average),
        }  # fmt: skip
        if self.market.kind == "spot":
            return shown | {"cummulativeQuoteQty": str(order.quote), "transactTime": order.updated}
        return shown | {"cumQuote": str(order.quote), "reduceOnly": order.reduce_only, "positionSide": "BOTH"}

    def _algo(self, order: Order):
        return {
            "algoId": order.id, "clientAlgoId": order.client_id, "algoType": "CONDITIONAL", "orderType": order.type,
            "symbol": order.symbol, "side": order.side, "positionSide": "BOTH", "quantity": str(order.quantity),
            "algoStatus": order.status, "triggerPrice": str(order.trigger), "price": "0",
            "actualOrderId": "" if order.actual_id is None else str(order.actual_id), "createTime": order.time,
            "updateTime": order.updated, "reduceOnly": order.reduce_only, "timeInForce": "GTC",
        }  # fmt: skip


@contextlib.contextmanager
def serving(market: Market, api: Api | None = None):
    """The market on a free port of the loopback interface; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config((api or Api(market)).app(), host="127.0.0.1", port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
