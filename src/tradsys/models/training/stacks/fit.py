"""Trains the nets of a stack, job by job: saved as they end, resumed after a kill."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import vector_to_parameters

from tradsys.core.errors import CheckpointError, TrainingError
from tradsys.core.progress.stages import Pace
from tradsys.core.received import refused_in_one_line
from tradsys.core.runs import written_atomically
from tradsys.models.training.checkpoints import FIX, read_checkpoint
from tradsys.models.training.fitting import FitResult, read_finished, write_finished
from tradsys.models.training.stacks.net import StackNet
from tradsys.models.training.stacks.stack import Stack, without_batching_remarks
from tradsys.models.training.surroundings import determinism, interruptible, one_thread_if_small

LOG = logging.getLogger(__name__)
LAST = "last.ckpt"


@dataclass(eq=False)
class StackJob:
    """Nets that end together for their owner.

    The seeds of an average, or all fits of a trial. folder: takes last.ckpt of the unfinished ones; None saves nothing.
    strict: whether a failed net ends the job with TrainingError; else it is left out, with `failed` set, and the others
    continue.
    """

    nets: Sequence[StackNet]
    folder: Path | None = None
    strict: bool = True
    active: list[StackNet] = field(init=False, default_factory=list)
    saved_at: int = field(init=False, default=0)


def fit_stack(jobs: Sequence[StackJob]) -> None:
    """Trains the nets in place.

    Each ends on the CPU with its kept epoch's weights, in eval mode. A job resumes from its last.ckpt, net by net by
    fingerprint; TrainingError where it is strict and none matches. A watch's exception, or a failed net in a strict
    job, is raised after all jobs are saved. Ctrl-C and SIGTERM stop between two steps, after all jobs are saved.
    """
    training = StackTraining(jobs[0].nets[0])
    for job in jobs:
        training.add(job)
    while training.jobs or training.news:
        for _, error in training.advance():
            if error is not None:
                training.save()
                raise error


class StackTraining:
    """A stack and the jobs that own its rows.

    Jobs may join and leave whenever it does not train. first: a net of the common shape. news: jobs with nets that
    ended, until `advance` returns them.
    """

    def __init__(self, first: StackNet) -> None:
        self.stack, self.settings = Stack(first), first.settings
        self.jobs: list[StackJob] = []
        self.news: list[tuple[StackJob, Exception | None]] = []
        self.ticks, self.pace = 0, Pace()

    def add(self, job: StackJob) -> None:
        """Adds a job, whose nets train from here on.

        Raises TrainingError, without a change, if its last.ckpt is unusable.
        """
        saved = _saved(job)
        fresh = [net for net in job.nets if net.fingerprint not in saved]
        going = [net for net in job.nets if net.fingerprint in saved]
        try:
            with refused_in_one_line(f"training: checkpoint {(job.folder or Path()) / LAST}", FIX, CheckpointError):
                self.stack.admit(going, [saved[net.fingerprint] for net in going])
        except TrainingError:
            self.stack.drop([net for net in going if net in self.stack.nets])
            raise
        self.stack.admit(fresh)
        job.active, job.saved_at = [*fresh, *going], self.ticks
        self.jobs.append(job)
        self._settle(job, {net: range(net.epoch) for net in going})

    def drop(self, job: StackJob) -> None:
        """Removes the job's unfinished nets as they are."""
        self.stack.drop(job.active)
        job.active = []
        if job in self.jobs:
            self.jobs.remove(job)

    def advance(self) -> list[tuple[StackJob, Exception | None]]:
        """Trains until nets end.

        Returns their jobs, each with its watch's exception, or a failed net's where strict. Nets that are done or
        failed leave their job's `active`; a job without any leaves the stack. A job with an error stays until it is
        dropped.
        """
        if self.jobs and not self.news:
            with self._surroundings() as stop_requested:
                while self.jobs and not self.news:
                    self._take_step()
                    if stop_requested.is_set():
                        self.save()
                        raise KeyboardInterrupt
        news, self.news = self.news, []
        return news

    def save(self) -> None:
        """Writes every job's last.ckpt."""
        for job in self.jobs:
            self._save(job)

    def _take_step(self) -> None:
        self.stack.take_step()
        self.ticks += 1
        ended = self.stack.end_epochs()
        for job in list(self.jobs):
            own = [net for net in ended if net in job.active]
            every = self.settings.checkpoint_every_steps
            is_due = own and self.ticks - job.saved_at >= min(len(net.train) for net in job.active)
            if is_due or (every and self.ticks % every == 0):
                self._save(job)
            if own or any(net.failed is not None for net in job.active):
                self._settle(job, {net: [net.epoch - 1] for net in own})
        if ended and self.jobs and self.settings.progress_bar and self.pace.is_due():
            LOG.info("%d nets at work, the first at epoch %d", len(self.stack.nets), self.stack.nets[0].epoch)

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[Any]:
        first = self.stack.nets[0]
        n_bars = len(self.stack.nets) * first.train.batch_size * first.train.lookback
        with (
            interruptible() as stop_requested,
            without_batching_remarks(),
            determinism(self.settings.deterministic),
            one_thread_if_small(first.module.net, n_bars, first.train.device),
        ):
            if self.settings.deterministic:
                torch.use_deterministic_algorithms(True)
            yield stop_requested

    def _settle(self, job: StackJob, ended: Mapping[StackNet, Iterable[int]]) -> None:
        """Reports ended epochs to watches; removes nets that are done or failed, and the job with its last one."""
        try:
            for net, epochs in ended.items():
                for epoch in epochs if net.watch is not None else ():
                    net.watch(epoch, net.scores[epoch])  # type: ignore[misc]
            over = self._let_go(job)
        except Exception as error:
            self.news.append((job, error))
            return
        if over:
            self.news.append((job, None))

    def _let_go(self, job: StackJob) -> list[StackNet]:
        failed = [net for net in job.active if net.failed is not None]
        done = [net for net in job.active if net.failed is None and net.is_done]
        if failed and job.strict:
            raise TrainingError(reason(job, failed[0]))
        if failed or done:
            self.stack.drop([*failed, *done])
            job.active = [net for net in job.active if net not in failed and net not in done]
        for net in done:
            finish(net)
        if not job.active:
            self.jobs.remove(job)
        return [*failed, *done]

    def _save(self, job: StackJob) -> None:
        self.stack.check_finite()
        kept = [net for net in job.active if net.failed is None]
        job.saved_at = self.ticks
        if job.folder is None or not kept:
            return
        job.folder.mkdir(parents=True, exist_ok=True)
        states = {net.fingerprint: self.stack.state_of(net) for net in kept}
        with written_atomically(job.folder / LAST) as draft:
            torch.save({"state_dict": states}, draft)


def result_of(net: StackNet) -> FitResult:
    """Result of a net's fit. Raises TrainingError where no epoch can be kept."""
    if (best := net.settings.selection.best_epoch(net.scores)) is None:
        raise TrainingError(f"training: no epoch ended with a finite log-loss; {FIX}")
    return FitResult(best, len(net.scores), net.scores[best], tuple(net.scores))


def finish(net: StackNet) -> None:
    """Puts the kept weights into the module, and both into the net's folder."""
    assert net.best_P is not None
    result = result_of(net)
    vector_to_parameters(net.best_P, net.module.net.parameters())
    net.module.weight_C.copy_(net.weight_C)
    net.module.cpu().float().eval()
    if net.workdir is not None:
        net.workdir.mkdir(parents=True, exist_ok=True)
        state = {"fingerprint": net.fingerprint, "epoch": result.best_epoch, "valid_logloss": result.score}
        with written_atomically(net.workdir / "best.ckpt") as draft:
            torch.save(state | {"state_dict": net.module.state_dict()}, draft)
        write_finished(net.workdir, net.fingerprint, result)


def load_finished(net: StackNet) -> bool:
    """Whether the net's folder holds its finished fit.

    If so, loads the kept weights into the module.
    """
    if net.workdir is None or (done := read_finished(net.workdir, net.fingerprint)) is None:
        return False
    path = net.workdir / "best.ckpt"
    with refused_in_one_line(f"training: checkpoint {path}", FIX, CheckpointError):
        net.module.load_state_dict(read_checkpoint(path)["state_dict"])
    net.scores = list(done.scores)
    net.module.cpu().float().eval()
    return True


def reason(job: StackJob, net: StackNet) -> str:
    """Why a net failed, in one line."""
    return (
        f"training: net {list(job.nets).index(net)} of the stack: {net.failed}; losses and weights must stay finite; "
        "lower model.module.lr, set trainer.gradient_clip, or look for extreme features"
    )


def epochs_kept(folder: Path) -> int:
    """Complete epochs in a job's last.ckpt, of all its nets; 0 where there is none."""
    path = folder / LAST
    if not path.exists():
        return 0
    with refused_in_one_line(f"training: checkpoint {path}", FIX, CheckpointError):
        return sum(len(one["place"]["scores"]) for one in read_checkpoint(path)["state_dict"].values())


def _saved(job: StackJob) -> dict[str, Any]:
    """States of a job's nets in its last.ckpt, by fingerprint."""
    if job.folder is None or not (path := job.folder / LAST).exists():
        return {}
    found: dict[str, Any] = read_checkpoint(path)["state_dict"]
    known = {net.fingerprint: found[net.fingerprint] for net in job.nets if net.fingerprint in found}
    if not known and job.strict:
        first = job.nets[0].fingerprint
        raise TrainingError(
            f"training: {path} belongs to fingerprint {next(iter(found), 'none')[:12]}, this fit is {first[:12]}: "
            "settings or data differ; resume with the config and data of that run, or give an empty workdir"
        )
    return known
