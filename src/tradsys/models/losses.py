"""Losses as pure functions of tensors.

Legend: N samples, C classes, D embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(
    logits_NC: Tensor,
    y_N: Tensor,
    *,
    gamma: float | Tensor,
    weight_C: Tensor | None = None,
    sample_weight_N: Tensor | None = None,
) -> Tensor:
    """Mean focal loss: easy samples count less as gamma grows.

    logits_NC: unnormalised scores [N, C]; half types are lifted to float32. y_N: class codes 0..C-1.
    weight_C: cost per class; it multiplies, and the mean stays over N (not over the weights).
    gamma: a tensor is taken unchecked, for nets under vmap that each have their own.
    sample_weight_N: weight per sample; the mean becomes sum(w * loss) / sum(w), and 0 where all w are 0.
    Returns a scalar. gamma=0 is (weighted) cross-entropy. NaN in, NaN out. Raises ValueError for gamma < 0.
    Gradients stay finite where p rounds to 1.
    Source: Lin et al. 2017, eq. 5, with p_t from the unweighted softmax.
    """
    given = isinstance(gamma, Tensor)
    if not given and not gamma >= 0:
        raise ValueError(f"focal_loss: gamma={gamma}; it must be >= 0; use 0 for plain cross-entropy")
    logp_NC = F.log_softmax(_lifted(logits_NC), dim=1)
    logp_N = logp_NC.gather(1, y_N.long().unsqueeze(1)).squeeze(1)
    loss_N = -logp_N
    if given or gamma > 0:
        # 1 - p from log p keeps its digits near p = 1; the floor keeps x ** (gamma - 1) finite for gamma < 1
        miss_N = (-torch.expm1(logp_N)).clamp_min(torch.finfo(logp_N.dtype).tiny)
        loss_N = miss_N**gamma * loss_N
    if weight_C is not None:
        loss_N = weight_C.to(loss_N)[y_N.long()] * loss_N
    return loss_N.mean() if sample_weight_N is None else weighted_mean(loss_N, sample_weight_N)


def weighted_mean(value_N: Tensor, weight_N: Tensor) -> Tensor:
    """Scalar sum(w * value) / sum(w) of two [N].

    0 with a graph where every weight is 0.
    """
    weight_N = weight_N.to(value_N)
    return (weight_N * value_N).sum() / weight_N.sum().clamp_min(torch.finfo(value_N.dtype).tiny)


def supcon_loss(embeddings_ND: Tensor, y_N: Tensor, *, temperature: float) -> Tensor:
    """Supervised contrastive loss: same class near, other classes far.

    Distances are on the unit sphere.
    embeddings_ND: [N, D], brought to unit length here; half types are lifted to float32, under autocast too.
    y_N: class codes. temperature: > 0, else ValueError; the loss is not multiplied by it again.
    Returns the mean over anchors that have a positive; 0 with a graph where none has one. NaN in, NaN out.
    Source: Khosla et al. 2020, eq. 2 (L_out): positives are summed outside the log, the denominator runs over
    all j != i.
    """
    if not temperature > 0:
        raise ValueError(f"supcon_loss: temperature={temperature}; it must be > 0; 0.07 to 0.5 is usual")
    if len(y_N) < 2:
        return _lifted(embeddings_ND).sum() * 0.0
    # autocast would round the similarities to half precision, whatever the type of the input
    with torch.autocast(embeddings_ND.device.type, enabled=False):
        z_ND = F.normalize(_lifted(embeddings_ND), dim=1)
        similarity_NN = ((z_ND / temperature) @ z_ND.T).fill_diagonal_(-torch.inf)
        # logsumexp subtracts each row's maximum
        denominator_N = similarity_NN.logsumexp(dim=1)
        # the mean over positives of z_i . z_p is one product with their sum: no second pass over [N, N]
        code_N, n_C = _classes(y_N)
        sum_CD = z_ND.new_zeros(len(n_C), z_ND.shape[1]).index_add(0, code_N, z_ND)
        n_positive_N = (n_C - 1)[code_N]
        positive_N = ((sum_CD[code_N] - z_ND) * z_ND).sum(dim=1) / n_positive_N.clamp_min(1) / temperature
        return weighted_mean(denominator_N - positive_N, n_positive_N > 0)


def n_anchors_with_positive(y_N: Tensor) -> Tensor:
    """Number of samples that share their class with another one.

    `supcon_loss` averages over these anchors.
    """
    _, n_C = _classes(y_N)
    return torch.where(n_C > 1, n_C, 0).sum()


def _classes(y_N: Tensor) -> tuple[Tensor, Tensor]:
    """Codes 0..C-1 [N] of the classes that occur, and how often each does [C]."""
    _, code_N, n_C = torch.unique(y_N, return_inverse=True, return_counts=True)
    return code_N, n_C


def _lifted(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
