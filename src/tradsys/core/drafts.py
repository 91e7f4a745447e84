"""Drafts: temporary names of files and folders that are being written, and what a killed writer left of them."""

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
except ImportError:  # no POSIX: a draft's age alone decides
    fcntl = None  # type: ignore[assignment]

MACHINE = f"{crc32(platform.node().encode()):08x}"  # locks of another machine may not be seen on a shared volume
NAME = re.compile(r"\.(?P<target>.+)\.(?P<machine>[0-9a-f]{8})(?P<token>[0-9a-f]{8})\.(?P<kind>part|old)")
DEAD_AFTER_SECONDS = 24 * 3600.0  # without a change, where no lock can be asked


def draft_of(path: Path, kind: str = "part") -> Path:
    """A new temporary name beside `path`. kind: `part` is being written, `old` steps aside for a new one."""
    return path.with_name(f".{path.name}.{MACHINE}{secrets.token_hex(4)}.{kind}")


@contextlib.contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Marks the folder as written to: the kernel ends the mark with the process, however that ends."""
    with _locked(folder, exclusive=False):
        yield


def remove_dead_drafts(folders: Iterable[Path]) -> list[Path]:
    """Removes drafts directly in these folders whose writer was killed, and returns them; never a live one.

    Dead is a draft of this machine in a folder that no process writes to, or any draft that did not change for a day.
    An `old` whose successor never came gets its name back.
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
    with contextlib.suppress(OSError):  # a disk that refuses is no reason to refuse the command
        if kind == "old" and not target.exists():
            os.replace(draft, target)
        elif draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft)
        else:
            draft.unlink()


def _age(draft: Path) -> float:
    """Seconds since the newest change of a draft or of what it holds; 0 where that cannot be read."""
    try:
        inside = draft.rglob("*") if draft.is_dir() and not draft.is_symlink() else ()
        return time.time() - max(path.lstat().st_mtime for path in (draft, *inside))
    except OSError:
        return 0.0


@contextlib.contextmanager
def _locked(folder: Path, *, exclusive: bool) -> Iterator[bool | None]:
    """Holds the folder's own lock; yields False where others hold it, None where there are no locks.

    `flock` on the folder itself: many writers share it, and no lock file is left behind, which filelock cannot do.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
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
