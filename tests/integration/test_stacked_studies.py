"""Sweeps and comparisons whose fits train as stacks find what they find fit by fit."""

import contextlib
import json
import os
import signal
import time

import numpy as np
import polars as pl
import pytest

from tests.forks import forks
from tests.integration.conftest import inside
from tests.integration.test_compare import NET as NET_VARIANT
from tests.integration.test_compare import fits, listed, variants
from tests.integration.test_tune import NET, run_study
from tradsys.compare import work
from tradsys.models.training.stacks import stack
from tradsys.research.pipeline import cross_validation
from tradsys.research.sweeps.search_space import SweepError

SPACE = (
    "+sweep.space={model.module.lr:{type:categorical,choices:[0.01,1e-9]},"
    "model.net.dropout:{type:float,low:0.0,high:0.3},model.module.gamma:{type:categorical,choices:[0.0,2.0]}}"
)
STUDY = [
    *[o for o in NET if not o.startswith(("+sweep.space", "sweep.seeds", "trainer.max_epochs"))],
    SPACE,
    "sweep.seeds=[101,102]",
    "sweep.sampler=random",
    "sweep.n_startup=2",
    "+sweep.pruner_options.n_min_trials=1",
    "trainer.max_epochs=3",
    "trainer.patience=1",
    "n_trials=6",
]
AVERAGE = listed(
    "model=seed_average",
    "model.n_seeds=2",
    "model.model.lookback=8",
    "model.model.net.d_model=8",
    "model.model.net.n_heads=2",
    "model.model.net.n_layers=1",
    "time_decay=0.5",
)


@pytest.fixture(scope="module")
def by_stack(tmp_path_factory):
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        real = stack.Stack.take_step
        patch.setattr(stack.Stack, "take_step", lambda self: (steps.append(len(self.nets)), real(self)))
        report = run_study([*STUDY, f"paths.runs={tmp_path_factory.mktemp('stacked')}"])
    assert max(steps) == 4  # two folds under two seeds
    return report


def same_trials(left, right, atol=1e-5):
    assert [t["state"] for t in left["trials"]] == [t["state"] for t in right["trials"]]
    for one, other in zip(left["trials"], right["trials"], strict=True):
        assert one["params"] == other["params"]
        assert [step for step, _ in one["curve"]] == [step for step, _ in other["curve"]]
        for name in ("curve", "skills", "block_gains", "values"):
            if one[name] is not None:
                np.testing.assert_allclose(one[name], other[name], rtol=0, atol=atol, err_msg=name)


def test_a_sweep_finds_and_prunes_the_same_with_stacks_and_without(by_stack, tmp_path, monkeypatch):
    monkeypatch.setattr(stack.Stack, "take_step", None)
    alone = run_study([*STUDY, "sweep.stacked=false", f"paths.runs={tmp_path}"])
    states = [t["state"] for t in alone["trials"]]
    assert set(states) == {"complete", "pruned"}
    same_trials(by_stack, alone)


def test_folds_that_were_swapped_in_a_stack_are_refused(tmp_path, monkeypatch):
    """The control: a net that learned from another fold's rows is not the one that its own fit looks for."""
    real = cross_validation.nets_of

    def swapped(one, found, parts):
        other = type(one)(one.experiment, one.dataset, 1 - one.fold, one.seed, one.workdir)
        return real(other, found, parts)

    monkeypatch.setattr(cross_validation, "nets_of", swapped)
    with pytest.raises(SweepError, match="belongs to fingerprint"):
        run_study([*STUDY, f"paths.runs={tmp_path}"])


def test_a_killed_sweep_goes_on_with_its_stack(by_stack, tmp_path, monkeypatch):
    """SIGKILL while a stack trains: the same command takes the trial's nets up and ends with the same study."""
    command = [*STUDY, "trainer.checkpoint_every_steps=2", "storage_patience_seconds=5"]
    quick = ["heartbeat_seconds=1", "grace_seconds=2"]
    begun = forks().start(["-m", "tradsys.tune", *command, *quick, "paths.runs=runs"], tmp_path)
    try:
        deadline = time.monotonic() + 300
        while begun.poll() is None and time.monotonic() < deadline:
            if list(tmp_path.glob("runs/tune/*/trials/*/fits/stacks/*/last.ckpt")):
                break
            time.sleep(0.002)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)
        assert begun.wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob("runs/tune/*/trials/*/fits/stacks/*/last.ckpt"))) == 1
    time.sleep(2.5)  # beyond its grace the killed attempt counts as dead, so that its trial is the first again
    began, real = [], stack.Stack.take_step
    monkeypatch.setattr(stack.Stack, "take_step", lambda self: (began.append(self.nets[0].step), real(self)))
    with inside(tmp_path):
        report = run_study([*command, *quick, "paths.runs=runs"])
    ended = [t for t in report["trials"] if t["state"] != "fail"]  # without the attempt that died
    report["trials"] = sorted(ended, key=lambda t: t["place"])  # its second attempt may come after other trials
    assert began.count(0) == len(report["trials"]) - 1, "all but the killed one begin at the first step"
    same_trials(report, by_stack)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_comparison_says_the_same_with_stacks_and_without(tmp_path, monkeypatch):
    chosen = variants(net=NET_VARIANT, average=AVERAGE)
    frames = {}
    for name, more in (("alone", ["study.stacked=false"]), ("stacked", [])):
        (tmp_path / name).mkdir()
        if name == "stacked":
            monkeypatch.setattr("tradsys.models.training.loop.DirectLoop.fit", None)
        with inside(tmp_path / name):
            work([*chosen, *more])
        frames[name] = {
            path.relative_to(tmp_path / name): pl.read_parquet(path.with_suffix(".parquet"))
            for path in fits(tmp_path / name)
        }
        assert not list((tmp_path / name).glob("runs/compare/losses_*/work/*/*"))
    assert frames["alone"].keys() == frames["stacked"].keys()
    assert len(frames["alone"]) == 10
    for key, frame in frames["alone"].items():
        other = frames["stacked"][key]
        assert frame.drop("proba").equals(other.drop("proba")), key
        np.testing.assert_allclose(frame["proba"].to_numpy(), other["proba"].to_numpy(), rtol=0, atol=1e-5)
    seconds = [json.loads(path.read_text())["seconds"] for path in fits(tmp_path / "stacked")]
    assert min(seconds) > 0
