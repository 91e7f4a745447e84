"""Every look at out-of-sample data, kept: who, when, with what code, on which span, and what came out.

Append-only. Each row carries the hash of the one before it, so a row that is changed, taken out or slipped in
shows in `verify`. The return series of every trial are stored once by content; from them come the trials that
deflate a Sharpe ratio.
"""

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tradsys.core.clock import utc, utc_now
from tradsys.core.errors import DataError
from tradsys.core.runs import code_sha, digest_json
from tradsys.core.tables import Array
from tradsys.evidence.deflation import Deflation, deflation
from tradsys.evidence.sharpe import is_flat, sharpe_ratio
from tradsys.evidence.trials import MIN_SHARED, MIN_TRIALS, independent_trials, shared_correlation

GENESIS = "0" * 64
# seconds a writer waits for another before SQLite says "database is locked"
BUSY_SECONDS = 60
# any number will do, as long as nothing else of the database takes the same
_POSTGRES_LOCK = 7_472_646_479
EVERY_DAY = 365.0
_SHORTEST_SERIES = 2


def ledger_user() -> str:
    """Who is looking: TRADSYS_USER, or user@host."""
    user = os.environ.get("USER") or os.environ.get("USERNAME") or "unknown"
    return os.environ.get("TRADSYS_USER") or f"{user}@{socket.gethostname()}"


@dataclass(frozen=True)
class LedgerEntry:
    """One look at out-of-sample data.

    span_start, span_end: what was read, aware datetimes, both ends included. purpose: what looked ("train",
    "backtest", "audit", ...). subject: model or strategy name. run: folder relative to the root of runs.
    measure: what the series is, "return" (simple, after costs) or "loss"; None without a series.
    periods_per_year: of the series; needed for returns, whose Sharpe ratios are compared across periods.
    """

    purpose: str
    subject: str
    data_digest: str
    span_start: datetime
    span_end: datetime
    config_digest: str = ""
    run: str = ""
    measure: Literal["return", "loss"] | None = None
    periods_per_year: float | None = None
    who: str = field(default_factory=ledger_user)
    code_sha: str = field(default_factory=code_sha)
    when: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, eq=False)
class Trial:
    """A distinct return series that was seen on an overlapping span of the same data, at its first look."""

    id: int
    subject: str
    series_digest: str
    periods_per_year: float
    span_start: str
    span_end: str
    returns: Array

    def days(self) -> Array | None:
        """UTC dates datetime64[D] of the returns; None where they are not known to be one a day, every day.

        A bar that closes at midnight belongs to the day it ends. A market that keeps weekends has fewer returns
        than days, and which days those were the ledger does not hold.
        """
        first, last = (_day_of(text) for text in (self.span_start, self.span_end))
        n_days = int((last - first).astype(int)) + 1
        if self.periods_per_year != EVERY_DAY or n_days != len(self.returns):
            return None
        return first + np.arange(n_days)


def effective_number(trials: list[Trial]) -> float:
    """How many independent trials these are worth, to deflate a Sharpe with; between 1 and their number.

    Trials are correlated over the days they share: by date where every day is known, row by row where two have the
    same span and length. A pair that shares fewer than 30 days, or whose days cannot be matched, counts as
    unrelated, so both count fully; fewer than 3 trials, too. See `evidence.trials.independent_trials`.
    """
    if len(trials) < MIN_TRIALS:
        return float(len(trials))
    days = [trial.days() for trial in trials]
    correlation = shared_correlation(days, [t.returns for t in trials])
    for same in _same_rows(trials, days):
        rows = np.arange(len(trials[same[0]].returns)).astype("datetime64[D]")
        block = shared_correlation([rows] * len(same), [trials[k].returns for k in same])
        correlation[np.ix_(same, same)] = block
    return independent_trials(correlation)


def deflation_of_trials(trials: list[Trial], periods_per_year: float) -> Deflation:
    """What these trials take off a Sharpe ratio per period of that rate; the one rule of every command.

    The Sharpe ratio of a trial at another rate is scaled by the square root of time.
    """
    return deflation(_sharpes(trials, periods_per_year), effective_number(trials))


def _sharpes(trials: list[Trial], periods_per_year: float) -> Array:
    return np.array(
        [float(sharpe_ratio(t.returns)) * np.sqrt(t.periods_per_year / periods_per_year) for t in trials], dtype=float
    )


def _same_rows(trials: list[Trial], days: list[Array | None]) -> list[list[int]]:
    """Positions of trials without dates that have one span, rate and length: their rows are the same days."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for k, trial in enumerate(trials):
        if days[k] is None and len(trial.returns) >= MIN_SHARED:
            key = (trial.span_start, trial.span_end, trial.periods_per_year, len(trial.returns))
            groups.setdefault(key, []).append(k)
    return [group for group in groups.values() if len(group) > 1]


_METADATA = sa.MetaData()
_LOOKS = sa.Table(
    "looks",
    _METADATA,
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
_SERIES = sa.Table(
    "series",
    _METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
# one row that every writer locks first; it also tells `verify` when the newest rows were cut off
_HEAD = sa.Table(
    "head",
    _METADATA,
    sa.Column("name", sa.String(8), primary_key=True),
    sa.Column("id", sa.Integer, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)


def check_ledger(place: str) -> None:
    """Raises DataError where a server does not answer or a file is no ledger; asked before hours are spent on a run."""
    if "://" in place or Path(place).exists():
        TrialLedger(place)


class TrialLedger:
    """The ledger in one database: a file path (SQLite, made on first use) or any SQLAlchemy URL.

    Several processes may append at once: SQLite's write lock is taken when a transaction begins, other
    databases lock the head row. There is no way to change or delete a row through this class.
    """

    def __init__(self, place: str | Path = "runs/ledger.db") -> None:
        self._engine = _engine(place)
        try:
            with self._writing() as connection:
                _METADATA.create_all(connection)
                if connection.execute(sa.select(_HEAD.c.id)).first() is None:
                    connection.execute(_HEAD.insert().values(name="head", id=0, hash=GENESIS))
        except sa.exc.DatabaseError as error:
            raise DataError(
                f"ledger: {self._engine.url.render_as_string()} does not open ({str(error.orig).splitlines()[0]}); "
                "every look must be written before it counts; see to the server, its user and its database"
            ) from error

    def append(self, entry: LedgerEntry, series: Array | None = None) -> int:
        """Writes one look and its series [T]; returns the row's number, counted from 1 without gaps.

        Raises DataError on a naive time, a span that ends before it starts, or a series without its measure.
        """
        row = _row_of(entry)
        blob = _blob_of(entry, series)
        row["series_digest"] = None if blob is None else hashlib.sha256(blob).hexdigest()
        with self._writing() as connection:
            head = connection.execute(sa.select(_HEAD).with_for_update()).one()
            row |= {"id": head.id + 1, "previous": head.hash}
            row["hash"] = digest_json(row)
            if blob is not None and not _has_series(connection, row["series_digest"]):
                connection.execute(_SERIES.insert().values(digest=row["series_digest"], content=blob))
            connection.execute(_LOOKS.insert().values(row))
            connection.execute(_HEAD.update().values(id=row["id"], hash=row["hash"]))
        return int(row["id"])

    def entries(self) -> list[dict[str, Any]]:
        """All rows in order, times as ISO text in UTC."""
        with self._engine.connect() as connection:
            return [dict(r) for r in connection.execute(sa.select(_LOOKS).order_by(_LOOKS.c.id)).mappings()]

    def series(self, digest: str) -> Array:
        """The stored series [T] of this digest. Raises DataError where there is none."""
        with self._engine.connect() as connection:
            content = connection.execute(sa.select(_SERIES.c.content).where(_SERIES.c.digest == digest)).scalar()
        if content is None:
            raise DataError(f"ledger: no series {digest[:12]}; rows and series belong together; see `verify`")
        return np.frombuffer(content, dtype="<f8")

    def trials(self, data_digest: str | None, start: datetime, end: datetime) -> list[Trial]:
        """Distinct return series whose span overlaps [start, end] on the same data, in order of first look.

        A series that never traded is no trial: it had no chance to be lucky and has no Sharpe ratio. data_digest
        None counts every data set, as where a later download of the same market has another
        digest. Append the judged series first: it is one of its own trials.
        """
        overlaps = (_LOOKS.c.span_start <= _iso(end), _LOOKS.c.span_end >= _iso(start))
        query = sa.select(_LOOKS, _SERIES.c.content).join(_SERIES, _SERIES.c.digest == _LOOKS.c.series_digest)
        query = query.where(_LOOKS.c.measure == "return", *overlaps).order_by(_LOOKS.c.id)
        if data_digest is not None:
            query = query.where(_LOOKS.c.data_digest == data_digest)
        found: dict[str, Trial] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(query).mappings():
                if row["series_digest"] not in found:
                    returns = np.frombuffer(row["content"], dtype="<f8")
                    named = ("id", "subject", "series_digest", "periods_per_year", "span_start", "span_end")
                    found[row["series_digest"]] = Trial(**{k: row[k] for k in named}, returns=returns)
        return [trial for trial in found.values() if not is_flat(trial.returns)]

    def trial_sharpes(
        self, data_digest: str | None, start: datetime, end: datetime, *, periods_per_year: float
    ) -> Array:
        """Sharpe ratios [M] of `trials`, per period of that rate; another rate is scaled by the square root of time."""
        return _sharpes(self.trials(data_digest, start, end), periods_per_year)

    def verify(self) -> list[str]:
        """What is wrong with the record, one line each; empty where nothing was touched."""
        problems, previous, expected = [], GENESIS, 1
        for row in self.entries():
            if row["id"] != expected:
                problems.append(f"ledger: row {expected} is missing before row {row['id']}")
            if row["previous"] != previous:
                problems.append(f"ledger: row {row['id']} does not follow the hash of the row before it")
            if digest_json({k: v for k, v in row.items() if k != "hash"}) != row["hash"]:
                problems.append(f"ledger: row {row['id']} was changed after it was written")
            previous, expected = row["hash"], row["id"] + 1
        with self._engine.connect() as connection:
            head = connection.execute(sa.select(_HEAD)).first()
            if head is None or (head.id, head.hash) != (expected - 1, previous):
                problems.append(f"ledger: the last row is {expected - 1}, the head says {head and head.id}")
            problems += _series_problems(connection)
        return problems

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._engine.execution_options(tradsys_writes=True).begin() as connection:
            if self._engine.name == "postgresql":
                # one writer at a time from the first statement on, also while the tables are made
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRES_LOCK)))
            yield connection


def _engine(place: str | Path) -> sa.Engine:
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


def _iso(moment: datetime) -> str:
    """Fixed-width UTC text, so that text order is time order."""
    if moment.tzinfo is None:
        raise DataError(f"ledger: {moment} has no time zone; every moment is UTC; attach datetime.UTC")
    return utc(moment).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _day_of(text: str) -> np.datetime64:
    """The UTC day that a stored moment closes."""
    return (np.datetime64(text.rstrip("Z"), "us") - np.timedelta64(1, "us")).astype("datetime64[D]")


def _row_of(entry: LedgerEntry) -> dict[str, Any]:
    row = asdict(entry)
    row |= {name: _iso(row[name]) for name in ("when", "span_start", "span_end")}
    if row["span_end"] < row["span_start"]:
        raise DataError(f"ledger: span {row['span_start']} to {row['span_end']} ends before it starts; swap them")
    if entry.periods_per_year is not None:
        row["periods_per_year"] = float(entry.periods_per_year)
    return row


def _blob_of(entry: LedgerEntry, series: Array | None) -> bytes | None:
    if (series is None) != (entry.measure is None):
        given = "no series" if series is None else "a series"
        raise DataError(f"ledger: {given} with measure {entry.measure!r}; both or neither; say 'return' or 'loss'")
    if series is None:
        return None
    values = np.ascontiguousarray(series, dtype="<f8")
    if values.ndim != 1 or len(values) < _SHORTEST_SERIES or not np.isfinite(values).all():
        raise DataError(
            f"ledger: series of shape {values.shape}; finite values [T] with T >= 2; drop what is not known"
        )
    if entry.measure == "return" and not (entry.periods_per_year or 0) > 0:
        raise DataError(
            f"ledger: returns of {entry.subject!r} without periods_per_year; Sharpe ratios need it; state it"
        )
    return values.tobytes()


def _has_series(connection: sa.Connection, digest: str) -> bool:
    return connection.execute(sa.select(_SERIES.c.digest).where(_SERIES.c.digest == digest)).first() is not None


def _series_problems(connection: sa.Connection) -> list[str]:
    problems, stored = [], set()
    for digest, values in connection.execute(sa.select(_SERIES.c.digest, _SERIES.c.content)):
        stored.add(digest)
        if hashlib.sha256(values).hexdigest() != digest:
            problems.append(f"ledger: series {digest[:12]} was changed after it was written")
    named = connection.execute(sa.select(_LOOKS.c.series_digest).where(_LOOKS.c.series_digest.is_not(None)))
    missing = sorted({digest for (digest,) in named} - stored)
    return problems + [f"ledger: series {digest[:12]} is missing" for digest in missing]
