"""What a command shows while it works: nothing under `quiet=true`, lines where nobody watches, bars on a terminal.

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
PATIENCE_SECONDS = 2.0  # a stage that takes longer says that it runs
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 15.0, 120.0  # between two lines of a stage without steps to count
ANSWERS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def is_quiet() -> bool:
    """Whether only results and errors are shown."""
    return os.environ.get(QUIET) == "1"


def is_watched() -> bool:
    """Whether a person sees standard error as it is written."""
    return sys.stderr.isatty() and not is_quiet()


def screen_level() -> int:
    """The level from which log records are shown on the terminal; a run's log.txt keeps all of them."""
    return logging.WARNING if is_quiet() else logging.INFO


def taken_from(arguments: list[str]) -> tuple[list[str], bool | None]:
    """The arguments without `quiet=...`, and its value; None where it is not given, ValueError for no truth value."""
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
    """Logs that a stage runs, once it has taken two seconds, and now and then for how long; nothing for a short one."""
    over = threading.Event()
    threading.Thread(target=_tell, args=(name, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _tell(name: str, over: threading.Event) -> None:
    """`name ...` after two seconds, `name ... 15 s` later, ever more rarely up to once in two minutes."""
    if over.wait(PATIENCE_SECONDS):
        return
    LOG.info("%s ...", name)
    elapsed, pause = PATIENCE_SECONDS, FIRST_PAUSE_SECONDS
    while not over.wait(pause):
        elapsed, pause = elapsed + pause, min(2 * pause, LONGEST_PAUSE_SECONDS)
        LOG.info("%s ... %.0f s", name, elapsed)


class Pace:
    """When a line of progress is due: two seconds after the start or the line before."""

    def __init__(self) -> None:
        self._shown = time.perf_counter()

    def is_due(self) -> bool:
        """Whether a line is due now, which then counts as shown."""
        now = time.perf_counter()
        due = now - self._shown >= PATIENCE_SECONDS
        self._shown = now if due else self._shown
        return due


def counted(name: str, items: Sequence[T]) -> Iterator[T]:
    """The items, one by one; logs which of how many is at work where that takes longer than two seconds."""
    pace = Pace()
    for k, item in enumerate(items):
        if pace.is_due():
            LOG.info("%s: %d of %d", name, k + 1, len(items))
        yield item


@contextlib.contextmanager
def total() -> Iterator[None]:
    """Logs how long the block took where it took two seconds or longer, however it ends."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        if seconds >= PATIENCE_SECONDS:
            LOG.info("%-22s %6.1f s", "total", seconds)
