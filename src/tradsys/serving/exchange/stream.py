"""A websocket that ends the wait for the next poll once a bar has closed; bars still come by REST."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from queue import SimpleQueue
from typing import Any

import tenacity

from tradsys.core.clock import utc_now
from tradsys.core.errors import TradsysError
from tradsys.serving.exchange.client import TIMEFRAMES, Client, backoff_from, cause_of
from tradsys.serving.feeds import Source

HANG_UP_SECONDS = 0.5  # how long to wait for the peer's answer to a close
JOIN_SECONDS = 2.0
GRACE_SECONDS = 60.0  # beyond a bar's length: a stream without a new bar for so long counts as dead
NOTED_ATTEMPT = 2  # exchanges end connections daily; a connection that reopens at once is not reported


class BarStream:
    """Follows current bars in a thread; wakes the caller at a close.

    The thread is its own. `due` is the close that the feed waits for. An update of the bar that opens at `due` calls
    `wake`: at the first symbol, and again once every symbol has one. A message has no other effect, so a wrong, late or
    repeated one costs at most two polls per bar, and a lost one the wait for the next poll. No keys are used.

    private: follows the test environment if orders go there. wake: called from the thread.
    """

    def __init__(
        self, client: Client, symbols: Sequence[str], minutes: int, wake: Callable[[], None], *, private: bool
    ) -> None:
        self.client, self.wake, self.private = client, wake, private
        self.markets = {m["symbol"]: m for m in map(client.market, symbols)}
        self.timeframe, self.silence = TIMEFRAMES[minutes], 60.0 * minutes + GRACE_SECONDS
        self.due: datetime | None = None
        self.last_message: datetime | None = None
        self.n_breaks = 0
        self.why = "the websocket is not open yet"  # why bars come by polling; "" while messages arrive
        self._shown: tuple[datetime | None, set[str]] = (None, set())
        self._news: SimpleQueue[str] = SimpleQueue()
        self._noted = self._closing = False
        self._thread = threading.Thread(target=self._run, name="bar-stream", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._broken: asyncio.Future[None] | None = None

    def __enter__(self) -> "BarStream":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing = True
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(JOIN_SECONDS)

    def source(self) -> Source:
        """The current source of bars: websocket or polling."""
        return Source("polling" if self.why else "websocket", self.last_message, self.n_breaks, self.why)

    def news(self) -> list[str]:
        """Changes of the connection since the last call, in words."""
        return [self._news.get_nowait() for _ in range(self._news.qsize())]

    def _run(self) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(self._main())
        except Exception as error:  # a library may raise anything; the bot continues by polling
            self.why = f"the websocket ended: {cause_of(error)}"
            self._news.put(f"{self.why}; bars come by polling until the bot is started again")

    async def _main(self) -> None:
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        exchange = self.client.spec.websockets(private=self.private)
        if exchange is None:
            self.why = f"ccxt streams no bars of {self.client.spec.id}"
            return
        self._loop.set_exception_handler(self._raised)
        exchange.set_markets(self.markets)
        for_ever = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Exception),
            wait=backoff_from(self.client.spec.wait_seconds),
            after=self._broke,
        )
        try:
            if not self._closing:
                await for_ever(self._connection, exchange)
        finally:
            await self._hang_up(exchange)
            await exchange.close()

    async def _connection(self, exchange: Any) -> None:
        """Follows all symbols until something breaks, which is raised."""
        names = list(self.markets)
        together = [names] if exchange.has.get("watchOHLCVForSymbols") else [[name] for name in names]
        self._broken = asyncio.get_running_loop().create_future()
        following = [asyncio.ensure_future(self._follow(exchange, some)) for some in together]
        try:
            await asyncio.gather(self._broken, *following)
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
            await self._hang_up(exchange)

    async def _follow(self, exchange: Any, names: list[str]) -> None:
        while True:
            try:
                async with asyncio.timeout(self.silence):
                    updates = await self._updates(exchange, names)
            except TimeoutError:
                raise ConnectionError(f"no message arrived for {self.silence:.0f} s") from None
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise ConnectionError("the connection was closed") from None
            for symbol, candles in updates.items():
                self._heard(symbol, candles)

    async def _updates(self, exchange: Any, names: list[str]) -> dict[str, list[list[Any]]]:
        """The next rows (open time ms, ...) of some of the symbols."""
        if len(names) == 1:
            return {names[0]: await exchange.watch_ohlcv(names[0], self.timeframe)}
        found = await exchange.watch_ohlcv_for_symbols([[name, self.timeframe] for name in names])
        return {symbol: rows[self.timeframe] for symbol, rows in found.items()}

    def _heard(self, symbol: str, candles: list[list[Any]]) -> None:
        self.last_message = utc_now()
        self.why = ""
        if self._noted:
            self._noted = False
            self._news.put("the websocket is back")
        due = self.due
        if self._shown[0] != due:
            self._shown = (due, set())
        shown = self._shown[1]
        if due is None or symbol in shown or not any(row[0] == due.timestamp() * 1000 for row in candles):
            return
        shown.add(symbol)
        if len(shown) in (1, len(self.markets)):
            self.wake()

    def _broke(self, state: tenacity.RetryCallState) -> None:
        """Counts a lost connection; the second in a row without a message in between is reported once."""
        error = state.outcome.exception() if state.outcome else None
        if not self.why:
            state.attempt_number = 1
        self.n_breaks += 1
        self.why = f"the websocket broke: {cause_of(error)}"
        if state.attempt_number == NOTED_ATTEMPT:
            self._noted = True
            seconds = self.client.spec.poll_seconds
            self._news.put(f"{self.why}; bars come by polling every {seconds:g} s until it is back")

    def _raised(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Ends a connection whose callback raised, for example on a message that ccxt cannot read."""
        error, broken = context.get("exception"), self._broken
        of_a_callback = "handle" in context and isinstance(error, Exception)
        if of_a_callback and broken is not None and not broken.done():
            broken.set_exception(ConnectionError(f"a message could not be read: {cause_of(error)}"))

    async def _hang_up(self, exchange: Any) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(exchange.close_ws_clients(), HANG_UP_SECONDS)
        exchange.clients.clear()  # otherwise an abandoned connection would count as open


def stream_of(
    client: Client, symbols: Sequence[str], minutes: int, wake: Callable[[], None], *, private: bool
) -> BarStream | None:
    """The stream by `exchange.stream`; None for false.

    Raises TradsysError for true where ccxt has none; for auto the thread checks this, so that a start does not wait.
    """
    spec = client.spec
    if spec.stream is False:
        return None
    if spec.stream is True and spec.websockets(private=private) is None:
        raise TradsysError(
            f"exchange: stream=true, but ccxt streams no bars of {spec.id}; set exchange.stream=auto to poll"
        )
    return BarStream(client, symbols, minutes, wake, private=private)
