"""Every mistake a user can make: one line, exit code 2, no traceback, nothing half-written."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.integration.conftest import inside
from tradsys.config import run_door

MISTAKES = {
    "unknown key": (["train", "modle.lookback=8"], "did you mean 'model.lookback'"),
    "unknown nested key": (["train", "model.lokback=8"], "did you mean 'model.lookback'"),
    "unknown choice": (["train", "model=transfomer"], "did you mean 'transformer'"),
    "unknown experiment": (["train", "+experiment=dmo"], "did you mean 'demo'"),
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
}


@pytest.mark.parametrize(("arguments", "hint"), MISTAKES.values(), ids=MISTAKES.keys())
def test_one_line_and_exit_code_two(arguments, hint, tmp_path, capsys):
    if "trainer.accelerator=gpu" in arguments and torch.cuda.is_available():
        pytest.skip("a GPU is here, so asking for one is no mistake")
    door = importlib.import_module(f"tradsys.{arguments[0]}")
    with inside(tmp_path), pytest.raises(SystemExit) as stopped:
        run_door(arguments[0], door.work, arguments[1:])
    assert stopped.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert hint in errors[0]
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left <= {"runs/ledger.db"}


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
        run_door("fetch", broken, [])


@pytest.mark.parametrize("verb", ["train", "backtest", "export", "report", "fetch"])
def test_help_names_keys_and_examples(verb):
    done = subprocess.run(
        [sys.executable, "-m", "tradsys.cli", verb, "--help"], capture_output=True, text=True, check=True
    )
    assert f"python -m tradsys.{verb}" in done.stdout
    assert "Keys" in done.stdout


def test_unknown_verb():
    done = subprocess.run([sys.executable, "-m", "tradsys.cli", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "trian" in done.stderr
