"""Runs the trials of one worker, alone or several as one stack, until every slot of the study is filled."""

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Generator, Iterator

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from tradsys.core.errors import CombinationError, TrainingError, no_room
from tradsys.core.masking import masked_text
from tradsys.research.pipeline.cross_validation import PlannedFit, fits_per_stack
from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.storage import disk_full
from tradsys.research.sweeps.sweep import Joined
from tradsys.research.sweeps.trial import RefusedError, TrialFits
from tradsys.research.sweeps.trial_queue import HARMLESS, PRICE, RESULT, SHARE, WORKER, Lease

LOG = logging.getLogger(__name__)
LEAST_PAUSE, MOST_PAUSE, PAUSE_SHARE = 0.1, 2.0, 0.1  # s, s, of the time without work


def work_on(joined: Joined) -> None:
    """Runs trials until the study is over.

    Waits while others still run theirs, in case one of them dies.
    """
    worker = SideBySide(joined, n_at_once(joined))
    idle_since = None
    try:
        while True:
            if worker.run():
                idle_since = None
            elif joined.queue.is_over():
                return
            else:
                idle_since = idle_since or time.monotonic()
                time.sleep(pause(time.monotonic() - idle_since))
    except BaseException as error:
        worker.end(error)
        raise


def pause(idle_s: float) -> float:
    """Seconds until an idle worker looks for work again.

    A share of the time it has waited, so that the end of a study of short trials is noticed soon, and a long trial
    costs the storage few questions.
    """
    return min(MOST_PAUSE, max(LEAST_PAUSE, PAUSE_SHARE * idle_s))


def n_at_once(joined: Joined) -> int:
    """Number of trials this worker runs at once.

    As configured, else as many as fill a stack, up to `n_startup`.
    That many are drawn without learning from others anyway. One where nets of the study's own config are not faster as
    a stack. At most the worker's part of all trials.
    """
    runner, composed, budget = joined.runner, joined.composed, joined.queue.budget
    settings = runner.settings
    if 1 in (settings.stacked_trials, budget.n_trials) or settings.stacked is False:
        return 1
    dataset = runner.dataset(composed)
    planned = PlannedFit(composed.experiment, dataset, 0, settings.seeds[0], runner.folder / "trials")
    own = math.inf if budget.n_trials is None else math.ceil(budget.n_trials / joined.n_side_by_side)
    most = min(settings.stacked_trials or settings.n_startup, own)
    fits_of_trial = len(dataset.folds) * len(settings.seeds)
    try:
        n_fits = fits_per_stack(planned, settings.stacked, int(most * fits_of_trial))
    except TrainingError:  # each trial raises it itself
        return 1
    if n_fits == 1:
        return 1
    return int(most if settings.stacked_trials else min(most, max(1, n_fits // fits_of_trial)))


class Attempt:
    """A trial that this worker runs.

    fits: the ones it resumes with; None once it has ended. alone: without others.
    """

    def __init__(self, steps: Generator[TrialFits, None, None], *, alone: bool) -> None:
        self.steps, self.alone = steps, alone
        self.fits: TrialFits | None = next(steps, None)

    def go_on(self) -> None:
        """Runs the trial's next fit."""
        self.fits = next(self.steps, None)

    def end(self, error: BaseException) -> None:
        """Ends the trial with the error of its nets.

        Raises errors that do not belong to one trial.
        """
        with contextlib.suppress(StopIteration):
            self.steps.throw(error)
        self.fits = None


class SideBySide:
    """Up to `n_at_once` trials that run on a worker."""

    def __init__(self, joined: Joined, n_at_once: int) -> None:
        self.joined, self.n_at_once = joined, n_at_once
        self.attempts: list[Attempt] = []
        share, price = 1 / joined.n_side_by_side, joined.queue.budget.price_per_hour
        self.marks = {SHARE: share, PRICE: price, WORKER: f"{socket.gethostname()}:{os.getpid()}"}

    def run(self) -> bool:
        """Runs the longest waiting trial to its end, with those of its shape.

        False where none was available. A trial that ends leaves its place in the stack to the next one of the study.
        """
        while self._take():
            pass
        if not self.attempts:
            return False
        first = self.attempts[0]
        if first.alone or self.n_at_once == 1:
            self._run_alone(first)
            return True
        from tradsys.research.sweeps.trial_stack import TrialStack  # noqa: PLC0415 - imports torch

        stack = TrialStack(self.n_at_once)
        if not stack.add(first):
            self._run_alone(first)
            return True
        for other in self.attempts[1:]:
            stack.add(other)
        LOG.info("%d of %d trials under way train as one stack", len(stack.members), len(self.attempts))
        while stack:
            for attempt in stack.advance():
                self.attempts.remove(attempt)
            while (new := self._take()) is not None:
                stack.add(new)
        if stack.is_too_large:
            self.n_at_once = max(1, self.n_at_once // 2)
        return True

    def end(self, error: BaseException) -> None:
        """Leaves no trial running behind a worker that stops.

        One trial's error does not count against the others.
        """
        for attempt in self.attempts:
            with contextlib.suppress(BaseException):
                attempt.end(error if cause_of(error) in HARMLESS else KeyboardInterrupt())

    def _take(self) -> Attempt | None:
        """The next trial with fits to run; None where no slot is free here, or none is open in the study."""
        while len(self.attempts) < self.n_at_once and (lease := self.joined.queue.take(self.marks)) is not None:
            # a trial that took a worker down is retried alone, so that it cannot take others with it
            attempt = Attempt(_steps(self.joined, lease), alone=lease.n_died > 0)
            if attempt.fits is not None:
                self.attempts.append(attempt)
                return attempt
        return None

    def _run_alone(self, attempt: Attempt) -> None:
        while attempt.fits is not None:
            attempt.go_on()
        self.attempts.remove(attempt)


def _steps(joined: Joined, lease: Lease) -> Generator[TrialFits, None, None]:
    """Runs one trial, yielding its fits before each of them, and reports its result."""
    study, queue, runner, patience = joined.study, joined.queue, joined.runner, joined.storage.patience
    study.sampler = runner.settings.sampler_of(lease.place)
    LOG.info("trial %d%s", lease.place, f", attempt {lease.n_before + 1}" if lease.n_before else "")
    with joined.storage.alive(lease.trial_id), _ended(joined, lease):
        trial = patience(lambda: Trial(study, lease.trial_id))
        try:
            score = yield from runner.run(trial, lease)
        except optuna.TrialPruned:
            reported = queue.tell(lease, TrialState.PRUNED)
        except (RefusedError, CombinationError) as error:
            reason = masked_text(str(error))
            patience(lambda: trial.set_user_attr("refused", reason))
            LOG.warning("trial %d is impossible: %s", lease.place, error)
            reported = queue.tell(lease, TrialState.PRUNED)
        except UpdateFinishedTrialError:
            reported = False
        else:
            patience(lambda: trial.set_user_attr(RESULT, score.attributes))
            reported = queue.tell(lease, TrialState.COMPLETE, score.values)
    if reported:
        runner.clean(lease)
    else:
        LOG.warning("trial %d was taken over by another worker; its result counts there", lease.place)


@contextlib.contextmanager
def _ended(joined: Joined, lease: Lease) -> Iterator[None]:
    """Leaves no trial running behind a worker that stops, as far as the storage still answers."""
    try:
        yield
    except BaseException as error:
        cause = cause_of(error)
        if cause != "storage":
            with contextlib.suppress(SweepError):
                joined.queue.tell(lease, TrialState.FAIL, cause=cause)
        refused = None if isinstance(error, SweepError) else no_room(error, "the study")
        if refused is not None:
            raise disk_full(refused, "a trial's folder") from error
        raise


def cause_of(error: BaseException) -> str:
    """Cause of a worker's end, as stored in the study."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted"
    if no_room(error, "the study") is not None:
        return "disk full"
    return (
        "storage"
        if isinstance(error, SweepError) and "cannot be reached" in str(error)
        else masked_text(f"error: {error}")[:500]
    )
