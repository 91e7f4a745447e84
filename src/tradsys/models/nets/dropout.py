"""Dropout and attention with random masks that may be passed in.

Nets that train as one stack run under vmap, which has one generator; so each net's own masks are drawn in advance and
passed in. Alone, a net draws from torch's global generator exactly as nn.Dropout and scaled_dot_product_attention do.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class Site:
    """A dropout site of a net: its mask's shape and the share dropped.

    An empty tensor gives shape and layout.
    """

    like: Tensor
    p: float


def drawn_for_all(like: Tensor, own: Sequence[tuple[float, Generator]]) -> Tensor:
    """One site's masks for several nets [K, ...], 0 or 1 / (1 - p) each.

    Each net has its own share and generator. The same numbers that torch's dropout on a CPU draws from that generator;
    ones, without a draw, where p is 0.
    """
    mask_K = torch.empty((len(own), *like.shape), device=like.device)
    for k, (p, generator) in enumerate(own):
        if p == 0:
            mask_K[k] = 1.0
        elif like.is_contiguous():
            mask_K[k].bernoulli_(1 - p, generator=generator)
        else:  # drawn in memory order
            mask_K[k] = torch.empty_like(like).bernoulli_(1 - p, generator=generator)
    shares = {p for p, _ in own}
    if len(shares) == 1:
        return mask_K.div_(1 - shares.pop())
    kept_K = torch.tensor([1 - p for p, _ in own], device=like.device)
    return mask_K.div_(kept_K.view(-1, *[1] * like.ndim))


class _Source:
    """Source of the masks: None for torch's generator."""

    masks: Iterator[Tensor] | None = None
    sites: list[Site] | None = None


_SOURCE = _Source()


@contextlib.contextmanager
def given_masks(masks: Sequence[Tensor]) -> Iterator[None]:
    """Inside, dropout takes these masks in turn.

    Attention is written out so that vmap can batch it.
    """
    _SOURCE.masks = iter(masks)
    try:
        yield
    finally:
        _SOURCE.masks = None


@contextlib.contextmanager
def recorded_sites() -> Iterator[list[Site]]:
    """Inside, nothing is dropped.

    The list holds each site where a forward pass would have drawn, in order.
    """
    _SOURCE.sites = []
    try:
        yield _SOURCE.sites
    finally:
        _SOURCE.sites = None


class Dropout(nn.Module):
    """nn.Dropout, with masks from outside where a stack passes them in."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; x itself in eval mode."""
        return dropped(x, self.p) if self.training else x


def dropped(x: Tensor, p: float) -> Tensor:
    """x with a share p of its entries at 0, the rest over 1 - p."""
    if p == 0:
        return x
    if _SOURCE.sites is not None:
        _SOURCE.sites.append(Site(torch.empty_like(x, dtype=torch.float32), p))
        return x
    return F.dropout(x, p) if _SOURCE.masks is None else x * next(_SOURCE.masks)


def attend(q_NHQK: Tensor, k_NHTK: Tensor, v_NHTK: Tensor, *, dropout: float, causal: bool) -> Tensor:
    """softmax(q k / sqrt(K)) v with dropout on the shares [N, H, Q, K].

    Source: Vaswani et al. 2017, eq. 1.
    """
    if _SOURCE.masks is None and _SOURCE.sites is None:
        return F.scaled_dot_product_attention(q_NHQK, k_NHTK, v_NHTK, dropout_p=dropout, is_causal=causal)
    score_NHQT = q_NHQK @ k_NHTK.transpose(-2, -1) / math.sqrt(q_NHQK.shape[-1])
    if causal:
        later_TT = torch.ones(score_NHQT.shape[-2:], dtype=torch.bool, device=q_NHQK.device).triu(1)
        score_NHQT = score_NHQT.masked_fill(later_TT, -torch.inf)
    return dropped(score_NHQT.softmax(dim=-1), dropout) @ v_NHTK
