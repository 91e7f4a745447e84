"""A linear layer under focal loss on what an encoder left behind.

Legend: N samples, F columns, C classes.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import TrainingError
from tradsys.core.tables import Array
from tradsys.models.linear import LogisticRegression
from tradsys.models.losses import focal_loss

STEEPEST = 1e-5  # largest slope of the mean loss at what counts as an optimum


@dataclass(frozen=True, eq=False)
class LinearProbe(LogisticRegression):
    """A torch linear layer, penalised as LogisticRegression is, whose loss is focal; gamma = 0 gives that model.

    C, max_iter, lookback and what is fitted: as there. gamma: focus of the loss (Lin et al. 2017, eq. 5); above 0
    probabilities are drawn towards the middle, which a calibrator has to undo.
    Solved by L-BFGS from zero in float64; TrainingError where it does not reach an optimum in max_iter steps.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        rules = {"gamma": "[0, inf)", "C": "(0, inf]", "max_iter": "whole [1, inf)"}
        check_bounds("probe", self, rules, "model.probe")

    def _solved(self, z_NF: Array, y_N: Array, weight_N: Array) -> Any:
        n, n_columns = z_NF.shape
        n_classes = int(y_N.max()) + 1
        z = torch.from_numpy(z_NF)
        y, weight = torch.from_numpy(y_N), torch.from_numpy(weight_N)
        # one row of weights stands for the log-odds of class 1, as in the logistic regression
        coef = torch.zeros(1 if n_classes == 2 else n_classes, n_columns, dtype=torch.float64, requires_grad=True)
        intercept = torch.zeros(len(coef), dtype=torch.float64, requires_grad=True)

        def objective() -> Tensor:
            logits = z @ coef.T + intercept
            if n_classes == 2:
                logits = F.pad(logits, (1, 0))
            penalty = coef.square().sum() / (2 * self.C * n)
            return focal_loss(logits, y, gamma=self.gamma, sample_weight_N=weight) + penalty

        slope = _descend(objective, [coef, intercept], self.max_iter)
        if not slope <= STEEPEST:
            raise TrainingError(
                f"probe: slope {slope:.1e} after {self.max_iter} steps at C={self.C}, gamma={self.gamma}; the optimum "
                f"must be reached, a slope of {STEEPEST:.0e}; lower C or raise max_iter"
            )
        return SimpleNamespace(coef_=coef.detach().numpy(), intercept_=intercept.detach().numpy())


def _descend(objective: Any, parameters: list[Tensor], max_iter: int) -> float:
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

    optimizer.step(closure)
    closure()
    return max(float(p.grad.abs().max()) for p in parameters if p.grad is not None)
