"""The bot's main loop: moments of the feed, requests, temporary failures, orderly end."""

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from tradsys.core.clock import utc_now
from tradsys.core.errors import TradsysError
from tradsys.ops.trading import orders
from tradsys.ops.trading.engine import Engine
from tradsys.ops.trading.recovery import reconcile
from tradsys.serving.exchange.client import Client, ExchangeError
from tradsys.serving.exchange.stream import BarStream
from tradsys.serving.feeds import Feed

LOG = logging.getLogger(__name__)
JUMP_SECONDS = 60.0  # allowed jump of the wall clock against the monotonic clock between two checks


@dataclass
class Ending:
    """Why and how the bot ends; set by a signal or a request. code: exit code.

    bell: ends the loop's wait. A signal handler may interrupt that wait at any point, and `put` is safe there;
    `Event.set` is not, because it would wait for the lock of the wait that it interrupted.
    """

    requested: bool = False
    why: str = ""
    code: int = 0
    bell: "SimpleQueue[None]" = field(default_factory=SimpleQueue)

    def ask(self, why: str, code: int) -> None:
        """Ends the bot after the step in progress."""
        self.why, self.code, self.requested = why, code, True
        self.wake()

    def wake(self) -> None:
        """Ends the wait in progress, or the next one."""
        self.bell.put(None)

    def wait(self, seconds: float) -> None:
        """Waits until `wake` is called, or for `seconds`."""
        with contextlib.suppress(Empty):
            self.bell.get(timeout=seconds)
        for _ in range(self.bell.qsize()):
            self.bell.get_nowait()

    def sleep(self, seconds: float) -> None:
        """Waits for `seconds`, or until the end is requested."""
        end = time.monotonic() + seconds
        while not self.requested and (left := end - time.monotonic()) > 0:
            self.wait(left)


@contextlib.contextmanager
def signals(ending: Ending) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the bot after the step in progress."""

    def stop(number: int, _frame: Any) -> None:
        name = signal.Signals(number).name
        ending.ask(f"{name} received", 130 if number == signal.SIGINT else 143)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Loop:
    """Runs an engine on a live feed until its end is requested.

    client: of the exchange, for its clock and errors. after_step: called after every step, for the page and the model
    watch. adopt: also trade symbols with positions that are not the bot's. stream: of the feed, for the state of its
    connection.
    """

    def __init__(
        self,
        engine: Engine,
        feed: Feed,
        client: Client,
        ending: Ending,
        *,
        after_step: Callable[[Engine], None],
        adopt: bool = False,
        stream: BarStream | None = None,
    ) -> None:
        self.engine, self.feed, self.client, self.ending = engine, feed, client, ending
        self.stream = stream
        self.after_step, self.adopt = after_step, adopt
        self._reconciled = False
        self._n_failed = 0  # turns in a row
        self._at_feed = False  # a request for bars is running, and no step is in progress
        client.sleep, client.gives_up = self._sleep, self._gives_up
        self._marks = (time.time(), time.monotonic())

    def run(self) -> None:
        """Runs until the end is requested.

        Failures of the exchange are journaled and retried.
        """
        while not self.ending.requested:
            try:
                self._reconcile()
                self._moments()
            except ExchangeError as error:
                self._at_feed = False
                self._failed(error)
                self._requests(only="stop")
                self._pause()

    def _gives_up(self) -> bool:
        """Whether a failed call is not retried: the end is requested and no step is in progress."""
        return self._at_feed and self.ending.requested

    def _sleep(self, seconds: float) -> None:
        (self.ending.sleep if self._at_feed else time.sleep)(seconds)

    def _reconcile(self) -> None:
        if not self._reconciled:
            reconcile(self.engine, adopt=self.adopt)
            now, decided = self.client.time(), self.engine.state.decided
            newest = decided is not None and (now - decided).total_seconds() < 60 * self.engine.state.bar_minutes
            self.engine.send_waiting(decided if newest else None)
            self.after_step(self.engine)
            self._reconciled = True

    def _moments(self) -> None:
        self._at_feed = True
        for moment in self.feed.moments(self.engine.state.decided):
            self._at_feed = False
            self._check_clocks()
            self._stream_news()
            if moment is not None:
                self.engine.step(moment)
            if "flatten" in self.engine.state.halts and (moment is not None or self._n_failed):
                self._leave_all()  # positions that could not be closed at the request
            self._n_failed = 0
            if moment is not None:
                self.after_step(self.engine)
            self._requests()
            if self.ending.requested:
                return
            if moment is None:
                self._pause()
            self._at_feed = True

    def _stream_news(self) -> None:
        if self.stream is None:
            return
        for why in self.stream.news():
            LOG.warning("exchange %s: %s", self.client.spec.id, why)
            self.engine.record(("note", {"what": "stream", "why": why, "source": self.stream.source().body()}))

    def _failed(self, error: ExchangeError) -> None:
        LOG.warning("%s", error)
        self._n_failed += 1
        n, most = self._n_failed, self.engine.risk.max_errors
        if n == 1:
            self.engine.record(("note", {"what": "exchange", "why": str(error)}))
        if most is not None and n >= most:
            self.engine.halt("errors", f"{n} tries in a row failed; the last: {error}")

    def _check_clocks(self) -> None:
        wall, steady = time.time(), time.monotonic()
        jump = (wall - self._marks[0]) - (steady - self._marks[1])
        self._marks = (wall, steady)
        if abs(jump) > JUMP_SECONDS:
            raise TradsysError(
                f"trade: the system clock jumped by {jump:.0f} s; a bot needs a correct clock, and no order was sent "
                "since; "
                "set the clock (NTP) and start the bot again"
            )
        limit, apart = self.engine.risk.max_clock_seconds, abs(self.client.offset.total_seconds())
        if limit is not None and apart > limit:
            self.engine.halt(
                "clock", f"the clock here and the exchange's are {apart:.1f} s apart; the limit is {limit} s"
            )

    def _requests(self, only: str | None = None) -> None:
        for number, kind in self.engine.journal.requests(self.engine.state.last_request):
            if only not in (None, kind):
                return  # they keep their order
            self.engine.record(("request", {"id": number, "what": kind}))
            if kind == "stop":
                self.ending.ask("stop was requested", 0)
            elif kind == "flatten":
                self._flatten()
            elif kind == "resume":
                self.engine.record(("resume", {"why": "lifted by hand"}))
                self._reconciled = False
                self._reconcile()

    def _flatten(self) -> None:
        self.engine.halt("flatten", "positions were closed by hand; `trade resume` lets the bot enter again")
        self._leave_all()
        self.after_step(self.engine)

    def _leave_all(self) -> None:
        """Closes every position without an exit order under way."""
        moment, state = self.engine.state.moment or utc_now(), self.engine.state
        leaving = {order.symbol for order in state.open_orders.values() if order.leg == "exit"}
        for account in state.accounts.values():
            if account.pending is not None:
                orders.withdraw(self.engine, account, account.pending)
            if account.symbol not in leaving:
                orders.leave(self.engine, account, "flatten", moment)

    def _pause(self) -> None:
        if not self.ending.requested:
            self.ending.wait(self.client.spec.poll_seconds)


def stop_line(engine: Engine, why: str) -> str:
    """Journals the end; returns a line with open positions and resting orders."""
    engine.record(("stop", {"why": why, "time": str(engine.state.moment)}))
    resting = [o for o in engine.state.open_orders.values() if o.leg in orders.LEGS]
    held = [a.symbol for a in engine.state.accounts.values() if a.position is not None]
    stay = f"{len(resting)} protective orders stay at the exchange" if engine.broker.immediate else "simulated"
    left = f"open positions: {', '.join(held)}; {stay}" if held else "no position is open"
    return f"stopped: {why}; {left}; the same command resumes here"
