"""Assigns trials to free workers: every slot of the study is filled once, even if workers die.

A study of n trials has slots 0..n-1. Optuna's trials are attempts at a slot: one that died is followed by another of
the same parameters. Of several attempts that workers added at one moment the lowest number counts, since all workers
see numbers in the same order; so no lock is needed, and nothing can be lost or done twice.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from tradsys.core.plain_data import Json
from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.storage import StudyStorage

LOG = logging.getLogger(__name__)
PLACE, CAUSE, DRAWN = "place", "cause", "drawn"
SHARE, PRICE, WORKER = "share_of_machine", "price_per_hour", "worker"
CURVE = "curve"  # of a result: step and value of the reports that no pruner read
RESULT = "result"  # what a finished trial measured, one attribute: a database stores each in a transaction of its own
# causes of a FAIL that leave the slot open without counting as a death
HARMLESS = ("surplus", "interrupted", "disk full", "storage")
# slots given up before the sweep itself is
MOST_LOST = 10


@dataclass(frozen=True)
class Budget:
    """Limits after which no further trial starts: n_trials, machine hours, or money.

    None for no limit. An hour of a machine that runs k trials at once counts once. A running trial is finished.
    """

    n_trials: int | None = None
    hours: float | None = None
    money: float | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in ("n_trials", "hours", "money")}
        if all(value is None for value in limits.values()):
            raise SweepError("sweep: no budget; a study must end; give n_trials, hours, or money and price_per_hour")
        for name, value in limits.items():
            if value is not None and not value > 0:
                raise SweepError(f"sweep: {name}={value}; a budget is above 0; give another or null")
        if self.price_per_hour is not None and not self.price_per_hour > 0:
            raise SweepError(f"sweep: price_per_hour={self.price_per_hour}; a price is above 0; give another or null")
        if self.money is not None and not (self.price_per_hour or 0) > 0:
            raise SweepError(
                f"sweep: money={self.money} with price_per_hour={self.price_per_hour}; hours need a price; give "
                "price_per_hour"
            )

    def is_spent(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether time or money is used up by what ended and what runs."""
        hours, money = spent(trials)
        return (self.hours is not None and hours >= self.hours) or (self.money is not None and money >= self.money)


def spent(trials: Sequence[FrozenTrial]) -> tuple[float, float]:
    """Machine hours and money of all attempts so far, the ones that died included.

    Trials that one worker runs at once, their nets in one stack, count as one.
    """
    hours = money = 0.0
    busy: dict[Any, datetime] = {}  # until when each worker is counted
    started = [(t.datetime_start, t) for t in trials if t.datetime_start is not None and SHARE in t.user_attrs]
    for start, trial in sorted(started, key=itemgetter(0)):
        worker = trial.user_attrs.get(WORKER, trial.number)
        until = trial.datetime_complete or datetime.now()
        since = max(start, busy.get(worker, start))
        its = max(0.0, (until - since).total_seconds()) / 3600 * trial.user_attrs[SHARE]
        busy[worker] = max(since, until)
        hours += its
        money += its * (trial.user_attrs.get(PRICE) or 0.0)
    return hours, money


def attributes_of(trial: FrozenTrial) -> Json:
    """A trial's user attributes, and each figure of its result by name."""
    return {**trial.user_attrs.get(RESULT, {}), **trial.user_attrs}


@dataclass(frozen=True)
class Lease:
    """A trial leased by this worker.

    n_before: attempts at its slot that died or were stopped; n_died: that died.
    """

    place: int
    trial_id: int
    n_before: int
    n_died: int = 0


@dataclass(frozen=True, eq=False)
class TrialQueue:
    """The slots of one study.

    max_retries: further attempts at a slot after a worker died over it.
    """

    study: optuna.Study
    storage: StudyStorage
    budget: Budget
    max_retries: int

    def trials(self) -> list[FrozenTrial]:
        """All attempts of the study, by number."""
        return self.storage.patience(lambda: self.study.get_trials(deepcopy=False))

    def take(self, marks: Mapping[str, Any]) -> Lease | None:
        """The lowest open slot as a running trial with these user attributes.

        None where nothing is open now.
        """
        self.storage.patience(lambda: self.storage.fail_dead_trials(self.study))
        while True:
            trials = self.trials()
            waiting = [t for t in trials if t.state == TrialState.WAITING]
            for trial in waiting:
                if (lease := self._lease(trial._trial_id, trial.user_attrs, marks)) is not None:
                    return lease
            if waiting:
                continue  # others took them all, or they were surplus; look again
            place = self._open_place(trials)
            if place is None:
                return None
            added = self._add(place, trials, marks)
            if (lease := self._lease(added, {PLACE: place, **marks}, marks)) is not None:
                return lease

    def is_over(self) -> bool:
        """Whether every slot is filled or given up, and nothing runs that could still die."""
        trials = self.trials()
        active = [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
        return not active and self._open_place(trials) is None

    def tell(self, lease: Lease, state: TrialState, values: Sequence[float] | None = None, cause: str = "") -> bool:
        """Ends the trial; False where another worker had marked it as dead.

        Its result then does not count.
        """

        def end() -> bool:
            storage = self.storage.storage
            if cause:
                storage.set_trial_user_attr(lease.trial_id, CAUSE, cause)
            if state != TrialState.PRUNED:
                return storage.set_trial_state_values(lease.trial_id, state, values)
            trial = storage.get_trial(lease.trial_id)
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=state)  # with the value that it reported last
            return trial.state == TrialState.RUNNING

        try:
            return self.storage.patience(end)
        except UpdateFinishedTrialError:
            return False

    def _lease(self, trial_id: int, has: Mapping[str, Any], marks: Mapping[str, Any]) -> Lease | None:
        """The waiting trial, now running here, with these marks; None where it is another's. has: its attributes."""
        place, storage = has.get(PLACE), self.storage.storage

        def run() -> bool:
            # the heartbeat comes first: a running trial without one could never be detected as dead
            self.storage.beat(trial_id, 0)
            if not storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                return False
            for name, value in marks.items():
                if name not in has or has[name] != value:
                    storage.set_trial_user_attr(trial_id, name, value)
            return True

        try:
            if not self.storage.patience(run):
                return None
        except UpdateFinishedTrialError:
            return None
        lease = Lease(-1 if place is None else place, trial_id, 0)
        same = [t for t in self.trials() if t.user_attrs.get(PLACE) == place]
        first = next(t for t in same if t.state != TrialState.FAIL or t._trial_id == trial_id)
        if place is None or first._trial_id != trial_id:
            self.tell(lease, TrialState.FAIL, cause="surplus")
            return None
        ended = [t for t in same if t.state == TrialState.FAIL and t.user_attrs.get(CAUSE) != "surplus"]
        return Lease(place, trial_id, len(ended), _n_died(ended))

    def _open_place(self, trials: Sequence[FrozenTrial]) -> int | None:
        """The lowest slot without a live attempt, inside the budget. SweepError where too many were given up."""
        by_place: dict[int, list[FrozenTrial]] = {}
        for trial in trials:
            if PLACE in trial.user_attrs:
                by_place.setdefault(trial.user_attrs[PLACE], []).append(trial)
        lost = {p for p, attempts in by_place.items() if self._is_lost(attempts)}
        if len(lost) > MOST_LOST:
            raise SweepError(
                f"sweep: {len(lost)} trials died {self.max_retries + 1} times each (places {sorted(lost)[:5]}, ...); "
                "something ends their workers, such as memory; see log.txt in their folders"
            )
        most = math.inf if self.budget.n_trials is None else self.budget.n_trials + len(lost)
        place = 0
        while place < most:
            attempts = by_place.get(place, [])
            if place not in lost and all(t.state == TrialState.FAIL for t in attempts):
                # a slot that was begun is ended, a new one needs room in the budget
                return place if attempts or not self.budget.is_spent(trials) else None
            place += 1
        return None

    def _is_lost(self, attempts: Sequence[FrozenTrial]) -> bool:
        if any(t.state != TrialState.FAIL for t in attempts):
            return False
        return _n_died(attempts) > self.max_retries

    def _add(self, place: int, trials: Sequence[FrozenTrial], marks: Mapping[str, Any]) -> int:
        """Adds a waiting attempt at the slot, with the parameters of the previous one; returns its id.

        marks: of the worker that adds it, and hardly ever does another take it.
        """
        before = [t for t in trials if t.user_attrs.get(PLACE) == place and t.user_attrs.get(DRAWN)]
        params, distributions = (before[-1].params, before[-1].distributions) if before else ({}, {})
        if before:
            LOG.info("trial %d died; it goes on from its last checkpoint", place)
        again = create_trial(
            state=TrialState.WAITING,
            params=params,
            distributions=distributions,
            user_attrs={PLACE: place, **marks} | ({DRAWN: True} if before else {}),
        )
        # as `study.add_trial`, which returns no id
        return self.storage.patience(lambda: self.storage.storage.create_new_trial(self.study._study_id, again))


def _n_died(failed: Sequence[FrozenTrial]) -> int:
    """Number of these attempts that took their worker down, or ended in an error."""
    return sum(t.user_attrs.get(CAUSE) not in HARMLESS for t in failed)
