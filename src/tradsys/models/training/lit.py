"""Lightning module of a classifier: loss, optimiser and metrics. The loop is `loop.DirectLoop` or Lightning's.

Legend: N samples, T window, F features, C classes.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pytorch_lightning as L
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc, multiclass_auroc

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import TrainingError
from tradsys.models.losses import weighted_mean
from tradsys.models.nets.auxiliary import Auxiliary
from tradsys.models.training.loop import DirectLoop
from tradsys.models.training.objective import Objective
from tradsys.models.training.recipe import QUANTILES, BatchRecipe, Prepared, WeightAverage, check_targets
from tradsys.samples.loader import rank_of

Batch = tuple[Tensor, ...]  # window_NTF, y_N, weight_N, in training with auxiliary targets target_NA

BOUNDS = {
    "gamma": "[0, 100]",  # above it only samples that are entirely wrong count
    "lr": "(0, inf)",
    "weight_decay": "[0, inf)",
    "warmup_fraction": "[0, 1)",
    "label_smoothing": "[0, 1)",
    "ema": "[0, 1)",
    "bar_dropout": "[0, 1)",
    "feature_dropout": "[0, 1)",
    "mixup": "[0, inf)",
}
# losses stay on the device and are read together: one synchronisation per so many steps
STEPS_PER_CHECK = 50


class Classifier(Protocol):
    """Interface of a net that is trained here."""

    n_classes: int

    def __call__(self, window_NTF: Tensor) -> Tensor:
        """Unnormalised class scores [N, C]."""


class LitClassifier(L.LightningModule):
    """Focal loss, AdamW with warm-up and cosine, validation log-loss.

    net: window [N, T, F] -> logits [N, C], with `n_classes`. gamma: focus of the loss; 0 is cross-entropy.
    lr: peak learning rate. weight_decay: on matrices alone, never on biases or norms.
    warmup_fraction: share of all planned steps in which lr rises linearly from 0; then half a cosine to 0.
    class_weight: None, or `balanced`: W / (C * W_c), with W_c the sample weight of class c in training.
    label_smoothing: eps in [0, 1); the loss becomes (1 - eps) * loss(y) + eps * mean of loss(c) over c.
    ema: decay per step of a moving average of the weights, which is validated and kept; 0 for none.
    bar_dropout, feature_dropout, mixup: random changes of training batches, 0 for none; see BatchRecipe.
    auxiliary: weights of the losses on further outputs of the encoder (`range`, `time`, `mean`, `return_q10` and more:
    `auxiliary_targets`), added to the class loss in training only; validation, predictions and bundles have class
    scores only.

    Logs per epoch: train_loss, valid_logloss (weighted by sample), valid_auc where each class occurs.
    Raises TrainingError, with step and learning rate, where a loss or a weight stops being finite.
    """

    weight_C: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        gamma: float = 2.0,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_fraction: float = 0.1,
        class_weight: str | None = None,
        label_smoothing: float = 0.0,
        ema: float = 0.0,
        bar_dropout: float = 0.0,
        feature_dropout: float = 0.0,
        mixup: float = 0.0,
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if class_weight not in (None, "balanced"):
            raise ValueError(
                f"lit: class_weight={class_weight!r}; it must be null or 'balanced'; set model.module.class_weight"
            )
        check_bounds("lit", locals(), BOUNDS, "model.module")
        self.auxiliary = check_targets(auxiliary)
        self.net = Auxiliary(net, len(self.auxiliary)) if self.auxiliary else net
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.lr, self.weight_decay, self.warmup_fraction = lr, weight_decay, warmup_fraction
        self.class_weight = class_weight
        self.recipe = BatchRecipe(bar_dropout, feature_dropout, mixup)
        self.average = WeightAverage(ema) if ema else None
        self.register_buffer("weight_C", torch.ones(int(net.n_classes)))  # type: ignore[arg-type]
        self._total_steps = 0
        self._losses: list[Tensor] = []
        self._train_loss = torch.zeros(2, dtype=torch.float64)  # sum of batch losses, batches
        self._valid: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Unnormalised class scores [N, C]."""
        return self.net(window_NTF)

    @property
    def objective(self) -> Objective:
        """The loss with the class weights that a fit has set."""
        quantiles = tuple(QUANTILES.get(name, 0.0) for name in self.auxiliary)
        return Objective(self.gamma, self.label_smoothing, self.weight_C, tuple(self.auxiliary.values()), quantiles)

    def loss(self, logits_NC: Tensor, y_N: Tensor, weight_N: Tensor) -> Tensor:
        """Scalar focal loss with class weights, sample weights and smoothing."""
        return self.objective.loss(logits_NC, y_N, weight_N)

    def prepared_loss(self, logits_NC: Tensor, seen: Prepared) -> Tensor:
        """Scalar loss of a batch after the recipe.

        For mixup, both labels' losses weighted by their shares.
        """
        return self.objective(logits_NC, seen)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the optimiser, then updates the moving average."""
        super().optimizer_step(*args, **kwargs)
        self.after_step()

    def after_step(self) -> None:
        """Adds the step's weights to the moving average."""
        if self.average is not None:
            self.average.update(self)

    def log(self, name: str, value: Any, **options: Any) -> None:  # type: ignore[override]
        """Logs a metric of the epoch to the running loop."""
        if isinstance(self.trainer, DirectLoop):
            self.trainer.log(name, value)
        else:
            super().log(name, value, **options)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clips the norm of all gradients together."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], gradient_clip_val)

    def kept_state(self) -> dict[str, Any]:
        """The weights that a fit keeps of an epoch: the moving average where there is one."""
        with self._averaged():
            return {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        if self.average is not None:
            self.average.swap(self)
        yield
        if self.average is not None:
            self.average.swap(self)

    def on_fit_start(self) -> None:
        """Sets class weights from the training loader's labels."""
        if self.class_weight == "balanced":
            loader: Any = self.trainer.train_dataloader
            self.weight_C.copy_(balanced(loader.y_N, loader.weight_N, len(self.weight_C)))

    def training_step(self, batch: Batch) -> Tensor:
        """Loss of one batch.

        Of several ranks, such that the ranks' mean is the loss of their joint batch.
        """
        loss, *seen = self.step_loss(batch)
        self.keep_step(*seen)
        return loss

    @property
    def recordable(self) -> bool:
        """Whether a step's kernels may be recorded.

        It must be only `step_loss`, backward and the optimiser's.
        """
        own = ("training_step", "optimizer_step")
        return all(getattr(type(self), name) is getattr(LitClassifier, name) for name in own)

    def step_loss(self, batch: Batch) -> tuple[Tensor, ...]:
        """The loss to minimise, then the arguments of `keep_step`.

        All on the device, nothing is kept here.
        """
        seen = self.recipe(batch)
        loss = joint_share(seen.weight_N) * self.prepared_loss(self.net(seen.window_NTF), seen)
        return loss, loss.detach()

    def keep_step(self, loss: Tensor) -> None:
        """Stores one step's loss; after STEPS_PER_CHECK of them they are read and checked."""
        if len(self._losses) >= STEPS_PER_CHECK:
            self._check_losses()
        self._losses.append(loss)

    def on_validation_start(self) -> None:
        """Raises before validation or a save if a loss or a weight is not finite."""
        self._check_losses()
        self._check_weights()
        if self.average is not None:
            self.average.swap(self)

    def on_validation_end(self) -> None:
        """Swaps the training weights back in."""
        if self.average is not None:
            self.average.swap(self)

    def validation_step(self, batch: Batch) -> None:
        """Stores one batch's scores."""
        window_NTF, y_N, weight_N, *_ = batch
        self._valid.append((self.net(window_NTF).float(), y_N, weight_N))

    def on_validation_epoch_end(self) -> None:
        """Logs valid_logloss and valid_auc over the complete validation set."""
        logits_NC, y_N, weight_N = (torch.cat(part) for part in zip(*self._valid, strict=True))
        self._valid.clear()
        nll_N = F.cross_entropy(logits_NC, y_N, reduction="none")
        logloss = weighted_mean(nll_N.double(), weight_N)
        if not torch.isfinite(logloss):
            raise self._not_finite(f"valid_logloss is {logloss.item()}", self.global_step)
        self.log("valid_logloss", logloss.float(), prog_bar=True)
        if torch.bincount(y_N, minlength=logits_NC.shape[1]).all():
            self.log("valid_auc", _auc(logits_NC, y_N), prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's mean training loss and the learning rate it ended with."""
        self._check_losses()
        self._check_weights()
        total, batches = self._train_loss.tolist()
        if batches:
            self.log("train_loss", total / batches, sync_dist=rank_of()[1] > 1)
        self.log("lr", self.lr * self._schedule(self.global_step))
        self._train_loss = torch.zeros(2, dtype=torch.float64)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the running epoch's training loss, once it is checked to be finite."""
        self._check_losses()
        checkpoint["train_loss"] = self._train_loss
        if self.average is not None:
            checkpoint["ema"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the running epoch's training loss."""
        self._train_loss = checkpoint["train_loss"].clone()
        if self.average is not None:
            self.average.load_state_dict(checkpoint["ema"], self)

    def configure_optimizers(self) -> Any:
        """AdamW in two groups (matrices decay, vectors do not) and a schedule per step."""
        self._total_steps = int(self.trainer.estimated_stepping_batches)
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _schedule(self, step: int) -> float:
        return warmup_cosine(step, self._total_steps, self.warmup_fraction)

    def _check_losses(self) -> None:
        if not self._losses:
            return
        losses = torch.stack(self._losses).double().cpu()
        first = self.global_step - len(losses)
        self._losses.clear()
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            k = int(bad[0])
            raise self._not_finite(f"training loss is {losses[k].item()}", first + k)
        self._train_loss += torch.stack([losses.sum(), torch.tensor(float(len(losses)))])

    def _check_weights(self) -> None:
        finite = torch.stack([p.detach().isfinite().all() for p in self.parameters()])
        if not finite.all():
            names = [name for name, _ in self.named_parameters()]
            worst = names[int((~finite).nonzero()[0])]
            raise self._not_finite(f"weight {worst!r} is not finite", self.global_step - 1)

    def _not_finite(self, what: str, step: int) -> TrainingError:
        rate = self.lr * self._schedule(max(step, 0))
        return TrainingError(
            f"training: {what} at step {step} of {self._total_steps}, learning rate {rate:.3g} "
            f"(peak {self.lr:.3g}); losses and weights must stay finite; lower model.module.lr, set "
            "trainer.gradient_clip, or look for extreme features"
        )


def warmup_cosine(step: int, total_steps: int, warmup_fraction: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then half a cosine.

    From 1 / warm-up steps to 1, then to 0. Source: Loshchilov & Hutter 2017, eq. 5, one period, after a linear warm-up.
    """
    warmup = round(warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    place = (step - warmup) / max(total_steps - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(place, 1.0)))


def joint_share(weight_N: Tensor) -> Tensor | float:
    """Factor of a rank's mean loss for the mean over the joint batch.

    The mean over ranks then equals it. n W_r / sum(W), with W_r the weight of this rank's batch: a plain mean of ranks
    would overweight light batches. 1 outside a distributed run. Every rank must call it at the same step.
    """
    n_ranks = rank_of()[1]
    if n_ranks == 1:
        return 1.0
    own = weight_N.sum()
    joint = own.clone()
    dist.all_reduce(joint)
    return n_ranks * own / joint.clamp_min(torch.finfo(joint.dtype).tiny)


def balanced(y_N: Tensor, weight_N: Tensor, n_classes: int) -> Tensor:
    """Class weights [C] = W / (C * W_c): equal totals per class.

    0 for a class that never occurs.
    """
    per_class_C = torch.zeros(n_classes, dtype=torch.float64, device=y_N.device)
    per_class_C.scatter_add_(0, y_N, weight_N.double())
    share_C = per_class_C.sum() / (n_classes * per_class_C)
    return torch.where(per_class_C > 0, share_C, 0.0).float()


def _auc(logits_NC: Tensor, y_N: Tensor) -> Tensor:
    if logits_NC.shape[1] == 2:
        # the difference ranks as P(1) does, without the ties of a rounded softmax
        return binary_auroc((logits_NC[:, 1] - logits_NC[:, 0]).double().sigmoid(), y_N)
    return multiclass_auroc(logits_NC.double().softmax(dim=1), y_N, num_classes=logits_NC.shape[1])
