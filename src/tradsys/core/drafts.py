"""Drafts: temporary names of files and folders during writing, and removal of abandoned ones."""

import contextlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

try:
    import fcntl
except ImportError:  # no POSIX: only a draft's age is used
    fcntl = None  # type: ignore[assignment]

MACHINE = f"{crc32(platform.node().encode()):08x}"  # locks of another machine may not be seen on a shared volume
NAME = re.compile(r"\.(?P<target>.+)\.(?P<machine>[0-9a-f]{8})(?P<token>[0-9a-f]{8})\.(?P<kind>part|old)")
DEAD_AFTER_SECONDS = 24 * 3600.0  # without a change, where locks do not exist


def draft_of(path: Path, kind: str = "part") -> Path:
    """A new temporary name in the folder of `path`.

    kind: `part` for content being written, `old` for the previous content while it is replaced.
    """
    return path.with_name(f".{path.name}.{MACHINE}{secrets.token_hex(4)}.{kind}")


@contextlib.contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Holds a lock that marks the folder as being written to.

    It ends with the process.
    """
    with _locked(folder, exclusive=False):
        yield


@contextlib.contextmanager
def held_alone(path: Path) -> Iterator[bool]:
    """Holds the lock of an existing file; yields False where another process has it.

    It ends with the process. True where locks do not exist.
    """
    with _locked(path, exclusive=True) as own:
        yield own is not False


def is_held(path: Path) -> bool:
    """Whether a process has the lock of this file, as `held_alone` takes it."""
    with held_alone(path) as alone:
        return not alone


def remove_dead_drafts(folders: Iterable[Path]) -> list[Path]:
    """Removes drafts in these folders whose writer was killed; returns them.

    A draft of a running process stays. A draft is dead if it is of this machine and no process writes to its folder, or
    if it did not change for a day. An `old` draft without a successor gets its original name back.
    """
    gone = []
    for folder in folders:
        found = [(path, match) for path in _folder_entries(folder) if (match := NAME.fullmatch(path.name))]
        if not found:
            continue
        with _locked(folder, exclusive=True) as unused:
            for draft, match in found:
                known_dead = unused and match["machine"] == MACHINE
                if (known_dead or _age(draft) > DEAD_AFTER_SECONDS) and unused is not False:
                    _drop(draft, folder / match["target"], match["kind"])
                    gone.append(draft)
    return gone


def _folder_entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _drop(draft: Path, target: Path, kind: str) -> None:
    with contextlib.suppress(OSError):  # the command can go on without this clean-up
        if kind == "old" and not target.exists():
            os.replace(draft, target)
        elif draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft)
        else:
            draft.unlink()


def _age(draft: Path) -> float:
    """Seconds since the newest change of a draft or its content; 0 where that cannot be read."""
    try:
        inside = draft.rglob("*") if draft.is_dir() and not draft.is_symlink() else ()
        return time.time() - max(path.lstat().st_mtime for path in (draft, *inside))
    except OSError:
        return 0.0


@contextlib.contextmanager
def _locked(path: Path, *, exclusive: bool) -> Iterator[bool | None]:
    """Holds the lock of a folder or file; yields False where others hold it, None where locks do not exist.

    `flock` on the folder itself lets many writers share it and leaves no lock file, which filelock cannot do.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        yield _flock(handle, exclusive=exclusive)
    finally:
        os.close(handle)


def _flock(handle: int, *, exclusive: bool) -> bool | None:
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
