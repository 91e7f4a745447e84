"""The trade journal: append-only, chained, one transaction or nothing."""

import contextlib
import hashlib
import sqlite3

import pytest

from tradsys.core.errors import DataError
from tradsys.ops.trading.bot import replayed
from tradsys.ops.trading.live import newest_of
from tradsys.ops.trading.store import _EVENTS, GENESIS, TradeJournal


@pytest.fixture
def journal(tmp_path):
    made = TradeJournal(tmp_path / "journal.db")
    made.append([("start", {"a": 1}), ("bars", {"b": [1.5, "x"]})])
    made.append([("stop", {})])
    return made


def test_events_come_back_in_order_and_the_chain_is_intact(journal, tmp_path):
    again = TradeJournal(tmp_path / "journal.db", create=False)
    assert [(e.id, e.kind) for e in again.events()] == [(1, "start"), (2, "bars"), (3, "stop")]
    assert [e.body for e in again.events(kinds=["bars"])] == [{"b": [1.5, "x"]}]
    assert again.verify() == []
    assert again.append([("start", {})])[0].id == 4
    assert again.verify() == []


def test_sqlite_refuses_changes(journal, tmp_path):
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        for statement in ("UPDATE events SET body='{}' WHERE id=2", "DELETE FROM events WHERE id=3"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE events SET body='{}' WHERE id=2", "event 2 does not match"),
        ("DELETE FROM events WHERE id=2", "event 2 is missing"),
        ("UPDATE events SET written='2020-01-01' WHERE id=3", "event 3 does not match"),
    ],
)
def test_a_change_behind_its_back_shows(journal, tmp_path, statement, words):
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("DROP TRIGGER events_no_UPDATE")
        connection.execute("DROP TRIGGER events_no_DELETE")
        connection.execute(statement)
    connection.close()
    assert words in journal.verify()[0]


def test_a_failed_append_leaves_nothing(journal, tmp_path):
    class NotText:
        def __str__(self):
            raise RuntimeError("no text")

    with pytest.raises(RuntimeError):
        journal.append([("bars", {}), ("bars", {"x": NotText()})])
    assert [e.id for e in journal.events()] == [1, 2, 3]
    assert journal.append([("bars", {})])[0].id == 4
    assert journal.verify() == []


def test_requests_are_numbered(journal):
    assert [journal.ask("stop"), journal.ask("resume")] == [1, 2]
    assert journal.requests(1) == [(2, "resume")]


def test_what_is_no_journal_is_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match="does not open"):
        TradeJournal(tmp_path / "x.db")
    with pytest.raises(DataError, match="no such file"):
        TradeJournal(tmp_path / "absent.db", create=False)


@pytest.mark.parametrize("tables", [("looks", "series", "head"), ("requests",)])
def test_no_bot_begins_in_a_database_of_something_else(tables, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "j.db")) as base:
        for table in tables:
            base.execute(f"CREATE TABLE {table} (id INTEGER)")
    before = (tmp_path / "j.db").read_bytes()
    with pytest.raises(DataError, match="no events, so it is no journal of a bot"):
        TradeJournal(tmp_path / "j.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "j.db")) as base:
        names = {name for (name,) in base.execute("SELECT name FROM sqlite_master")}
    assert names == set(tables)
    assert len((tmp_path / "j.db").read_bytes()) == len(before)


def test_events_kept_together_reach_the_disk_at_a_flush_and_at_the_end(tmp_path):
    journal = TradeJournal(tmp_path / "journal.db")
    seen = []

    def on_disk() -> int:
        return sum(1 for _ in TradeJournal(tmp_path / "journal.db", create=False).events())

    with journal.together():
        journal.append([("bars", {})])
        journal.append([("intent", {})])
        seen.append(on_disk())
        journal.flush()
        seen.append(on_disk())
        journal.append([("decision", {})])
    seen.append(on_disk())
    assert seen == [0, 2, 3]
    assert journal.verify() == []


def test_a_failed_block_keeps_what_was_appended_before(tmp_path):
    journal = TradeJournal(tmp_path / "journal.db")

    def fails() -> None:
        with journal.together():
            journal.append([("bars", {})])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [event.kind for event in journal.events()] == ["bars"]
    assert journal.append([("bars", {})])[0].id == 2


@pytest.mark.parametrize("body", ["[1]", "{", "[" * 90_000, "null"], ids=["list", "cut", "deep", "null"])
def test_a_forged_event_is_one_line_and_no_status(tmp_path, body):
    journal = TradeJournal(tmp_path / "journal.db")
    text = hashlib.sha256("\x1f".join((GENESIS, "1", "2024", "start", body)).encode()).hexdigest()
    with journal._engine.begin() as connection:
        connection.execute(
            _EVENTS.insert(), [{"id": 1, "written": "2024", "kind": "start", "body": body, "hash": text}]
        )
    assert journal.verify() == []
    with pytest.raises(DataError, match="event 1") as refused:
        replayed(journal)
    assert "\n" not in str(refused.value)


def test_received_texts_reach_no_terminal_with_escapes_and_a_changed_record_is_not_shown(tmp_path):
    journal = TradeJournal(tmp_path / "journal.db")
    journal.append([("note", {"what": "exchange", "why": "\x1b[2Jgone\x9b31m"})])
    assert [n["why"] for n in replayed(journal).notes] == ["[2Jgone31m"]
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("DROP TRIGGER events_no_UPDATE")
        connection.execute("UPDATE events SET body='{}'")
    connection.close()
    with pytest.raises(DataError, match="does not match the hash"):
        replayed(journal)


def test_the_newest_bundle_is_the_highest_plain_number(tmp_path):
    for name in ("1", "12", "9", "\u00b2", "\u0663", "+40", "latest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text("{}")
    assert newest_of(tmp_path) == tmp_path / "12"
