"""Checkpoints of a fit: best and last weights, early stopping, and the state to resume a killed fit."""

import errno
import math
import signal
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint

from tradsys.core.errors import CheckpointError
from tradsys.core.received import one_line, refused_in_one_line
from tradsys.core.runs import written_atomically
from tradsys.models.training.recipe import Selection
from tradsys.samples.loader import WindowLoader, rank_of

# ranks agree on a stop at this interval in seconds: each check costs a message and a wait
STEPS_PER_AGREEMENT = 8
FIX = "delete its folder and train again"

Watch = Callable[[int, float], None]


class CheckpointCallback(Checkpoint):
    """Keeps best and last weights, stops early, and stops on request.

    A requested stop takes effect between two steps.
    stop_requested: an event, set to request a stop. every_steps: last.ckpt is also written after so many steps of the
    fit. watch: called after every epoch, once last.ckpt holds it. In a run of several ranks the first one evaluates and
    writes, and all stop at the same step.
    Lightning's loop and `DirectLoop` call it. It derives from Lightning's Checkpoint so that it runs after every other
    callback and metric of an epoch.
    """

    def __init__(
        self,
        workdir: Path,
        fingerprint: str,
        loader: WindowLoader,
        *,
        monitor: str,
        selection: Selection,
        every_steps: int | None,
        stop_requested: Any,
        watch: Watch | None,
    ) -> None:
        self.workdir, self.fingerprint, self.loader = workdir, fingerprint, loader
        self.monitor, self.selection, self.every_steps, self.watch = monitor, selection, every_steps, watch
        self.stop_requested = stop_requested
        # saved before Lightning installs its own handler, after which a stopped fit would look finished
        self.on_sigterm = signal.getsignal(signal.SIGTERM)
        self.scores: list[float] = []
        self._resumed: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """State of a resumed fit beyond Lightning's own.

        Each rank's generators and the loader's position.
        """
        rng = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            rng["cuda"] = torch.cuda.get_rng_state()
        own = {"fingerprint": self.fingerprint, "scores": self.scores}
        return own | {"rng": _of_all_ranks(rng), "loader": self.loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of a checkpoint."""
        self.scores, self._resumed = list(state_dict["scores"]), state_dict

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Restores generators and the loader's position, or writes the first last.ckpt."""
        if threading.current_thread() is threading.main_thread() and self.on_sigterm is not None:
            signal.signal(signal.SIGTERM, self.on_sigterm)
        if not self._resumed:
            self._save_last(trainer)
            return
        # Lightning restores a loader at its set-up, but counting the schedule's steps sets it up earlier
        self.loader.load_state_dict(self._resumed["loader"])
        rng = self._resumed["rng"][rank_of()[0]]
        torch.set_rng_state(rng["cpu"].cpu())
        if "cuda" in rng and torch.cuda.is_available():
            torch.cuda.set_rng_state(rng["cuda"].cpu())
        trainer.should_stop = self.selection.stale(self.scores)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Saves where a save is due or a stop was requested.

        At an epoch's last step validation comes first.
        """
        if trainer.is_last_batch:
            return
        stop = self._agreed(trainer)
        due = self.every_steps is not None and trainer.global_step % self.every_steps == 0
        # weights are the same on every rank, and so is the result
        if (stop or due) and all(p.detach().isfinite().all() for p in pl_module.parameters()):
            self._save_last(trainer)
        if stop:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Scores the epoch, saves, and calls the watch."""
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        score = trainer.strategy.broadcast(score)  # one rank's score for all: two devices may differ in the last digit
        epoch = trainer.current_epoch
        self.scores.append(score)
        if self.selection.best_epoch(self.scores) == epoch and trainer.is_global_zero:
            state = {"fingerprint": self.fingerprint, "epoch": epoch, self.monitor: score}
            with written_atomically(self.workdir / "best.ckpt") as draft:
                torch.save(state | {"state_dict": weights_kept(pl_module)}, draft)
        self._save_last(trainer)
        trainer.should_stop = self.selection.stale(self.scores)
        if self.watch is not None and trainer.is_global_zero:
            self.watch(epoch, score)
        if self._agreed(trainer, now=True):
            raise KeyboardInterrupt

    def _agreed(self, trainer: L.Trainer, now: bool = False) -> bool:
        """Whether a stop was requested; ranks decide together, or one would wait for the other forever."""
        if trainer.world_size > 1:
            if not now and trainer.global_step % STEPS_PER_AGREEMENT:
                return False
            return trainer.strategy.reduce_boolean_decision(self.stop_requested.is_set(), all=False)
        return self.stop_requested.is_set()

    def _save_last(self, trainer: L.Trainer) -> None:
        path = self.workdir / "last.ckpt"
        if not trainer.is_global_zero:
            trainer.save_checkpoint(path)  # on other ranks it only adds their state
            return
        with written_atomically(path) as draft:
            trainer.save_checkpoint(draft)


def weights_kept(module: L.LightningModule) -> dict[str, Any]:
    """The weights that a fit keeps of an epoch.

    The module's `kept_state` where it has one, else its own.
    """
    kept: Callable[[], dict[str, Any]] = getattr(module, "kept_state", module.state_dict)
    return kept()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values on the CPU.

    No pickled object is run. Raises CheckpointError.
    """
    with refused_in_one_line(f"training: checkpoint {path}", FIX, CheckpointError):
        try:
            _check_archive(path)
        except OSError as error:
            if (
                error.errno != errno.EINVAL
            ):  # that is of a place before the file's beginning, which a damaged index named
                raise
            raise zipfile.BadZipFile("its index points outside the file") from error
        found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise CheckpointError(f"training: checkpoint {path}: it holds no weights; it is damaged or foreign; {FIX}")
    return found


def _check_archive(path: Path) -> None:
    """Raises where a part of the archive is not what its checksum says, which torch does not look at."""
    with zipfile.ZipFile(path) as archive:
        if packed := [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]:
            raise CheckpointError(
                f"training: checkpoint {path}: {one_line(packed[0], 60)} is compressed, which torch never does; "
                f"it is foreign; {FIX}"
            )
        if (bad := archive.testzip()) is not None:
            raise CheckpointError(
                f"training: checkpoint {path}: {one_line(bad, 60)} is not what its checksum says; it is damaged; {FIX}"
            )


def kept_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The CheckpointCallback's part of a last.ckpt; empty for a file from elsewhere."""
    parts = checkpoint.get("callbacks")
    mine = [s for s in parts.values() if isinstance(s, dict) and "fingerprint" in s] if isinstance(parts, dict) else []
    return mine[0] if mine else {}


def _of_all_ranks(value: Any) -> list[Any]:
    n_ranks = rank_of()[1]
    if n_ranks == 1:
        return [value]
    gathered: list[Any] = [None] * n_ranks
    dist.all_gather_object(gathered, value)
    return gathered
