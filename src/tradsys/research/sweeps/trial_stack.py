"""Trials whose nets train as one stack: each joins and leaves independently, as its nets are done."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from tradsys.core.errors import TrainingError
from tradsys.models.training.stacks.fit import StackJob, StackTraining
from tradsys.models.training.stacks.net import StackNet
from tradsys.models.training.stacks.together import Made, nets_to_train, shape_of
from tradsys.research.pipeline.cross_validation import SharedSamples, StackedFits
from tradsys.research.sweeps.side_by_side import Attempt

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Member:
    """A trial in the stack.

    plan: of its fits. nets: still to train, with the fit of each.
    """

    attempt: Attempt
    plan: StackedFits
    job: StackJob
    nets: Sequence[tuple[int, StackNet]]

    def go_on(self) -> None:
        """Runs the fits whose nets are done, or failed and are left to their own fits."""
        while (fits := self.attempt.fits) is not None:
            if any(k == fits.due and net in self.job.active for k, net in self.nets):
                return
            self.attempt.go_on()


class TrialStack:
    """Trials of one shape that use the same samples.

    The first one determines the shape. n_trials: that it holds at once. A trial's nets fill the folders of its fits,
    which then load them, as `StackedFits` does for one trial. While the stack trains, the first fit's first net is
    reported, the other fits as they come: a trial that is pruned leaves. is_too_large: for the memory of the device, so
    that its trials have to run alone.
    """

    def __init__(self, n_trials: int) -> None:
        self.shared = SharedSamples(Made(), n_trials)
        self.members: dict[StackJob, Member] = {}
        self.reads = self.shape = ""
        self.training: StackTraining | None = None
        self.is_too_large = False

    def __bool__(self) -> bool:
        return bool(self.members)

    def add(self, attempt: Attempt) -> bool:
        """Whether the trial is in the stack now.

        It is of another shape, or cannot or need not be stacked otherwise.
        """
        fits = attempt.fits
        if fits is None or attempt.alone or (self.reads and fits.reads != self.reads):
            return False
        plan = fits.ahead.plan(self.shared)
        try:
            return self._join(attempt, plan)
        except TrainingError as error:  # its own fits raise it again, or succeed
            LOG.info("a trial's nets are trained without those of others: %s", error)
            return False
        except torch.OutOfMemoryError as error:
            self._give_up(error)
            return False
        finally:
            if fits.ahead.stacks is not plan:
                self.shared.made.forget([net for _, net in plan.fits])

    def advance(self) -> list[Attempt]:
        """Trains until nets of some trial end, and runs their fits.

        Returns the trials that ended.
        """
        assert self.training is not None
        began = perf_counter()
        try:
            news = self.training.advance()
        except torch.OutOfMemoryError as error:
            self._give_up(error)
            return []
        share = (perf_counter() - began) / len(self.members)
        for member in self.members.values():
            member.plan.seconds[member.attempt.fits.due] += share  # type: ignore[union-attr]
        for job, ending in news:
            if ending is None:
                self.members[job].go_on()
            else:
                self.members[job].attempt.end(ending)
        return [self._leave(member) for member in list(self.members.values()) if member.attempt.fits is None]

    def _join(self, attempt: Attempt, plan: StackedFits) -> bool:
        assert attempt.fits is not None
        nets = [net for _, net in plan.fits]
        if plan.stacks != [list(range(len(nets)))]:
            return False
        shape = shape_of(nets[0])
        todo = [(k, net) for k, net in plan.fits if not plan.planned[k].is_done]
        made = nets_to_train([net for _, net in todo], self.shared.made)
        if not made or shape != (self.shape or shape):
            return False
        job = StackJob(list(made.values()), plan.folder / "0", strict=False)
        training = self.training or StackTraining(job.nets[0])
        training.add(job)
        self.training, self.shape, self.reads = training, shape, attempt.fits.reads
        self.members[job] = Member(attempt, plan, job, [(todo[place][0], net) for place, net in made.items()])
        plan.done.add(0)  # trained here
        attempt.fits.ahead.follow(plan)
        return True

    def _leave(self, member: Member) -> Attempt:
        assert self.training is not None
        del self.members[member.job]
        self.training.drop(member.job)
        self.shared.made.forget([net for _, net in member.plan.fits])
        return member.attempt

    def _give_up(self, error: Exception) -> None:
        LOG.warning("%d trials are too large for one stack and run one by one: %s", len(self.members), error)
        for member in self.members.values():
            member.attempt.alone = True
            member.attempt.fits.ahead.stacks = None  # type: ignore[union-attr]
        self.members.clear()
        self.is_too_large = True
