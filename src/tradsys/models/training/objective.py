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
    """Focal loss with class and sample weights, plus auxiliary losses.

    Labels may be smoothed. gamma, label_smoothing, auxiliary, quantiles: plain numbers, or tensors where nets under
    vmap
    each have their own. auxiliary: a weight for each auxiliary target. quantiles: the share below which its output
    lies, 0 for a mean.
    """

    gamma: float | Tensor
    label_smoothing: float | Tensor
    weight_C: Tensor
    auxiliary: Sequence[float] | Tensor = ()
    quantiles: Sequence[float] | Tensor = ()

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
        for k, (weight, quantile) in enumerate(zip(self.auxiliary, self.quantiles, strict=True)):
            error_N = target_error(guess_NA[:, k].float(), seen.target_NA[:, k], quantile)
            own = own + weight * weighted_mean(error_N, seen.weight_N)
        return own


def target_error(guess_N: Tensor, target_N: Tensor, quantile: float | Tensor) -> Tensor:
    """Smooth L1 error [N], or for a quantile above 0 the pinball loss.

    Source: Koenker & Bassett 1978.
    """
    smooth_N = F.smooth_l1_loss(guess_N, target_N, reduction="none")
    if not isinstance(quantile, Tensor) and quantile == 0:
        return smooth_N
    gap_N = target_N - guess_N
    pinball_N = torch.maximum(quantile * gap_N, (quantile - 1) * gap_N)
    return torch.where(quantile > 0, pinball_N, smooth_N) if isinstance(quantile, Tensor) else pinball_N
