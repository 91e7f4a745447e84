"""Training recipe of a net: changes of the batch, the averaged weights, and the selection of the epoch.

Legend: N samples, T window, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from tradsys.core.errors import TrainingError
from tradsys.core.tables import Array, Samples
from tradsys.models.training.augment import FeatureDropout, TimeMask

EMA_WARMUP = 10  # steps after which the moving average has about the span of its decay


class Prepared(NamedTuple):
    """A training batch after the recipe.

    other: labels and weights [N] of mixup partners; share: weight of the own. target_NA: auxiliary targets, mixed
    likewise; None for none.
    """

    window_NTF: Tensor
    y_N: Tensor
    weight_N: Tensor
    other: tuple[Tensor, Tensor] | None
    share: Tensor | float
    target_NA: Tensor | None = None


@dataclass(frozen=True)
class BatchRecipe:
    """Random changes of a training batch.

    With all at 0 the batch comes back unchanged and nothing is drawn. bar_dropout: share of a window's bars blanked in
    one run, never the decision bar. feature_dropout: probability that a column of a window is blanked. mixup: alpha of
    Beta(alpha, alpha), the share at which a window and its label's loss are mixed with another window of the same
    training batch (Zhang et al. 2018, eq. 2): both labels resolve before the training span ends, so nothing later
    enters.
    """

    bar_dropout: float = 0.0
    feature_dropout: float = 0.0
    mixup: float = 0.0

    def __call__(self, batch: Sequence[Tensor], generator: Generator | None = None) -> Prepared:
        """The batch for the net. generator: None draws from the device's global one."""
        window_NTF, y_N, weight_N, *rest = batch
        target_NA = rest[0] if rest else None
        if self.bar_dropout:
            window_NTF = TimeMask(self.bar_dropout)(window_NTF, generator)
        if self.feature_dropout:
            window_NTF = FeatureDropout(self.feature_dropout)(window_NTF, generator)
        if not self.mixup:
            return Prepared(window_NTF, y_N, weight_N, None, 1.0, target_NA)
        alpha = torch.full((2,), self.mixup, device=window_NTF.device)
        gamma_2 = torch._standard_gamma(alpha, generator=generator)
        share = gamma_2[0] / gamma_2.sum().clamp_min(torch.finfo(gamma_2.dtype).tiny)
        partner_N = torch.randperm(len(y_N), generator=generator, device=window_NTF.device)
        mixed_NTF = torch.lerp(window_NTF[partner_N], window_NTF, share.to(window_NTF.dtype))
        if target_NA is not None:
            target_NA = torch.lerp(target_NA[partner_N], target_NA, share)
        return Prepared(mixed_NTF, y_N, weight_N, (y_N[partner_N], weight_N[partner_N]), share, target_NA)


class WeightAverage:
    """Exponential moving average of a module's weights.

    Swapped in for validation and saving. decay per step; after step t it is min(decay, (1 + t) / (10 + t)), so that the
    first weights are soon forgotten. Source: Polyak & Juditsky 1992; the warm-up as in TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps, self.kept = decay, 0, list[Tensor]()

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Adds one step's weights to the average; the first are copied."""
        weights = [p.detach() for p in module.parameters() if p.requires_grad]
        if not self.kept:
            self.kept = [w.clone() for w in weights]
            return
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (EMA_WARMUP + self.steps))
        torch._foreach_lerp_(self.kept, weights, share)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchanges the module's weights and the average; a second call undoes it."""
        for kept, own in zip(self.kept, (p for p in module.parameters() if p.requires_grad), strict=False):
            held = own.detach().clone()
            own.copy_(kept)
            kept.copy_(held)

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed fit."""
        return {"steps": self.steps, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any], module: nn.Module) -> None:
        """Restores the state, on the module's device."""
        device = next(module.parameters()).device
        self.steps, self.kept = int(state["steps"]), [w.to(device) for w in state["kept"]]


@dataclass(frozen=True)
class Selection:
    """Which epoch's weights a fit keeps, and when it stops.

    keep: `best` epoch by validation log-loss, or the `last` of a fixed budget, which never stops early. smooth_epochs:
    the log-loss is averaged over so many epochs up to each, so that no single lucky one wins; epochs before the first
    full mean are not candidates. patience: epochs without a better one before the fit stops.
    """

    keep: str
    smooth_epochs: int
    patience: int

    def scores(self, scores: Sequence[float]) -> list[float]:
        """The value by which each epoch is ranked, NaN for those that are no candidates."""
        if self.keep == "last":
            return [torch.nan] * (len(scores) - 1) + list(scores[-1:])
        k = self.smooth_epochs
        return [sum(scores[i + 1 - k : i + 1]) / k if i + 1 >= k else torch.nan for i in range(len(scores))]

    def best_epoch(self, scores: Sequence[float]) -> int | None:
        """The first epoch with the lowest score; None where no score is finite."""
        ranked = self.scores(scores)
        finite = [epoch for epoch, score in enumerate(ranked) if abs(score) < torch.inf]
        return min(finite, key=lambda epoch: ranked[epoch]) if finite else None

    def stale(self, scores: Sequence[float]) -> bool:
        """Whether `patience` epochs have passed without a better score."""
        if self.keep == "last" or len(scores) < self.smooth_epochs:
            return False
        best = self.best_epoch(scores)
        return len(scores) - (0 if best is None else best + 1) >= self.patience


QUANTILES = {"return_q10": 0.1, "return_q50": 0.5, "return_q90": 0.9}  # their loss is the pinball loss
TARGETS = ("range", "time", "mean", *QUANTILES)
PATHS = {"range": "realised_range", "mean": "mean_met"}  # targets that need highs and lows
LEAST_RANGE = 1e-6  # log price: for bars that did not move at all


def check_targets(weights: Mapping[str, float] | None) -> dict[str, float]:
    """Weights of auxiliary targets by name, checked.

    Raises ValueError for an unknown target or a weight not above 0.
    """
    weights = dict(weights or {})
    if unknown := [name for name in weights if name not in TARGETS]:
        raise ValueError(
            f"lit: no auxiliary target {unknown[0]!r}; targets have the label's own horizon, by which training "
            f"rows are purged: {', '.join(TARGETS)}; set model.module.auxiliary, or labels of another horizon"
        )
    if wrong := {name: w for name, w in weights.items() if not (isinstance(w, int | float) and 0 < w < np.inf)}:
        raise ValueError(f"lit: auxiliary={wrong}; weights are above 0 and finite; leave a target out instead")
    return weights


def auxiliary_targets(train: Samples, names: Sequence[str]) -> Array:
    """Auxiliary targets [N, A] of training samples, standardised over them.

    Mean 0 and deviation 1. range: log of the realised range from entry to the label's end. time: log of the bars until
    the label resolves. mean: whether that path trades at the trailing mean (`labels.realised_range.mean_met`).
    return_q10, return_q50, return_q90: the label's return, of which the output learns that quantile (Koenker & Bassett
    1978). Raises TrainingError where a target is unknown for a sample, or the same for all.
    """
    columns = []
    for name in names:
        if name in PATHS:
            path_N = getattr(train, PATHS[name])
            if path_N is None:
                raise TrainingError(
                    f"lit: auxiliary target {name!r} needs highs and lows, and these samples have none; use bars with "
                    "both, or leave it out of model.module.auxiliary"
                )
            value_N = np.log(np.maximum(path_N, LEAST_RANGE)) if name == "range" else path_N.astype(np.float64)
        elif name in QUANTILES:
            value_N = train.ret
        else:
            value_N = np.log((train.end - train.rows).astype(np.float64))
        if missing := int((~np.isfinite(value_N)).sum()):
            raise TrainingError(
                f"lit: auxiliary target {name!r} is missing for {missing} of {len(train)} training samples; every one "
                "must have it; check the bars' highs and lows, or leave it out of model.module.auxiliary"
            )
        if not value_N.std() > 1e-9:
            raise TrainingError(
                f"lit: auxiliary target {name!r} is the same for all {len(train)} training samples; nothing to learn "
                "there; labels of a fixed horizon have no time to learn; leave it out of model.module.auxiliary"
            )
        columns.append((value_N - value_N.mean()) / value_N.std())
    return np.stack(columns, axis=1)
