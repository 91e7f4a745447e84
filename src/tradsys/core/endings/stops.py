"""How a command is stopped from outside: Ctrl-C and SIGTERM raise, are never lost, and reach what was started."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import FrameType
from typing import Any

from tradsys.core.endings.early import INTERRUPTED, STOPS, TERMINATED

PARENT = "TRADSYS_PARENT"  # process id of the command that started this one
PR_SET_PDEATHSIG = 1  # prctl(2)
POLL_SECONDS = 1.0
AGAIN_SECONDS = 0.05


class Terminated(KeyboardInterrupt):
    """SIGTERM: what stops at Ctrl-C stops at this as well."""


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """A process started meanwhile gets Ctrl-C and SIGTERM only once it lets them through.

    `leave_when_stopped` of a command and `deaf_to_interrupts` of a worker do so.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def deaf_to_interrupts() -> None:
    """For a pool's worker: Ctrl-C, which a terminal sends to its whole group, is left to the process that made it.

    SIGTERM, which `held_back` may have kept from it while it began, is let through.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


@contextlib.contextmanager
def stoppable() -> Iterator[list[int]]:
    """SIGTERM raises Terminated and Ctrl-C KeyboardInterrupt meanwhile; yields the signals that came.

    An interrupt that falls into a callback of C code (numba, ctypes) is dropped by Python with a note; it is sent
    again until it arrives. A caller that sees a signal here and no interrupt knows that a library swallowed it.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    hook, main = sys.unraisablehook, threading.get_ident()

    def stop(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def unraisable(dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            number = signal.SIGTERM if isinstance(dropped.exc_value, Terminated) else signal.SIGINT
            # not from in here, where it would be dropped once more
            threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main, number)).start()
        else:
            hook(dropped)

    try:
        # a process in the background, as with nohup, may ignore Ctrl-C; then it goes on doing so
        for number in (n for n, handler in before.items() if handler is not signal.SIG_IGN):
            signal.signal(number, stop)
        sys.unraisablehook = unraisable
        yield came
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def exit_code(error: KeyboardInterrupt) -> int:
    """The code that a shell would give for the signal."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


def environment_of_child() -> dict[str, str]:
    """What a started command needs to know so that it ends with this process."""
    return {PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Asks for SIGTERM when the process that started this command is gone; nothing where none is named."""
    parent = os.environ.get(PARENT, "")
    if not parent.isdigit():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    else:
        threading.Thread(target=_wait_for_end_of, args=(int(parent),), daemon=True).start()
    if os.getppid() != int(parent):  # it went before the wish was heard
        raise Terminated


@dataclass(frozen=True)
class EndingWithCaller:
    """A callable for a pool's workers, which end with the process that made it even where that was killed.

    A pool ends its workers itself unless it gets no time to. A death signal would not do here: it is sent when the
    thread that started a worker ends, and pools start theirs from threads of their own.
    """

    work: Callable[[Any], Any]
    caller: int = field(default_factory=os.getpid)

    def __call__(self, one: Any) -> Any:
        """The work's result; the first call in a worker begins to watch the caller."""
        end_with_caller(self.caller)
        return self.work(one)


def end_with_caller(caller: int) -> None:
    """For a pool's worker, as soon as it starts: it ends with the process that made it, busy or not."""
    if os.getpid() != caller:
        _watch(caller)


@cache
def _watch(parent: int) -> None:
    threading.Thread(target=_wait_for_end_of, args=(parent,), daemon=True).start()


def _wait_for_end_of(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
