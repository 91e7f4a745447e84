"""A net on two time scales of one window: its last bars, and means over blocks of all of it.

Legend: N samples, T window, F features, C classes, D embedding.
"""

import torch
from torch import Tensor, nn

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import CombinationError
from tradsys.models.nets.shapes import check_window
from tradsys.models.nets.transformer import check_multiple, in_tokens, without_head


class TwoScales(nn.Module):
    """Maps the window, at two scales, to class scores.

    [N, T, F], ending at the decision bar, to an embedding, then scores.
    n_features, n_classes, lookback: F, C and T, taken from the data, never configured.
    fine: last bars of the window at full resolution. coarse: bars of a block (24 hours are a day); the complete
    window is read as the means of its T / coarse blocks, the last of which ends at the decision bar, so that each is
    available at its close. d_model, n_heads, n_layers, ffn_mult, dropout, positions: of either of the two Transformers,
    whose concatenated embeddings are the embedding of D = 2 d_model.
    Raises CombinationError where `fine` exceeds the lookback or the lookback is no multiple of `coarse`.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        lookback: int,
        *,
        fine: int = 24,
        coarse: int = 24,
        d_model: int = 32,
        n_heads: int = 4,
        n_layers: int = 1,
        dropout: float = 0.1,
        ffn_mult: int = 4,
        positions: str = "learned",
    ) -> None:
        super().__init__()
        check_bounds("two scales", locals(), dict.fromkeys(("fine", "coarse"), "whole [1, inf)"), "model.net")
        check_multiple("two scales", "coarse", coarse, lookback)
        if fine > lookback:
            raise CombinationError(
                f"two scales: fine={fine} bars of a window of {lookback}; the window must hold them; "
                f"set model.net.fine={lookback} or less, or raise model.lookback"
            )
        self.n_features, self.n_classes, self.lookback = n_features, n_classes, lookback
        self.n_fine, self.n_coarse = fine, coarse

        settings = {
            "d_model": d_model, "n_heads": n_heads, "n_layers": n_layers, "dropout": dropout, "ffn_mult": ffn_mult,
            "positions": positions,
        }  # fmt: skip
        self.fine = without_head(n_features, n_classes, fine, **settings)
        self.coarse = without_head(n_features, n_classes, lookback // coarse, **settings)
        self.embedding_dim = 2 * d_model
        self.head = nn.Linear(self.embedding_dim, n_classes)

    def embed(self, window_NTF: Tensor) -> Tensor:
        """Embedding [N, D] of the window: that of its last bars, then that of its blocks."""
        check_window("two scales", window_NTF, self.lookback, self.n_features)
        blocks_NTF = in_tokens(window_NTF, self.n_coarse).mean(dim=2)
        return torch.cat([self.fine(window_NTF[:, -self.n_fine :]), self.coarse(blocks_NTF)], dim=1)

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Unnormalised class scores [N, C]."""
        return self.head(self.embed(window_NTF))
