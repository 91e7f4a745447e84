"""Gathers the batches of all ranks into one joint batch, gradients included.

Legend: N samples of this rank, G of all ranks.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tradsys.samples.loader import rank_of


def gathered(x_N: Tensor) -> Tensor:
    """The tensors of all ranks one after another, gradients included.

    The same tensor on a single rank. All ranks must hold equally many. Every rank computes the joint loss; its gradient
    is summed over the ranks on the way back, so that their mean, as in distributed training, is the gradient of one
    joint batch.
    """
    if rank_of()[1] == 1:
        return x_N
    return _Gather.apply(x_N) if x_N.is_floating_point() else torch.cat(_all(x_N))


class _Gather(torch.autograd.Function):
    """Replaces torch.distributed.nn.all_gather, which is deprecated and whose successor is private."""

    @staticmethod
    def forward(ctx: Any, x_N: Tensor) -> Tensor:  # type: ignore[override]
        ctx.n = len(x_N)
        return torch.cat(_all(x_N))

    @staticmethod
    def backward(ctx: Any, grad_G: Tensor) -> Tensor:  # type: ignore[override]
        grad_G = grad_G.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad_G)
        return grad_G.narrow(0, rank_of()[0] * ctx.n, ctx.n)


def _all(x_N: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(x_N) for _ in range(rank_of()[1])]
    dist.all_gather(parts, x_N.contiguous())
    return parts
