"""A small pre-norm Transformer over one window.

Legend: N samples, T window, L tokens (T / patch), F features, C classes, D embedding, H heads, K = D / H, 3 = query,
key, value. Blocks write T for the tokens that they are given.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import CombinationError
from tradsys.models.nets.dropout import Dropout, attend
from tradsys.models.nets.shapes import check_window

WHOLE = ("d_model", "n_heads", "n_layers", "ffn_mult", "patch")
BOUNDS = dict.fromkeys(WHOLE, "whole [1, inf)") | {"dropout": "[0, 1)"}
POSITIONS = ("learned", "rotary")
POOLINGS = ("last", "mean")


class TransformerEncoder(nn.Module):
    """Maps the window that ends at the decision bar to class scores.

    [N, T, F] to an embedding, then scores.
    n_features, n_classes, lookback: F, C and T, taken from the data, never configured.
    d_model: width D. n_heads: must divide it. ffn_mult: hidden width of the feed-forward part over D.
    positions: `learned` table, or `rotary` embedding of query and key (Su et al. 2021, eq. 15).
    pooling: embedding of the `last` bar, or the `mean` over the window.
    causal: each bar attends to itself and to earlier ones only. False lets all bars of the window see each
    other; either way nothing after the decision bar is in the window.
    patch: bars per token. The window is cut into T / patch tokens that do not overlap, the last of which ends at the
    decision bar; the lookback must be a multiple. 1 makes every bar a token. With patches, `last` and `causal` refer
    to tokens. Source: Nie et al. 2023, section 3.1, with all features of a bar in one token.
    Pre-norm blocks: Xiong et al. 2020, fig. 1b.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        lookback: int,
        *,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        dropout: float = 0.1,
        ffn_mult: int = 4,
        positions: str = "learned",
        pooling: str = "last",
        causal: bool = True,
        patch: int = 1,
    ) -> None:
        super().__init__()
        check_bounds("transformer", locals(), BOUNDS, "model.net")
        _check_shape(d_model, n_heads, positions, pooling)
        check_multiple("transformer", "patch", patch, lookback)
        n_tokens = lookback // patch
        self.n_features, self.n_classes, self.lookback = n_features, n_classes, lookback
        self.embedding_dim = d_model
        self.pooling, self.patch = pooling, patch
        self.project = nn.Linear(patch * n_features, d_model)
        self.position_TD = nn.Parameter(torch.randn(n_tokens, d_model) * 0.02) if positions == "learned" else None
        rotary = positions == "rotary"
        blocks = [
            Block(d_model, n_heads, n_tokens, dropout, ffn_mult, rotary=rotary, causal=causal) for _ in range(n_layers)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.drop = Dropout(dropout)
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def embed(self, window_NTF: Tensor) -> Tensor:
        """Embedding [N, D] of the window after layer normalisation, not of unit length."""
        check_window("transformer", window_NTF, self.lookback, self.n_features)
        x_NTD = self.project(window_NTF if self.patch == 1 else in_tokens(window_NTF, self.patch).flatten(2))
        if self.position_TD is not None:
            x_NTD = x_NTD + self.position_TD
        x_NTD = self.drop(x_NTD)
        *first, last = self.blocks
        for block in first:
            x_NTD = block(x_NTD)
        if self.pooling == "last":
            return self.norm(last(x_NTD, only_last=True)[:, -1])
        return self.norm(last(x_NTD).mean(dim=1))

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Unnormalised class scores [N, C]."""
        return self.head(self.embed(window_NTF))


def without_head(n_features: int, n_classes: int, lookback: int, **settings: Any) -> TransformerEncoder:
    """A Transformer whose output is its embedding [N, D], as a part of another net.

    settings: its own.
    """
    net = TransformerEncoder(n_features, n_classes, lookback, **settings)
    net.head = nn.Identity()  # type: ignore[assignment]
    return net


class Block(nn.Module):
    """Self-attention, then feed-forward: [N, T, D] -> [N, T, D].

    Each on normalised input and added to it. With `only_last` the output is that of the last bar alone, [N, 1, D]: keys
    and values of all bars, but one query and one row of the feed-forward part. It equals the last row of the full
    block.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        lookback: int,
        dropout: float,
        ffn_mult: int,
        *,
        rotary: bool,
        causal: bool,
    ) -> None:
        super().__init__()
        self.n_heads, self.dropout, self.causal = n_heads, dropout, causal
        self.norm_attention = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.norm_ffn = nn.LayerNorm(d_model)
        self.ffn = nn.Sequential(
            nn.Linear(d_model, ffn_mult * d_model),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(ffn_mult * d_model, d_model),
        )
        self.drop = Dropout(dropout)
        self.rotary = Rotary(lookback, d_model // n_heads) if rotary else None

    def forward(self, x_NTD: Tensor, *, only_last: bool = False) -> Tensor:
        """[N, T, D], or [N, 1, D] with `only_last`."""
        mixed_NQD = self._attend(self.norm_attention(x_NTD), only_last=only_last)
        x_NQD = (x_NTD[:, -1:] if only_last else x_NTD) + self.drop(self.out(mixed_NQD))
        return x_NQD + self.drop(self.ffn(self.norm_ffn(x_NQD)))

    def _attend(self, x_NTD: Tensor, *, only_last: bool) -> Tensor:
        n, t, d = x_NTD.shape
        if only_last:
            weight_q, weight_kv = self.qkv.weight.split([d, 2 * d])
            bias_q, bias_kv = self.qkv.bias.split([d, 2 * d])
            q_NQD = F.linear(x_NTD[:, -1:], weight_q, bias_q)
            k_NTD, v_NTD = F.linear(x_NTD, weight_kv, bias_kv).chunk(2, dim=-1)
        else:
            q_NQD, k_NTD, v_NTD = self.qkv(x_NTD).chunk(3, dim=-1)
        q_NHQK, k_NHTK, v_NHTK = (self._heads(part) for part in (q_NQD, k_NTD, v_NTD))
        if self.rotary is not None:
            q_NHQK, k_NHTK = self.rotary(q_NHQK), self.rotary(k_NHTK)
        dropout = self.dropout if self.training else 0.0
        causal = self.causal and not only_last  # the last bar attends to the complete window either way
        mixed_NHQK = attend(q_NHQK, k_NHTK, v_NHTK, dropout=dropout, causal=causal)
        return mixed_NHQK.transpose(1, 2).reshape(n, 1 if only_last else t, d)

    def _heads(self, x_NTD: Tensor) -> Tensor:
        """Splits the embedding into heads: [N, T, D] -> [N, H, T, K]."""
        n, t, d = x_NTD.shape
        return x_NTD.view(n, t, self.n_heads, d // self.n_heads).transpose(1, 2)


class Rotary(nn.Module):
    """Rotates each pair (k, k + K/2) of a head by position times frequency.

    Keeps lengths. Scores then depend on the distance between two bars alone. Source: Su et al. 2021, eq. 15 and 34.
    """

    cos_TK: Tensor
    sin_TK: Tensor

    def __init__(self, lookback: int, head_dim: int) -> None:
        super().__init__()
        frequency_K = 10_000.0 ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angle_TK = torch.outer(torch.arange(lookback, dtype=torch.float64), frequency_K).repeat(1, 2)
        self.register_buffer("cos_TK", angle_TK.cos().float(), persistent=False)
        self.register_buffer("sin_TK", angle_TK.sin().float(), persistent=False)

    def forward(self, x_NHTK: Tensor) -> Tensor:
        """The same shape and type, rotated; fewer than T bars are the window's last ones."""
        n_bars = x_NHTK.shape[2]
        left, right = x_NHTK.chunk(2, dim=-1)
        turned_NHTK = torch.cat([-right, left], dim=-1)
        return (x_NHTK * self.cos_TK[-n_bars:] + turned_NHTK * self.sin_TK[-n_bars:]).to(x_NHTK.dtype)


def in_tokens(window_NTF: Tensor, n_bars: int) -> Tensor:
    """Blocks [N, L, bars, F] of `n_bars` bars each, without overlap.

    The last ends at the decision bar.
    """
    n, lookback, n_features = window_NTF.shape
    return window_NTF.reshape(n, lookback // n_bars, n_bars, n_features)


def check_multiple(net: str, key: str, n_bars: int, lookback: int) -> None:
    """Raises CombinationError where `n_bars` does not divide the window."""
    if lookback % n_bars:
        raise CombinationError(
            f"{net}: lookback={lookback} with {key}={n_bars} leaves {lookback % n_bars} bars over; it must be "
            f"a multiple of {key}; set model.lookback={-(-lookback // n_bars) * n_bars} or another model.net.{key}"
        )


def _check_shape(d_model: int, n_heads: int, positions: str, pooling: str) -> None:
    if d_model % n_heads:
        raise CombinationError(
            f"transformer: d_model={d_model} with n_heads={n_heads} leaves {d_model % n_heads} over; "
            f"n_heads must divide d_model; take d_model={max(d_model // n_heads, 1) * n_heads} or other heads"
        )
    if positions not in POSITIONS:
        raise ValueError(
            f"transformer: positions={positions!r}; it must be one of {POSITIONS}; set model.net.positions"
        )
    if pooling not in POOLINGS:
        raise ValueError(f"transformer: pooling={pooling!r}; it must be one of {POOLINGS}; set model.net.pooling")
    if positions == "rotary" and d_model // n_heads % 2:
        raise CombinationError(
            f"transformer: rotary positions turn pairs, but a head is {d_model // n_heads} wide "
            f"(d_model={d_model}, n_heads={n_heads}); it must be even; use positions=learned or other heads"
        )
