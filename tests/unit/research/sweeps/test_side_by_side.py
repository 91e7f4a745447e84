"""Trials that one worker has under way at once, on a real queue: whose ending is whose."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler

from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.side_by_side import SideBySide, n_at_once, pause, work_on
from tradsys.research.sweeps.storage import open_storage
from tradsys.research.sweeps.trial import Score
from tradsys.research.sweeps.trial_queue import Budget, TrialQueue

N_FITS = 2


class Fits:
    """Fits of a trial that end at once, or by the error of their place."""

    def __init__(self, place, ending):
        self.place, self.ending, self.due = place, ending, 0

    def run_next(self):
        self.due += 1
        if self.ending is not None:
            raise self.ending


@pytest.fixture
def make_worker(tmp_path):
    def make(endings=(), n_at_once=3, n_trials=3, max_retries=3):
        """A worker whose trials of these places end so, in place of a score."""
        storage = open_storage(f"sqlite:///{tmp_path}/study.db", heartbeat=1, grace=2, patience_seconds=1)
        study = optuna.create_study(study_name="s", storage=storage.storage, direction="maximize", load_if_exists=True)

        def run(trial, lease):
            fits = Fits(lease.place, dict(endings).get(lease.place))
            while fits.due < N_FITS:
                yield fits
                fits.run_next()
            return Score((float(lease.place),), {})

        runner = SimpleNamespace(
            run=run,
            clean=lambda lease: None,
            settings=SimpleNamespace(sampler_of=lambda place: RandomSampler(seed=place)),
        )
        beating = set()

        @contextlib.contextmanager
        def alive(trial_id):
            beating.add(trial_id)
            try:
                yield
            finally:
                beating.remove(trial_id)

        queue = TrialQueue(study, storage, Budget(n_trials), max_retries)
        joined = SimpleNamespace(
            study=study,
            queue=queue,
            runner=runner,
            n_side_by_side=1,
            storage=SimpleNamespace(alive=alive, patience=storage.patience),
        )
        worker = SideBySide(joined, n_at_once)
        worker.beating = beating
        return worker

    return make


@pytest.mark.parametrize(
    ("n_fits", "asked", "n_trials", "n_workers", "n"),
    [
        (16, None, 50, 1, 4),  # trials of four fits, sixteen of which fill a stack
        (32, None, None, 1, 8),
        (64, None, 50, 1, 10),  # as many as are tried before anything is learned
        (64, 16, 50, 1, 16),
        (3, None, 50, 1, 1),
        (1, 16, 50, 1, 1),  # nets that gain nothing
        (16, 1, 50, 1, 1),
        (16, None, 6, 2, 3),  # the other half is the other worker's
    ],
)
def test_a_worker_takes_as_many_trials_as_fill_a_stack(monkeypatch, n_fits, asked, n_trials, n_workers, n):
    monkeypatch.setattr("tradsys.research.sweeps.side_by_side.fits_per_stack", lambda planned, stacked, most: n_fits)
    settings = SimpleNamespace(stacked=None, stacked_trials=asked, seeds=(1, 2), n_startup=10)
    runner = SimpleNamespace(settings=settings, folder=Path(), dataset=lambda _: SimpleNamespace(folds=("a", "b")))
    queue = SimpleNamespace(budget=Budget(n_trials, hours=1.0))
    composed = SimpleNamespace(experiment=None)
    joined = SimpleNamespace(runner=runner, composed=composed, queue=queue, n_side_by_side=n_workers)
    assert n_at_once(joined) == n


def taken(worker):
    while worker._take():
        pass
    return worker.attempts


def states(worker):
    return [(t.user_attrs["place"], t.state.name, t.user_attrs.get("cause")) for t in worker.joined.queue.trials()]


def test_all_trials_that_a_worker_took_beat_until_each_has_ended(make_worker):
    worker = make_worker(n_trials=4)
    first, second, third = taken(worker)
    assert len(worker.beating) == 3
    while second.fits:
        second.go_on()
    assert len(worker.beating) == 2
    assert worker._take() is None, "its place is free once the worker lets go of it"
    worker.attempts.remove(second)
    assert worker._take().fits.place == 3
    assert worker._take() is None
    third.end(optuna.TrialPruned())
    assert third.fits is None
    assert [state for _, state, _ in states(worker)] == ["RUNNING", "COMPLETE", "PRUNED", "RUNNING"]
    assert first.fits.due == 0


def test_an_error_of_one_trial_is_no_death_of_those_beside_it(make_worker):
    worker = make_worker({1: RuntimeError("boom")}, n_trials=4)
    with pytest.raises(RuntimeError) as stopped:
        taken(worker)[1].go_on()
    worker.end(stopped.value)
    assert states(worker) == [(0, "FAIL", "interrupted"), (1, "FAIL", "error: boom"), (2, "FAIL", "interrupted")]
    assert not worker.beating
    # what may have taken the worker down takes nothing down with it again
    again = {attempt.fits.place: attempt.alone for attempt in taken(make_worker(n_trials=4))}
    assert again == {0: False, 1: True, 2: False}


def test_a_storage_that_is_away_is_not_asked_once_for_every_trial(make_worker):
    gone = SweepError("sweep: storage x cannot be reached for 1 s")
    worker = make_worker({0: gone})
    with pytest.raises(SweepError):
        taken(worker)[0].go_on()
    worker.end(gone)
    assert {state for _, state, _ in states(worker)} == {"RUNNING"}  # until their heartbeats are missed
    assert not worker.beating


def test_a_trial_that_another_worker_took_over_ends_without_the_others(make_worker):
    worker = make_worker({0: UpdateFinishedTrialError()})
    first, *others = taken(worker)
    first.go_on()
    assert first.fits is None
    assert all(other.fits for other in others)


def test_one_place_runs_one_trial_after_another(make_worker):
    worker = make_worker(n_at_once=1)
    while worker.run():
        assert not worker.attempts
    assert states(worker) == [(place, "COMPLETE", None) for place in range(3)]


def test_an_idle_worker_asks_often_at_first_and_then_as_seldom_as_it_has_waited():
    assert [pause(idle_s) for idle_s in (0.0, 0.5, 5.0, 20.0, 1e6)] == [0.1, 0.1, 0.5, 2.0, 2.0]


def test_a_worker_without_work_waits_for_the_trials_of_others(make_worker, monkeypatch):
    worker, other = make_worker(n_trials=1), make_worker(n_trials=1)
    lease = other.joined.queue.take({})
    pauses, clock = [], [0.0]

    def sleep(seconds):
        pauses.append(seconds)
        clock[0] += seconds
        if len(pauses) == 3:
            other.joined.queue.tell(lease, optuna.trial.TrialState.COMPLETE, [0.5])

    monkeypatch.setattr("tradsys.research.sweeps.side_by_side.SideBySide", lambda joined, n: worker)
    monkeypatch.setattr("tradsys.research.sweeps.side_by_side.n_at_once", lambda joined: 1)
    monkeypatch.setattr(
        "tradsys.research.sweeps.side_by_side.time", SimpleNamespace(sleep=sleep, monotonic=lambda: 7.0 + clock[0])
    )
    work_on(worker.joined)
    assert pauses == [0.1, 0.1, 0.1]
    assert [t.values for t in worker.joined.queue.trials()] == [[0.5]]
