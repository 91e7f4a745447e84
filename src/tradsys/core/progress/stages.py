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
    """Logs that a stage runs, once it has taken two seconds; nothing for a shorter one."""
    began = threading.Timer(PATIENCE_SECONDS, LOG.info, ("%s ...", name))
    began.daemon = True
    began.start()
    try:
        yield
    finally:
        began.cancel()


def counted(name: str, items: Sequence[T]) -> Iterator[T]:
    """The items, one by one; logs which of how many is at work where that takes longer than two seconds."""
    shown = time.perf_counter()
    for k, item in enumerate(items):
        now = time.perf_counter()
        if now - shown >= PATIENCE_SECONDS:
            LOG.info("%s: %d of %d", name, k + 1, len(items))
            shown = now
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
