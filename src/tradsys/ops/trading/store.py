"""The trade journal: append-only events in a database, chained by hashes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from tradsys.core.clock import utc_now
from tradsys.core.database_url import database_url, server_engine, shown_url
from tradsys.core.errors import DataError, refused_by_disk
from tradsys.core.masking import masked_text
from tradsys.core.received import one_line
from tradsys.ops.trading.events import NewEvent, Row

GENESIS = "0" * 64
BUSY_SECONDS = 30
RESTORE = "keep it as evidence, restore a copy or start with another name=..."
OPEN = "give the SQLite file or the URL of a bot's journal"
PAGE = 500  # events read at a time
POSTGRES_LOCK = 7_472_646_480  # advisory lock of the bot that writes this journal
_META = sa.MetaData()
_EVENTS = sa.Table(
    "events",
    _META,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("written", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
)
# requests of a person in another terminal; the bot answers with an event that holds the id
_REQUESTS = sa.Table(
    "requests",
    _META,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("made", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
)
_FROZEN = """CREATE TRIGGER IF NOT EXISTS events_no_{verb} BEFORE {verb} ON events
BEGIN SELECT RAISE(ABORT, 'the trade journal is append-only'); END"""


@dataclass(frozen=True)
class Event:
    """One event.

    Id counts from 1 without gaps; written: wall clock, UTC ISO text; body: JSON values.
    """

    id: int
    written: str
    kind: str
    body: Row


class TradeJournal:
    """Events of one bot in one database: a SQLite file or any SQLAlchemy URL.

    One process writes; others read and send requests. No method changes or removes an event, and SQLite refuses that by
    trigger. Raises DataError where the database cannot be opened or is no journal.
    """

    def __init__(self, place: str | Path, *, create: bool = True) -> None:
        self.place = str(place)
        self._engine = _engine(self.place, create)
        self._lock: sa.Connection | None = None
        with self._refused("it does not open", OPEN):
            tables = sa.inspect(self._engine).get_table_names() if create and "://" not in self.place else []
        if tables and _EVENTS.name not in tables:
            raise DataError(
                f"trade journal {self.shown}: it holds the tables {one_line(tables, 60)} and no events, so it is no "
                f"journal of a bot, or a damaged one; {RESTORE}"
            )
        with self._refused("it does not open", OPEN):
            if create:
                _META.create_all(self._engine)
                self._freeze()
            with self._engine.connect() as connection:
                newest = sa.select(_EVENTS.c.id, _EVENTS.c.hash).order_by(_EVENTS.c.id.desc()).limit(1)
                last = connection.execute(newest).first()
        self._id: int = 0 if last is None else last.id
        self._hash: str = GENESIS if last is None else last.hash
        self._written = (self._id, self._hash)  # newest on disk
        self._held: list[Row] = []  # rows of the table of events
        self._together = False

    @property
    def shown(self) -> str:
        """The path or URL without its password."""
        return shown_url(self._engine.url) if "://" in self.place else self.place

    def append(self, events: Sequence[NewEvent]) -> list[Event]:
        """Writes events in one transaction and returns them; all are on disk or none.

        Inside `together` they are held until `flush` or the end of the block.
        """
        made = []
        now = utc_now().isoformat(timespec="milliseconds")
        texts = [(kind, json.dumps(body, separators=(",", ":"), default=str)) for kind, body in events]
        for kind, text in texts:
            self._id += 1
            self._hash = _chained(self._hash, self._id, now, kind, text)
            self._held.append({"id": self._id, "written": now, "kind": kind, "body": text, "hash": self._hash})
            made.append(Event(self._id, now, kind, json.loads(text)))
        if not self._together:
            self.flush()
        return made

    def flush(self) -> None:
        """Writes held events in one transaction; afterwards they are on disk."""
        if not self._held:
            return
        try:
            fix = "free its disk and start the bot again: it looks up its sent orders at the exchange"
            with self._refused("it cannot be written", fix), self._engine.begin() as connection:
                connection.execute(_EVENTS.insert(), self._held)
        except BaseException:
            self._id, self._hash = self._written
            self._held = []
            raise
        self._written, self._held = (self._id, self._hash), []

    @contextmanager
    def together(self) -> Iterator[None]:
        """Events of the block go to disk in one transaction at its end.

        A `flush` inside the block writes them earlier.
        """
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self.flush()

    def events(self, after: int = 0, kinds: Sequence[str] | None = None) -> Iterator[Event]:
        """Events in order, those with a greater id than `after`, of these kinds or all."""
        query = sa.select(_EVENTS)
        if kinds is not None:
            query = query.where(_EVENTS.c.kind.in_(list(kinds)))
        for row in self._paged(query, after):
            yield self._event(row)

    def _paged(self, query: sa.Select[Any], after: int) -> Iterator[Any]:
        """Rows of an event query in order, page by page, so that no cursor stays open."""
        while True:
            with self._refused(), self._engine.connect() as connection:
                page = query.where(_EVENTS.c.id > after).order_by(_EVENTS.c.id).limit(PAGE)
                rows = list(connection.execute(page))
            if not rows:
                return
            if any(type(row.id) is not int or not all(isinstance(v, str) for v in row[1:]) for row in rows):
                raise DataError(f"trade journal {self.shown}: it holds other values than a bot writes; {RESTORE}")
            yield from rows
            after = rows[-1].id

    def _event(self, row: Any) -> Event:
        try:
            body = json.loads(row.body)
        except (ValueError, RecursionError) as error:
            raise DataError(f"trade journal {self.shown}: event {row.id} is no JSON; {RESTORE}") from error
        if not isinstance(body, dict):
            raise DataError(f"trade journal {self.shown}: event {row.id} holds no mapping; {RESTORE}")
        return Event(row.id, row.written, row.kind, body)

    @contextmanager
    def _refused(self, what: str = "it cannot be read", fix: str = "") -> Iterator[None]:
        """Turns any error of the database in the block into one DataError."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, ValueError, OverflowError, TypeError) as error:
            if (refused := refused_by_disk(error, f"trade journal {self.shown}")) is not None:
                raise refused from error
            cause = one_line(masked_text(str(getattr(error, "orig", None) or error)))
            raise DataError(f"trade journal {self.shown}: {what} ({cause}); {fix or RESTORE}") from error

    def newest(self, kind: str, n: int = 1) -> list[Event]:
        """The last n events of a kind, oldest first."""
        query = sa.select(_EVENTS).where(_EVENTS.c.kind == kind).order_by(_EVENTS.c.id.desc()).limit(n)
        with self._refused(), self._engine.connect() as connection:
            rows = list(connection.execute(query))[::-1]
        return [self._event(row) for row in rows]

    def verify(self) -> list[str]:
        """Defects of the hash chain: events changed, missing or out of order.

        Empty if intact.
        """
        chain = GENESIS
        for number, row in enumerate(self._paged(sa.select(_EVENTS), 0), start=1):
            if row.id != number:
                return [f"event {number} is missing"]
            chain = _chained(chain, row.id, row.written, row.kind, row.body)
            if chain != row.hash:
                return [f"event {number} does not match the hash of its content and of the previous event"]
        return []

    def ask(self, kind: str) -> int:
        """Stores a request for the bot; returns its number."""
        with self._refused("it cannot be written", "free its disk"), self._engine.begin() as connection:
            made = utc_now().isoformat(timespec="seconds")
            done = connection.execute(_REQUESTS.insert().values(made=made, kind=kind))
            return int(done.inserted_primary_key[0])  # type: ignore[index]

    def requests(self, after: int) -> list[tuple[int, str]]:
        """Number and kind of requests later than that number."""
        query = sa.select(_REQUESTS).where(_REQUESTS.c.id > after).order_by(_REQUESTS.c.id)
        with self._refused(), self._engine.connect() as connection:
            return [(row.id, row.kind) for row in connection.execute(query)]

    def lock(self) -> Self:
        """Takes the advisory lock of a database server.

        Raises DataError where another bot has it.
        """
        if self._engine.dialect.name == "postgresql" and self._lock is None:
            connection = self._engine.connect()
            if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(POSTGRES_LOCK))).scalar():
                connection.close()
                raise DataError(
                    f"trade journal {self.shown}: another bot writes it; one bot per journal; stop that one, or give "
                    "another journal=..."
                )
            self._lock = connection
        return self

    def close(self) -> None:
        """Closes the database."""
        if self._lock is not None:
            self._lock.close()
        self._engine.dispose()

    def _freeze(self) -> None:
        if self._engine.dialect.name == "sqlite":
            with self._engine.begin() as connection:
                for verb in ("UPDATE", "DELETE"):
                    connection.execute(sa.text(_FROZEN.format(verb=verb)))


def _chained(previous: str, number: int, written: str, kind: str, text: str) -> str:
    return hashlib.sha256("\x1f".join((previous, str(number), written, kind, text)).encode()).hexdigest()


def _engine(place: str, create: bool) -> sa.Engine:
    if "://" in place:
        return server_engine(database_url(place, "trade journal"), "trade journal")
    path = Path(place)
    if not create and not path.is_file():
        raise DataError(f"trade journal {path}: no such file; a bot writes it when it starts; give name=...")
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _settings(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # an intent is on disk before its order is sent

    return engine
