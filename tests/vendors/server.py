"""Vendors on the loopback interface: answers in each vendor's form with invented values, and misbehaves on request."""

import contextlib
import hashlib
import io
import math
import socket
import threading
import time
import zipfile
from collections import deque
from datetime import UTC, datetime, timedelta

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

FAULTS = ("too_many", "server_error", "html", "cut", "empty", "repeat", "long_wait")
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
MICROSECONDS_FROM = datetime(2025, 1, 1, tzinfo=UTC)


class History:
    """Invented hourly candles by symbol: open moment -> [open, high, low, close, volume]."""

    def __init__(self, symbols, first: datetime, last: datetime):
        self.bars = {s: {} for s in symbols}
        for k, symbol in enumerate(symbols):
            moment, n = first, 0
            while moment < last:
                low = 100.0 * (k + 1) + round(10 * math.sin(n / 24), 6)
                self.bars[symbol][moment] = [round(x, 6) for x in (low + 1, low + 3, low, low + 2, 5.0 + n % 7)]
                moment, n = moment + timedelta(hours=1), n + 1

    def between(self, symbol, begin: datetime, end: datetime):
        return [(t, v) for t, v in sorted(self.bars[symbol].items()) if begin <= t < end]


class Vendors:
    """All vendors' routes on one history. faults: what the next requests meet, in order; `None` is a good answer."""

    def __init__(self, history: History, now: datetime):
        self.history, self.now = history, now
        self.faults: deque[str | None] = deque()
        self.requests: list[str] = []
        self.headers_from = datetime(2100, 1, 1, tzinfo=UTC)  # archives from here on carry a header row
        self.wrong_checksums: set[str] = set()
        self.retry_after = "0"
        self.extra_routes: list[Route] = []

    def app(self):
        routes = [
            Route("/data/spot/{kind}/klines/{symbol}/1h/{file}", self.archive),
            Route("/api/v3/exchangeInfo", self.exchange_info),
            Route("/api/v3/klines", self.klines),
            *self.extra_routes,
        ]
        inner = Starlette(routes=routes)

        async def app(scope, receive, send):
            if scope["type"] != "http":
                return
            query = scope["query_string"].decode()
            self.requests.append(scope["path"] + (f"?{query}" if query else ""))
            fault = self.faults.popleft() if self.faults else None
            answer = self._fault(fault)
            if fault == "cut":
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9000")]})
                await send({"type": "http.response.body", "body": b"[[1", "more_body": True})
                return
            await (answer or inner)(scope, receive, send)

        return app

    def _fault(self, fault):
        limit = {"code": -1003, "msg": "Too many"}
        answers = {
            "too_many": lambda: JSONResponse(limit, 429, headers={"Retry-After": self.retry_after}),
            "long_wait": lambda: JSONResponse(limit, 429, headers={"Retry-After": "86400"}),
            "server_error": lambda: PlainTextResponse("Bad gateway", 502),
            "html": lambda: Response("<html><body>Just a moment...</body></html>", media_type="text/html"),
            "empty": lambda: JSONResponse([]),
            "repeat": lambda: JSONResponse(
                self._rows(next(iter(self.history.bars)), datetime(2024, 1, 1, tzinfo=UTC), 3)
            ),
        }
        return answers[fault]() if fault in answers else None

    def _rows(self, symbol, begin, limit):
        rows = self.history.between(symbol, begin, self.now + timedelta(hours=1))[:limit]
        return [
            [
                int(t.timestamp() * 1000),
                *map(str, v),
                int(t.timestamp() * 1000) + 3_599_999,
                "1.0",
                5,
                "1.0",
                "1.0",
                "0",
            ]
            for t, v in rows
        ]

    def exchange_info(self, request: Request):
        symbols = [
            {"symbol": s, "status": "TRADING", "baseAsset": s[:-4], "quoteAsset": "USDT", "baseAssetPrecision": 8,
             "quotePrecision": 8, "orderTypes": ["LIMIT"], "isSpotTradingAllowed": True, "permissions": ["SPOT"],
             "filters": []}
            for s in self.history.bars
        ]  # fmt: skip
        return JSONResponse({"timezone": "UTC", "serverTime": 0, "rateLimits": [], "symbols": symbols})

    def klines(self, request: Request):
        q = request.query_params
        if q["symbol"] not in self.history.bars:
            return JSONResponse({"code": -1121, "msg": "Invalid symbol."}, 400)
        begin = datetime.fromtimestamp(int(q.get("startTime", 0)) / 1000, UTC)
        return JSONResponse(self._rows(q["symbol"], begin, int(q.get("limit", 500))))

    def archive(self, request: Request):
        symbol, kind, file = (request.path_params[k] for k in ("symbol", "kind", "file"))
        name = file.removesuffix(".CHECKSUM")
        content = self._zip(symbol, kind, name)
        if content is None:
            return Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
        if file == name:
            return Response(content, media_type="application/zip")
        digest = hashlib.sha256(content + (b"x" if name in self.wrong_checksums else b"")).hexdigest()
        return PlainTextResponse(f"{digest}  {name}\n")

    def _zip(self, symbol, kind, name):
        stamp = name.removeprefix(f"{symbol}-1h-").removesuffix(".zip")
        if kind == "monthly":
            begin = datetime.strptime(stamp, "%Y-%m").replace(tzinfo=UTC)
            end = (begin + timedelta(days=32)).replace(day=1)
        else:
            begin = datetime.strptime(stamp, "%Y-%m-%d").replace(tzinfo=UTC)
            end = begin + timedelta(days=1)
        rows = self.history.between(symbol, begin, end) if symbol in self.history.bars else []
        if not rows or end > self.now:
            return None
        unit = 1_000_000 if begin >= MICROSECONDS_FROM else 1000
        lines = []
        for t, v in rows:
            opened = int(t.timestamp()) * unit
            values = ",".join(f"{x:.8f}" for x in v)
            lines.append(f"{opened},{values},{opened + 3600 * unit - 1},1.0,5,1.0,1.0,0\n")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            info = zipfile.ZipInfo(name.replace(".zip", ".csv"), (2025, 1, 1, 0, 0, 0))
            archive.writestr(info, (HEADER if begin >= self.headers_from else "") + "".join(lines))
        return packed.getvalue()


@contextlib.contextmanager
def serving(app):
    """An app on a free port of the loopback interface; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
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
