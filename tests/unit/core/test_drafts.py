"""Drafts of killed writers are removed at the next start; a live one never is."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from tradsys.core.drafts import DEAD_AFTER_SECONDS, MACHINE, draft_of, remove_dead_drafts
from tradsys.core.errors import TradsysError
from tradsys.core.runs import write_text, written_atomically
from tradsys.research.pipeline.provenance import logged_in, open_run

WRITER = (
    "import sys, time\nfrom pathlib import Path\nfrom tradsys.core.runs import written_atomically\n"
    "with written_atomically(Path(sys.argv[1])) as draft:\n"
    "    draft.mkdir(); (draft / 'model.txt').write_text('half'); print('writing', flush=True); time.sleep(600)\n"
)


@pytest.fixture
def writer():
    """Starts a process that is in the middle of writing a folder; killed at the end of the test at the latest."""
    started = []

    def start(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        started.append(subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "writing\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def drafts(folder):
    return sorted(folder.rglob(".*.part")) + sorted(folder.rglob(".*.old"))


def test_the_draft_of_a_killed_bundle_goes_at_the_next_start_and_a_live_one_stays(tmp_path, writer):
    dead = writer(tmp_path / "train" / "killed" / "bundle")
    writer(tmp_path / "train" / "alive" / "bundle")
    dead.kill()
    dead.wait()
    assert len(drafts(tmp_path)) == 2
    with open_run(tmp_path, "train", "", []) as run:
        assert [draft.parent.name for draft in drafts(tmp_path)] == ["alive"]
    assert "removed 1 draft that a killed command left" in (run / "log.txt").read_text()


def test_a_run_is_not_resumed_while_another_process_writes_to_it(tmp_path):
    with open_run(tmp_path, "train", "", ["costs.fee_bps=10"]) as run:
        with (
            pytest.raises(TradsysError, match="another process is writing there"),
            open_run(tmp_path, "train", "", ["costs.fee_bps=0"], run),
        ):
            pytest.fail("two processes in one run")
        assert (run / "overrides.txt").read_text() == "costs.fee_bps=10\n"
    with open_run(tmp_path, "train", "", ["costs.fee_bps=0"], run):
        pass
    assert (run / "overrides.txt").read_text() == "costs.fee_bps=0\n"


def test_a_folder_of_several_calls_is_cleaned_as_well(tmp_path, writer):
    dead = writer(tmp_path / "study" / "cells" / "one")
    dead.kill()
    dead.wait()
    with logged_in(tmp_path / "study", "", []):
        assert drafts(tmp_path) == []


@pytest.mark.parametrize(("machine", "seconds", "gone"), [
    (MACHINE, 0, True),
    ("0" * 8, 0, False),
    ("0" * 8, DEAD_AFTER_SECONDS + 60, True),
])  # fmt: skip
def test_a_draft_of_another_machine_goes_by_its_age(machine, seconds, gone, tmp_path):
    draft = tmp_path / f".bundle.{machine}01234567.part"
    draft.mkdir()
    (draft / "model.txt").write_text("half")
    then = time.time() - seconds
    for path in (draft / "model.txt", draft):
        os.utime(path, (then, then))
    assert remove_dead_drafts([tmp_path]) == ([draft] if gone else [])
    assert draft.exists() is not gone


def test_what_stepped_aside_for_a_successor_that_never_came_gets_its_name_back(tmp_path):
    for name, has_successor in (("bundle", False), ("other", True)):
        old = draft_of(tmp_path / name, "old")
        old.mkdir()
        (old / "card.json").write_text("old")
        if has_successor:
            (tmp_path / name).mkdir()
            (tmp_path / name / "card.json").write_text("new")
    remove_dead_drafts([tmp_path])
    assert {path.name: (path / "card.json").read_text() for path in tmp_path.iterdir()} == {
        "bundle": "old", "other": "new",
    }  # fmt: skip


def test_links_and_names_of_others_are_left_alone(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    inside = tmp_path / "inside"
    inside.mkdir()
    draft_of(inside / "bundle").symlink_to(outside)
    (inside / ".mine.part").write_text("x")
    remove_dead_drafts([inside, tmp_path / "absent"])
    assert [path.name for path in inside.iterdir()] == [".mine.part"]
    assert (outside / "kept").exists()


def test_a_write_leaves_neither_draft_nor_lock(tmp_path):
    write_text(tmp_path / "a.txt", "1")
    with contextlib.suppress(ZeroDivisionError), written_atomically(tmp_path / "b") as draft:
        draft.mkdir()
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
