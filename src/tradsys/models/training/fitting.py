"""One fit of a net: quiet, resumable, stopped early, its best weights restored."""

import copy
import logging
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.plugins.environments import LightningEnvironment

from tradsys.core.errors import CheckpointError, TrainingError
from tradsys.core.progress.stages import Pace, is_quiet, is_watched
from tradsys.core.received import read_json, refused_in_one_line
from tradsys.core.runs import digest_file, write_json
from tradsys.models.training.checkpoints import FIX, CheckpointCallback, Watch, kept_state, read_checkpoint
from tradsys.models.training.fit_logs import loggers_of
from tradsys.models.training.loop import DirectLoop
from tradsys.models.training.ranks.launcher import run_on_ranks
from tradsys.models.training.ranks.rendezvous import Rendezvous
from tradsys.models.training.surroundings import determinism, interruptible, quiet
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader, rank_of

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """Result of a fit.

    epochs: how many ran. score: the best epoch's monitored value. scores: every epoch's.
    """

    best_epoch: int
    epochs: int
    score: float
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", tuple(self.scores))


def fit_module(
    module: L.LightningModule,
    train: WindowLoader,
    valid: WindowLoader,
    *,
    settings: TrainerSettings,
    workdir: Path,
    fingerprint: str,
    monitor: str = "valid_logloss",
    callbacks: tuple[Callback, ...] = (),
    watch: Watch | None = None,
) -> FitResult:
    """Trains `module` in place; leaves it on the CPU in eval mode.

    Its weights are those of its best epoch.
    workdir: takes last.ckpt (after each epoch and on Ctrl-C), best.ckpt, finished.json and the logs.
    fingerprint: digest of settings and data. A finished fit of the same fingerprint is loaded, an unfinished one
    is resumed, to the same weights as without the interruption; any other raises TrainingError.
    monitor: a logged metric, lower is better. callbacks: further Lightning callbacks, with
    which the loop is Lightning's.
    watch: called with (epoch, monitored value) after every epoch that last.ckpt holds; a resumed or finished fit
    first reports its earlier epochs. Its exceptions pass through unchanged; the fit can be resumed later.
    Draws from torch's global generator: fork and seed it outside. Ctrl-C is raised as KeyboardInterrupt.
    """
    watch = _shown(watch, settings, monitor)
    rendezvous = Rendezvous.of(settings.num_nodes)
    rendezvous.agree(fingerprint)
    rendezvous.share(workdir, "before", "last.ckpt", "best.ckpt", "finished.json")
    if (done := read_finished(workdir, fingerprint)) is None:
        last = _resumable(workdir / "last.ckpt", fingerprint, settings.max_epochs, len(train))
        _report_missed(watch, [] if last is None else kept_state(last)["scores"])
        job = _Job(module, train, valid, settings, workdir, fingerprint, monitor, callbacks, go_on=last is not None)
        with interruptible() as stop_requested:
            if settings.starts_ranks:
                scores = run_on_ranks(
                    _as_rank,
                    (job,),
                    n_local=settings.devices,
                    rendezvous=rendezvous,
                    cuda=settings.uses_gpu(),
                    stop_requested=stop_requested,
                    on_epoch=watch or _unwatched,
                )
            else:
                scores = _train(job, stop_requested, watch)
        rendezvous.share(workdir, "after", "best.ckpt")
        if (best := settings.selection.best_epoch(scores)) is None:
            raise TrainingError(f"training: no epoch ended with a finite {monitor!r}; let the module log it")
        done = FitResult(best, len(scores), scores[best], tuple(scores))
        write_finished(workdir, fingerprint, done)
    else:
        _report_missed(watch, done.scores)
    with refused_in_one_line(f"training: checkpoint {workdir / 'best.ckpt'}", FIX, CheckpointError):
        module.load_state_dict(read_checkpoint(workdir / "best.ckpt")["state_dict"])
    module.cpu().float().eval()  # windows are float32, whatever precision the weights were fitted in
    return done


@dataclass(frozen=True)
class _Job:
    """The inputs of one training process."""

    module: L.LightningModule
    train: WindowLoader
    valid: WindowLoader
    settings: TrainerSettings
    workdir: Path
    fingerprint: str
    monitor: str
    callbacks: tuple[Callback, ...]
    go_on: bool


def _train(job: _Job, stop_requested: Any, watch: Watch | None) -> list[float]:
    """Trains, with best.ckpt and last.ckpt in the workdir, and returns every epoch's score."""
    checkpoints = CheckpointCallback(
        job.workdir,
        job.fingerprint,
        job.train,
        monitor=job.monitor,
        selection=job.settings.selection,
        every_steps=job.settings.checkpoint_every_steps,
        stop_requested=stop_requested,
        watch=watch,
    )
    last = job.workdir / "last.ckpt" if job.go_on else None
    with quiet(), determinism(job.settings.deterministic):
        if DirectLoop.serves(job.settings, job.module) and not job.callbacks:
            loop = DirectLoop(
                job.module,
                job.train,
                job.valid,
                settings=job.settings,
                workdir=job.workdir,
                callback=checkpoints,
            )
            loop.fit(read_checkpoint(last) if last else None)
            return checkpoints.scores
        trainer = _trainer(job.settings, job.workdir, len(job.train), (*job.callbacks, checkpoints))
        try:
            trainer.fit(job.module.train(), job.train, job.valid, ckpt_path=last, weights_only=True if last else None)
        except SystemExit as error:
            # Lightning turns Ctrl-C into sys.exit(1); the caller must get KeyboardInterrupt
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
    return checkpoints.scores


def _as_rank(job: _Job, stop_requested: Any, tell: Watch) -> list[float]:
    """`_train` as one of several ranks."""
    device = job.settings.device()
    own = replace(
        job,
        module=copy.deepcopy(job.module),  # its tensors arrive as memory shared by all ranks
        train=job.train.to(device),
        valid=job.valid.to(device),
    )
    return _train(own, stop_requested, tell)


def _shown(watch: Watch | None, settings: TrainerSettings, monitor: str) -> Watch | None:
    """The watch; where a progress bar is configured but has no terminal, it also logs the epochs of a long fit."""
    if not settings.progress_bar or is_watched():
        return watch
    pace = Pace()

    def log(epoch: int, score: float) -> None:
        if pace.is_due():
            LOG.info("epoch %d of %d: %s %.4f", epoch + 1, settings.max_epochs, monitor, score)
        if watch is not None:
            watch(epoch, score)

    return log


def _unwatched(epoch: int, score: float) -> None:
    """Ignores the epoch: there is no watch."""


def _trainer(settings: TrainerSettings, workdir: Path, n_batches: int, callbacks: tuple[Callback, ...]) -> L.Trainer:
    first = rank_of()[0] == 0
    seen = settings.progress_bar and sys.stdout.isatty() and not is_quiet()
    bar = (RichProgressBar(refresh_rate=10),) if seen and first else ()
    loggers = loggers_of(settings.loggers, workdir) if first else []
    several: dict[str, Any] = {"strategy": "ddp", "plugins": [LightningEnvironment()]} if settings.starts_ranks else {}
    return L.Trainer(
        accelerator="gpu" if settings.uses_gpu() else "cpu",
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        precision=settings.precision,  # type: ignore[arg-type]
        max_epochs=settings.max_epochs,
        gradient_clip_val=settings.gradient_clip,
        deterministic=settings.deterministic,
        logger=loggers,
        callbacks=[*bar, *callbacks],
        enable_progress_bar=bool(bar),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(50, n_batches)),
        default_root_dir=workdir,
        **several,
    )


def write_finished(workdir: Path, fingerprint: str, done: FitResult) -> None:
    """Marks a fit with a written best.ckpt as finished."""
    digest = digest_file(workdir / "best.ckpt")
    write_json(workdir / "finished.json", asdict(done) | {"fingerprint": fingerprint, "best.ckpt": digest})


def read_finished(workdir: Path, fingerprint: str) -> FitResult | None:
    """Result of the finished fit in the folder.

    None where there is none. TrainingError for another fit's files.
    """
    path = workdir / "finished.json"
    if not path.exists():
        return None
    found = read_json(path, FIX, CheckpointError)
    check_fingerprint(path, str(found.pop("fingerprint", "none")), fingerprint)
    best = workdir / "best.ckpt"
    if not best.exists() or digest_file(best) != found.pop("best.ckpt", None):
        raise CheckpointError(
            f"training: {best} is not the file that {path} was written for; delete the folder and train"
        )
    with refused_in_one_line(f"training: {path}", FIX, CheckpointError):
        return FitResult(**found)


def _resumable(path: Path, fingerprint: str, max_epochs: int, n_batches: int) -> dict[str, Any] | None:
    """The checkpoint to resume from; None where there is none, or where it holds only the start.

    CheckpointError where it stands at a place that no fit of so many epochs and batches reaches.
    """
    if not path.exists():
        return None
    checkpoint = read_checkpoint(path)
    check_fingerprint(path, kept_state(checkpoint).get("fingerprint", "none"), fingerprint)
    with refused_in_one_line(f"training: checkpoint {path}", FIX, CheckpointError):
        step, kept = checkpoint["global_step"], kept_state(checkpoint)
        epoch, batch = kept["loader"]["epoch"], kept["loader"]["batch"]
        most = (max_epochs * n_batches, max_epochs, n_batches)
        if not all(type(at) is int and 0 <= at <= end for at, end in zip((step, epoch, batch), most, strict=True)):
            raise CheckpointError(
                f"training: checkpoint {path}: it stands at step {step!r}, epoch {epoch!r}, batch {batch!r}; a fit of "
                f"{max_epochs} epochs of {n_batches} batches never does; it is damaged or foreign; {FIX}"
            )
        return checkpoint if step > 0 else None


def _report_missed(watch: Watch | None, scores: Iterable[float]) -> None:
    """Reports to a watch the epochs that ended before it started."""
    if watch is not None:
        for epoch, score in enumerate(scores):
            watch(epoch, score)


def check_fingerprint(path: Path, found: str, expected: str) -> None:
    """Raises TrainingError where a checkpoint was written for other settings or data."""
    if found != expected:
        raise TrainingError(
            f"training: {path} belongs to fingerprint {found[:12]}, this fit is {expected[:12]}: settings or "
            "data differ; resume with the config and data of that run, or give an empty workdir"
        )
