"""A temporal convolution net: dilated causal convolutions over one window.

Legend: N samples, T window, F features, C classes, D embedding, K channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import CombinationError
from tradsys.models.nets.dropout import Dropout
from tradsys.models.nets.shapes import check_window

BOUNDS = {
    "width": "whole [1, inf)",
    "kernel_bars": "whole [2, inf)",
    "n_levels": "null or whole [1, inf)",
    "dropout": "[0, 1)",
}


class TemporalConvNet(nn.Module):
    """Maps the window that ends at the decision bar to class scores.

    [N, T, F] to an embedding, then scores.
    n_features, n_classes, lookback: F, C and T, taken from the data, never configured. width: channels K, which is
    D. kernel_bars: bars of each convolution. n_levels: residual blocks, of dilation 1, 2, 4, ...; None takes the fewest
    that cover the complete window. A number that covers less of it raises ValueError.
    The embedding is the last bar's. Source: Bai, Kolter and Koltun 2018, section 3, weights normalised (Salimans and
    Kingma 2016), so that no moment of a batch or of later bars enters.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        lookback: int,
        *,
        width: int = 64,
        kernel_bars: int = 3,
        n_levels: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_bounds("tcn", locals(), BOUNDS, "model.net")
        enough = levels_for(lookback, kernel_bars)
        if n_levels is not None and (n_levels < 1 or receptive_field(n_levels, kernel_bars) < lookback):
            raise CombinationError(
                f"tcn: {n_levels} levels of {kernel_bars} bars see {receptive_field(max(n_levels, 0), kernel_bars)} "
                f"bars of a window of {lookback}; they must cover it completely; use n_levels={enough} or null"
            )
        self.n_features, self.n_classes, self.lookback = n_features, n_classes, lookback
        self.n_levels = n_levels or enough
        sizes = [n_features] + [width] * self.n_levels
        self.blocks = nn.ModuleList(
            Block(sizes[level], width, kernel_bars, 2**level, dropout) for level in range(self.n_levels)
        )
        self.embedding_dim = width
        self.head = nn.Linear(width, n_classes)

    def states(self, window_NTF: Tensor) -> Tensor:
        """Hidden state [N, K, T] after each bar, from that bar and earlier ones alone."""
        check_window("tcn", window_NTF, self.lookback, self.n_features)
        x_NKT = window_NTF.transpose(1, 2)
        for block in self.blocks:
            x_NKT = block(x_NKT)
        return x_NKT

    def embed(self, window_NTF: Tensor) -> Tensor:
        """Embedding [N, D] of the window: its last state, not of unit length."""
        return self.states(window_NTF)[:, :, -1]

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Unnormalised class scores [N, C]."""
        return self.head(self.embed(window_NTF))


class Block(nn.Module):
    """Two causal convolutions of one dilation plus a shortcut: [N, K, T] -> [N, M, T].

    Fig. 1(b) of the paper.
    """

    def __init__(self, n_in: int, n_out: int, kernel_bars: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.reach = (kernel_bars - 1) * dilation
        self.first = weight_norm(nn.Conv1d(n_in, n_out, kernel_bars, dilation=dilation))
        self.second = weight_norm(nn.Conv1d(n_out, n_out, kernel_bars, dilation=dilation))
        self.drop = Dropout(dropout)
        self.shortcut: nn.Module = nn.Identity() if n_in == n_out else nn.Conv1d(n_in, n_out, 1)

    def forward(self, x_NKT: Tensor) -> Tensor:
        """[N, M, T]; zeros pad before the window's first bar."""
        y_NKT = x_NKT
        for conv in (self.first, self.second):
            y_NKT = self.drop(F.relu(conv(F.pad(y_NKT, (self.reach, 0)))))
        return F.relu(y_NKT + self.shortcut(x_NKT))


def receptive_field(n_levels: int, kernel_bars: int) -> int:
    """Bars that the last state reads.

    1 + 2 (k - 1) (1 + 2 + ... + 2^(n_levels - 1)), two convolutions a level.
    """
    return 1 + 2 * (kernel_bars - 1) * (2**n_levels - 1)


def levels_for(lookback: int, kernel_bars: int) -> int:
    """The fewest levels, one at least, whose receptive field holds `lookback` bars."""
    n_levels = 1
    while receptive_field(n_levels, kernel_bars) < lookback:
        n_levels += 1
    return n_levels
