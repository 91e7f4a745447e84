"""A linear path from the last bar's features to the scores, added to any net.

Legend: N samples, T window, F features, C classes, D embedding.
"""

import torch
from torch import Tensor, nn

from tradsys.models.solvers.focal import focal_line


class Wide(nn.Module):
    """Adds a linear path to a net: scores [N, C] = deep(window) + last row @ W + b.

    deep: a net with `embed`, `head`, `n_features`, `n_classes`, `lookback` and `embedding_dim`. Its head is set to
    zero, so that before training the sum is the linear path alone: a logistic regression of the last row, to which
    training adds the deep path. Source: Cheng et al. 2016, eq. 3 ("wide and deep").
    """

    def __init__(self, deep: nn.Module) -> None:
        super().__init__()
        self.deep = deep
        self.n_features, self.n_classes = int(deep.n_features), int(deep.n_classes)  # type: ignore[arg-type]
        self.lookback, self.embedding_dim = int(deep.lookback), int(deep.embedding_dim)  # type: ignore[arg-type]
        self.wide = nn.Linear(self.n_features, self.n_classes)
        lines: list[nn.Linear] = [self.wide, deep.head]  # type: ignore[list-item]
        for line in lines:
            nn.init.zeros_(line.weight)
            nn.init.zeros_(line.bias)

    def embed(self, window_NTF: Tensor) -> Tensor:
        """Embedding [N, D] of the deep path."""
        return self.deep.embed(window_NTF)  # type: ignore[operator]

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Unnormalised class scores [N, C]."""
        return self.deep(window_NTF) + self.wide(window_NTF[:, -1])

    def start_at_line(self, row_NF: Tensor, y_N: Tensor, weight_N: Tensor, *, C: float, gamma: float) -> None:
        """Sets the linear path to the penalised optimum on these training rows, in place.

        row_NF: last rows of the training windows. weight_N: sample weights, class weights included. C, gamma: as of
        `focal_line`; the penalty counts each feature in its own standard deviation. With a NaN row the path stays
        at zero: the loader refuses such rows.
        """
        x_NF = row_NF.double().cpu()
        if not x_NF.isfinite().all():
            return
        center_F, spread_F = x_NF.mean(dim=0), x_NF.std(dim=0, correction=0)
        spread_F = torch.where(spread_F > 0, spread_F, 1.0)
        weight_N = weight_N.double().cpu() / weight_N.double().mean().cpu()
        line = focal_line(
            (x_NF - center_F) / spread_F, y_N.cpu(), weight_N, C=C, gamma=gamma, max_iter=100, n_classes=self.n_classes
        )
        coef_CF, intercept_C = line.coef_CF / spread_F, line.intercept_C
        intercept_C = intercept_C - coef_CF @ center_F
        if len(coef_CF) == 1:  # log-odds of class 1: half for it, half against class 0
            coef_CF = torch.cat([-coef_CF, coef_CF]) / 2
            intercept_C = torch.cat([-intercept_C, intercept_C]) / 2
        with torch.no_grad():
            self.wide.weight.copy_(coef_CF)
            self.wide.bias.copy_(intercept_C)
