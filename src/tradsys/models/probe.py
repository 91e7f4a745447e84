"""A linear probe under focal loss on the embeddings of an encoder.

Legend: N samples, F columns, C classes.
"""

from dataclasses import dataclass

import torch

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import TrainingError
from tradsys.core.tables import Array
from tradsys.models.linear import LogisticRegression
from tradsys.models.solvers.focal import STEEPEST, focal_line
from tradsys.models.solvers.newton import Standardised


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

    def _optimum(self, rows: Standardised, weight_N: Array, n_classes: int) -> tuple[Array, Array]:
        z, y, weight = (torch.from_numpy(part) for part in (rows.whole(), rows.train.y, weight_N))
        line = focal_line(z, y, weight, C=self.C, gamma=self.gamma, max_iter=self.max_iter, n_classes=n_classes)
        if not line.slope <= STEEPEST:
            raise TrainingError(
                f"probe: slope {line.slope:.1e} after {self.max_iter} steps at C={self.C}, gamma={self.gamma}; the "
                f"optimum must be reached, a slope of {STEEPEST:.0e}; lower C or raise max_iter"
            )
        return line.coef_CF.numpy(), line.intercept_C.numpy()
