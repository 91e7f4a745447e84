"""One net of a stack: its data, its own settings, and its progress.

Legend: N samples of a batch, S planned steps, P parameters.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from tradsys.models.training.checkpoints import Watch
from tradsys.models.training.lit import LitClassifier, balanced, warmup_cosine
from tradsys.models.training.objective import Objective
from tradsys.models.training.recipe import EMA_WARMUP, Prepared
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader

BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW, as torch has them
PLACE = ("scores", "epoch", "batch", "step")


@dataclass(eq=False)
class StackNet:
    """A module with its loaders, generator and settings.

    Epochs, batches and steps are its own. fingerprint: digest of settings and data. workdir: takes best.ckpt and
    finished.json, as `fit_module` writes them, once the net is done; None for neither. watch: called with (epoch,
    validation log-loss) after every epoch. scores: validation log-loss of each completed epoch. best_P: the kept
    epoch's weights. failed: why it had to stop.
    """

    module: LitClassifier
    train: WindowLoader
    valid: WindowLoader
    generator: Generator
    settings: TrainerSettings
    fingerprint: str = ""
    workdir: Path | None = None
    watch: Watch | None = None
    scores: list[float] = field(default_factory=list)
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_P: Tensor | None = None
    failed: str | None = None
    order_N: Tensor | None = None

    def __post_init__(self) -> None:
        self.weight_C = self.module.weight_C.to(self.train.device)
        if self.module.class_weight == "balanced":
            self.weight_C = balanced(self.train.y_N, self.train.weight_N, len(self.weight_C)).to(self.train.device)
        self.shares = shares_of(self.module.net)
        self.rates_S5 = self._rates().to(self.train.device)

    @property
    def total(self) -> int:
        """Number of steps of all planned epochs."""
        return self.settings.max_epochs * len(self.train)

    @property
    def objective(self) -> Objective:
        """Loss of this net, with its own class weights."""
        return self.module.objective._replace(weight_C=self.weight_C)

    @property
    def is_done(self) -> bool:
        """Whether all epochs ran, or `patience` epochs passed without a better one."""
        return self.epoch >= self.settings.max_epochs or self.settings.selection.stale(self.scores)

    @property
    def n_next(self) -> int:
        """Number of samples in the next batch of this net."""
        return min(self.train.batch_size, len(self.train.rows_N) - self.batch * self.train.batch_size)

    def picked(self) -> Tensor:
        """Positions of its next batch in its training samples."""
        if self.order_N is None:
            self.train.set_epoch(self.epoch)
            self.order_N = self.train.order()
        low = self.batch * self.train.batch_size
        return self.order_N[low : low + self.train.batch_size]

    def prepared(self, batch: tuple[Tensor, ...]) -> Prepared:
        """A batch after its recipe, drawn from its own generator."""
        return self.module.recipe(batch, self.generator)

    def end_epoch(self, score: float) -> bool:
        """Records an epoch's score; returns whether its weights are the ones to keep."""
        self.scores.append(score)
        kept = self.settings.selection.best_epoch(self.scores) == self.epoch
        self.epoch, self.batch, self.order_N = self.epoch + 1, 0, None
        return kept

    def at(self, step: int) -> str:
        """A step and its learning rate, for messages."""
        share = warmup_cosine(step, self.total, self.module.warmup_fraction)
        return f"step {step} of {self.total}, learning rate {self.module.lr * share:.3g} (peak {self.module.lr:.3g})"

    def state_dict(self) -> dict[str, Any]:
        """Position and generator of this net; the weights belong to the stack."""
        return {name: getattr(self, name) for name in PLACE} | {"rng": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state of the saved net.

        Raises ValueError for a place that no fit of its settings reaches.
        """
        most = {"epoch": self.settings.max_epochs, "batch": len(self.train), "step": self.total}
        if odd := [name for name, end in most.items() if not (type(state[name]) is int and 0 <= state[name] <= end)]:
            raise ValueError(f"it stands at {odd[0]} {state[odd[0]]!r} of {most[odd[0]]}")
        for name in PLACE:
            setattr(self, name, state[name])
        self.scores = list(self.scores)
        self.generator.set_state(state["rng"])

    def _rates(self) -> Tensor:
        """Coefficients of each step of AdamW and of the moving average [S, 5].

        Columns: learning rate over the first moment's correction, share by which matrices decay, one over the root of
        the second moment's correction, share of the new weights in the moving average, cap on the gradient's norm.
        Source: Loshchilov & Hutter 2019, alg. 2; the moving average as in `WeightAverage`, whose first step copies.
        """
        module, rows = self.module, []
        decay = 0.0 if module.average is None else module.average.decay
        cap = self.settings.gradient_clip or math.inf
        for step in range(self.total):
            lr = module.lr * warmup_cosine(step, self.total, module.warmup_fraction)
            first, second = (1 - beta ** (step + 1) for beta in BETAS)
            share = 1 - min(decay, (1 + step) / (EMA_WARMUP + step)) if step else 1.0
            rows.append((lr / first, lr * module.weight_decay, second**-0.5, share, cap))
        return torch.tensor(rows, dtype=torch.float32)


def shares_of(net: nn.Module) -> tuple[float, ...]:
    """Dropout shares of a net's parts, which determine its sites."""
    found = [getattr(part, name, None) for part in net.modules() for name in ("p", "dropout")]
    return tuple(value for value in found if isinstance(value, float))
