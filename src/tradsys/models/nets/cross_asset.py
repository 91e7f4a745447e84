"""A net on the window of one coin with attention over all other coins at the decision bar.

Legend: N samples, T window, F features, P places of other coins, V values of each, C classes, D embedding.
"""

import torch
from torch import Tensor, nn

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import CombinationError
from tradsys.models.nets.shapes import check_window
from tradsys.models.nets.transformer import Block, without_head


class CrossAsset(nn.Module):
    """Reads a coin's window and other coins' values at its decision bar.

    [N, T, F - P V] and [N, P, V].
    n_features, n_classes, lookback: F, C and T, taken from the data, never configured.
    places, values: P and V; the last P * V features are the other coins' values at a bar's close, coin by coin
    (`market.macro.coins.Peers`, features=hourly_peers). They are tokens next to the embedding of the own window, which
    attends to them in one block without positions, so that the order of the coins has no meaning.
    d_model, n_heads, n_layers, ffn_mult, dropout, positions: of the Transformer over the own window, and of the block.
    Source: the cross-asset attention network of Wang et al. 2019 (AlphaStock), reduced to the query of the coin
    itself.
    Raises CombinationError where the other coins' values leave no feature of the own.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        lookback: int,
        *,
        places: int = 7,
        values: int = 4,
        d_model: int = 32,
        n_heads: int = 4,
        n_layers: int = 1,
        dropout: float = 0.1,
        ffn_mult: int = 4,
        positions: str = "learned",
    ) -> None:
        super().__init__()
        check_bounds("cross asset", locals(), dict.fromkeys(("places", "values"), "whole [1, inf)"), "model.net")
        n_own = n_features - places * values
        if n_own < 1:
            raise CombinationError(
                f"cross asset: {places} places of {values} values among {n_features} features leave none of the coin's "
                "own; the data need the other coins' columns; use features=hourly_peers, or set model.net.places"
            )
        self.n_features, self.n_classes, self.lookback, self.embedding_dim = n_features, n_classes, lookback, d_model
        self.n_own, self.places, self.values = n_own, places, values
        self.own = without_head(
            n_own, n_classes, lookback, d_model=d_model, n_heads=n_heads, n_layers=n_layers, dropout=dropout,
            ffn_mult=ffn_mult, positions=positions,
        )  # fmt: skip
        self.token = nn.Linear(values, d_model)
        self.block = Block(d_model, n_heads, places + 1, dropout, ffn_mult, rotary=False, causal=False)
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def embed(self, window_NTF: Tensor) -> Tensor:
        """Embedding [N, D] of the own window, after it attended to the other coins."""
        check_window("cross asset", window_NTF, self.lookback, self.n_features)
        others_NPV = window_NTF[:, -1, self.n_own :].reshape(-1, self.places, self.values)
        own_N1D = self.own(window_NTF[..., : self.n_own]).unsqueeze(1)
        token_NLD = torch.cat([self.token(others_NPV), own_N1D], dim=1)
        return self.norm(self.block(token_NLD, only_last=True)[:, -1])

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Unnormalised class scores [N, C]."""
        return self.head(self.embed(window_NTF))
