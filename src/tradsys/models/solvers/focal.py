"""Penalised linear classification under focal loss, in torch alone.

Legend: N samples, F columns, C classes (one row stands for the log-odds of class 1 where there are two).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tradsys.models.losses import focal_loss

STEEPEST = 1e-5  # largest gradient of the mean loss that counts as an optimum


@dataclass(frozen=True)
class Line:
    """coef_CF [1, F] for two classes, else [C, F].

    intercept_C likewise; slope: the largest gradient left.
    """

    coef_CF: Tensor
    intercept_C: Tensor
    slope: float


def focal_line(
    z_NF: Tensor, y_N: Tensor, weight_N: Tensor, *, C: float, gamma: float, max_iter: int, n_classes: int
) -> Line:
    """Minimises mean focal loss + |coef|^2 / (2 C N) by L-BFGS from zero in float64.

    z_NF: float64, standardised for the penalty. weight_N: of mean 1. gamma = 0 is logistic regression.
    Source of the loss: Lin et al. 2017, eq. 5.
    """
    n, n_columns = z_NF.shape
    coef = torch.zeros(1 if n_classes == 2 else n_classes, n_columns, dtype=torch.float64, requires_grad=True)
    intercept = torch.zeros(len(coef), dtype=torch.float64, requires_grad=True)

    def objective() -> Tensor:
        logits = z_NF @ coef.T + intercept
        if n_classes == 2:
            logits = F.pad(logits, (1, 0))
        penalty = coef.square().sum() / (2 * C * n)
        return focal_loss(logits, y_N, gamma=gamma, sample_weight_N=weight_N) + penalty

    slope = _descend(objective, [coef, intercept], max_iter)
    return Line(coef.detach(), intercept.detach(), slope)


def _descend(objective: Callable[[], Tensor], parameters: list[Tensor], max_iter: int) -> float:
    """Minimises in place by L-BFGS; returns the largest slope left."""
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_iter,
        tolerance_grad=STEEPEST / 10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
        closure()
    return max(float(p.grad.abs().max()) for p in parameters if p.grad is not None)
