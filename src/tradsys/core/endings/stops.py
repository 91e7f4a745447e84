"""Stopping a command: Ctrl-C and SIGTERM raise, are never lost and end its child processes."""

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
    """Raised on SIGTERM; code that handles Ctrl-C handles it as well."""


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Blocks Ctrl-C and SIGTERM for processes that are started inside the block.

    They unblock the signals with `leave_when_stopped` (a command) or `deaf_to_interrupts` (a worker).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def deaf_to_interrupts() -> None:
    """Makes a pool's worker ignore Ctrl-C, which its parent process handles.

    A terminal sends Ctrl-C to the complete process group. SIGTERM, which `held_back` may have blocked, is unblocked.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


@contextlib.contextmanager
def stoppable() -> Iterator[list[int]]:
    """Inside the block SIGTERM raises Terminated, Ctrl-C KeyboardInterrupt.

    Yields received signals. Python drops an interrupt that arrives in a callback of C code (numba, ctypes); it is sent
    again until it is raised. A signal in the list without an interrupt means that a library swallowed it.
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


def end_waits_on_interrupt() -> None:
    """Makes Ctrl-C end a wait for a child, a lock or a pipe, as Python means it to.

    polars' handler, set when it is first imported, lets them go on (pola-rs/polars#21739).
    """
    if sys.platform != "win32":  # where system calls cannot be interrupted
        signal.siginterrupt(signal.SIGINT, True)


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit code by a shell's convention: 128 plus the signal's number."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


def environment_of_child() -> dict[str, str]:
    """Environment for a child command, which then ends with this process."""
    return {PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Requests SIGTERM for the moment when the parent command ends.

    No effect without a parent.
    """
    parent = os.environ.get(PARENT, "")
    if not parent.isdigit():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    else:
        threading.Thread(target=_wait_for_end_of, args=(int(parent),), daemon=True).start()
    if os.getppid() != int(parent):  # the parent ended before the request
        raise Terminated


@dataclass(frozen=True)
class EndingWithCaller:
    """Wraps a pool's function: workers end with the pool's process.

    Holds even if that process is killed. A pool ends its workers itself only if it gets the time. The kernel's
    parent-death signal is no alternative: it is sent when the thread that started a worker ends, and pools start
    workers from short-lived threads.
    """

    work: Callable[[Any], Any]
    caller: int = field(default_factory=os.getpid)

    def __call__(self, one: Any) -> Any:
        """The function's result; the first call in a worker starts watching the caller."""
        end_with_caller(self.caller)
        return self.work(one)


def end_with_caller(caller: int) -> None:
    """Pool initialiser: the worker ends with the process that started it, busy or not."""
    if os.getpid() != caller:
        _watch(caller)


@cache
def _watch(parent: int) -> None:
    threading.Thread(target=_wait_for_end_of, args=(parent,), daemon=True).start()


def _wait_for_end_of(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
