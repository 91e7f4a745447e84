"""The ledger on a PostgreSQL server of the tests' own: same promises as on SQLite."""

from datetime import UTC, datetime

import numpy as np
import pytest

from tests.forks import forks
from tests.postgres import change, free_port
from tradsys.core.errors import DataError
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger, check_ledger

DAY = datetime(2021, 1, 1, tzinfo=UTC)
DRAWN = np.array([0.5, 1.0])
WRITER = """
import sys
from datetime import UTC, datetime
import numpy as np
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger
url, worker = sys.argv[1], int(sys.argv[2])
ledger = TrialLedger(url)
day = datetime(2021, 1, 1, tzinfo=UTC)
for k in range(25):
    known = {"measure": "return", "periods_per_year": 365.25, "code_sha": "x"}
    ledger.append(LedgerEntry("backtest", f"w{worker}", "data", day, day, **known), np.array([worker, k / 3, -1]))
"""


def entry(subject="a", **changes):
    fields = {"measure": "return", "periods_per_year": 365.25, "code_sha": "abc", "who": "me@here"}
    return LedgerEntry("backtest", subject, "data", DAY, DAY, **(fields | changes))


def test_four_processes_open_and_append_at_once_without_a_lost_row(url):
    # none of them finds tables: they race to make them, too
    workers = [forks().start(["-c", WRITER, url, str(w)]) for w in range(4)]
    said = [w.communicate(timeout=120)[1] for w in workers]
    assert [w.returncode for w in workers] == [0, 0, 0, 0], said
    ledger = TrialLedger(url)
    assert ledger.verify() == []
    rows = ledger.entries()
    assert [row["id"] for row in rows] == list(range(1, 101))
    assert sorted(row["subject"] for row in rows) == sorted(f"w{w}" for w in range(4) for _ in range(25))
    assert len(ledger.trials("data", DAY, DAY)) == 100


def test_rows_and_series_are_those_of_sqlite(url, tmp_path):
    series = [np.random.default_rng(k).normal(0, 0.01, 40) for k in range(3)]
    places = [TrialLedger(url), TrialLedger(tmp_path / "ledger.db")]
    moment = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    for ledger in places:
        for k, values in enumerate(series):
            ledger.append(entry(f"naïve {k}", when=moment), values)
        ledger.append(entry("a look", measure=None, periods_per_year=None, when=moment))
    ours, theirs = (ledger.entries() for ledger in places)
    assert ours == theirs  # the chain of hashes included
    ours, theirs = (ledger.trials("data", DAY, DAY) for ledger in places)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.returns, b.returns)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE looks SET subject = 'better' WHERE id = 2", "row 2 was changed"),
        ("DELETE FROM looks WHERE id = 2", "row 2 is missing"),
        ("DELETE FROM looks WHERE id = 3", "the last row is 2, the head has 3"),
        ("DELETE FROM series", "is missing"),
        ("INSERT INTO head SELECT 'other', id, hash FROM head", "2 rows are its head"),
    ],
)
def test_verify_names_what_was_touched(url, sql, said):
    ledger = TrialLedger(url)
    for k in range(3):
        ledger.append(entry(f"s{k}"), np.arange(2.0) + k)
    change(url, sql)
    problems = ledger.verify()
    assert any(said in p for p in problems), problems


def test_a_failed_append_leaves_no_trace(url):
    ledger = TrialLedger(url)
    change(url, "ALTER TABLE looks ADD CONSTRAINT stop CHECK (subject <> 'bad')")
    with pytest.raises(Exception, match="stop"):
        ledger.append(entry("bad"), np.arange(2.0))
    assert ledger.append(entry("good"), np.arange(2.0)) == 1
    assert ledger.verify() == []


def test_a_server_that_is_not_there_is_one_line_without_the_password():
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'tradsys[postgres]'")
    with pytest.raises(DataError, match="does not open") as caught:
        TrialLedger(f"postgresql://keeper:secret@127.0.0.1:{free_port()}/ledger")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


LIMITS = {
    "role without the right": ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", "permission denied"),
    "read-only role": ("ALTER ROLE {role} SUPERUSER; ALTER ROLE {role} SET default_transaction_read_only = on",
                       "read-only transaction"),
}  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS)
def test_who_may_only_read_is_refused_before_the_work_and_nothing_is_called_damaged(url, limit):
    TrialLedger(url).append(entry(), np.arange(2.0))
    sql, said = LIMITS[limit]
    role = f"only_{abs(hash(limit)) % 10**9}"
    for statement in f"CREATE ROLE {role} LOGIN; {sql.format(role=role)}".split("; "):
        change(url, statement)
    theirs = url.replace("keeper:", f"{role}:")
    check_ledger(theirs)
    assert len(TrialLedger(theirs).trials("data", DAY, DAY)) == 1
    for refused in (lambda: check_ledger(theirs, writes=True), lambda: TrialLedger(theirs).append(entry("b"), DRAWN)):
        with pytest.raises(DataError, match=said) as caught:
            refused()
        assert "check the server, the rights of its user" in str(caught.value)
        assert "damaged" not in str(caught.value)
        assert "\n" not in str(caught.value)
    check_ledger(url, writes=True)
    assert len(TrialLedger(url).entries()) == 1


def test_a_connection_that_is_lost_is_no_damage(url):
    ledger = TrialLedger(url)

    def cut_off():
        with ledger._reading() as connection:
            (pid,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
            change(url, f"SELECT pg_terminate_backend({pid})")
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(DataError, match="lost the connection") as caught:
        cut_off()
    assert "damaged" not in str(caught.value)
