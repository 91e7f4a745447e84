"""Auxiliary outputs on a net's embedding, trained with the class scores and dropped afterwards.

Legend: N samples, T window, F features, C classes, A auxiliary targets, D embedding.
"""

import torch
from torch import Tensor, nn

from tradsys.models.nets.wide import Wide


class Auxiliary(nn.Module):
    """A net whose training output is [N, C + A], class scores first.

    In eval mode it is the net alone, [N, C]. net: with `embed`, `embedding_dim`, `n_classes` and `head`, or Wide around
    one. It is shared, not copied, so that training changes the net itself. Source: Caruana 1997 (multitask learning).
    """

    def __init__(self, net: nn.Module, n_targets: int) -> None:
        super().__init__()
        self.net, self.n_classes = net, int(net.n_classes)  # type: ignore[arg-type]
        self.targets = nn.Linear(int(net.embedding_dim), n_targets)  # type: ignore[arg-type]

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Scores [N, C], in training followed by the predicted targets [N, A]."""
        if not self.training:
            return self.net(window_NTF)  # type: ignore[no-any-return]
        embedding_ND = self.net.embed(window_NTF)  # type: ignore[operator]
        if isinstance(self.net, Wide):
            score_NC = self.net.deep.head(embedding_ND) + self.net.wide(window_NTF[:, -1])  # type: ignore[operator]
        else:
            score_NC = self.net.head(embedding_ND)  # type: ignore[operator]
        return torch.cat([score_NC, self.targets(embedding_ND)], dim=1)
