"""A full disk is one OSError with the file's name, in whatever words a library reports it; no half file stays."""

import errno

import pytest

from tests.kills import chaos
from tradsys.core import runs
from tradsys.core.errors import DataError
from tradsys.core.runs import written_atomically


class NoSpace:
    """What shutil.disk_usage says of a full disk."""

    free = 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0"),  # torch.save
        ValueError("parquet: error while writing"),
        OSError(errno.ENOSPC, "No space left on device"),  # a file that was open already
        OSError("os error 28"),
    ],
    ids=["torch", "a library", "an open file", "polars"],
)
def test_a_full_disk_is_named_with_the_file(error, tmp_path, monkeypatch):
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda _: NoSpace)
    with pytest.raises(OSError, match="No space left") as refused, written_atomically(tmp_path / "x") as draft:  # noqa: PT012
        draft.write_text("half")
        raise error
    assert (refused.value.errno, refused.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
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
