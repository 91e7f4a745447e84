"""Linear opinion pools in arrays: weights and skills of the members.

Legend: N samples, K members (the base rate among them), C classes, S states, B batches of time.
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy import special

from tradsys.core.errors import TrainingError
from tradsys.core.tables import Array

LEAST = 1e-12  # lower bound of a probability before its logarithm
# length of a batch of time in longest labels: neighbouring batches share the labels at their edge
LABELS_A_BATCH = 4
MAX_BATCHES = 30  # more add little to a t-interval, and shorter batches are less independent (Schmeiser 1982)
GAP = 1e-10  # nats that a better pool could gain at most, where the search stops
TOLERATED = 1e-6  # where rounding ends the search above GAP, what is still an optimum
MAX_STEPS = 100


@dataclass(frozen=True)
class Skill:
    """1 - log-loss / log-loss of the base rate, with its interval.

    The interval is over `n_batches` stretches of time.
    """

    value: float
    low: float
    high: float
    n_batches: int

    def as_dict(self) -> dict[str, float | int]:
        """The four fields, ready for JSON."""
        return asdict(self)


def likelihoods(proba_KNC: list[Array], y_N: Array) -> Array:
    """Each member's probability of the realised class, float64 [N, K], at least 1e-12.

    Raises TrainingError for a NaN.
    """
    reported = [np.asarray(proba_NC, dtype=np.float64)[np.arange(len(y_N)), y_N] for proba_NC in proba_KNC]
    likelihood_NK = np.stack(reported, axis=1)
    if bad := int((~np.isfinite(likelihood_NK)).any(axis=1).sum()):
        raise TrainingError(
            f"ensemble: {bad} of {len(y_N)} out-of-fold probabilities are NaN; every member predicts every row; "
            "keep only rows where table.ready(lookback) holds"
        )
    return np.maximum(likelihood_NK, LEAST)


def pool_weights(likelihood_NK: Array, weight_N: Array) -> Array:
    """Weights [K] on the simplex whose pool has the least weighted log-loss.

    Useless members get exactly 0.
    likelihood_NK: positive probabilities of the realised class. weight_N: sample weights >= 0 with a positive sum.
    min -sum_n v_n log(sum_k w_k p_nk) over w >= 0, sum w = 1, v = weight / sum, is convex; with + sum w in place
    of the equality it has the same solution. Each step solves the quadratic model over w >= 0 by non-negative
    least squares and searches along it. Stops where no other weights could gain more than 1e-10 nats: for any w,
    max_k sum_n v_n p_nk / pool_n - 1 bounds that gain. TrainingError where 1e-6 is not reached.
    Source: Kim, Carbonetto, Stephens and Anitescu 2020 (mix-SQP); Lindsay 1983 (the bound).
    """
    v_N = np.asarray(weight_N, dtype=np.float64) / np.sum(weight_N)
    # rows without weight would still add rounding errors to the quadratic model
    likelihood_NK, v_N = likelihood_NK[v_N > 0], v_N[v_N > 0]
    n_members = likelihood_NK.shape[1]
    w_K = np.full(n_members, 1 / n_members)
    for _ in range(MAX_STEPS):
        share_N = v_N / (likelihood_NK @ w_K)
        slope_K = 1 - likelihood_NK.T @ share_N
        if -slope_K.min() <= GAP:
            break
        moved_K = _step(likelihood_NK, v_N, w_K, share_N, slope_K)
        if np.array_equal(moved_K, w_K):
            break
        w_K = moved_K
    gap = float((likelihood_NK.T @ (v_N / (likelihood_NK @ w_K))).max() - 1)
    if not gap <= TOLERATED:
        raise TrainingError(
            f"ensemble: weights {w_K.round(4).tolist()} may still gain {gap:.1e} nats after {MAX_STEPS} steps; at "
            f"most {TOLERATED:.0e} is an optimum; look for probabilities near 0 in a member"
        )
    return w_K


def _step(likelihood_NK: Array, v_N: Array, w_K: Array, share_N: Array, slope_K: Array) -> Array:
    """The next weights; the old ones where no step lowers the loss."""
    from scipy.optimize import nnls  # noqa: PLC0415 - takes a second to import

    ratio_NK = likelihood_NK * (share_N / np.sqrt(v_N))[:, None]
    curve_KK = ratio_NK.T @ ratio_NK
    # two equal members leave the curve flat between them: the ridge keeps their weights
    curve_KK[np.diag_indices(len(w_K))] += 1e-9 * np.trace(curve_KK)
    root_KK = np.linalg.cholesky(curve_KK).T
    aim_K = nnls(root_KK, np.linalg.solve(root_KK.T, curve_KK @ w_K - slope_K))[0]
    before, towards_K = -np.log(likelihood_NK @ w_K) @ v_N, aim_K - w_K
    size = 1.0
    while size > 1e-12:
        tried_K = np.maximum(w_K + size * towards_K, 0.0)
        if (total := tried_K.sum()) > 0:
            tried_K /= total  # along a ray the loss is least where the weights sum to one
            if -np.log(likelihood_NK @ tried_K) @ v_N < before:
                return tried_K
        size /= 2
    return w_K


def floored(weights_K: Array, floor: float) -> Array:
    """The weights [..., K] with those below `floor` at 0, scaled to sum one."""
    kept = np.where(weights_K < floor, 0.0, weights_K)
    return kept / kept.sum(axis=-1, keepdims=True)


def shrunk(own_K: Array, common_K: Array, n_effective: float, shrinkage: float) -> Array:
    """Own weights shrunk to the common ones where a state has few samples.

    (n own + kappa common) / (n + kappa). n_effective: independent samples behind `own_K`. shrinkage: kappa >= 0, number
    of samples that the common vector counts as; infinity gives it alone, as does n = kappa = 0.
    """
    if n_effective <= 0 or np.isinf(shrinkage):
        return common_K
    return (n_effective * own_K + shrinkage * common_K) / (n_effective + shrinkage)


def pooled(weights: Array, proba_KNC: list[Array], belief_NS: Array | None = None) -> Array:
    """sum_k w_k p_k, float64 [N, C]; rows sum to one. NaN in, NaN out.

    weights: [K], or [S, K] mixed by belief_NS, so that a certain state uses its own vector.
    Summed member by member: a single row rounds as it does in a batch.
    """
    weights = np.asarray(weights, dtype=np.float64)
    total_NC = np.zeros_like(np.asarray(proba_KNC[0], dtype=np.float64))
    for k, proba_NC in enumerate(proba_KNC):
        if belief_NS is None:
            total_NC = total_NC + weights[k] * proba_NC
        else:
            weight_N = sum(belief_NS[:, s] * weights[s, k] for s in range(len(weights)))
            total_NC = total_NC + np.asarray(weight_N)[:, None] * proba_NC
    return total_NC


def mean_and_spread(weights: Array, proba_KNC: list[Array], belief_NS: Array | None = None) -> tuple[Array, Array]:
    """The pool [N, C] and its members' weighted standard deviation about it [N, C].

    The arguments are those of `pooled`.
    """
    mean_NC = pooled(weights, proba_KNC, belief_NS)
    apart_KNC = [(one_NC - mean_NC) ** 2 for one_NC in proba_KNC]
    return mean_NC, np.sqrt(pooled(weights, apart_KNC, belief_NS))


def time_batches(bar_N: Array, longest_label: int) -> Array:
    """Batch 0..B-1 of each decision bar, int64 [N].

    At most 30 equal stretches of at least four times the longest label. Batches of one label's length covered the true
    skill in .91 of cases, these in .94 (docs/coverage.md).
    """
    since = np.asarray(bar_N, dtype=np.int64) - np.min(bar_N)
    n_bars = int(since.max()) + 1
    n_batches = max(1, min(MAX_BATCHES, n_bars // max(LABELS_A_BATCH * longest_label, 1)))
    return since * n_batches // n_bars


def skill(loss_N: Array, base_N: Array, weight_N: Array, batch_N: Array, confidence: float) -> Skill:
    """Weighted skill against the base rate, with a t-interval by batches.

    s = 1 - sum v l / sum v b is a ratio; with D_i = sum v (b - l) and T_i = sum v b of batch i its standard error
    is sqrt(B / (B - 1) sum (D_i - s T_i)^2) / sum T, and (s_hat - s) / error is taken as Student's t with B - 1
    degrees of freedom. Batches without a sample do not count. Raises TrainingError with fewer than two.
    Source: Schmeiser 1982 (batch means); Cochran 1977, chapter 6 (variance of a ratio).
    """
    codes = np.unique(batch_N, return_inverse=True)[1]
    n_batches = int(codes.max()) + 1
    if n_batches < 2:
        raise TrainingError(
            f"ensemble: {len(loss_N)} out-of-fold samples span one batch of time; an interval needs at least two "
            "stretches longer than a label; use a longer training span or a shorter horizon"
        )
    base_B = np.bincount(codes, weights=weight_N * base_N)
    gain_B = np.bincount(codes, weights=weight_N * (base_N - loss_N))
    value = gain_B.sum() / base_B.sum()
    rest_B = gain_B - value * base_B
    error = np.sqrt(n_batches / (n_batches - 1) * (rest_B**2).sum()) / base_B.sum()
    half = special.stdtrit(n_batches - 1, 0.5 + confidence / 2) * error
    return Skill(float(value), float(value - half), float(value + half), n_batches)
