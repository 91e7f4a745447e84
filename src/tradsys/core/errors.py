"""Errors that a user can cause, by domain. Commands report each in one line with exit code 2."""

import difflib
import errno
import os
import sqlite3
from collections.abc import Collection

try:
    import resource
except ImportError:  # no POSIX, and no limit of a file's size
    resource = None  # type: ignore[assignment]


POSTGRES_DISK_FULL = "53100"  # SQLSTATE


class TradsysError(ValueError):
    """A cause the user can fix.

    The message reads `where: what, with values; the rule; the next step`.
    """


class DataError(TradsysError):
    """Bars, files or panels that break a rule of the data."""


class DamagedError(DataError):
    """Stored results that are not what was written; they can be made again."""


class WarmUpError(DataError):
    """Valid bars that are too few in a row for the warm-up of any feature."""


class LeakageError(TradsysError):
    """Training would see data on which it is later evaluated."""


class TrainingError(TradsysError):
    """A fit that cannot go on: NaN loss, one class only, no device."""


class CheckpointError(TrainingError):
    """Files of a fit that are damaged; without them it can begin again."""


class CombinationError(TradsysError):
    """Settings that are each possible, but not together.

    A sweep goes on without that trial.
    """


class BundleError(TradsysError):
    """An artefact that is damaged, tampered with, or made for something else."""


class GateError(TradsysError):
    """A quality gate that stops the command."""


def no_room(error: BaseException | None, place: object) -> OSError | None:
    """The OSError for a full disk, quota or file-size limit among an error's causes.

    None otherwise. Such an error must not be retried. place: path of a database whose error names no file.
    """
    while error is not None:
        refused = error if isinstance(error, OSError) else refused_by_disk(error, place)
        if refused is not None and refused.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return refused
        error = error.__cause__
    return None


def refused_by_disk(error: BaseException | None, place: object) -> OSError | None:
    """The OSError of the disk behind an error of a database; None for any other error.

    error: of sqlite3 or psycopg, or of SQLAlchemy above them. place: the database. SQLite reports `disk I/O error`
    for a failed write and for a file beyond `ulimit -f`.
    """
    cause = getattr(error, "orig", None) or error
    if getattr(cause, "sqlstate", None) == POSTGRES_DISK_FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
    code = getattr(cause, "sqlite_errorcode", None)
    if not isinstance(cause, sqlite3.Error) or code is None or code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return None
    numbers = {
        sqlite3.SQLITE_FULL: errno.ENOSPC,
        sqlite3.SQLITE_IOERR: errno.EIO if file_limit() is None else errno.EFBIG,
        sqlite3.SQLITE_READONLY: errno.EACCES,
        sqlite3.SQLITE_BUSY: errno.EBUSY,
    }
    number = numbers.get(code & 0xFF)  # the lowest byte of an extended code is its kind
    return None if number is None else OSError(number, os.strerror(number), str(place))


def file_limit() -> int | None:
    """Bytes that this process may write to a file (`ulimit -f`); None without a limit."""
    limit = None if resource is None else resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit is None or limit == resource.RLIM_INFINITY else int(limit)


def nearest(word: str, known: Collection[str]) -> str:
    """`did you mean ...?` with the nearest known name, or `nothing comes near`."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else "nothing comes near"
