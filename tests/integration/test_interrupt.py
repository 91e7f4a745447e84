"""Ctrl-C in the middle of training: a checkpoint stays, and the resumed run ends as if nothing had happened."""

import json
import signal
import time

import pytest

from tests.forks import forks
from tests.integration.conftest import SHRUNK, inside
from tradsys.train import work

# the fit that is interrupted is the primary's: the auditor, which fits as many epochs twice more, comes after it
LONGER = [o for o in SHRUNK if not o.startswith("auditor.")] + [
    *("trainer.max_epochs=40", "trainer.patience=40", "auditor=none", "strategy=[sniper,cost_aware]"),
]


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    stopped.mkdir(), whole.mkdir()
    process = forks().start(["-m", "tradsys.train", *LONGER], stopped)
    deadline = time.monotonic() + 120
    while not list(stopped.rglob("primary/best.ckpt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    (run,) = (p for p in (stopped / "runs" / "train").iterdir() if p.is_dir())
    assert (run / "checkpoints" / "primary" / "last.ckpt").exists()
    assert not (run / "checkpoints" / "primary" / "finished.json").exists()
    assert not (run / "bundle").exists()
    assert f"resume={run.relative_to(stopped)}" in errors.replace("\n", "")
    with inside(stopped):
        work([f"resume={run.relative_to(stopped)}"])
    with inside(whole):
        work(LONGER)
    resumed = json.loads((run / "metrics.json").read_text())
    undisturbed = json.loads((whole / "runs/train/latest/metrics.json").read_text())
    assert resumed["models"] == undisturbed["models"]
