"""A worker of a study: it runs trials, and leaves checks and report to the process that started it."""

import io
import sys
from types import SimpleNamespace

import pytest

from tests.integration.test_tune import LOGISTIC
from tradsys.config.trusted import checked_overrides
from tradsys.core.endings.stops import Terminated
from tradsys.research.sweeps import sweep
from tradsys.research.sweeps.commands import tune, tune_as_worker
from tradsys.research.sweeps.workers import GO, HERE
from tradsys.tune import composed


def test_a_worker_runs_trials_and_its_parent_alone_reports(tmp_path, monkeypatch):
    arguments = [*LOGISTIC, f"paths.runs={tmp_path}", "n_trials=2"]
    folder = tmp_path / "tune/logistic"
    with monkeypatch.context() as worker:
        worker.setenv(HERE, "2")
        worker.setattr(sweep, "checked", lambda *_: pytest.fail("the parent has checked the space"))
        worker.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
        with pytest.raises(Terminated):
            tune_as_worker(composed, arguments, checked_overrides)
        assert not folder.exists()  # nothing before its parent lets it begin
        worker.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(GO)))
        tune_as_worker(composed, arguments, checked_overrides)
    trials = sorted(path.parent.name for path in folder.glob("trials/*/metrics.json"))
    assert trials == ["00000", "00001"]
    assert not (folder / "report.json").exists()
    report, failed = tune(composed, arguments, [], checked_overrides)
    assert failed == 0
    assert [t["state"] for t in report["trials"]] == ["complete"] * 2
    assert (folder / "report.json").exists()
