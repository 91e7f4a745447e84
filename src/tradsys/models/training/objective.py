"""The loss of a classifier as one value, so that each net of a stack may have its own.

Legend: N samples, C classes, A auxiliary targets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tradsys.models.losses import focal_loss, weighted_mean
from tradsys.models.training.recipe import Prepared


class Objective(NamedTuple):
    """Focal loss with class weights, sample weights and smoothing, plus auxiliary losses.

    gamma, label_smoothing, auxiliary: plain numbers, or tensors where nets under vmap each have their own.
    """

    gamma: float | Tensor
    label_smoothing: float | Tensor
    weight_C: Tensor
    auxiliary: Sequence[float] | Tensor = ()

    def loss(self, logits_NC: Tensor, y_N: Tensor, weight_N: Tensor) -> Tensor:
        """Scalar; with smoothing eps (1 - eps) * loss(y) + eps * mean of loss(c) over c."""

        def focal(codes_N: Tensor) -> Tensor:
            return focal_loss(logits_NC, codes_N, gamma=self.gamma, weight_C=self.weight_C, sample_weight_N=weight_N)

        eps = self.label_smoothing
        if not isinstance(eps, Tensor) and eps == 0:
            return focal(y_N)
        each = torch.stack([focal(torch.full_like(y_N, c)) for c in range(logits_NC.shape[1])])
        return (1 - eps) * focal(y_N) + eps * each.mean()

    def __call__(self, logits_NC: Tensor, seen: Prepared) -> Tensor:
        """Scalar loss of a batch after the recipe; for mixup, both labels' losses weighted by their shares."""
        logits_NC, guess_NA = logits_NC.tensor_split([len(self.weight_C)], dim=1)
        own = self.loss(logits_NC, seen.y_N, seen.weight_N)
        if seen.other is not None:
            own = torch.lerp(self.loss(logits_NC, *seen.other), own, seen.share)
        if seen.target_NA is None:
            return own
        error_NA = F.smooth_l1_loss(guess_NA.float(), seen.target_NA, reduction="none")
        for k, weight in enumerate(self.auxiliary):
            own = own + weight * weighted_mean(error_NA[:, k], seen.weight_N)
        return own
