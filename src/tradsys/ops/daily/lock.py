"""Lock of a daily folder: one run at a time; a second one is refused with the holder's name."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from filelock import FileLock, Timeout

from tradsys.core.clock import utc_now
from tradsys.core.errors import TradsysError
from tradsys.core.received import read_json
from tradsys.core.runs import write_json

LOCK, HOLDER = ".lock", ".holder.json"


class Holder(TypedDict):
    """The process that holds the folder.

    Fields are None before it has written its note.
    """

    pid: int | None
    host: str | None
    since: str | None


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the folder while the block runs.

    Raises TradsysError that names the holder where another process has it. The kernel releases the lock of an ended
    process, so a killed run blocks nobody; its note stays until the next run overwrites it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(folder / LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TradsysError(
            f"daily: {folder} is held by {_holder(noted(folder))}; one run at a time may write there; wait for it, or "
            "stop that process"
        ) from error
    try:
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now().isoformat(timespec="seconds")}
        write_json(folder / HOLDER, note)
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def holder(folder: Path) -> Holder | None:
    """The run in progress; None where nobody holds the folder."""
    if not (folder / LOCK).exists():
        return None
    lock = FileLock(str(folder / LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return noted(folder) or {"pid": None, "host": None, "since": None}
    lock.release()
    return None


def noted(folder: Path) -> Holder | None:
    """The last holder's note, whether or not it still runs; None without one."""
    try:
        note: Holder = read_json(folder / HOLDER, "start again")
    except (OSError, TradsysError):
        return None
    return note if {"pid", "host", "since"} <= note.keys() else None


def _holder(note: Holder | None) -> str:
    if note is None:
        return "another process that has left no name yet"
    return f"process {note['pid']} on {note['host']} since {note['since']}"
