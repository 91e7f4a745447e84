import errno
import os
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from tests.forks import forks
from tradsys.core.drafts import draft_of
from tradsys.core.errors import DataError
from tradsys.evidence.sharpe import sharpe_ratio
from tradsys.research.pipeline.backtesting import trials_on_span
from tradsys.research.pipeline.ledger_anchors import anchors, check_same_ledger
from tradsys.research.pipeline.ledger_database import METADATA
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger, check_ledger, effective_number

START, END = datetime(2021, 1, 1, tzinfo=UTC), datetime(2021, 12, 31, tzinfo=UTC)

WRITER = """
import sys
from datetime import UTC, datetime
import numpy as np
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger
path, worker = sys.argv[1], int(sys.argv[2])
ledger = TrialLedger(path)
day = datetime(2021, 1, 1, tzinfo=UTC)
for k in range(25):
    known = {"measure": "return", "periods_per_year": 365, "code_sha": "x"}
    ledger.append(LedgerEntry("backtest", f"w{worker}", "data", day, day, **known), np.array([worker, k, 9]))
"""


def entry(subject="a", data="data", start=START, end=END, **changes):
    fields = {"measure": "return", "periods_per_year": 365, "code_sha": "abc", "who": "me@here"}
    return LedgerEntry("backtest", subject, data, start, end, **(fields | changes))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "ledger.db"


@pytest.fixture
def series():
    rng = np.random.default_rng(0)
    return [rng.normal(0.001, 0.01, 50) for _ in range(4)]


def tamper(path, sql):
    connection = sqlite3.connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()


def test_rows_are_numbered_chained_and_kept(path, series):
    ledger = TrialLedger(path)
    assert [ledger.append(entry(f"s{k}"), s) for k, s in enumerate(series)] == [1, 2, 3, 4]
    rows = TrialLedger(str(path)).entries()
    assert [r["subject"] for r in rows] == ["s0", "s1", "s2", "s3"]
    assert rows[0]["previous"] == "0" * 64
    assert [r["previous"] for r in rows[1:]] == [r["hash"] for r in rows[:-1]]
    assert ledger.verify() == []


def test_a_look_without_series_is_a_row_but_no_trial(path):
    ledger = TrialLedger(path)
    ledger.append(entry(measure=None, periods_per_year=None))
    assert len(ledger.entries()) == 1
    assert ledger.trials("data", START, END) == []
    assert ledger.verify() == []


def test_trials_are_distinct_return_series_on_an_overlapping_span_of_the_same_data(path, series):
    ledger = TrialLedger(path)
    ledger.append(entry("first"), series[0])
    ledger.append(entry("again"), series[0])
    ledger.append(entry("other data", data="other"), series[1])
    ledger.append(entry("later", start=END + timedelta(days=1), end=END + timedelta(days=9)), series[2])
    ledger.append(entry("touching", start=END, end=END + timedelta(days=9)), series[3])
    ledger.append(entry("a loss", measure="loss"), series[2])
    trials = ledger.trials("data", START, END)
    assert [t.subject for t in trials] == ["first", "touching"]
    np.testing.assert_array_equal(trials[0].returns, series[0])
    assert len(ledger.trials(None, START, END)) == 3


def test_span_overlap_is_judged_in_utc(path, series):
    ledger = TrialLedger(path)
    ledger.append(entry(), series[0])
    east = timezone(timedelta(hours=10))
    after = datetime(2021, 12, 31, 11, tzinfo=east)  # 01:00 UTC, after END
    before = datetime(2021, 12, 31, 9, tzinfo=east)  # 23:00 UTC of the day before
    assert ledger.trials("data", after, after) == []
    assert len(ledger.trials("data", before, before)) == 1


def test_trial_sharpes_are_per_period_of_one_rate_and_idle_series_are_no_trials(path, series):
    ledger = TrialLedger(path)
    ledger.append(entry(), series[0])
    ledger.append(entry(periods_per_year=365 * 24), series[1])
    ledger.append(entry("idle"), np.zeros(50))
    sharpes = ledger.trial_sharpes("data", START, END, periods_per_year=365)
    np.testing.assert_allclose(sharpes, [sharpe_ratio(series[0]), sharpe_ratio(series[1]) * np.sqrt(24)])


def nearly(series, seed):
    """A variant that correlates by 0.99 with the series."""
    return series + np.random.default_rng(seed).normal(0, 0.14 * series.std(), len(series))


def test_variants_of_one_idea_count_as_little_more_than_one(path):
    ledger, series = TrialLedger(path), np.random.default_rng(0).normal(0.001, 0.01, 365)
    for k in range(6):
        ledger.append(entry(f"v{k}"), nearly(series, k))
    assert 1 < effective_number(ledger.trials("data", START, END)) < 2.5
    deflation, rows = trials_on_span(ledger, "data", (START, END), 365)
    assert (deflation["n_trials"], len(rows)) == (6, 6)
    assert deflation["n_effective"] == effective_number(ledger.trials("data", START, END))
    assert set(rows[0]) == {"when", "subject", "who", "run", "sharpe"}


def test_fewer_than_three_trials_count_as_they_are(path):
    ledger, series = TrialLedger(path), np.random.default_rng(0).normal(0.001, 0.01, 365)
    ledger.append(entry(), series)
    assert effective_number(ledger.trials("data", START, END)) == 1
    ledger.append(entry(), nearly(series, 1))
    assert effective_number(ledger.trials("data", START, END)) == 2


def test_trials_of_other_spans_are_matched_by_day_and_count_fully_where_they_do_not_overlap(path):
    # a stored day is that of the bar's close: 00:00 of 2 January ends the first
    first, quarter = datetime(2021, 1, 2, tzinfo=UTC), timedelta(days=90)
    series = np.random.default_rng(0).normal(0.001, 0.01, 360)

    def seen(offset, n_days, seed):
        start = first + timedelta(days=offset)
        own = nearly(series[offset : offset + n_days], seed)
        ledger.append(entry(start=start, end=start + timedelta(days=n_days - 1)), own)

    ledger = TrialLedger(path)
    for k in range(3):
        seen(0, 180, k)
    whole = (first, first + 4 * quarter)
    assert effective_number(ledger.trials("data", *whole)) <= 2
    seen(60, 180, 3)  # shares 120 days: the same idea still
    assert effective_number(ledger.trials("data", *whole)) <= 2
    seen(220, 140, 4)  # the first three end before it begins, the fourth shares 20 days with it
    assert 2.5 < effective_number(ledger.trials("data", *whole)) < 4
    assert ledger.trials("data", *whole)[3].days()[0] == np.datetime64("2021-03-02")


def test_days_that_are_not_every_day_are_not_guessed(path):
    ledger, series = TrialLedger(path), np.random.default_rng(0).normal(0.001, 0.01, 252)
    later = {"start": START + timedelta(days=1), "end": END + timedelta(days=1)}
    for k in range(3):
        ledger.append(entry(periods_per_year=252), nearly(series, k))
    trials = ledger.trials("data", START, END)
    assert trials[0].days() is None
    assert effective_number(trials) < 2.5  # the same span: the same sessions, row by row
    ledger.append(entry(periods_per_year=252, **later), nearly(series, 9))
    more = effective_number(ledger.trials("data", START, END))
    assert more > 2.5  # another span: which sessions it had is not known, so it counts fully


def test_short_records_count_fully(path, series):
    ledger = TrialLedger(path)
    for k in range(5):
        ledger.append(entry(start=START, end=START + timedelta(days=9)), nearly(series[0][:10], k))
    assert effective_number(ledger.trials("data", START, END)) == 5


def test_series_that_never_traded_change_no_deflated_figure(path, series):
    ledger = TrialLedger(path)
    for k, one in enumerate(series):
        ledger.append(entry(f"s{k}"), one)
    before, _ = trials_on_span(ledger, "data", (START, END), 365)
    dust = np.random.default_rng(0).choice([0.0, 1.1e-16, -1.1e-16], 50)
    for idle in (np.zeros(50), dust, np.full(50, 0.001)):
        ledger.append(entry("idle"), idle)
    after, rows = trials_on_span(ledger, "data", (START, END), 365)
    assert (before, len(rows)) == (after, 4)
    assert len(ledger.entries()) == 7


def test_no_trial_yet_is_an_empty_array(path):
    assert len(TrialLedger(path).trial_sharpes("data", START, END, periods_per_year=365)) == 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE looks SET subject = 'better' WHERE id = 2", "row 2 was changed"),
        ("UPDATE looks SET periods_per_year = 1 WHERE id = 3", "row 3 was changed"),
        ("DELETE FROM looks WHERE id = 2", "row 2 is missing"),
        ("DELETE FROM looks WHERE id = 4", "the last row is 3, the head has 4"),
        ("DELETE FROM looks WHERE id = 1", "row 1 is missing"),
        ("UPDATE series SET content = x'00' WHERE rowid = 1", "was changed after"),
        ("DELETE FROM series WHERE rowid = 1", "is missing"),
        ("DELETE FROM head", "the head has None"),
    ],
)
def test_verify_names_what_was_touched(path, series, sql, said):
    ledger = TrialLedger(path)
    for k, values in enumerate(series):
        ledger.append(entry(f"s{k}"), values)
    tamper(path, sql)
    problems = ledger.verify()
    assert any(said in p for p in problems), problems


def test_a_forged_row_with_a_right_own_hash_still_breaks_the_chain(path, series):
    ledger = TrialLedger(path)
    for k, values in enumerate(series):
        ledger.append(entry(f"s{k}"), values)
    from tradsys.core.runs import digest_json

    row = {k: v for k, v in ledger.entries()[1].items() if k not in ("hash", "run_uuid")} | {"subject": "better"}
    tamper(path, f"UPDATE looks SET subject = 'better', hash = '{digest_json(row)}' WHERE id = 2")
    assert ledger.verify() == ["ledger: row 3 does not follow the hash of the row before it"]


def test_four_processes_append_at_once_without_a_lost_row(path):
    workers = [forks().start(["-c", WRITER, str(path), str(w)]) for w in range(4)]
    assert [w.wait(timeout=120) for w in workers] == [0, 0, 0, 0]
    ledger = TrialLedger(path)
    assert ledger.verify() == []
    rows = ledger.entries()
    assert len(rows) == 100
    assert {r["subject"]: sum(x["subject"] == r["subject"] for x in rows) for r in rows} == {
        f"w{w}": 25 for w in range(4)
    }
    assert len(ledger.trials("data", START, END)) == 100


def test_a_ledger_whose_making_stops_leaves_no_file_of_zero_bytes(path, monkeypatch):
    """A killed command left one, which the next command took for a record that was emptied."""

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(METADATA, "create_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        TrialLedger(path)
    assert list(path.parent.iterdir()) == []
    monkeypatch.undo()
    draft_of(path).write_bytes(b"")  # of a process that was killed
    TrialLedger(path)
    assert [found.name for found in path.parent.iterdir()] == ["ledger.db"]
    check_ledger(str(path))


def test_a_ledger_is_made_where_the_file_system_knows_no_links(path, monkeypatch, series):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    assert TrialLedger(path).append(entry(), series[0]) == 1
    assert TrialLedger(path).verify() == []


def test_a_ledger_that_a_full_disk_refuses_leaves_no_file_of_zero_bytes(path, monkeypatch):
    """Without a free inode there is no second name; SQLite would make the file, but not its journal."""

    def refused(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(OSError, match="No space left"):
        TrialLedger(path)
    assert list(path.parent.iterdir()) == []


def test_a_failed_append_leaves_no_trace(path, series):
    ledger = TrialLedger(path)
    tamper(path, "CREATE TRIGGER stop BEFORE INSERT ON looks BEGIN SELECT RAISE(ABORT, 'disk'); END")
    with pytest.raises(Exception, match="disk"):
        ledger.append(entry(), series[0])
    tamper(path, "DROP TRIGGER stop")
    assert ledger.append(entry(), series[0]) == 1
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("changes", "values", "said"),
    [
        ({"start": datetime(2021, 1, 1)}, [0.1, 0.2], "no time zone"),
        ({"start": END, "end": START}, [0.1, 0.2], "ends before it starts"),
        ({"measure": None}, [0.1, 0.2], "a series with measure None"),
        ({}, None, "no series with measure 'return'"),
        ({"periods_per_year": None}, [0.1, 0.2], "without periods_per_year"),
        ({}, [0.1, np.nan], "must be finite"),
    ],
)
def test_refuses(path, changes, values, said):
    with pytest.raises(DataError, match=said):
        TrialLedger(path).append(entry(**changes), values)


def test_memory_is_refused():
    with pytest.raises(DataError, match="in-memory"):
        TrialLedger("sqlite://")


def test_a_url_that_went_through_a_path_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="a URL stays text"):
        TrialLedger(Path("postgresql://me@host/lab"))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_opened_is_one_clear_line(tmp_path):
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(DataError, match="does not open"):
        TrialLedger(tmp_path / "ledger.db")


def test_who_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TRADSYS_USER", "ada")
    assert LedgerEntry("train", "m", "d", START, END, code_sha="x").who == "ada"
    monkeypatch.setenv("TRADSYS_USER", os.fsdecode(b"caf\xe9"))  # of a terminal that writes Latin-1
    assert LedgerEntry("train", "m", "d", START, END, code_sha="x").who == "caf\ufffd"
    monkeypatch.delenv("TRADSYS_USER")
    assert "@" in LedgerEntry("train", "m", "d", START, END, code_sha="x").who


def test_nothing_in_the_interface_changes_or_deletes():
    public = {name for name in vars(TrialLedger) if not name.startswith("_")}
    assert public == {"append", "entries", "series", "trials", "trial_sharpes", "verify", "check"}


@pytest.fixture
def run_of_four(tmp_path, series):
    """A ledger beside a run that made four evaluations: (path, run, span)."""
    run = tmp_path / "runs/train/20260101T000000Z_abc"
    run.mkdir(parents=True)
    path = tmp_path / "runs/ledger.db"
    for k, values in enumerate(series):
        TrialLedger(path).append(entry(f"s{k}", run=str(run)), values)
    return path, run


def raw(path, *statements):
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


REWIND = "update head set id = (select max(id) from looks), hash = (select hash from looks order by id desc limit 1)"
DAMAGES = {
    "last rows cut, head rewound": lambda p: raw(p, "delete from looks where id > 2", REWIND),
    "all rows cut, head rewound": lambda p: raw(p, "delete from looks", f"update head set id = 0, hash = '{'0' * 64}'"),
    "a row taken out": lambda p: raw(p, "delete from looks where id = 2"),
    "a row changed": lambda p: raw(p, "update looks set measure = 'loss' where id = 2"),
    "a series taken out": lambda p: raw(p, "delete from series where rowid = 1"),
    "a series changed": lambda p: raw(p, "update series set content = zeroblob(400) where rowid = 1"),
    "a series of no numbers": lambda p: raw(p, "update series set content = 'abc' where rowid = 1"),
    "no head": lambda p: raw(p, "delete from head"),
    "two heads": lambda p: raw(p, "insert into head select 'other', id, hash from head"),
    "no table": lambda p: raw(p, "drop table series"),
    "zero bytes": lambda p: p.write_bytes(b""),
    "one byte": lambda p: p.write_bytes(b"0"),
    "another table beside renamed ones": lambda p: raw(p, "alter table looks rename to lo0ks"),
    "random bytes": lambda p: p.write_bytes(np.random.default_rng(0).bytes(8192)),
    "random bytes in a page": lambda p: p.write_bytes(_scribbled(p.read_bytes())),
    "cut short": lambda p: p.write_bytes(p.read_bytes()[: len(p.read_bytes()) // 2]),
    "removed": lambda p: p.unlink(),
    "rows in another order": lambda p: raw(
        p, "update looks set id = 99 where id = 2", "update looks set id = 2 where id = 3",
        "update looks set id = 3 where id = 99"),
    "the first row gone": lambda p: raw(p, "delete from looks where id = 1"),
    "an older copy put back": lambda p: _another(p, 2),
    "another ledger in its place": lambda p: _another(p, 6, "other"),
    "rows of another ledger mixed in": lambda p: raw(
        p, f"attach '{_another(p.with_name('b.db'), 6, 'other')}' as b", "delete from looks where id = 3",
        "insert into looks select * from b.looks where id = 3"),
    "a text for a number": lambda p: raw(p, "update looks set periods_per_year = 'many' where id = 3"),
    "half a page of zeros": lambda p: p.write_bytes(p.read_bytes()[:4096] + bytes(2048) + p.read_bytes()[6144:]),
    "nothing but its first page": lambda p: p.write_bytes(p.read_bytes()[:4096]),
}  # fmt: skip


def _another(path, n_rows, subject="s"):
    """A sound ledger of so many rows at this place."""
    path.unlink(missing_ok=True)
    for k in range(n_rows):
        TrialLedger(path).append(entry(f"{subject}{k}"), np.random.default_rng(k).normal(size=40))
    return path


def _scribbled(content):
    middle = 3 * 4096
    return content[:middle] + np.random.default_rng(1).bytes(2048) + content[middle + 2048 :]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_no_number_is_made_from_a_damaged_record(damage, run_of_four):
    path, _ = run_of_four
    assert len(TrialLedger(path).trials("data", START, END)) == 4
    check_ledger(str(path))
    damage(path)
    with pytest.raises(DataError, match="ledger") as before_the_work:
        check_ledger(str(path))
    assert "\n" not in str(before_the_work.value)
    if damage is not DAMAGES["random bytes in a page"]:  # of an index, which no number reads
        with pytest.raises(DataError, match="ledger"):
            TrialLedger(path).trials("data", START, END)


LOST_NOTES = {
    "removed": lambda note: note.unlink(),
    "emptied": lambda note: note.write_text("{}"),
    "of a ledger that is not": lambda note: note.write_text(note.read_text().replace("ledger.db", "other.db")),
}


@pytest.mark.parametrize("lose", LOST_NOTES.values(), ids=LOST_NOTES)
@pytest.mark.parametrize("damage", ["removed", "all rows cut, head rewound", "another ledger in its place"])
def test_a_finished_run_without_its_note_must_be_named_by_a_row(damage, lose, run_of_four):
    path, run = run_of_four
    (run / "report.json").write_text('{"strategies": [{"performance": {"n_trials": 4.0}}]}')
    lose(run / "ledger.json")
    check_ledger(str(path))
    DAMAGES[damage](path)
    with pytest.raises(DataError, match=r"was evaluated, but no row names it|is gone, but 1 runs wrote to it"):
        check_ledger(str(path))
    with pytest.raises(DataError, match="was evaluated, but no row names it"):
        TrialLedger(path).trials("data", START, END)


def test_a_run_that_noted_another_ledger_is_none_of_this_ones(run_of_four, tmp_path, series):
    _, run = run_of_four
    (run / "report.json").write_text('{"strategies": [{"performance": {"n_trials": 4.0}}]}')
    other = tmp_path / "other.db"
    TrialLedger(other, tmp_path / "runs").append(entry(), series[0])
    check_ledger(str(other), tmp_path / "runs")


def test_a_resumed_run_stays_with_its_ledger(run_of_four, tmp_path, series):
    path, run = run_of_four
    other = tmp_path / "other.db"
    check_same_ledger(None, str(other))
    check_same_ledger(run, str(path))
    with pytest.raises(DataError, match=r"is resumed with paths.ledger=.*other.db, but its evaluations are rows of .*"):
        check_same_ledger(run, str(other))
    TrialLedger(other, tmp_path / "runs").append(entry(run=str(run)), series[0])
    check_same_ledger(run, str(other))  # it has recorded both
    path.unlink()
    other.unlink()
    check_same_ledger(run, str(tmp_path / "new.db"))  # no ledger is left to count in
    assert "ledger.db" in (run / "ledger.json").read_text()


def test_a_ledger_that_moved_behind_a_link_is_still_known(run_of_four, tmp_path):
    path, _ = run_of_four
    path.rename(tmp_path / "far.db")
    path.symlink_to(tmp_path / "far.db")
    check_ledger(str(path))
    raw(path, "delete from looks where id > 2", REWIND)
    with pytest.raises(DataError, match=r"row 4, which .* wrote, is missing"):
        check_ledger(str(path))
    (tmp_path / "far.db").unlink()
    with pytest.raises(DataError, match="is gone"):
        check_ledger(str(path))


def test_a_view_or_trigger_is_no_part_of_the_record(run_of_four):
    path, _ = run_of_four
    raw(path, "create view v as select 1")
    with pytest.raises(DataError, match="it holds the view 'v'"):
        check_ledger(str(path))


def test_the_anchor_of_a_moved_tree_of_runs_still_holds(run_of_four, tmp_path):
    assert run_of_four
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere/ledger.db"
    check_ledger(str(moved))
    moved.unlink()
    with pytest.raises(DataError, match="is gone"):
        check_ledger(str(moved))


def test_a_resumed_run_enters_its_evaluations_once(run_of_four, series):
    path, run = run_of_four
    ledger = TrialLedger(path)
    assert [ledger.append(entry(f"s{k}", run=str(run)), s) for k, s in enumerate(series)] == [1, 2, 3, 4]
    assert len(ledger.entries()) == 4
    assert ledger.append(entry("s0", run=str(run)), series[0] + 1e-9) == 5
    assert ledger.verify() == []


def test_a_ledger_elsewhere_is_checked_by_the_runs_that_know_it(tmp_path, series):
    run = tmp_path / "runs/train/20260101T000000Z_abc"
    run.mkdir(parents=True)
    place = tmp_path / "far/ledger.db"
    TrialLedger(place).append(entry(run=str(run)), series[0])
    place.unlink()
    with pytest.raises(DataError, match="is gone"):
        check_ledger(str(place), tmp_path / "runs")


def test_a_ledger_that_cannot_be_made_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    place = tmp_path / "far/ledger.db"
    check_ledger(str(place))
    with pytest.raises(PermissionError, match=tmp_path.name):
        check_ledger(str(place), writes=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_vanishes_while_records_are_sought_holds_none(run_of_four, monkeypatch):
    """Drafts of runs come and go beside it."""
    path, run = run_of_four
    scandir = os.scandir

    def vanished(path):
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return scandir(path)

    (path.parent / "train/gone").mkdir()
    monkeypatch.setattr(os, "scandir", vanished)
    assert [found.run for found in anchors([path.parent], str(path))] == [run]
