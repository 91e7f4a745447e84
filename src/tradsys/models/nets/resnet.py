"""A one-dimensional residual net over one window.

Legend: N samples, T window, F features, C classes, D embedding, K channels of a block.
"""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from tradsys.core.bounds import check_bounds
from tradsys.models.nets.dropout import Dropout
from tradsys.models.nets.shapes import check_window

KERNELS = (8, 5, 3)
WIDENING = (1, 2, 2)  # channels of the three blocks over the first one's: 64, 128, 128 in the paper


class ResNet(nn.Module):
    """Maps the window that ends at the decision bar to class scores.

    [N, T, F] to an embedding, then scores.
    n_features, n_classes, lookback: F, C and T, taken from the data, never configured. width: channels of the first
    block; the embedding, a mean over the window, has twice as many. dropout: of the embedding.
    Three blocks of three convolutions of 8, 5 and 3 bars with shortcuts: Wang, Yan and Oates 2017, section II.C.
    Group normalisation (Wu and He 2018, one group) replaces the paper's batch normalisation: neighbouring
    windows share all bars but one and are weighted, so the moments of a batch leak a sample's neighbours, and
    running moments would make the served net differ from the trained one.
    """

    def __init__(
        self, n_features: int, n_classes: int, lookback: int, *, width: int = 64, dropout: float = 0.1
    ) -> None:
        super().__init__()
        check_bounds("resnet", locals(), {"width": "whole [1, inf)", "dropout": "[0, 1)"}, "model.net")
        self.n_features, self.n_classes, self.lookback = n_features, n_classes, lookback
        channels = [n_features, *(width * times for times in WIDENING)]
        self.blocks = nn.ModuleList(Block(k, m) for k, m in itertools.pairwise(channels))
        self.embedding_dim = channels[-1]
        self.drop = Dropout(dropout)
        self.head = nn.Linear(self.embedding_dim, n_classes)

    def embed(self, window_NTF: Tensor) -> Tensor:
        """Embedding [N, D] of the window: the mean over its bars, not to unit length."""
        check_window("resnet", window_NTF, self.lookback, self.n_features)
        x_NKT = window_NTF.transpose(1, 2)
        for block in self.blocks:
            x_NKT = block(x_NKT)
        return self.drop(x_NKT.mean(dim=2))

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Unnormalised class scores [N, C]."""
        return self.head(self.embed(window_NTF))


class Block(nn.Module):
    """Three normalised convolutions plus a shortcut: [N, K, T] -> [N, M, T].

    The shortcut is a convolution of one bar.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        sizes = (n_in, n_out, n_out)
        self.convs = nn.ModuleList(nn.Conv1d(k, n_out, bars) for k, bars in zip(sizes, KERNELS, strict=True))
        self.norms = nn.ModuleList(nn.GroupNorm(1, n_out) for _ in KERNELS)
        self.shortcut: nn.Module = nn.Identity() if n_in == n_out else nn.Conv1d(n_in, n_out, 1)
        self.norm_shortcut = nn.GroupNorm(1, n_out)

    def forward(self, x_NKT: Tensor) -> Tensor:
        """[N, M, T]; the last ReLU comes after the sum, as in the paper."""
        y_NKT = x_NKT
        for bars, conv, norm in zip(KERNELS, self.convs, self.norms, strict=True):
            # as many bars out as in; an even kernel has its extra zero on the left, in the past
            y_NKT = norm(conv(F.pad(y_NKT, (bars // 2, (bars - 1) // 2))))
            if bars != KERNELS[-1]:
                y_NKT = F.relu(y_NKT)
        return F.relu(y_NKT + self.norm_shortcut(self.shortcut(x_NKT)))
