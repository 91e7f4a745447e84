"""Training loop for one device: the steps, hooks and checkpoints of Lightning's, without its cost per step.

Lightning's own loop is used where ranks are started, a precision needs its plugins, or a module is of another package
(it may use anything of its trainer) or has hooks that are not called here. Both call the same module, callback and
loggers in the same order and end with the same weights (a test checks this to 1e-6).
"""

import contextlib
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as L
import torch
from pytorch_lightning.core.hooks import ModelHooks
from tqdm import tqdm

from tradsys.core.errors import CheckpointError
from tradsys.core.progress.stages import is_quiet
from tradsys.core.received import refused_in_one_line
from tradsys.models.training.capture import Captured, can_record, captured_step
from tradsys.models.training.checkpoints import FIX, CheckpointCallback, kept_state
from tradsys.models.training.fit_logs import loggers_of
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader

LOG = logging.getLogger(__name__)
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16}
CALLED = {  # hooks of Lightning's that this loop calls
    "on_fit_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_validation_start",
    "on_validation_epoch_end",
    "on_validation_end",
}
# methods with which a module overrides a part of the step
STEPS = {
    "backward",
    "optimizer_zero_grad",
    "lr_scheduler_step",
    "configure_callbacks",
    "clip_gradients",
    "toggle_optimizer",
}


class DirectLoop:
    """Fits a module on one device, without Lightning's Trainer.

    It acts as the `trainer` of hooks and of CheckpointCallback. module: a LightningModule with one optimiser and one
    schedule per step, or none. train, valid: on the device of `settings`. workdir: where loggers write. callback:
    saves, stops early and stops on request.
    """

    world_size, is_global_zero = 1, True
    strategy = SimpleNamespace(broadcast=lambda value: value)

    def __init__(
        self,
        module: L.LightningModule,
        train: WindowLoader,
        valid: WindowLoader,
        *,
        settings: TrainerSettings,
        workdir: Path,
        callback: CheckpointCallback,
    ) -> None:
        self.module, self.train_dataloader, self.valid, self.settings = module, train, valid, settings
        self.callback, self.device = callback, settings.device()
        self.loggers = loggers_of(settings.loggers, workdir)
        self.callback_metrics: dict[str, torch.Tensor] = {}
        self.current_epoch = self.global_step = 0
        self.is_last_batch = self.should_stop = False
        self.optimizer: torch.optim.Optimizer
        self.schedule: Any = None
        self.captured: Captured | None = None

    @staticmethod
    def serves(settings: TrainerSettings, module: L.LightningModule) -> bool:
        """Whether the fit needs nothing that only Lightning's loop has."""
        hooks = ({name for name in vars(ModelHooks) if not name.startswith("_")} - CALLED) | STEPS
        own = [name for name in hooks if getattr(type(module), name) is not getattr(L.LightningModule, name)]
        ours = type(module).__module__.partition(".")[0] == "tradsys" and module.automatic_optimization
        return ours and not own and not settings.starts_ranks and settings.precision in AUTOCAST

    @property
    def estimated_stepping_batches(self) -> int:
        """Number of steps of all planned epochs."""
        return self.settings.max_epochs * len(self.train_dataloader)

    def fit(self, checkpoint: dict[str, Any] | None) -> None:
        """Trains the module in place, resumed from `checkpoint` where there is one."""
        self.module.to(self.device).train()
        self.module.trainer = self  # type: ignore[assignment]
        if self.settings.deterministic:
            torch.use_deterministic_algorithms(True)
        try:
            self._start(checkpoint)
            while self.current_epoch < self.settings.max_epochs and not self.should_stop:
                self._epoch()
                self.current_epoch += 1
            for logger in self.loggers:
                logger.finalize("success")
        finally:
            self.module.trainer = None

    def log(self, name: str, value: Any) -> None:
        """Stores a metric of the running epoch, as float32."""
        self.callback_metrics[name] = torch.as_tensor(value, dtype=torch.float32)

    def save_checkpoint(self, path: Path) -> None:
        """Writes the state that `fit` resumes from, under Lightning's names."""
        state: dict[str, Any] = {
            "epoch": self.current_epoch,
            "global_step": self.global_step,
            "state_dict": self.module.state_dict(),
            "optimizer_states": [self.optimizer.state_dict()],
            "lr_schedulers": [] if self.schedule is None else [self.schedule.state_dict()],
            "callbacks": {self.callback.state_key: self.callback.state_dict()},
        }
        self.module.on_save_checkpoint(state)
        torch.save(state, path)

    def _start(self, checkpoint: dict[str, Any] | None) -> None:
        with self._going_on(checkpoint):
            self._restore(checkpoint)
        self.captured = self._captured()
        with self._going_on(checkpoint):
            self.callback.on_train_start(self)  # type: ignore[arg-type]

    def _going_on(self, checkpoint: dict[str, Any] | None) -> contextlib.AbstractContextManager[None]:
        """One line for whatever a checkpoint lacks, where there is one."""
        where = f"training: checkpoint {self.callback.workdir / 'last.ckpt'}"
        return contextlib.nullcontext() if checkpoint is None else refused_in_one_line(where, FIX, CheckpointError)

    def _restore(self, checkpoint: dict[str, Any] | None) -> None:
        if checkpoint is not None:
            self.callback.load_state_dict(kept_state(checkpoint))
            self.module.on_load_checkpoint(checkpoint)
            self.module.load_state_dict(checkpoint["state_dict"])
        self.module.on_fit_start()
        made: Any = self.module.configure_optimizers()
        self.optimizer = made["optimizer"] if isinstance(made, dict) else made
        self.schedule = made["lr_scheduler"]["scheduler"] if isinstance(made, dict) else None
        if checkpoint is not None:
            self.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
            if self.schedule is not None:
                self.schedule.load_state_dict(checkpoint["lr_schedulers"][0])
            place = kept_state(checkpoint)["loader"]
            self.global_step = int(checkpoint["global_step"])
            # an epoch whose last batch was yielded is over: its checkpoint was written after validation
            self.current_epoch = int(place["epoch"]) + (place["batch"] == len(self.train_dataloader))

    def _captured(self) -> Captured | None:
        """The step as a CUDA graph, where configured and the module's step may be recorded."""
        loader, module = self.train_dataloader, self.module
        if self.settings.step == "plain" or not can_record(self.device) or len(loader.rows_N) < loader.batch_size:
            return None
        if not getattr(module, "recordable", False):
            LOG.warning("%s has a step of its own, which is not recorded; it trains plain", type(module).__name__)
            return None
        batch = loader.batch(torch.arange(loader.batch_size, device=loader.table_RF.device))
        return captured_step(self._device_step, module, self.optimizer, batch, self.settings.step)

    def _epoch(self) -> None:
        module, callback = self.module, self.callback
        self.train_dataloader.set_epoch(self.current_epoch)
        n_batches = len(self.train_dataloader)
        first = self.global_step - self.current_epoch * n_batches
        with self._bar(n_batches, first) as shown:
            k = first
            for batch in self.train_dataloader:
                if module.on_train_batch_start(batch, k) == -1:
                    break
                self._step(batch, k)
                self.is_last_batch = k == n_batches - 1
                callback.on_train_batch_end(self, module)  # type: ignore[arg-type]
                module.on_train_batch_end(None, batch, k)
                shown.update()
                del batch  # its memory is free before the next one is gathered; `enumerate` would hold it until then
                k += 1
        self._validate()
        module.on_train_epoch_end()
        for logger in self.loggers:
            metrics = {name: value.item() for name, value in self.callback_metrics.items()}
            logger.log_metrics(metrics | {"epoch": self.current_epoch}, step=self.global_step - 1)
            logger.save()
        callback.on_train_epoch_end(self, module)  # type: ignore[arg-type]

    def _step(self, batch: Any, k: int) -> None:
        module: Any = self.module

        def closure() -> Any:
            with self._autocast():
                loss: Any = module.training_step(batch)
            self._backward(loss)
            return loss

        if self.captured is not None and self.captured.fits(batch):
            module.keep_step(*self.captured(batch))
            module.after_step()
        else:
            module.optimizer_step(self.current_epoch, k, self.optimizer, closure)
        self.global_step += 1
        if self.schedule is not None:
            self.schedule.step()

    def _device_step(self, batch: Any) -> tuple[torch.Tensor, ...]:
        """A step's work on the device; returns what the module keeps of it."""
        with self._autocast():
            loss, *kept = self.module.step_loss(batch)  # type: ignore[operator]
        self._backward(loss)
        self.optimizer.step()
        return tuple(kept)

    def _backward(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.module.configure_gradient_clipping(self.optimizer, self.settings.gradient_clip)

    @torch.inference_mode()
    def _validate(self) -> None:
        module = self.module
        training = {part: part.training for part in module.modules()}
        module.eval()
        module.on_validation_start()
        with self._autocast():
            for batch in self.valid:
                module.validation_step(batch)
                del batch
        module.on_validation_epoch_end()
        module.on_validation_end()
        for part, mode in training.items():
            part.training = mode

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = AUTOCAST[self.settings.precision]
        return contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def _bar(self, total: int, first: int) -> "tqdm[None]":
        """Progress bar over the steps of the running epoch, shown where configured and in a terminal."""
        wanted = self.settings.progress_bar and sys.stderr.isatty() and not is_quiet()
        epoch = f"epoch {self.current_epoch + 1}/{self.settings.max_epochs}"
        return tqdm(total=total, initial=first, desc=epoch, leave=False, disable=not wanted)
