"""The database below the trial ledger: SQLite with an early write lock, or a server."""

import contextlib
import errno
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tradsys.core.database_url import database_url, server_engine
from tradsys.core.drafts import draft_of, remove_dead_drafts, writing_in
from tradsys.core.errors import DataError, refused_by_disk
from tradsys.core.masking import masked_text
from tradsys.core.received import one_line, refused_in_one_line
from tradsys.research.pipeline.ledger_anchors import RESTORE

# seconds a writer waits for another before SQLite says "database is locked"
BUSY_SECONDS = 60
HEADER_BYTES = 100  # of a SQLite file
# triggers and views of SQLite could change or hide rows; an index changes no answer
PARTS = "SELECT type, name FROM sqlite_master WHERE type <> 'index' ORDER BY name"
METADATA = sa.MetaData()
EVALUATIONS = sa.Table(
    "looks",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("when", "who", "code_sha", "config_digest")),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("data_digest", "span_start", "span_end")),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("purpose", "subject", "run")),
    sa.Column("measure", sa.Text),
    sa.Column("periods_per_year", sa.Double),
    sa.Column("series_digest", sa.String(64)),
    sa.Column("previous", sa.String(64), nullable=False, unique=True),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
)
SERIES = sa.Table(
    "series",
    METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
# one row that every writer locks first; `verify` compares it, so that cut-off newest rows are detected
HEAD = sa.Table(
    "head",
    METADATA,
    sa.Column("name", sa.String(8), primary_key=True),
    sa.Column("id", sa.Integer, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)


class LedgerRow(TypedDict):
    """A row of the ledger.

    Times are ISO text in UTC; `run` is a folder, `run_uuid` a study's UUID or empty.
    """

    id: int
    when: str
    who: str
    code_sha: str
    config_digest: str
    data_digest: str
    span_start: str
    span_end: str
    purpose: str
    subject: str
    run: str
    run_uuid: str
    measure: str | None
    periods_per_year: float | None
    series_digest: str | None
    previous: str
    hash: str


def stays_empty(path: Path) -> bool:
    """Whether a file still lacks, after a second, a complete SQLite header.

    SQLite takes it for a new database.
    """
    if path.stat().st_size < HEADER_BYTES:
        time.sleep(1)  # another process may be creating it
    return path.stat().st_size < HEADER_BYTES


def make_file(path: Path) -> None:
    """Creates an empty SQLite ledger, complete at once.

    A process killed meanwhile leaves no file of zero bytes. Does nothing where there is a file, also one that another
    process creates meanwhile. Where the file system knows no hard links, SQLite creates the file itself.
    """
    if path.exists():
        return
    remove_dead_drafts([path.parent])
    draft = draft_of(path)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(draft)), poolclass=NullPool)
    try:
        with writing_in(path.parent), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=MEMORY")  # no second file is left
            METADATA.create_all(connection)
            connection.commit()
            try:
                os.link(draft, path)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):  # SQLite would leave a file of zero bytes
                    raise
    finally:
        draft.unlink(missing_ok=True)


def refuse_broken_url(text: str) -> None:
    """Raises DataError for a URL that lost a slash.

    It would be taken for the name of a file.
    """
    if re.match(r"[a-z][a-z0-9+]+:/(?!/)", text):
        raise DataError(
            f"ledger: {masked_text(text)!r} was a URL before it became a path; a URL stays text; pass it as a str"
        )


def engine_of(place: str | Path) -> sa.Engine:
    """The engine of a file path or a URL.

    Raises DataError where it cannot keep a record or its driver is missing.
    """
    text = str(place)
    refuse_broken_url(text)
    url = database_url(text, "ledger") if "://" in text else sa.URL.create("sqlite", database=text)
    if url.get_backend_name() != "sqlite":
        return server_engine(url, "ledger")
    if not url.database or url.database == ":memory:":
        raise DataError("ledger: an in-memory SQLite keeps no record; give a file or a server")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _leave_begin_to_us)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def not_opened(error: sa.exc.DatabaseError, shown: str) -> Exception:
    """The error of a ledger that does not open.

    A full disk, a damaged file, or a server. shown: its place.
    """
    if (refused := refused_by_disk(error, f"ledger: {shown}")) is not None:
        return refused
    is_file = shown.startswith("sqlite")
    advice = RESTORE if is_file else "check the server, its user and its database"
    why = one_line(masked_text(str(error.orig)))
    return DataError(f"ledger: {shown} does not open ({why}); every evaluation must be recorded first; {advice}")


# SQLSTATE of a connection that is lost or limited, of a missing right, a read-only transaction or a time limit
_NOT_NOW = ("08", "25", "28", "42501", "53", "55P03", "57")


def refused_for_now(error: sa.exc.DBAPIError, shown: str) -> DataError | None:
    """The error of a database that refused or was lost; None for other errors."""
    why = one_line(masked_text(str(error.orig)))
    if shown.startswith("sqlite"):
        # where it cannot make the journal file beside it
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CANTOPEN:
            return None
        fix = "check the space, the number of files (df -i) and the rights of its folder"
    else:
        state = getattr(error.orig, "sqlstate", None) or ""
        lost = not state and isinstance(error, sa.exc.OperationalError)
        if not (lost or state.startswith(_NOT_NOW)):
            return None
        fix = "check the server, the rights of its user and its time limits"
    return DataError(
        f"ledger: {shown} lost the connection or refused a statement ({why}); every evaluation must be recorded; "
        f"{fix}, then run the same command"
    )


@contextlib.contextmanager
def guarded(shown: str) -> Iterator[None]:
    """Turns an error of the database at `shown` into one DataError."""
    with refused_in_one_line(f"ledger: {shown}", RESTORE, DataError):
        try:
            yield
        except sa.exc.DBAPIError as error:
            if (refused := refused_for_now(error, shown)) is not None:
                raise refused from error
            raise


def file_problems(connection: sa.Connection) -> list[str]:
    """Damage of a SQLite file, and parts in it that are none of a ledger's."""
    found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    damage = [] if found == ["ok"] else [f"SQLite: {one_line(found[0])}"]
    strange = [row for row in connection.exec_driver_sql(PARTS) if row[1] not in METADATA.tables]
    return damage + [f"it holds the {one_line(kind)} {one_line(name)!r}" for kind, name in strange]


def check_writable(connection: sa.Connection) -> None:
    """Raises the database's error where this user may not append a row."""
    connection.execute(sa.select(HEAD).with_for_update())
    for table in (EVALUATIONS, SERIES):
        connection.execute(table.insert().from_select(table.columns.keys(), sa.select(table).where(sa.false())))
    connection.execute(HEAD.update().where(sa.false()).values(id=0))


def check_folder(path: Path) -> None:
    """Raises PermissionError where no ledger can be made at this path."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _leave_begin_to_us(connection: Any, _record: Any) -> None:
    # sqlite3 would open its transaction only at the first INSERT, after the head was read
    # (SQLAlchemy, SQLite dialect, "Enabling Non-Legacy SQLite Transactional Modes")
    connection.isolation_level = None


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("tradsys_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
