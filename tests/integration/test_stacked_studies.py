"""Sweeps and comparisons whose fits train as stacks find what they find fit by fit."""

import collections
import contextlib
import json
import os
import signal
import sqlite3
import time

import numpy as np
import polars as pl
import pytest
import torch

from tests.forks import forks
from tests.integration.conftest import inside
from tests.integration.test_compare import NET as NET_VARIANT
from tests.integration.test_compare import fits, listed, variants
from tests.integration.test_tune import NET, run_study
from tradsys.compare import work
from tradsys.models.training.stacks import fit, stack
from tradsys.research.pipeline import cross_validation
from tradsys.research.pipeline.trial_ledger import TrialLedger
from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.trial_queue import TrialQueue

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
    "sweep.stacked=true",  # of so few steps they are not by themselves
    "sweep.stacked_trials=1",
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


def killed_with(command, folder, n_trials):
    """Kills the command once so many trials have a checkpoint of a stack; they count as dead when this returns."""
    begun = forks().start(["-m", "tradsys.tune", *command], folder)
    try:
        deadline = time.monotonic() + 300
        while begun.poll() is None and time.monotonic() < deadline:
            if len(list(folder.glob("runs/tune/*/trials/*/fits/stacks/*/last.ckpt"))) >= n_trials:
                break
            time.sleep(0.01)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)
        assert begun.wait() == -signal.SIGKILL
    assert len(list(folder.glob("runs/tune/*/trials/*/fits/stacks/*/last.ckpt"))) == n_trials
    with contextlib.closing(sqlite3.connect(folder / "runs/tune/studies.db")) as study, study:
        # its last beats lie beyond its grace, so that its trials are the first again
        assert study.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 day')").rowcount > 0


def test_a_killed_sweep_goes_on_with_its_stack(by_stack, tmp_path, monkeypatch):
    """SIGKILL while a stack trains: the same command takes the trial's nets up and ends with the same study."""
    command = [*STUDY, "trainer.checkpoint_every_steps=2", "storage_patience_seconds=5"]
    quick = ["heartbeat_seconds=1", "grace_seconds=2"]
    killed_with([*command, *quick, "paths.runs=runs"], tmp_path, 1)
    began, real = [], stack.Stack.take_step
    monkeypatch.setattr(stack.Stack, "take_step", lambda self: (began.append(self.nets[0].step), real(self)))
    with inside(tmp_path):
        report = run_study([*command, *quick, "paths.runs=runs"])
    ended = [t for t in report["trials"] if t["state"] != "fail"]  # without the attempt that died
    report["trials"] = sorted(ended, key=lambda t: t["place"])  # its second attempt may come after other trials
    assert began.count(0) == len(report["trials"]) - 1, "all but the killed one begin at the first step"
    same_trials(report, by_stack)
    assert not list(tmp_path.rglob("*.ckpt"))


def agree(left, right, atol=1e-5):
    """The same trials, and the same values wherever both went; how far pruning let them go may differ."""
    assert [t["place"] for t in left] == [t["place"] for t in right] == list(range(len(left)))
    for one, other in zip(left, right, strict=True):
        assert one["params"] == other["params"]
        curves = dict(one["curve"]), dict(other["curve"])
        steps = sorted(curves[0].keys() & curves[1].keys())
        assert len(steps) == min(map(len, curves)) > 0
        np.testing.assert_allclose(*([curve[k] for k in steps] for curve in curves), rtol=0, atol=atol)
        if one["state"] == other["state"] == "complete":
            for name in ("skills", "block_gains", "values"):
                np.testing.assert_allclose(one[name], other[name], rtol=0, atol=atol, err_msg=name)


def ended(report):
    """The attempt at each place that counts."""
    return sorted((t for t in report["trials"] if t["state"] != "fail"), key=lambda t: t["place"])


def looks(runs):
    """How often each trial is in the ledger."""
    return collections.Counter(row["run"].rpartition("/")[2] for row in TrialLedger(runs / "ledger.db").entries())


@pytest.fixture
def events(monkeypatch):
    """What happens to a stack of several trials: joins, leaves, steps with the nets of all, and how trials end."""
    seen, real = [], TrialQueue.tell
    add, drop, step = fit.StackTraining.add, fit.StackTraining.drop, stack.Stack.take_step

    def telling(self, lease, state, *more, **options):
        seen.append((state.name, lease.place))
        return real(self, lease, state, *more, **options)

    def adding(self, job):
        add(self, job)
        seen.append(("join", len(self.jobs)))

    def dropping(self, job):
        seen.append(("leave", [net.epoch for net in job.active]))
        drop(self, job)

    monkeypatch.setattr(TrialQueue, "tell", telling)
    monkeypatch.setattr(fit.StackTraining, "add", adding)
    monkeypatch.setattr(fit.StackTraining, "drop", dropping)
    monkeypatch.setattr(stack.Stack, "take_step", lambda self: (seen.append(("step", len(self.nets))), step(self)))
    return seen


def test_a_pruned_trial_leaves_its_place_in_the_stack_to_the_next(by_stack, tmp_path, events):
    report = run_study([*STUDY, "sweep.stacked_trials=3", "n_trials=8", f"paths.runs={tmp_path}"])
    agree(report["trials"][:6], by_stack["trials"])
    assert looks(tmp_path) == {f"{place:05d}": 1 for place in range(8)}
    steps = [n for name, n in events if name == "step"]
    assert steps[0] == max(steps) == 12  # three trials of two folds under two seeds
    pruned = [t for t in report["trials"] if t["state"] == "pruned"]
    assert pruned
    for trial in pruned:
        at = events.index(("PRUNED", trial["place"]))
        before = {place for name, place in events[:at] if name == "COMPLETE"}
        step, value = trial["curve"][-1]
        finished = [dict(t["curve"]) for t in report["trials"] if t["place"] in before]
        assert len(before) >= 2
        assert value < np.median([curve[step] for curve in finished if step in curve])
    # at most four nets of one trial after another step; the places of the first pruned one are taken before the next
    first = next(k for k, (name, _) in enumerate(events) if name == "PRUNED")
    until = next(k for k, (name, _) in enumerate(events) if name == "step" and k > first)
    assert min(min(epochs) for name, epochs in events[first:until] if name == "leave") < 3, "it had epochs to go"
    assert "join" in {name for name, _ in events[first:until]}
    assert events[until][1] == 12


def test_shapes_failures_and_refusals_of_one_sweep_are_each_trials_own(tmp_path, events):
    """Two shapes, a rate at which a net fails, heads that a net refuses: every trial ends as it does one by one."""
    heads, lr = "{type:categorical,choices:[2,3,4]}", "{type:categorical,choices:[0.001,1.0]}"
    command = [
        *[o for o in NET if not o.startswith("+sweep.space")],
        f"+sweep.space={{model.net.n_heads:{heads},model.module.lr:{lr}}}",
        "sweep.sampler=random",
        "sweep.pruner=none",
        "model.module.weight_decay=100",  # at the higher rate each step makes weights 99 times larger
        "n_trials=9",
    ]
    together = run_study(
        [*command, "sweep.stacked=true", "sweep.stacked_trials=4", f"paths.runs={tmp_path / 'together'}"]
    )
    sizes = {n for name, n in events if name == "step"}
    assert max(sizes) > 2, "trials of two nets each share a stack"
    alone = run_study([*command, "sweep.stacked=false", f"paths.runs={tmp_path / 'alone'}"])
    together["trials"].sort(key=lambda t: t["place"])
    for trial in [t for report in (together, alone) for t in report["trials"] if t["failed_share"] == 1]:
        trial["curve"] = [(step, 0.0) for step, _ in trial["curve"]]  # losses that grow beyond bounds amplify rounding
    same_trials(together, alone)
    assert [t["refused"] for t in together["trials"]] == [t["refused"] for t in alone["trials"]]
    assert [t["errors"] for t in together["trials"]] == [t["errors"] for t in alone["trials"]]
    drawn = {(t["params"]["model.net.n_heads"], t["failed_share"]) for t in together["trials"]}
    assert drawn >= {(2, 0.0), (4, 0.0), (3, None)}
    assert any(share == 1 for _, share in drawn)


def test_an_interrupted_stack_of_trials_goes_on_as_one(by_stack, tmp_path, events, monkeypatch):
    """Ctrl-C between two steps gives every trial back without a death; the same command goes on with all of them."""
    command = [*STUDY[:-1], "sweep.n_startup=9", f"paths.runs={tmp_path}"]  # as many trials as fill a stack
    real = stack.Stack.take_step

    def interrupted(self):
        real(self)
        if sum(name == "step" for name, _ in events) == 6:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(stack.Stack, "take_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(command)
    assert [place for name, place in events if name == "FAIL"] == [0, 1, 2, 3]
    assert len(list(tmp_path.glob("tune/*/trials/*/fits/stacks/0/last.ckpt"))) == 4
    events.clear()
    began = []
    monkeypatch.setattr(
        stack.Stack, "take_step", lambda self: (began.append(sorted(n.step for n in self.nets)), real(self))
    )
    report = run_study(command)
    assert len(began[0]) == 16
    assert set(began[0]) == {6}
    assert {t["cause"] for t in report["trials"] if t["state"] == "fail"} == {"interrupted"}
    agree(ended(report), by_stack["trials"])
    assert looks(tmp_path) == {f"{place:05d}": 1 for place in range(6)}
    assert not list(tmp_path.rglob("*.ckpt"))


def test_trials_too_large_for_one_stack_run_one_by_one(by_stack, tmp_path, events, monkeypatch):
    real = stack.Stack.take_step

    def limited(self):
        if len(self.nets) > 4:
            raise torch.OutOfMemoryError("out of memory")
        real(self)

    monkeypatch.setattr(stack.Stack, "take_step", limited)
    report = run_study([*STUDY[:-1], "sweep.stacked_trials=2", "n_trials=2", f"paths.runs={tmp_path}"])
    agree(report["trials"], by_stack["trials"][:2])
    assert [n for name, n in events if name == "join"][:3] == [1, 2, 1]


def test_a_killed_worker_loses_none_of_the_trials_it_had_under_way(by_stack, tmp_path, events):
    """SIGKILL while three trials train as one stack: each is taken up where its nets stood, alone, and counted once."""
    command = [*STUDY, "sweep.stacked_trials=3", "trainer.checkpoint_every_steps=2", "storage_patience_seconds=5"]
    quick = ["heartbeat_seconds=1", "grace_seconds=2", "paths.runs=runs"]
    killed_with([*command, *quick], tmp_path, 3)
    began, real = [], stack.Stack.take_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack.Stack, "take_step", lambda self: (began.append([n.step for n in self.nets]), real(self)))
        with inside(tmp_path):
            report = run_study([*command, *quick])
    dead = [t for t in report["trials"] if t["state"] == "fail"]
    assert sorted(t["place"] for t in dead) == [0, 1, 2]
    assert all(len(steps) == 4 and min(steps) > 0 for steps in began[:4]), "one trial alone, from its checkpoint"
    agree(ended(report), by_stack["trials"])
    assert looks(tmp_path / "runs") == {f"{place:05d}": 1 for place in range(6)}
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_comparison_says_the_same_with_stacks_and_without(tmp_path, monkeypatch):
    chosen = variants(net=NET_VARIANT, average=AVERAGE)
    frames = {}
    for name, more in (("alone", ["study.stacked=false"]), ("stacked", ["study.stacked=true"])):
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
