"""Ledger of every evaluation on out-of-sample data: user, time, code, span and result.

Append-only. Each row carries the hash of the previous one, so that `verify` detects a changed, removed or inserted
row. The return series of every trial are stored once by content; they give the trials that deflate a Sharpe.
"""

import hashlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import sqlalchemy as sa

from tradsys.core.clock import utc, utc_now
from tradsys.core.database_url import shown_url
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.runs import code_sha, digest_json
from tradsys.core.tables import Array
from tradsys.evidence.deflation import Deflation, deflation
from tradsys.evidence.sharpe import is_flat, sharpe_ratio
from tradsys.evidence.trials import MIN_SHARED, MIN_TRIALS, independent_trials, shared_correlation
from tradsys.market.calendars import session_dates
from tradsys.research.pipeline.ledger_anchors import RESTORE, Anchor, anchors, missing_rows, refuse, write_anchor
from tradsys.research.pipeline.ledger_database import (
    EVALUATIONS,
    HEAD,
    METADATA,
    SERIES,
    LedgerRow,
    check_folder,
    check_writable,
    engine_of,
    file_problems,
    guarded,
    make_file,
    not_opened,
    refuse_broken_url,
    stays_empty,
)

GENESIS = "0" * 64
# any number will do, as long as nothing else in the database uses the same
_POSTGRES_LOCK = 7_472_646_479
EVERY_DAY = 365.0
_SHORTEST_SERIES = 2


def ledger_user() -> str:
    """User of the evaluation: TRADSYS_USER, or user@host; marks for no text."""
    user = os.environ.get("USER") or os.environ.get("USERNAME") or "unknown"
    named = os.environ.get("TRADSYS_USER") or f"{user}@{socket.gethostname()}"
    return named.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@dataclass(frozen=True)
class LedgerEntry:
    """One evaluation on out-of-sample data.

    span_start, span_end: evaluated span, aware datetimes, both ends included. purpose: of the evaluation ("train",
    "backtest", "audit", ...). subject: model or strategy name. run: folder relative to the root of runs; behind a #
    the UUID of a study whose folder has no name of its own, as `run_identity` writes it.
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
    """A distinct return series on an overlapping span, at its first evaluation."""

    id: int
    subject: str
    series_digest: str
    periods_per_year: float
    span_start: str
    span_end: str
    returns: Array

    def days(self) -> Array | None:
        """UTC dates datetime64[D] of the returns; None unless one for every day.

        A bar that closes at midnight belongs to the day it ends. A market that closes at weekends has fewer returns
        than days, and the ledger does not store which days those were.
        """
        span = [text.rstrip("Z") for text in (self.span_start, self.span_end)]
        first, last = session_dates(np.array(span, dtype="datetime64[us]"))
        n_days = int((last - first).astype(int)) + 1
        if self.periods_per_year != EVERY_DAY or n_days != len(self.returns):
            return None
        return first + np.arange(n_days)


def run_identity(folder: Path | str, uuid: str) -> str:
    """Identity of a run named by study and place, as `run` of an entry."""
    return f"{folder}#{uuid}" if uuid else str(folder)


def run_folder(run: str) -> Path:
    """The folder of an entry's run."""
    return Path(run.partition("#")[0])


def effective_number(trials: list[Trial]) -> float:
    """Effective number of independent trials, to deflate a Sharpe with.

    Trials are correlated over the days they share: by date where every day is known, row by row where two have the
    same span and length. A pair that shares fewer than 30 days, or whose days cannot be matched, counts as
    uncorrelated; so do fewer than 3 trials. See `evidence.trials.independent_trials`.
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
    """Deflation of a per-period Sharpe by these trials, one rule for all commands.

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


def check_ledger(place: str, runs: str | Path | None = None, *, writes: bool = False) -> None:
    """Raises DataError where the ledger is damaged or does not answer.

    runs: the root of runs, whose records hold rows of the ledger; by default the folder of a ledger file. writes:
    whether the run will append, which a user of a server may not be allowed to.
    """
    refuse_broken_url(place)
    if "://" not in place and Path(place).is_file():
        refuse(place, ["the file is empty"] if stays_empty(Path(place)) else [])
    if "://" in place or Path(place).exists():
        TrialLedger(place, runs).check(writes=writes)
    elif known := anchors(_roots(place, runs), place):
        raise DataError(
            f"ledger: {place} is gone, but {len(known)} runs wrote to it, {known[0].run} among them; without them "
            f"every deflated figure would be too good; {RESTORE}"
        )
    elif writes:
        check_folder(Path(place))


def _roots(place: str, runs: str | Path | None) -> set[Path]:
    own = set() if "://" in place else {Path(place).parent}
    return own if runs is None else own | {Path(runs)}


class TrialLedger:
    """The ledger in one database: a file path (SQLite) or a SQLAlchemy URL.

    Several processes may append at once: SQLite's write lock is taken when a transaction begins, other
    databases lock the head row. There is no way to change or delete a row through this class.
    """

    def __init__(self, place: str | Path = "runs/ledger.db", runs: str | Path | None = None) -> None:
        self._engine, self._place = engine_of(place), str(place)
        self._shown = shown_url(self._engine.url)
        # where runs may lie that recorded rows of this ledger
        self._roots = _roots(self._place, runs)
        try:
            if self._engine.name == "sqlite":
                make_file(Path(str(self._engine.url.database)))
            with self._writing() as connection:
                METADATA.create_all(connection)
                if connection.execute(sa.select(HEAD.c.id)).first() is None:
                    connection.execute(HEAD.insert().values(name="head", id=0, hash=GENESIS))
        except UnicodeDecodeError:  # SQLite may quote bytes that are no text
            with guarded(self._shown):
                raise
        except sa.exc.DatabaseError as error:
            raise not_opened(error, self._shown) from error

    def append(self, entry: LedgerEntry, series: Array | None = None, *, noted: bool = True) -> int:
        """Appends one evaluation and its series [T]; returns the row's number.

        A resumed run repeats its evaluations: an entry of the same content keeps its row. noted: whether the run's
        folder records the row; not for a copy of another ledger.
        Raises DataError on a naive time, a span that ends before it starts, or a series without its measure.
        """
        row = _row_of(entry)
        blob = _blob_of(entry, series)
        row["series_digest"] = None if blob is None else hashlib.sha256(blob).hexdigest()
        with guarded(self._shown), self._writing() as connection:
            if (known := _same_entry(connection, row)) is not None:
                return known
            head = connection.execute(sa.select(HEAD).with_for_update()).one()
            row |= {"id": head.id + 1, "previous": head.hash}
            row["hash"] = digest_json(row)
            if blob is not None and not _has_series(connection, row["series_digest"]):
                connection.execute(SERIES.insert().values(digest=row["series_digest"], content=blob))
            connection.execute(EVALUATIONS.insert().values(row))
            connection.execute(HEAD.update().values(id=row["id"], hash=row["hash"]))
        if noted and entry.run and (folder := run_folder(entry.run)).is_dir():
            self._roots |= set(folder.resolve().parents[:2])
            write_anchor(folder, self._place, row)
        return int(row["id"])

    def entries(self) -> list[LedgerRow]:
        """All rows in order."""
        with self._reading() as connection:
            rows = _rows(connection)
        parted = (row["run"].partition("#") for row in rows)
        named = zip(rows, parted, strict=True)
        return [cast("LedgerRow", row | {"run": run, "run_uuid": uuid}) for row, (run, _, uuid) in named]

    def series(self, digest: str) -> Array:
        """The stored series [T] of this digest. Raises DataError where there is none."""
        with self._reading() as connection:
            content = connection.execute(sa.select(SERIES.c.content).where(SERIES.c.digest == digest)).scalar()
        if content is None:
            raise DataError(f"ledger: no series {digest[:12]}; rows and series belong together; see `verify`")
        return np.frombuffer(content, dtype="<f8")

    def trials(self, data_digest: str | None, start: datetime, end: datetime) -> list[Trial]:
        """Distinct series of the same data that overlap [start, end], oldest first.

        A series that never traded is no trial: it had no chance to be lucky and has no Sharpe ratio. data_digest
        None counts every data set, for a later download of the same market with another
        digest. Append the evaluated series first: it is one of its own trials. Raises DataError where the record
        is damaged.
        """
        overlaps = (EVALUATIONS.c.span_start <= _iso(end), EVALUATIONS.c.span_end >= _iso(start))
        query = sa.select(EVALUATIONS, SERIES.c.content).join(SERIES, SERIES.c.digest == EVALUATIONS.c.series_digest)
        query = query.where(EVALUATIONS.c.measure == "return", *overlaps).order_by(EVALUATIONS.c.id)
        if data_digest is not None:
            query = query.where(EVALUATIONS.c.data_digest == data_digest)
        found: dict[str, Trial] = {}
        known = anchors(self._roots, self._place)
        with self._reading() as connection:
            refuse(self._shown, _problems(connection, known))
            for row in connection.execute(query).mappings():
                if row["series_digest"] not in found:
                    returns = np.frombuffer(row["content"], dtype="<f8")
                    named = ("id", "subject", "series_digest", "periods_per_year", "span_start", "span_end")
                    found[row["series_digest"]] = Trial(**{k: row[k] for k in named}, returns=returns)
        return [trial for trial in found.values() if not is_flat(trial.returns)]

    def trial_sharpes(
        self, data_digest: str | None, start: datetime, end: datetime, *, periods_per_year: float
    ) -> Array:
        """Sharpe ratios [M] of `trials`, rescaled to periods of that rate."""
        return _sharpes(self.trials(data_digest, start, end), periods_per_year)

    def verify(self) -> list[str]:
        """Problems of the record, one line each; empty where it is intact."""
        known = anchors(self._roots, self._place)
        with self._reading() as connection:
            return _problems(connection, known)

    def check(self, *, writes: bool = False) -> None:
        """Raises DataError for a damaged ledger, or if `writes` one not writable."""
        with self._reading() as connection:
            if self._engine.name == "sqlite":
                refuse(self._shown, file_problems(connection))
        refuse(self._shown, self.verify())
        if writes:
            with guarded(self._shown), self._writing() as connection:
                check_writable(connection)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """One consistent snapshot of rows and head while others append."""
        engine = self._engine
        if engine.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with guarded(self._shown), engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._engine.execution_options(tradsys_writes=True).begin() as connection:
            if self._engine.name == "postgresql":
                # one writer at a time from the first statement on, also while the tables are created
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRES_LOCK)))
            yield connection


def _rows(connection: sa.Connection) -> list[Json]:
    return [dict(row) for row in connection.execute(sa.select(EVALUATIONS).order_by(EVALUATIONS.c.id)).mappings()]


def _problems(connection: sa.Connection, known: Sequence[Anchor]) -> list[str]:
    """Problems of rows, head, series, and rows recorded by runs."""
    problems, previous, expected = [], GENESIS, 1
    rows = _rows(connection)
    for row in rows:
        if row["id"] != expected:
            problems.append(f"ledger: row {expected} is missing before row {row['id']}")
        if row["previous"] != previous:
            problems.append(f"ledger: row {row['id']} does not follow the hash of the row before it")
        if digest_json({k: v for k, v in row.items() if k != "hash"}) != row["hash"]:
            problems.append(f"ledger: row {row['id']} was changed after it was written")
        previous, expected = row["hash"], row["id"] + 1
    heads = connection.execute(sa.select(HEAD)).all()
    if len(heads) > 1:
        problems.append(f"ledger: {len(heads)} rows are its head; there is one")
    head = heads[0] if heads else None
    if head is None or (head.id, head.hash) != (expected - 1, previous):
        problems.append(f"ledger: the last row is {expected - 1}, the head has {head and head.id}")
    return [*problems, *_series_problems(connection), *missing_rows(known, rows)]


def _same_entry(connection: sa.Connection, row: Mapping[str, Any]) -> int | None:
    """The row that this run has already entered with the same content; None for a new one or without a run."""
    if not row["run"]:
        return None
    same = ("run", "purpose", "subject", "data_digest", "span_start", "span_end", "measure", "series_digest")
    query = sa.select(EVALUATIONS.c.id).where(*(EVALUATIONS.c[name].is_not_distinct_from(row[name]) for name in same))
    found = connection.execute(query.order_by(EVALUATIONS.c.id)).scalar()
    return None if found is None else int(found)


def _iso(moment: datetime) -> str:
    """Fixed-width UTC text, so that text order is time order."""
    if moment.tzinfo is None:
        raise DataError(f"ledger: {moment} has no time zone; every moment is UTC; attach datetime.UTC")
    return utc(moment).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _row_of(entry: LedgerEntry) -> Json:
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
        raise DataError(
            f"ledger: {given} with measure {entry.measure!r}; give both or neither; set measure to 'return' or 'loss'"
        )
    if series is None:
        return None
    values = np.ascontiguousarray(series, dtype="<f8")
    if values.ndim != 1 or len(values) < _SHORTEST_SERIES or not np.isfinite(values).all():
        raise DataError(f"ledger: series of shape {values.shape}; it must be finite [T], T >= 2; drop missing values")
    if entry.measure == "return" and not (entry.periods_per_year or 0) > 0:
        raise DataError(f"ledger: returns of {entry.subject!r} without periods_per_year; Sharpe ratios need it; set it")
    return values.tobytes()


def _has_series(connection: sa.Connection, digest: str) -> bool:
    return connection.execute(sa.select(SERIES.c.digest).where(SERIES.c.digest == digest)).first() is not None


def _series_problems(connection: sa.Connection) -> list[str]:
    problems, stored = [], set()
    for digest, values in connection.execute(sa.select(SERIES.c.digest, SERIES.c.content)):
        stored.add(digest)
        if hashlib.sha256(values).hexdigest() != digest:
            problems.append(f"ledger: series {digest[:12]} was changed after it was written")
    named = connection.execute(sa.select(EVALUATIONS.c.series_digest).where(EVALUATIONS.c.series_digest.is_not(None)))
    missing = sorted({digest for (digest,) in named} - stored)
    return problems + [f"ledger: series {digest[:12]} is missing" for digest in missing]
