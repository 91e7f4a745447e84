"""The database below the trial ledger: SQLite with a write lock from the first statement on, or a server."""

import re
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tradsys.core.errors import DataError

# seconds a writer waits for another before SQLite says "database is locked"
BUSY_SECONDS = 60
HEADER_BYTES = 100  # of a SQLite file


def stays_empty(path: Path) -> bool:
    """Whether a file has no whole SQLite header, which SQLite takes for a new database, and gets none in a second."""
    if path.stat().st_size < HEADER_BYTES:
        time.sleep(1)  # another process may be making it at this moment
    return path.stat().st_size < HEADER_BYTES


def engine_of(place: str | Path) -> sa.Engine:
    """The engine of a file path or a URL; DataError where it cannot keep a record or its driver is missing."""
    text = str(place)
    if re.match(r"[a-z][a-z0-9+]+:/(?!/)", text):
        raise DataError(f"ledger: {text!r} was a URL before it became a path; a URL stays text; pass it as a str")
    url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
    if url.get_backend_name() != "sqlite":
        url = url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
        try:
            return sa.create_engine(url, poolclass=NullPool)
        except ModuleNotFoundError as error:
            raise DataError(
                f"ledger: {url.drivername} needs the module {error.name}, which is not installed; "
                "pip install 'tradsys[postgres]'"
            ) from error
    if not url.database or url.database == ":memory:":
        raise DataError("ledger: an in-memory SQLite forgets what was seen; give a file or a server")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _leave_begin_to_us)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _leave_begin_to_us(connection: Any, _record: Any) -> None:
    # sqlite3 would open its transaction only at the first INSERT, after the head was read
    # (SQLAlchemy, SQLite dialect, "Enabling Non-Legacy SQLite Transactional Modes")
    connection.isolation_level = None


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("tradsys_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
