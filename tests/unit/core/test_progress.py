"""quiet=true leaves results and errors; a long stage says that it runs."""

import logging
import subprocess
import sys
import threading

import pytest

from tradsys.config.compose import run_command
from tradsys.core.progress import stages as progress
from tradsys.core.progress.bars import bar


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    monkeypatch.setenv(progress.QUIET, "0")


def test_quiet_is_taken_from_the_arguments():
    assert progress.taken_from(["a=1", "quiet=true"]) == (["a=1"], True)
    assert progress.taken_from(["quiet=False"]) == ([], False)
    assert progress.taken_from(["quietly=1"]) == (["quietly=1"], None)
    with pytest.raises(ValueError, match="quiet=perhaps; it is true"):
        progress.taken_from(["quiet=perhaps"])


def test_every_command_takes_quiet_and_its_work_does_not_see_it(capsys):
    seen = []
    run_command("train", seen.append, ["quiet=true", "seed=3"])
    assert seen == [["seed=3"]]
    assert progress.is_quiet()
    assert progress.screen_level() == logging.WARNING
    with pytest.raises(SystemExit) as stopped:
        run_command("train", seen.append, ["quiet=x"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: quiet=x; it is true")


def test_a_bar_is_silent_under_quiet(monkeypatch, capfd):
    monkeypatch.setenv(progress.QUIET, "1")
    with bar("{task.description}") as shown:
        shown.advance(shown.add_task("fits", total=1))
    assert capfd.readouterr() == ("", "")


def test_a_stage_and_a_total_speak_only_when_they_take_long(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "tradsys")
    with progress.total(), progress.stage("quick"):
        pass
    assert caplog.text == ""
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    said = threading.Event()
    monkeypatch.setattr(progress.LOG, "info", lambda *words: said.set())
    with progress.stage("slow"):
        assert said.wait(30)


def test_a_long_stage_says_for_how_long_it_runs(monkeypatch):
    for name in ("PATIENCE_SECONDS", "FIRST_PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS"):
        monkeypatch.setattr(progress, name, 1e-3)
    lines, third = [], threading.Event()

    def keep(text, *values):
        lines.append(text % values)
        if len(lines) == 3:
            third.set()

    monkeypatch.setattr(progress.LOG, "info", keep)
    with progress.stage("slow"):
        assert third.wait(30)
    assert lines[:3] == ["slow ...", "slow ... 0 s", "slow ... 0 s"]


def test_counted_fits_say_how_far_they_are_where_they_take_long(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "tradsys")
    assert list(progress.counted("fits", "abc")) == ["a", "b", "c"]
    assert caplog.text == ""
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    assert list(progress.counted("fits", "abc")) == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == [f"fits: {k} of 3" for k in (1, 2, 3)]


def test_a_pipe_gets_no_line_before_the_results():
    code = "from tradsys.config.compose import run_command; run_command('train', lambda argv: print('result'), [])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("result\n", "")


def test_a_terminal_sees_the_first_line_before_heavy_imports(monkeypatch, capsys):
    monkeypatch.setattr(progress, "is_watched", lambda: True)
    order = []
    run_command("train", lambda argv: order.append(capsys.readouterr().err), [])
    assert order == ["train ...\n"]
