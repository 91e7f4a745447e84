"""Ctrl-C and SIGTERM while a command's modules are imported and after its work: a word and a code, or no notice.

Imported before anything else, so it imports almost nothing.
"""

import atexit
import functools
import os
import signal
import sys
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT, 128 + SIGTERM, as shells count
STOPS = (signal.SIGINT, signal.SIGTERM)


def leave_when_stopped() -> None:
    """Makes Ctrl-C and SIGTERM end this process with their word and exit code.

    Covers the time before a command begins and after it has ended. Python's own answer would be a traceback out of an
    import, or silence. Signals that were held back are let through. Once all is done and Python takes itself apart,
    where it can answer no more, they change nothing.
    """
    try:
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # a process in the background, as with nohup
                signal.signal(number, _leave)
    except ValueError:  # only the main thread may
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    _end_deaf()


def open_closed_streams() -> None:
    """Opens the null device for each standard stream that the caller closed.

    Python has None in its place, which cannot be printed to, and the next file opened would have its number: what a
    library prints would go into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


@functools.cache
def _end_deaf() -> None:
    atexit.register(_be_deaf)  # the first to be registered is the last to run


def _leave(number: int, _frame: FrameType | None) -> None:
    os.write(2, b"terminated\n" if number == signal.SIGTERM else b"interrupted\n")
    os._exit(TERMINATED if number == signal.SIGTERM else INTERRUPTED)


def _be_deaf() -> None:
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def is_command() -> bool:
    """Whether this process runs a command, and did not just import tradsys.

    A command is `python -m tradsys.VERB` or `tradsys VERB`.
    """
    main = sys.modules.get("__main__")
    spec, script = getattr(main, "__spec__", None), getattr(main, "__file__", None) or ""
    if main is None or main.__name__ != "__main__":  # a pool's worker, which its pool ends
        return False
    return spec.name.startswith("tradsys.") if spec is not None else os.path.basename(script) == "tradsys"


def is_becoming_command() -> bool:
    """Whether `python -m tradsys.VERB` is importing tradsys to find its verb."""
    words = sys.orig_argv
    named = words[words.index("-m") + 1 :][:1] if sys.argv[:1] == ["-m"] and "-m" in words else []
    return named != [] and named[0].partition(".")[0] == "tradsys"
