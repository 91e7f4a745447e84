"""Progress output: nothing under `quiet=true`, bars on a terminal, lines otherwise.

Results go to standard output; all of this goes to standard error through the package's log. Bars: `bars`.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

LOG = logging.getLogger("tradsys")
T = TypeVar("T")
QUIET = "TRADSYS_QUIET"  # an environment variable, so that worker processes are quiet too
PATIENCE_SECONDS = 2.0  # a stage that takes longer is logged
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 15.0, 120.0  # between two lines of a stage without steps to count
ANSWERS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def is_quiet() -> bool:
    """Whether only results and errors are shown."""
    return os.environ.get(QUIET) == "1"


def is_watched() -> bool:
    """Whether a person sees standard error as it is written."""
    return sys.stderr.isatty() and not is_quiet()


def screen_level() -> int:
    """The level from which log records are shown on the terminal.

    A run's log.txt keeps all of them.
    """
    return logging.WARNING if is_quiet() else logging.INFO


def taken_from(arguments: list[str]) -> tuple[list[str], bool | None]:
    """The arguments without `quiet=...`, and its value.

    None where it is not given, ValueError for no truth value.
    """
    value: bool | None = None
    kept = []
    for argument in arguments:
        key, _, text = argument.partition("=")
        if key != "quiet":
            kept.append(argument)
        elif (value := ANSWERS.get(text.lower())) is None:
            raise ValueError(f"quiet={text}; it is true (results and errors only) or false; set one of them")
    return kept, value


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Logs a stage of more than two seconds, and its time while it runs.

    The elapsed time comes at growing intervals.
    """
    over = threading.Event()
    threading.Thread(target=_tell, args=(name, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _tell(name: str, over: threading.Event) -> None:
    """Logs `name ...` after two seconds, then `name ... 15 s`, at growing intervals of at most two minutes."""
    if over.wait(PATIENCE_SECONDS):
        return
    LOG.info("%s ...", name)
    elapsed, pause = PATIENCE_SECONDS, FIRST_PAUSE_SECONDS
    while not over.wait(pause):
        elapsed, pause = elapsed + pause, min(2 * pause, LONGEST_PAUSE_SECONDS)
        LOG.info("%s ... %.0f s", name, elapsed)


class Pace:
    """Limits progress to one line every two seconds."""

    def __init__(self) -> None:
        self._shown = time.perf_counter()

    def is_due(self) -> bool:
        """Whether a line is due now; if so, the next one is due two seconds later."""
        now = time.perf_counter()
        due = now - self._shown >= PATIENCE_SECONDS
        self._shown = now if due else self._shown
        return due


def counted(name: str, items: Sequence[T]) -> Iterator[T]:
    """The items, one by one.

    Logs `name: 3 of 10` where the work takes longer than two seconds.
    """
    pace = Pace()
    for k, item in enumerate(items):
        if pace.is_due():
            LOG.info("%s: %d of %d", name, k + 1, len(items))
        yield item


@contextlib.contextmanager
def total() -> Iterator[None]:
    """Logs how long the block took, from two seconds on, also after an error."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        if seconds >= PATIENCE_SECONDS:
            LOG.info("%-22s %6.1f s", "total", seconds)
