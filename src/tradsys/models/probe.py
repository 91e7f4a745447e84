"""A linear probe under focal loss on the embeddings of an encoder.

Legend: N samples, F columns, C classes.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import TrainingError
from tradsys.core.tables import Array
from tradsys.models.linear import LogisticRegression
from tradsys.models.nets.linear_solver import STEEPEST, focal_line


@dataclass(frozen=True, eq=False)
class LinearProbe(LogisticRegression):
    """A torch linear layer, penalised as LogisticRegression is, with focal loss.

    Gamma = 0 gives that model.
    C, max_iter, lookback and fitted fields: as there. gamma: focus of the loss (Lin et al. 2017, eq. 5); above 0
    probabilities are pulled towards the middle, which a calibrator has to correct.
    Solved by L-BFGS from zero in float64; TrainingError without an optimum after max_iter steps.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        rules = {"gamma": "[0, inf)", "C": "(0, inf]", "max_iter": "whole [1, inf)"}
        check_bounds("probe", self, rules, "model.probe")

    def _solved(self, z_NF: Array, y_N: Array, weight_N: Array) -> Any:
        z, y, weight = torch.from_numpy(z_NF), torch.from_numpy(y_N), torch.from_numpy(weight_N)
        n_classes = int(y_N.max()) + 1
        line = focal_line(z, y, weight, C=self.C, gamma=self.gamma, max_iter=self.max_iter, n_classes=n_classes)
        if not line.slope <= STEEPEST:
            raise TrainingError(
                f"probe: slope {line.slope:.1e} after {self.max_iter} steps at C={self.C}, gamma={self.gamma}; the "
                f"optimum must be reached, a slope of {STEEPEST:.0e}; lower C or raise max_iter"
            )
        return SimpleNamespace(coef_=line.coef_CF.numpy(), intercept_=line.intercept_C.numpy())
