"""A full disk is one OSError with the file's name, in whatever words a library reports it; no half file stays."""

import errno
import sqlite3

import pytest
import sqlalchemy as sa

from tests.forks import run
from tests.kills import chaos
from tradsys.config.compose import REFUSED_BY_DISK
from tradsys.core import runs
from tradsys.core.errors import DataError, refused_by_disk
from tradsys.core.runs import written_atomically
from tradsys.market.downloads.revisions import RevisionLedger
from tradsys.ops.trading.store import TradeJournal
from tradsys.research.pipeline.ledger_database import guarded
from tradsys.research.pipeline.trial_ledger import TrialLedger


class NoSpace:
    """What shutil.disk_usage says of a full disk."""

    free = 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0"),  # torch.save
        ValueError("parquet: error while writing"),
        OSError(errno.ENOSPC, "No space left on device"),  # a file that was open already
        OSError("No space (os error 28)"),
        OSError("100000 requested and 12784 written"),
    ],
    ids=["torch", "a library", "an open file", "polars", "numpy"],
)
def test_a_full_disk_is_named_with_the_file(error, tmp_path, monkeypatch):
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda _: NoSpace)
    with pytest.raises(OSError, match="No space left") as refused, written_atomically(tmp_path / "x") as draft:  # noqa: PT012
        draft.write_text("half")
        raise error
    assert (refused.value.errno, refused.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np, polars as pl, torch
from tradsys.core.runs import written_atomically
numbers = np.arange(100_000.0)
frame = pl.DataFrame({"a": numbers}).lazy()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for write in (lambda p: np.save(p.open("wb"), numbers), lambda p: torch.save(torch.tensor(numbers), p),
              frame.sink_parquet, lambda p: p.write_bytes(numbers.tobytes())):
    try:
        with written_atomically(Path("x")) as draft:
            write(draft)
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_a_file_beyond_the_limit_is_named_by_every_library(tmp_path):
    done = run("-c", LIMITED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{errno.EFBIG} x"] * 4, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_full_disk_stays_what_it_is(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="unexpected pos"), written_atomically(tmp_path / "x"):
        raise RuntimeError("unexpected pos")
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda _: NoSpace)
    with pytest.raises(DataError), written_atomically(tmp_path / "x"):
        raise DataError("bars: wrong")


def test_the_killed_commands_exist():
    assert set(chaos.cases("http://127.0.0.1:1")) >= {
        "train",
        "tune",
        "compare",
        "fetch",
        "daily",
        "export",
        "backtest",
    }


BIG = """
import resource, sys
from pathlib import Path
from tradsys.config.compose import run_command
import numpy as np
from datetime import UTC, datetime, timedelta
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger

def work(argv):
    ledger = TrialLedger("ledger.db")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for k in range(100):
        entry = LedgerEntry("train", str(k), "d", start, start + timedelta(1), measure="return", periods_per_year=365.0)
        ledger.append(entry, np.arange(1000.0) + k)

run_command("train", work, [])
"""


def test_a_ledger_beyond_the_limit_of_a_file_is_not_called_damaged(tmp_path):
    done = run("-c", BIG, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "ulimit -f" in done.stderr
    assert "damaged" not in done.stderr
    ledger = TrialLedger(tmp_path / "ledger.db")
    assert ledger.verify() == []
    assert 0 < len(ledger.entries()) < 100


def refusal(code):
    """What sqlite3 raises with this code."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


def opened(kind, folder):
    """The context in which each keeper of a SQLite file turns errors into its own."""
    if kind == "trial ledger":
        return guarded(TrialLedger(folder / "ledger.db")._shown)
    if kind == "trade journal":
        return TradeJournal(folder / "journal.db")._refused()
    return RevisionLedger(folder)._open()


@pytest.mark.parametrize("kind", ["trial ledger", "trade journal", "revisions"])
@pytest.mark.parametrize(
    ("code", "number"),
    [
        (sqlite3.SQLITE_FULL, errno.ENOSPC),
        (sqlite3.SQLITE_IOERR_WRITE, errno.EIO),
        (sqlite3.SQLITE_READONLY_DBMOVED, errno.EACCES),
        (sqlite3.SQLITE_BUSY, errno.EBUSY),
        (sqlite3.SQLITE_CORRUPT, None),
        (sqlite3.SQLITE_IOERR_SHORT_READ, None),
    ],
)
def test_every_database_of_ours_tells_the_disk_from_damage(kind, code, number, tmp_path):
    with pytest.raises((DataError, OSError)) as refused, opened(kind, tmp_path):
        raise refusal(code) if kind == "revisions" else sa.exc.OperationalError("INSERT", {}, refusal(code))
    if number is None:
        assert isinstance(refused.value, DataError)
    else:
        assert isinstance(refused.value, OSError)
        assert refused.value.errno == number
        assert refused.value.errno in REFUSED_BY_DISK


def test_a_ledger_whose_journal_file_cannot_be_made_is_not_called_damaged(tmp_path):
    """As on a disk without a free inode."""
    with pytest.raises(DataError, match=r"disk I/O error.*\(df -i\)") as refused, opened("trial ledger", tmp_path):
        raise sa.exc.OperationalError("INSERT", {}, refusal(sqlite3.SQLITE_CANTOPEN))
    assert "damaged" not in str(refused.value)


def test_sqlalchemy_hides_no_refusal():
    wrapped = sa.exc.OperationalError("INSERT", {}, refusal(sqlite3.SQLITE_FULL))
    assert refused_by_disk(wrapped, "x").errno == errno.ENOSPC
    assert refused_by_disk(ValueError("disk I/O error"), "x") is None
