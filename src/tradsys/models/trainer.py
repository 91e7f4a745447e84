"""One fit under Lightning: quiet, resumable, stopped early, its best weights restored."""

import contextlib
import json
import logging
import math
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.utilities.warnings import PossibleUserWarning

from tradsys.core.errors import TrainingError
from tradsys.core.runs import digest_file, write_json, written_whole
from tradsys.samples.loader import WindowLoader

LOGGERS = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
LIBRARY_LOGS = ("pytorch_lightning", "lightning_fabric", "lightning")
# these change what is shown, never what is learnt
SHOWN_ONLY = ("progress_bar", "loggers")


@dataclass(frozen=True)
class TrainerSettings:
    """How a net is trained, whatever the net.

    accelerator: `cpu`, `gpu`, or `auto` (a GPU where there is one). devices: 1.
    precision: as Lightning names it: `32-true`, or `bf16-mixed` on a GPU that gains from it.
    max_epochs: the learning rate is planned over all of them. patience: epochs without a better validation
    log-loss before it stops. gradient_clip: cap on the gradient's norm, None for none.
    deterministic: refuse operations that are not repeatable; a CPU repeats to the bit without it.
    progress_bar: a bar in the terminal. loggers: any of `csv`, `tensorboard`; they write into the workdir.
    """

    accelerator: str = "cpu"
    devices: int = 1
    precision: str = "32-true"
    max_epochs: int = 30
    patience: int = 5
    gradient_clip: float | None = 1.0
    deterministic: bool = False
    progress_bar: bool = False
    loggers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "loggers", tuple(self.loggers))
        if self.accelerator not in ("cpu", "gpu", "auto"):
            raise ValueError(f"trainer: accelerator={self.accelerator!r}; it must be cpu, gpu or auto")
        if self.devices != 1:
            raise ValueError(
                f"trainer: devices={self.devices}; one fit uses one device; run several configs side by "
                "side, one per device with CUDA_VISIBLE_DEVICES"
            )
        if self.max_epochs < 1 or self.patience < 1:
            raise ValueError(f"trainer: max_epochs={self.max_epochs}, patience={self.patience}; both must be >= 1")
        if unknown := sorted(set(self.loggers) - set(LOGGERS)):
            raise ValueError(f"trainer: unknown loggers {unknown}; known are {sorted(LOGGERS)}")

    def device(self) -> torch.device:
        """Where tensors live in a fit. Raises TrainingError where a GPU was asked for and there is none."""
        found = torch.cuda.is_available()
        if self.accelerator == "gpu" and not found:
            raise TrainingError(
                f"trainer: a GPU was asked for (accelerator=gpu) but torch {torch.__version__} sees none; "
                "it needs a CUDA build and a visible device; use trainer=cpu"
            )
        if self.accelerator == "cpu" or not found:
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())

    def identity(self) -> dict[str, Any]:
        """The settings that decide the weights, for a fingerprint."""
        return {k: v for k, v in asdict(self).items() if k not in SHOWN_ONLY}


@dataclass(frozen=True)
class FitResult:
    """How a fit ended. epochs: how many ran in all. score: the best epoch's monitored value."""

    best_epoch: int
    epochs: int
    score: float


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
) -> FitResult:
    """Trains `module` in place and leaves it on the CPU with its best epoch's weights, in eval mode.

    workdir: takes last.ckpt (after each epoch and on Ctrl-C), best.ckpt, finished.json and the logs.
    fingerprint: names settings and data. A finished fit of the same fingerprint is loaded, an unfinished one
    goes on, to the same weights as if it had never stopped; any other raises TrainingError.
    monitor: a logged metric, lower is better. callbacks: further Lightning callbacks.
    Draws from torch's global generator: fork and seed it outside. Ctrl-C comes out as KeyboardInterrupt.
    """
    if (done := _finished(workdir, fingerprint)) is None:
        last = _resumable(workdir / "last.ckpt", fingerprint)
        keeper = Keeper(workdir, fingerprint, train, monitor=monitor, patience=settings.patience)
        with _interruptible() as asked, quiet(), _determinism(settings.deterministic):
            keeper.asked = asked
            trainer = _trainer(settings, workdir, len(train), (*callbacks, keeper))
            _run(trainer, module.train(), train, valid, last)
        if keeper.best_epoch is None:
            raise TrainingError(f"training: no epoch ended with a finite {monitor!r}; let the module log it")
        done = FitResult(keeper.best_epoch, int(trainer.current_epoch), keeper.best_score)
        best = digest_file(workdir / "best.ckpt")
        write_json(workdir / "finished.json", asdict(done) | {"fingerprint": fingerprint, "best.ckpt": best})
    module.load_state_dict(read_checkpoint(workdir / "best.ckpt")["state_dict"])
    module.cpu().eval()
    return done


class Keeper(Checkpoint):
    """Keeps best and last weights, stops early, and stops between two steps when asked to.

    It derives from Lightning's Checkpoint so that it runs after every other callback and metric of an epoch.
    """

    def __init__(self, workdir: Path, fingerprint: str, loader: WindowLoader, *, monitor: str, patience: int) -> None:
        self.workdir, self.fingerprint, self.loader = workdir, fingerprint, loader
        self.monitor, self.patience = monitor, patience
        self.asked = threading.Event()
        self.best_score = math.inf
        self.best_epoch: int | None = None
        self.stale = 0
        self._resumed: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit needs beside Lightning's own state, generators and the loader's place too."""
        rng = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            rng["cuda"] = torch.cuda.get_rng_state()
        own = {name: getattr(self, name) for name in ("fingerprint", "best_score", "best_epoch", "stale")}
        return own | {"rng": rng, "loader": self.loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where the checkpoint stood."""
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
        self.stale, self._resumed = state_dict["stale"], state_dict

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Restores generators and the loader's place, or writes the first last.ckpt."""
        if not self._resumed:
            self._save_last(trainer)
            return
        # Lightning restores a loader when it sets it up, but counting the schedule's steps sets it up earlier
        self.loader.load_state_dict(self._resumed["loader"])
        rng = self._resumed["rng"]
        torch.set_rng_state(rng["cpu"].cpu())
        if "cuda" in rng and torch.cuda.is_available():
            torch.cuda.set_rng_state(rng["cuda"].cpu())
        trainer.should_stop = self.stale >= self.patience

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Where a stop was asked for: saves, then stops. At an epoch's last step validation comes first."""
        stop = self.asked.is_set() or trainer.received_sigterm
        if not stop or trainer.is_last_batch:
            return
        if all(p.detach().isfinite().all() for p in pl_module.parameters()):
            self._save_last(trainer)
        if self.asked.is_set():
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judges the epoch and saves."""
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        if score < self.best_score:
            self.best_score, self.best_epoch, self.stale = score, trainer.current_epoch, 0
            state = {"fingerprint": self.fingerprint, "epoch": trainer.current_epoch, self.monitor: score}
            with written_whole(self.workdir / "best.ckpt") as draft:
                torch.save(state | {"state_dict": pl_module.state_dict()}, draft)
        else:
            self.stale += 1
        self._save_last(trainer)
        trainer.should_stop = self.stale >= self.patience
        if self.asked.is_set():
            raise KeyboardInterrupt

    def _save_last(self, trainer: L.Trainer) -> None:
        with written_whole(self.workdir / "last.ckpt") as draft:
            trainer.save_checkpoint(draft)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values on the CPU; no pickled object is run. Raises TrainingError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"training: checkpoint {path} cannot be read ({str(error).splitlines()[0]}); it is damaged or "
            "foreign; delete its folder and train again"
        ) from error


def _trainer(settings: TrainerSettings, workdir: Path, n_batches: int, callbacks: tuple[Callback, ...]) -> L.Trainer:
    bar = (RichProgressBar(refresh_rate=10),) if settings.progress_bar else ()
    loggers: list[Logger] = [LOGGERS[name](workdir, name=name) for name in settings.loggers]
    return L.Trainer(
        accelerator="gpu" if settings.device().type == "cuda" else "cpu",
        devices=1,
        precision=settings.precision,  # type: ignore[arg-type]
        max_epochs=settings.max_epochs,
        gradient_clip_val=settings.gradient_clip,
        deterministic=settings.deterministic,
        logger=loggers,
        callbacks=[*bar, *callbacks],
        enable_progress_bar=settings.progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(50, n_batches)),
        default_root_dir=workdir,
    )


def _run(
    trainer: L.Trainer, module: L.LightningModule, train: WindowLoader, valid: WindowLoader, last: Path | None
) -> None:
    try:
        trainer.fit(module, train, valid, ckpt_path=last, weights_only=True if last else None)
    except SystemExit as error:
        # Lightning turns Ctrl-C into sys.exit(1); a caller must see what it was
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _finished(workdir: Path, fingerprint: str) -> FitResult | None:
    path = workdir / "finished.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    _same(path, found.pop("fingerprint"), fingerprint)
    best = workdir / "best.ckpt"
    if not best.exists() or digest_file(best) != found.pop("best.ckpt"):
        raise TrainingError(
            f"training: {best} is not the file that {path} was written for; delete the folder and train"
        )
    return FitResult(**found)


def _resumable(path: Path, fingerprint: str) -> Path | None:
    """The checkpoint to go on from; None where there is none, or where it holds nothing but the start."""
    if not path.exists():
        return None
    checkpoint = read_checkpoint(path)
    mine = [s for s in checkpoint.get("callbacks", {}).values() if "fingerprint" in s]
    _same(path, mine[0]["fingerprint"] if mine else "none", fingerprint)
    return path if checkpoint["global_step"] > 0 else None


def _same(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise TrainingError(
            f"training: {path} belongs to fingerprint {found[:12]}, this fit is {expected[:12]}: settings or "
            "data differ; resume with the config and data of that run, or give an empty workdir"
        )


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that the fit stops between two steps; a second one stops it at once."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def ask(signum: int, frame: FrameType | None) -> None:
        if asked.is_set():
            signal.default_int_handler(signum, frame)
        asked.set()

    ours = threading.current_thread() is threading.main_thread() and before is signal.default_int_handler
    try:
        if ours:
            signal.signal(signal.SIGINT, ask)
        yield asked
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)  # Lightning leaves SIGINT ignored after a Ctrl-C


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lightning without tips, device tables and advice; its warnings of other kinds pass."""
    logs = {name: logging.getLogger(name) for name in LIBRARY_LOGS}
    levels = {name: log.level for name, log in logs.items()}
    try:
        for log in logs.values():
            log.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 with torch 2.13
            warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec", category=FutureWarning)
            yield
    finally:
        for name, log in logs.items():
            log.setLevel(levels[name])


@contextlib.contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Lightning sets torch's switch for good; here it is put back."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
