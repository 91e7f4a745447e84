"""A daily run that was killed, or met a full disk, goes on where it was."""

import errno
import os
import shutil
import signal

import pytest

from tests.daily_lab import BEFORE, NAME, SHRUNK, daily, events
from tests.forks import run
from tradsys.config.compose import run_command
from tradsys.daily import work
from tradsys.ops.daily import partitions
from tradsys.ops.daily.partitions import Partitions
from tradsys.ops.daily.publishing import latest
from tradsys.ops.daily.run import STAGES

KILLED = """
import os, signal, sys
from tests.daily_lab import SHRUNK
import tradsys.daily, tradsys.ops.daily.run as daily_run, tradsys.ops.daily.partitions as stages
where, day = sys.argv[1], sys.argv[2]
whole = stages.written_atomically

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if where == "between":       # models are done, gates have not begun
    daily_run.STAGES = tuple(
        stage if stage.name != "gates" else type(stage)("gates", stage.reads, die, stage.config)
        for stage in daily_run.STAGES
    )
elif where == "inside":      # the features partition is half written
    stages.write_json = lambda path, value: die() if "features" in str(path) else None
else:                        # the bundles are there, their record is not
    import tradsys.ops.daily.training as training
    training.panel_metrics = die
tradsys.daily.work(["run", *SHRUNK, f"date={day}"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "kept", "redone"),
    [
        ("between", ["prices", "quality", "features", "labels", "models"], ["gates", "report"]),
        ("training", ["prices", "quality", "features", "labels"], ["models", "gates", "report"]),
    ],
)
def test_a_killed_run_goes_on_where_it_was(lab, published, where, kept, redone):
    shutil.rmtree(lab / NAME)
    done = run("-c", KILLED, where, str(BEFORE), cwd=lab)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    store = Partitions(lab / NAME)
    assert [stage.name for stage in STAGES if store.dates(stage.name)] == kept
    assert latest(store) is None
    n = len(events(lab))
    daily("run", f"date={BEFORE}")
    assert [line["stage"] for line in events(lab)[n:] if line["event"] == "stage begins"] == redone
    assert latest(store) == BEFORE
    undisturbed = Partitions(published / NAME)
    assert store.frame("models", BEFORE).equals(undisturbed.frame("models", BEFORE))
    assert store.frame("report", BEFORE, "plan").equals(undisturbed.frame("report", BEFORE, "plan"))


@pytest.mark.slow
def test_a_run_killed_inside_a_write_leaves_a_draft_that_the_next_one_sweeps(lab):
    shutil.rmtree(lab / NAME)
    inside_a_write = KILLED.replace("else None", "else whole_json(path, value)").replace(
        "whole = stages.written_atomically", "whole_json = stages.write_json"
    )
    done = run("-c", inside_a_write, "inside", str(BEFORE), cwd=lab)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    drafts = list((lab / NAME / "features").glob(".date=*.part"))
    assert len(drafts) == 1
    assert (drafts[0] / "features.parquet").exists()
    daily("run", f"date={BEFORE}")
    assert not drafts[0].exists()
    assert events(lab, event="swept")[-1]["paths"] == [str(drafts[0].relative_to(lab / NAME))]
    assert latest(Partitions(lab / NAME)) == BEFORE


@pytest.mark.parametrize("stage", ["features", "models", "report"])
def test_a_full_disk_is_one_line_leaves_nothing_half_written_and_the_next_run_gives_the_same(
    lab, published, stage, monkeypatch, capsys
):
    shutil.rmtree(lab / NAME)
    write = partitions.write_json

    def full(path, value):
        if stage in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, value)

    monkeypatch.setattr(partitions, "write_json", full)
    with pytest.raises(SystemExit) as stopped:
        run_command("daily", work, ["run", *SHRUNK, f"date={BEFORE}"])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: disk: ")
    assert "the disk is full" in line
    assert [str(path) for path in (lab / NAME).rglob(".*.part")] == []
    assert latest(Partitions(lab / NAME)) is None
    monkeypatch.undo()
    daily("run", f"date={BEFORE}")
    again, undisturbed = Partitions(lab / NAME), Partitions(published / NAME)
    assert latest(again) == BEFORE
    assert again.frame("report", BEFORE, "plan").equals(undisturbed.frame("report", BEFORE, "plan"))
    assert again.frame("models", BEFORE).equals(undisturbed.frame("models", BEFORE))
