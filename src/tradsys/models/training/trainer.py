"""Trainer settings of a net, in a module that loads neither torch nor Lightning."""

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import TrainingError
from tradsys.core.plain_data import Json
from tradsys.models.training.fit_logs import NAMES

if TYPE_CHECKING:
    import torch

    from tradsys.models.training.recipe import Selection

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
# 16-mixed runs as bf16-mixed on a CPU, 16-true overflows to NaN there, bf16-true loses updates of small steps
GPU_ONLY = ("16-mixed", "bf16-true", "16-true")
NOT_LEARNT = ("progress_bar", "loggers", "checkpoint_every_steps", "strategy", "step")  # do not affect the weights


@dataclass(frozen=True)
class TrainerSettings:
    """Trainer settings, independent of the net.

    accelerator: `cpu`, `gpu`, or `auto` (a GPU where there is one).
    devices: how many of them one fit uses; each takes batches of the model's batch size, so a step learns from
    devices x batch_size samples. strategy: `auto`, which trains one device in this process and several as `ddp`: a
    process each, gradients averaged. num_nodes: machines with so many devices each. The same command runs on all, with
    NODE_RANK, MASTER_ADDR and MASTER_PORT set, and, from the second machine on, paths.runs of its own to throw away:
    checkpoints are the first machine's, the others get copies.
    precision: as Lightning names it: `32-true`, or `bf16-mixed` on a GPU that gains from it; those of GPU_ONLY are
    refused on a CPU.
    max_epochs: the learning rate is planned over all of them. patience: epochs without a better validation
    log-loss before it stops. keep, smooth_epochs: which epoch's weights are kept; see Selection. gradient_clip: cap on
    the gradient's norm, None for none.
    deterministic: refuse operations that are not repeatable; a CPU repeats to the bit without it.
    checkpoint_every_steps: last.ckpt is also written so often within an epoch; a kill repeats no more steps than these.
    step: `plain`; `graph`, a step recorded as one CUDA graph and replayed; or `auto`, which measures both on a GPU at
    the start, and uses the graph where it is faster and ends with the same weights. Ranks use plain steps.
    progress_bar: a bar in the terminal. loggers: any of `csv`, `tensorboard`, which write into the
    workdir, and `mlflow`, `wandb`, `trackio`, which write into the run that a command has open there.
    """

    accelerator: str = "cpu"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    max_epochs: int = 30
    patience: int = 5
    keep: str = "best"
    smooth_epochs: int = 1
    gradient_clip: float | None = 1.0
    deterministic: bool = False
    checkpoint_every_steps: int | None = None
    step: str = "plain"
    progress_bar: bool = False
    loggers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "loggers", tuple(self.loggers))
        if self.accelerator not in ("cpu", "gpu", "auto"):
            raise ValueError(f"trainer: accelerator={self.accelerator!r}; it must be cpu, gpu or auto")
        self._check_step()
        counts = ("devices", "num_nodes", "max_epochs", "patience", "smooth_epochs", "checkpoint_every_steps")
        if odd := [n for n in counts if not isinstance(getattr(self, n) or 0, int)]:
            raise ValueError(f"trainer: {odd[0]}={getattr(self, odd[0])!r}; it must be a whole number")
        if self.devices < 1 or self.strategy not in ("auto", "ddp"):
            raise ValueError(
                f"trainer: devices={self.devices}, strategy={self.strategy!r}; devices must be >= 1 and the strategy "
                "auto or ddp"
            )
        check_bounds("trainer", self, {"gradient_clip": "null or (0, inf]"}, "trainer")
        if self.precision not in PRECISIONS:
            raise ValueError(f"trainer: precision={self.precision!r}; it must be one of {', '.join(PRECISIONS)}")
        if self.accelerator == "cpu":
            self.check_precision(on_gpu=False)
        if self.num_nodes < 1:
            raise ValueError(f"trainer: num_nodes={self.num_nodes}; it must be >= 1; 1 is this machine alone")
        if self.max_epochs < 1 or self.patience < 1:
            raise ValueError(
                f"trainer: max_epochs={self.max_epochs}, patience={self.patience}; both must be >= 1; set "
                "trainer.max_epochs and trainer.patience"
            )
        if self.keep not in ("best", "last") or not 1 <= self.smooth_epochs <= self.max_epochs:
            raise ValueError(
                f"trainer: keep={self.keep!r}, smooth_epochs={self.smooth_epochs}, "
                f"max_epochs={self.max_epochs}; keep must be best or last, and smooth_epochs 1 to max_epochs; "
                "set trainer.keep and trainer.smooth_epochs"
            )
        if self.checkpoint_every_steps is not None and self.checkpoint_every_steps < 1:
            raise ValueError(
                f"trainer: checkpoint_every_steps={self.checkpoint_every_steps}; it must be >= 1, or null; set "
                "trainer.checkpoint_every_steps"
            )
        if unknown := sorted(set(self.loggers) - set(NAMES)):
            raise ValueError(f"trainer: unknown loggers {unknown}; known are {sorted(NAMES)}; set trainer.loggers")

    def _check_step(self) -> None:
        if self.step not in ("plain", "auto", "graph"):
            raise ValueError(f"trainer: step={self.step!r}; it must be plain, auto or graph; set trainer.step")
        if self.step == "graph" and (self.accelerator == "cpu" or self.starts_ranks):
            raise ValueError(
                f"trainer: step=graph with accelerator={self.accelerator}, devices={self.devices}, "
                f"strategy={self.strategy}; a CUDA graph needs one GPU and no ranks; use trainer.step=plain"
            )

    def check_precision(self, *, on_gpu: bool) -> None:
        """Raises TrainingError where the device cannot train at this precision."""
        if not on_gpu and self.precision in GPU_ONLY:
            raise TrainingError(
                f"trainer: precision={self.precision} on a CPU (accelerator={self.accelerator}), which would fit in "
                "another precision or lose updates; use trainer.precision=32-true or a GPU"
            )

    def device(self) -> "torch.device":
        """Device of a fit's tensors in this process.

        Raises TrainingError where the configured devices are missing.
        """
        import torch  # noqa: PLC0415 - only a fit needs it

        return torch.device("cuda", torch.cuda.current_device()) if self.uses_gpu() else torch.device("cpu")

    def uses_gpu(self) -> bool:
        """Whether a fit runs on GPUs.

        CUDA is not initialised. Raises TrainingError where they are missing.
        """
        import torch  # noqa: PLC0415

        found = torch.cuda.is_available()
        if self.accelerator == "gpu" and not found:
            raise TrainingError(
                f"trainer: a GPU is configured (accelerator=gpu) but torch {torch.__version__} sees none; "
                "it needs a CUDA build and a visible device; use trainer=cpu"
            )
        if os.environ.get("TORCHELASTIC_RUN_ID"):
            raise TrainingError(
                "trainer: started by torchrun, which runs the whole command once per device; a fit starts its own "
                f"ranks; run the command plainly with trainer=ddp trainer.devices={self.devices}"
            )
        if self.accelerator == "cpu" or not found:
            return False
        if (there := torch.cuda.device_count()) < self.devices:
            raise TrainingError(
                f"trainer: devices={self.devices} but this machine shows {there}; one rank needs one GPU of its own; "
                f"use trainer.devices={there}"
            )
        return True

    @property
    def starts_ranks(self) -> bool:
        """Whether a fit runs in processes of its own, one per device."""
        return self.devices * self.num_nodes > 1 or self.strategy == "ddp"

    def home(self) -> "torch.device":
        """Device of the tables in the caller of a fit.

        The fit's, or the CPU where rank processes copy them. Raises TrainingError where the devices are not there, or
        cannot fit at the precision.
        """
        import torch  # noqa: PLC0415

        self.check_precision(on_gpu=self.uses_gpu())
        return torch.device("cpu") if self.starts_ranks else self.device()

    @property
    def selection(self) -> "Selection":
        """Rule that selects the kept epoch and stops a fit."""
        from tradsys.models.training.recipe import Selection  # noqa: PLC0415

        return Selection(self.keep, self.smooth_epochs, self.patience)

    def identity(self) -> Json:
        """The settings that determine the weights, for a fingerprint."""
        return {k: v for k, v in asdict(self).items() if k not in NOT_LEARNT}
