"""Nets of a stack trained to their ends, job by job: kept on disk as they end, gone on with after a kill."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import vector_to_parameters

from tradsys.core.errors import TrainingError
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
    """Nets that end together for their owner: the seeds of an average, all fits of a trial.

    folder: takes last.ckpt of those still at work; None keeps nothing. strict: whether a net that fails ends the job
    with TrainingError; else it is left out, with `failed` set, and the others go on.
    """

    nets: Sequence[StackNet]
    folder: Path | None = None
    strict: bool = True
    active: list[StackNet] = field(init=False, default_factory=list)
    saved_at: int = field(init=False, default=0)


Left = Callable[[StackJob, Exception | None], Iterable[StackJob]]


def fit_stack(jobs: Sequence[StackJob], left: Left | None = None) -> None:
    """Trains the nets in place; each leaves on the CPU with its kept epoch's weights, in eval mode.

    A job goes on from its last.ckpt, net by net as fingerprints tell; TrainingError where it is strict and none is.
    left: called with a job as it ends and what ended it early, a watch's exception or TrainingError, None otherwise;
    gives further jobs of the same shape for the places that are free. Without it such an exception comes out, the jobs
    saved.
    Ctrl-C and SIGTERM stop between two steps, all jobs saved.
    """
    first, settings = jobs[0].nets[0], jobs[0].nets[0].settings
    n_bars = sum(len(job.nets) for job in jobs) * first.train.batch_size * first.train.lookback
    with (
        interruptible() as asked,
        without_batching_remarks(),
        determinism(settings.deterministic),
        one_thread_if_small(first.module.net, n_bars, first.train.device),
    ):
        if settings.deterministic:
            torch.use_deterministic_algorithms(True)
        _Training(jobs, left, asked).run()


class _Training:
    """A stack and the jobs that its rows belong to."""

    def __init__(self, jobs: Sequence[StackJob], left: Left | None, asked: Any) -> None:
        self.stack = Stack(jobs[0].nets[0])
        self.jobs: list[StackJob] = []
        self.left, self.asked, self.ticks, self.pace = left, asked, 0, Pace()
        for job in jobs:
            self._open(job)

    def run(self) -> None:
        while self.jobs:
            self.stack.take_step()
            self.ticks += 1
            ended = self.stack.end_epochs()
            for job in list(self.jobs):
                self._after_step(job, [net for net in ended if net in job.active])
            if self.asked.is_set():
                self._save_all()
                raise KeyboardInterrupt
            if ended and self.jobs and self.jobs[0].nets[0].settings.progress_bar and self.pace.is_due():
                LOG.info("%d nets at work, the first at epoch %d", len(self.stack.nets), self.stack.nets[0].epoch)

    def _open(self, job: StackJob) -> None:
        saved = _saved(job)
        fresh = [net for net in job.nets if net.fingerprint not in saved]
        going = [net for net in job.nets if net.fingerprint in saved]
        with refused_in_one_line(f"training: checkpoint {(job.folder or Path()) / LAST}", FIX, TrainingError):
            self.stack.admit(fresh)
            self.stack.admit(going, [saved[net.fingerprint] for net in going])
        job.active, job.saved_at = [*fresh, *going], self.ticks
        self.jobs.append(job)
        for net in going:
            self._tell(job, net, range(net.epoch))
        if job in self.jobs:
            self._let_go(job)

    def _after_step(self, job: StackJob, ended: Sequence[StackNet]) -> None:
        every, shortest = job.active[0].settings.checkpoint_every_steps, min(len(net.train) for net in job.active)
        if (ended and self.ticks - job.saved_at >= shortest) or (every and self.ticks % every == 0):
            self._save(job)
        for net in ended:
            self._tell(job, net, [net.epoch - 1])
        if job in self.jobs:
            self._let_go(job)

    def _tell(self, job: StackJob, net: StackNet, epochs: Iterable[int]) -> None:
        if net.watch is None or job not in self.jobs:
            return
        try:
            for epoch in epochs:
                net.watch(epoch, net.scores[epoch])
        except Exception as error:
            self._end_early(job, error)

    def _let_go(self, job: StackJob) -> None:
        """Lets the job's nets that are done or failed leave, and the job with its last one."""
        failed = [net for net in job.active if net.failed is not None]
        done = [net for net in job.active if net.failed is None and net.is_done]
        if failed and job.strict:
            self._end_early(job, TrainingError(reason(job, failed[0])))
            return
        if failed or done:
            self.stack.drop([*failed, *done])
            job.active = [net for net in job.active if net not in failed and net not in done]
        for net in done:
            finish(net)
        if not job.active:
            self.jobs.remove(job)
            self._replace(job, None)

    def _end_early(self, job: StackJob, error: Exception) -> None:
        if self.left is None:
            self._save_all()
            raise error
        self.stack.drop(job.active)
        job.active = []
        self.jobs.remove(job)
        self._replace(job, error)

    def _replace(self, job: StackJob, error: Exception | None) -> None:
        if self.left is not None:
            for other in self.left(job, error):
                self._open(other)

    def _save_all(self) -> None:
        for job in self.jobs:
            self._save(job)

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
    """How a net's fit ended. Raises TrainingError where no epoch of it is one to keep."""
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
    """Whether the net's folder holds its finished fit; the module then has the kept weights."""
    if net.workdir is None or (done := read_finished(net.workdir, net.fingerprint)) is None:
        return False
    path = net.workdir / "best.ckpt"
    with refused_in_one_line(f"training: checkpoint {path}", FIX, TrainingError):
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
    """Whole epochs in a job's last.ckpt, of all its nets; 0 where there is none."""
    path = folder / LAST
    if not path.exists():
        return 0
    with refused_in_one_line(f"training: checkpoint {path}", FIX, TrainingError):
        return sum(len(one["place"]["scores"]) for one in read_checkpoint(path)["state_dict"].values())


def _saved(job: StackJob) -> dict[str, Any]:
    """What a job's last.ckpt holds of its nets, by fingerprint."""
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
