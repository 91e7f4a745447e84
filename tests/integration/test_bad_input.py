"""Every mistake a user can make: one line, exit code 2, no traceback, nothing half-written."""

import errno
import importlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.integration.conftest import inside
from tradsys import cli
from tradsys.config.compose import run_command
from tradsys.core.errors import TrainingError
from tradsys.research.pipeline.provenance import open_run

MISTAKES = {
    "unknown key": (["train", "modle.lookback=8"], "did you mean 'model.lookback'"),
    "unknown nested key": (["train", "model.lokback=8"], "did you mean 'model.lookback'"),
    "unknown choice": (["train", "model=transfomer"], "did you mean 'transformer'"),
    "unknown experiment": (["train", "+experiment=dmo"], "did you mean 'demo'"),
    "no question": (["train", "~question"], "it lacks question"),
    "no data": (["train", "data=btc_hourly"], "python -m tradsys.fetch"),
    "short history": (["train", "data.n_bars=300"], "bars"),
    "no gpu": (["train", "trainer.accelerator=gpu", "data.n_bars=1600"], "trainer=cpu"),
    "bad barrier": (["train", "labels.upper=-1", "data.n_bars=1600"], "upper"),
    "one class": (["train", "labels.upper=500", "labels.lower=0.1", "data.n_bars=1600"], "class"),
    "no bundle": (["backtest", "bundle=nowhere"], "card.json"),
    "threshold out of range": (["train", "strategy.sniper.rule.value=1.5"], "1.5"),
    "no file": (["fetch", "path=nowhere.csv", "name=x"], "nowhere.csv"),
    "mandatory key": (["fetch", "path=nowhere.csv"], "name"),
    "no run": (["report", "run=nowhere"], "nowhere"),
    "nothing to export": (["export", "name=btc"], "bundle"),
    "bad name": (["export", "name=../btc"], "letters"),
    "resume nothing": (["train", "resume=nowhere"], "nowhere"),
    "resume a number": (["train", "resume=3"], "resume=3"),
    "temperature zero": (["train", "model=supcon", "model.module.temperature=0"], "temperature=0"),
    "temperature NaN": (["train", "model=supcon", "model.module.temperature=nan"], "temperature=nan"),
    "batch of three": (["train", "model=supcon", "model.batch_size=3"], "model.batch_size"),
    "dropout of all": (["train", "model.net.dropout=1"], "[0, 1)"),
    "probe penalty": (["train", "model=supcon", "model.probe.C=0"], "C=0"),
    "rate of no number": (["train", "model.module.lr=fast"], "lr='fast'"),
    "trees without rows": (["train", "model=lightgbm", "model.subsample=0"], "(0, 1]"),
    "seed of words": (["train", "seed=abc"], "seed='abc'"),
    "horizon beside horizons": (["daily", "status", "labels.horizon_bars=5"], "horizons=[1, 5, 20]"),
    "beyond any sense": (["train", "labels.upper=1e30"], "labels.upper=1e+30"),
    "beyond 64 bits": (["train", "labels.atr_bars=99999999999999999999"], "labels.atr_bars=99999999999999999999"),
    "escapes in an argument": (["backtest", "bundle='\x1b[31mred'"], "bundle"),
    "symbol that is a path": (["fetch", "source=binance_archive", "symbols=['..x']", "name=x"], "..x"),
    "daily elsewhere": (["daily", "status", "name=../../x"], "does not begin with . or -"),
    "daily hidden": (["daily", "clean", "name='\x1b[31mx'"], "a character that is not seen"),
    "doctor of no bars": (["doctor", "data.n_bars=-1"], "n_bars=-1"),
    "one variant": (["compare", "study=seeds", "~study.variants.transformer"], "two at least"),
    "unknown variant": (["compare", "study=seeds", "+study.variants.b=['model=nope']"], "variant 'b' of study 'seeds'"),
    "variant with a bad setting": (
        ["compare", "study=seeds", "+study.variants.b=['model=supcon','model.module.temperature=0']"],
        "variant 'b' of study 'seeds': supcon: temperature=0",
    ),
    "study elsewhere": (["compare", "study=seeds", "study.name=../x"], "../x"),
    "study above": (["compare", "study=seeds", "study.name=.."], "does not begin with . or -"),
    "study hidden": (["compare", "study=seeds", "study.name=.hid"], "does not begin with . or -"),
    "study of the other command": (["train", "+study=losses"], "audit, compare"),
    "no study": (["tune", "promote", "study=nope"], "tune first"),
    "zoom into nothing": (["tune", "sweep=zoom", "study=nope"], "tune first"),
    "no storage": (
        ["tune", "sweep=logistic", "storage=postgresql://me:pw@127.0.0.1:1/x", "storage_patience_seconds=1"],
        "me:***@127.0.0.1",
    ),
    "unknown storage": (["tune", "sweep=logistic", "storage=mysql://x/y"], "no known URL"),
    "no budget": (["tune", "sweep=logistic", "n_trials=0"], "n_trials=0"),
    "ledger out of reach": (["train", "paths.ledger=postgresql://me:pw@127.0.0.1:1/x"], "me:***@127.0.0.1"),
    "doctor of nothing": (["doctor", "doctor.processes=0"], "processes=0"),
    "too much data": (["doctor", "data.n_bars=100000000"], "rent a pod"),
    "two runs": (["reproduce", "a", "b"], "it takes one run"),
    "no run to reproduce": (["reproduce", "nowhere"], "nowhere is no folder"),
    "folder of nothing": (["reproduce", "."], "lacks config.yaml"),
    "no ledger": (["journal"], "no ledger at"),
    "no data of that name": (["backtest", "data=nope"], "card.json"),
    "runs in a file": (["train", "paths.runs=/dev/null"], "cannot be written"),
}


@pytest.mark.parametrize(("arguments", "hint"), MISTAKES.values(), ids=MISTAKES.keys())
def test_one_line_and_exit_code_two(arguments, hint, tmp_path, capsys):
    if "trainer.accelerator=gpu" in arguments and torch.cuda.is_available():
        pytest.skip("a GPU is here, so asking for one is no mistake")
    command = importlib.import_module(f"tradsys.{arguments[0]}")
    with inside(tmp_path), pytest.raises(SystemExit) as stopped:
        run_command(arguments[0], command.work, arguments[1:])
    assert stopped.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert hint in errors[0]
    assert errors[0].isprintable()
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    assert left <= {"runs", "runs/ledger.db"}


@pytest.mark.parametrize(
    ("command", "name", "text", "hint"),
    [
        ("report", "report.json", '{"run": ', "report.json: it is not JSON"),
        ("report", "report.json", "{}", "is damaged"),
        ("reproduce", "report.json", '{"run": ', "report.json: it is not JSON"),
        ("reproduce", "report.json", "{}", "is damaged"),
        ("reproduce", "config.yaml", "a: [1,\n", "config.yaml: it is no plain YAML"),
        ("reproduce", "config.yaml", "- 1\n", "is a list, not a mapping"),
        ("export", "bundle/card.json", "{", "card.json: it is not JSON"),
        ("export", "bundle/regime.json", "{}", "altered ['regime.json']"),
    ],
)
def test_a_damaged_run_is_reported_in_one_line(command, name, text, hint, run_folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    (copy / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    work = importlib.import_module(f"tradsys.{command}").work
    with inside(tmp_path), pytest.raises(SystemExit) as stopped:
        run_command(command, work, [f"run={copy}"])
    assert stopped.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert hint in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO])
def test_what_a_disk_refuses_is_one_line(number, capsys):
    def refused(argv):
        raise OSError(number, os.strerror(number), "runs/x.json")

    with pytest.raises(SystemExit) as stopped:
        run_command("fetch", refused, [])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: disk: runs/x.json: ")


LINKS = {
    "runs lead nowhere": (["train"], "runs", "nowhere", "leads nowhere"),
    "runs lead to themselves": (["train"], "runs", "runs", "back to itself"),
    "a store leads nowhere": (["fetch", "path=bars.csv", "name=x"], "data/x", "nowhere", "leads nowhere"),
    "a store is a file": (["fetch", "path=bars.csv", "name=x"], "data/x", "", "stands in the way"),
    "a project's conf leads to itself": (["runs"], "conf", "conf", "back to itself"),
}


@pytest.mark.parametrize(("arguments", "name", "target", "hint"), LINKS.values(), ids=LINKS)
def test_a_link_or_a_file_in_the_way_is_one_line(arguments, name, target, hint, tmp_path, capsys):
    rows = [f"2024-01-{day:02d},1,1.01,0.99,1,5" for day in range(1, 29)]
    (tmp_path / "bars.csv").write_text("\n".join(["time,open,high,low,close,volume", *rows]))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if target:
        (tmp_path / name).symlink_to(target)
    else:
        (tmp_path / name).touch()
    command = importlib.import_module(f"tradsys.{arguments[0]}")
    with inside(tmp_path), pytest.raises(SystemExit) as stopped:
        run_command(arguments[0], command.work, arguments[1:])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert hint in line
    assert name in line


def test_a_folder_that_cannot_be_copied_is_one_line_too(capsys):
    def refused(argv):
        raise shutil.Error([("bundle/a.json", "models/a.json", "[Errno 28] No space left on device: 'models/a.json'")])

    with pytest.raises(SystemExit) as stopped:
        run_command("export", refused, [])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: disk: models/a.json: the disk is full")


def test_another_error_of_the_system_is_a_bug():
    def broken(argv):
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError):
        run_command("fetch", broken, [])


def test_a_refused_run_takes_its_folder_away_but_never_one_that_it_resumes(tmp_path):
    for error in (TrainingError("x"), ValueError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), open_run(tmp_path / "runs", "audit", "a: 1\n", []):
            raise error
        assert list(tmp_path.iterdir()) == []
    run = tmp_path / "runs" / "train" / "old"
    run.mkdir(parents=True)
    (run / "report.json").write_text("{}")
    with pytest.raises(TrainingError), open_run(tmp_path / "runs", "train", "a: 1\n", [], run):
        raise TrainingError("x")
    assert (run / "report.json").exists()


def test_only_an_interrupted_training_is_advised_to_resume(tmp_path, capfd):
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, "reproduce", "a: 1\n", []):
        raise KeyboardInterrupt
    assert "resume" not in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, "train", "a: 1\n", []) as run:
        raise KeyboardInterrupt
    assert f"resume={run}" in "".join(capfd.readouterr().err.split())
    assert run.is_dir()


def test_a_mistake_in_a_process_of_its_own_leaves_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tradsys.fetch", "path=nowhere.csv", "name=x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error:")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    def broken(argv):
        np.zeros(3).reshape(2, 2)

    with pytest.raises(ValueError, match="reshape"):
        run_command("fetch", broken, [])


VERBS = [verb for verb in cli.VERBS if importlib.util.find_spec(f"tradsys.{verb}")]


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_keys_and_examples(verb, capsys):
    run_command(verb, importlib.import_module(f"tradsys.{verb}").work, ["--help"])
    reported = capsys.readouterr().out
    assert f"python -m tradsys.{verb}" in reported
    assert "Keys" in reported


def test_unknown_verb():
    done = subprocess.run([sys.executable, "-m", "tradsys.cli", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "trian" in done.stderr
