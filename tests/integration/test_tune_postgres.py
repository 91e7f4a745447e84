"""Three workers on a PostgreSQL study, one killed every few seconds: nothing lost, nothing done twice, the same best.

The workers are real processes, forked from one that has imported everything, so that a killed one is back at once.
"""

import collections
import json
import os
import random
import signal
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from tests.forks import forks
from tests.integration.test_tune import NET, run_study
from tradsys.research.pipeline.trial_ledger import TrialLedger
from tradsys.research.sweeps.storage import open_storage
from tradsys.research.sweeps.trial_queue import attributes_of

N_TRIALS, N_WORKERS, N_KILLS = 6, 3, 4
SETTINGS = [
    *NET,
    "study=killed",
    f"n_trials={N_TRIALS}",
    "max_retries=20",
    "sweep.sampler=random",
    "sweep.pruner=none",
    "trainer.max_epochs=6",
    "trainer.patience=6",
    "heartbeat_seconds=1",
    "grace_seconds=8",
]


def read(path):
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def at_work(study):
    """Places under way, by the process that has them."""
    out = collections.defaultdict(list)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if "worker" in trial.user_attrs:
            out[int(trial.user_attrs["worker"].rpartition(":")[2])].append(trial.user_attrs["place"])
    return out


def stack_in_the_middle(runs, pid, places):
    """Whether a trial of that process is in a stack and has a checkpoint of it."""
    return any(any(runs.glob(f"tune/killed/trials/{k:05d}/fits/stacks/*/last.ckpt")) for k in places)


def in_the_middle(runs, pid, places):
    """Whether that process is fitting a net whose checkpoint holds an epoch; the one at the start does not."""
    for attempts in runs.glob("tune/killed/trials/*/fits/*/attempts.jsonl"):
        fit, tries = attempts.parent, read(attempts)
        if tries and tries[-1]["pid"] == pid and not (fit / "fit.json").exists():
            return (fit / "epochs.jsonl").exists()  # written after the checkpoint that holds the epoch
    return False


def loaded(place):
    storage = open_storage(place, heartbeat=1, grace=8, patience_seconds=30)
    return optuna.load_study(study_name="killed", storage=storage.storage)


def disturbed(place, arguments, runs, seed, n_kills=N_KILLS, middle=in_the_middle):
    """Runs the workers to the end of the study, some of them killed; returns how many, and those with a checkpoint.

    Every other kill comes at any moment of a trial, the rest in the `middle` of one, where it has a checkpoint: the
    victim is stopped first, so that nothing changes between the look and the kill.
    """
    rng, kills, aimed, alive = random.Random(seed), 0, set(), []

    def start():
        alive.append(forks().start(["-m", "tradsys.tune", *arguments]))

    for _ in range(N_WORKERS):
        start()
    study, due, deadline = None, 0.0, time.monotonic() + 420
    try:
        while alive and time.monotonic() < deadline:
            time.sleep(0.1)
            for process in [p for p in alive if p.poll() is not None]:
                alive.remove(process)
                if process.returncode == -signal.SIGKILL:
                    start()
                else:
                    assert process.returncode == 0, process.communicate()[1]
            try:
                study = study or loaded(place)
                under_way = at_work(study)
                busy = [p for p in alive if p.pid in under_way]
            except KeyError:  # the first worker has not made the study yet
                continue
            if busy and kills < n_kills and time.monotonic() > due:
                victim = rng.choice(busy).pid
                os.kill(victim, signal.SIGSTOP)
                places = at_work(study).get(victim, [])  # one of them may have ended since the look
                begun = bool(places) and middle(runs, victim, places)
                if kills % 2 and not begun:
                    os.kill(victim, signal.SIGCONT)
                    continue
                os.kill(victim, signal.SIGKILL)
                aimed |= {victim} if begun else set()
                kills, due = kills + 1, time.monotonic() + rng.uniform(1, 3)
    finally:
        for process in alive:
            process.kill()
    assert not alive, "the study did not end in time"
    return kills, aimed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the study finds fit by fit in one process that nothing disturbs."""
    return run_study([*SETTINGS, "sweep.stacked=false", f"paths.runs={tmp_path_factory.mktemp('undisturbed')}"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_workers_lose_nothing_and_double_nothing(url, tmp_path, undisturbed):
    theirs, settings = tmp_path / "disturbed", [*SETTINGS, "sweep.stacked=false"]
    kills, begun = disturbed(url, [*settings, f"paths.runs={theirs}", f"storage={url}"], theirs, seed=1)
    assert kills == N_KILLS
    assert len(begun) >= N_KILLS // 2
    study = loaded(url)
    done = [t for t in study.get_trials() if t.state == TrialState.COMPLETE]
    assert sorted(t.user_attrs["place"] for t in done) == list(range(N_TRIALS))
    assert {t.state for t in study.get_trials()} <= {TrialState.COMPLETE, TrialState.FAIL}
    deaths = [t for t in study.get_trials() if t.state == TrialState.FAIL and t.user_attrs.get("cause") != "surplus"]
    assert 1 <= len(deaths) <= N_KILLS  # a worker may die between two trials

    same_study(done, undisturbed, theirs)
    best = max(done, key=lambda t: (attributes_of(t)["lower_bound"], -t.user_attrs["place"]))
    assert best.user_attrs["place"] == undisturbed["best"]

    fits = sorted(theirs.glob("tune/killed/trials/*/fits/fold_*"))
    assert len(fits) == 2 * N_TRIALS
    assert begun == set().union(*(_resumed(fit, begun) for fit in fits))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_workers_lose_none_of_the_trials_of_their_stacks(url, tmp_path, undisturbed):
    """Each kill ends up to three trials of two shapes at once; every one ends as fit by fit, and counts once."""
    theirs = tmp_path / "disturbed"
    arguments = [*SETTINGS, "sweep.stacked=true", "sweep.stacked_trials=3", f"paths.runs={theirs}", f"storage={url}"]
    kills, begun = disturbed(url, arguments, theirs, seed=1, n_kills=2, middle=stack_in_the_middle)
    assert kills == 2
    assert begun
    study = loaded(url)
    done = [t for t in study.get_trials() if t.state == TrialState.COMPLETE]
    assert sorted(t.user_attrs["place"] for t in done) == list(range(N_TRIALS))
    assert {t.state for t in study.get_trials()} <= {TrialState.COMPLETE, TrialState.FAIL}
    same_study(done, undisturbed, theirs, atol=1e-5)
    attempts = [each for path in theirs.rglob("attempts.jsonl") for each in read(path)]
    assert any(each["epochs"] for each in attempts)


def same_study(done, report, runs, atol=0.0):
    """Trials, values and evaluations of a study that was disturbed are those of one that was not."""
    ours = {t["place"]: t for t in report["trials"]}
    for trial in done:
        same = ours[trial.user_attrs["place"]]
        assert trial.params == same["params"]
        np.testing.assert_allclose(trial.values, same["values"], rtol=0, atol=atol)
        np.testing.assert_allclose(attributes_of(trial)["skills"], same["skills"], rtol=0, atol=atol)
    looks = collections.Counter(row["run"] for row in TrialLedger(runs / "ledger.db").entries())
    assert looks == {str(runs / "tune/killed/trials" / f"{k:05d}"): 1 for k in range(N_TRIALS)}


def _resumed(fit: Path, begun):
    """Which of these processes left the fit to another; each attempt starts at or after the last epoch reported."""
    reported = read(fit / "epochs.jsonl")
    assert [line["epoch"] for line in reported] == sorted({line["epoch"] for line in reported})
    attempts = read(fit / "attempts.jsonl")
    for k, attempt in enumerate(attempts):
        before = {a["pid"] for a in attempts[:k]}
        assert attempt["epochs"] >= sum(line["pid"] in before for line in reported)
    left = {one["pid"]: then["epochs"] for one, then in pairwise(attempts) if one["pid"] in begun}
    assert all(left.values()), "a fit with a checkpoint began again"
    return set(left)
