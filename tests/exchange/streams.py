"""Binance's streams of bars in progress as ccxt subscribes to them, sent as simulated time passes; false on demand."""

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass, field

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.exchange.market import Market

HUGE = "x" * 11_000_000  # more than ccxt takes in one frame
UNREADABLE = (
    '{"broken', "[]", "null", "7", "{}", '{"e":"kline"}', '{"e":"kline","k":{"t":null,"s":null,"i":"1h"}}',
    '{"e":"kline","k":[1,2]}', '{"error":{"code":3,"msg":"Invalid JSON"}}', '{"a":' * 5000, b"\xff\xfe\x00", HUGE,
)  # fmt: skip


@dataclass
class Misbehaviour:
    """How the stream errs. Prices of every message are wrong where `wrong_prices`: nobody may read them."""

    refused: bool = False  # no connection is accepted
    closes: bool = False  # each connection ends after some messages
    late: bool = False  # messages come a bar late
    repeated: bool = False  # each message comes three times
    disordered: bool = False  # newest first, then older ones
    early: bool = False  # the next bar is announced before it opens
    unreadable: bool = False  # garbage and frames that are too large, between true messages
    stalled: bool = False  # no message ever
    deaf: bool = False  # a client that closes gets no answer
    other_symbol: bool = False  # messages are of symbols that nobody asked for
    wrong_prices: bool = True

    @classmethod
    def by_chance(cls, dice: random.Random) -> "Misbehaviour":
        """Each fault of a connection that was accepted, one time in five."""
        names = ("closes", "late", "repeated", "disordered", "early", "unreadable", "other_symbol")
        return cls(**{name: dice.random() < 0.2 for name in names})


@dataclass
class Streams:
    """The sockets of one market. n_messages: sent in all. n_connections: accepted in all."""

    market: Market
    errs: Misbehaviour = field(default_factory=Misbehaviour)
    dice: random.Random | None = None  # chaos: other misbehaviour for every connection
    sockets: dict[WebSocket, list[str]] = field(default_factory=dict)
    published: int = 0  # newest opening time that was announced
    held: list[str] = field(default_factory=list)  # messages that are late
    n_messages: int = 0
    n_connections: int = 0

    def routes(self) -> list[WebSocketRoute]:
        """The endpoints: of spot, and of bars of USD-M perpetuals."""
        path = "/ws/{number}" if self.market.kind == "spot" else "/market/ws/{number}"
        return [WebSocketRoute(path, self._serve)]

    async def _serve(self, socket: WebSocket) -> None:
        if self.dice is not None:
            self.errs = Misbehaviour.by_chance(self.dice)
        if self.errs.refused:
            await socket.close()
            return
        await socket.accept()
        self.n_connections += 1
        self.sockets[socket] = []
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                request = json.loads(await socket.receive_text())
                assert request["method"] == "SUBSCRIBE", request
                self.sockets[socket] += request["params"]
                await socket.send_text(json.dumps({"result": None, "id": request["id"]}))
        self.sockets.pop(socket, None)

    async def follow(self) -> None:
        """Announces the bars that closed and opened since the last call, and the one in progress."""
        length, now = self.market.length, self.market.now
        opened = now // length * length
        news = opened > self.published
        self.published = opened
        lines: list[str | bytes] = []
        for symbol in self.market.bars:
            if news:
                lines.append(self._line(symbol, opened - length, closed=True))
            lines.append(self._line(symbol, opened, closed=False))
        await self._send(self._bent(lines, opened))

    def _bent(self, lines: list, opened: int) -> list:
        """The messages as the misbehaviour has them."""
        errs, length = self.errs, self.market.length
        if errs.stalled:
            return []
        if errs.late:
            lines, self.held = self.held, lines
        if errs.disordered:
            old = [self._line(s, opened - k * length, closed=True) for s in self.market.bars for k in (1, 3, 2)]
            lines = [*reversed(lines), *old]
        if errs.early:
            lines = [*lines, *(self._line(s, opened + length, closed=True) for s in self.market.bars)]
        if errs.other_symbol:
            lines = [line.replace("AAAUSDT", "ZZZUSDT").replace("BBBUSDT", "YYYUSDT") for line in lines]
        if errs.unreadable:
            lines = [*lines, UNREADABLE[self.n_messages % len(UNREADABLE)]]
        return lines * 3 if errs.repeated else lines

    async def _send(self, lines: list) -> None:
        for socket, wanted in list(self.sockets.items()):
            if not wanted:
                continue
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                for line in lines:
                    self.n_messages += 1
                    await (socket.send_bytes(line) if isinstance(line, bytes) else socket.send_text(line))
                if self.errs.deaf:  # of uvicorn's protocol, which would answer by itself
                    socket._receive.__self__.transport.pause_reading()
                if self.errs.closes and self.n_messages % 3 == 0:
                    await socket.close(1012)
                    self.sockets.pop(socket, None)

    def _line(self, symbol: str, opened: int, *, closed: bool) -> str:
        row = self.market.bar(symbol, opened) or (opened, 1, 1, 1, 1, 0)
        factor = 3.0 if self.errs.wrong_prices else 1.0
        prices = [str(x * factor) for x in row[1:5]]
        candle = {
            "t": opened, "T": opened + self.market.length - 1, "s": symbol, "i": "1h", "f": 1, "L": 2,
            "o": prices[0], "h": prices[1], "l": prices[2], "c": prices[3], "v": str(row[5]), "n": 2, "x": closed,
            "q": "0", "V": "0", "Q": "0", "B": "0",
        }  # fmt: skip
        return json.dumps({"e": "kline", "E": self.market.now, "s": symbol, "k": candle})


class Paced:
    """Simulated time that stands still until the bot has seen that nothing is new, then moves on by one bar.

    `ready` is called after each of the bot's steps. The bot asks for the time once more, learns that no bar has closed
    and waits: only then the next one closes. What it does is so the same however often it polls. listened: no bar
    closes before the bot has subscribed to the stream.
    """

    def __init__(self, market: Market, streams: Streams, *, listened: bool = False) -> None:
        self.market, self.streams, self.listened = market, streams, listened
        self.steps = self.answered = 0
        self.tasks: set[asyncio.Task] = set()

    def ready(self) -> None:
        """The bot has taken a step."""
        self.steps += 1

    async def asked(self) -> None:
        """The bot has asked for the time."""
        if self.answered < self.steps:
            self.answered = self.steps
            task = asyncio.create_task(self._close_a_bar())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _close_a_bar(self) -> None:
        await asyncio.sleep(0.02)  # the answer to the question leaves first
        while self.listened and not any(self.streams.sockets.values()):
            await asyncio.sleep(0.01)
        market = self.market
        market.advance((market.now // market.length + 1) * market.length + 1000 - market.now)
        await self.streams.follow()
