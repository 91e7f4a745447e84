"""Quality of the top of a ranking with rare positives: precision and lift at k, and the area under PR.

Each has an interval over times (`cosines`): names that explode together on one date are one event, not fifty.
Legend: N samples (name and date), T distinct times, d weightings of time.
"""

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.cosines import spread, within_unit


def precision_at_k(
    score_N: Array,
    y_N: Array,
    time_N: Array,
    k: int,
    *,
    min_block: float = 1.0,
    confidence: float = 0.95,
) -> Estimate:
    """Share of positives among the k highest scores of each time, all times together.

    y_N: 0 or 1. Times with fewer than k names do not count. Names that tie for the last ranks
    share them: each counts by the chance that a draw among them would pick it. min_block: in distinct times, at least
    the label's horizon in bars, since labels overlap. Raises DataError for malformed input or k < 1.
    """
    return _precision(score_N, y_N, time_N, k, by_base=False, min_block=min_block, confidence=confidence)


def lift_at_k(
    score_N: Array,
    y_N: Array,
    time_N: Array,
    k: int,
    *,
    min_block: float = 1.0,
    confidence: float = 0.95,
) -> Estimate:
    """`precision_at_k` over the share of positives among all names of the same times.

    1 is a random ranking.
    """
    return _precision(score_N, y_N, time_N, k, by_base=True, min_block=min_block, confidence=confidence)


def pr_auc(
    score_N: Array,
    y_N: Array,
    time_N: Array,
    *,
    min_block: float = 1.0,
    confidence: float = 0.95,
) -> Estimate:
    """Average precision of all samples in one ranking.

    Sum over thresholds of (recall_i - recall_i-1) * precision_i. Equal scores are one threshold; there is no
    interpolation, which is optimistic. A random ranking has the base rate. No value without a positive. Its interval is
    computed on the logit scale (`cosines.within_unit`). Source: Davis and Goadrich 2006, section 4, on why not to
    interpolate.
    """
    score, y, time = _checked_ranking(score_N, y_N, time_N)
    order, first = bootstrap.time_groups(time)
    metric, of_time = _AveragePrecision(score[order], y[order]), np.repeat(np.arange(len(first) - 1), np.diff(first))
    value = float(metric.of(np.ones((1, len(y))))[0])
    if not np.isfinite(value):
        return Estimate(None, reason="no positive among the samples")
    measured = spread(
        lambda weight_dT: metric.of(weight_dT[:, of_time])[:, None],
        len(first) - 1,
        bootstrap.mean_per_time(y, order, first),
        min_block=min_block,
        cells=len(y),
        slow=True,
    )
    return within_unit(measured.estimates(confidence)[0])


class _AveragePrecision:
    """Average precision of many weightings of the same scores: sorted once, then cumulative sums."""

    def __init__(self, score_N: Array, y_N: Array) -> None:
        self.order = np.argsort(-score_N, kind="stable")
        ranked = score_N[self.order]
        self.positive_N = y_N[self.order]
        self.last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of equal scores

    def of(self, weight_dN: Array) -> Array:
        """Average precision [d] of each weighting; NaN where no positive has weight."""
        ranked = weight_dN[:, self.order]
        hits = np.cumsum(ranked * self.positive_N, axis=1)[:, self.last]
        taken = np.cumsum(ranked, axis=1)[:, self.last]
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        gained = np.diff(hits, axis=1, prepend=0.0)
        total = hits[:, -1]
        return np.divide((gained * precision).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)


def _checked_ranking(score_N: Array, y_N: Array, time_N: Array) -> tuple[Array, Array, Array]:
    score, y, time = (np.asarray(a) for a in (score_N, y_N, time_N))
    if not score.shape == y.shape == time.shape or score.ndim != 1 or not len(score):
        raise DataError(
            f"ranking: scores {score.shape}, outcomes {y.shape}, times {time.shape}; three vectors of one length, not "
            "empty; align them first"
        )
    if not (np.isfinite(score).all() and np.isin(y, (0, 1)).all()):
        bad = int((~np.isfinite(score)).sum()), int((~np.isin(y, (0, 1))).sum())
        raise DataError(
            f"ranking: {bad[0]} scores are not finite, {bad[1]} outcomes are not 0 or 1; drop unlabelled rows first"
        )
    return score, y.astype(np.float64), time


def _picked(score_N: Array, time_N: Array, k: int) -> tuple[Array, Array]:
    """Weight of each sample among the k best of its time [N], and whether that time has k names at all [N]."""
    if k < 1:
        raise DataError(f"ranking: k={k}; at least one name is picked; raise k")
    code = np.unique(time_N, return_inverse=True)[1]
    order = np.lexsort((-score_N, code))
    score, group = score_N[order], code[order]
    opens = np.concatenate([[True], group[1:] != group[:-1]])
    at = np.arange(len(score))
    place = at - np.maximum.accumulate(np.where(opens, at, 0))
    first = np.flatnonzero(opens | np.concatenate([[True], score[1:] != score[:-1]]))
    size = np.diff(np.append(first, len(score)))
    # a run of equal scores takes the ranks from its first on; the rest of k is shared among it
    share = np.empty(len(score))
    share[order] = np.repeat(np.clip((k - place[first]) / size, 0.0, 1.0), size)
    return share, np.bincount(code)[code] >= k


def _precision(
    score_N: Array, y_N: Array, time_N: Array, k: int, *, by_base: bool, min_block: float, confidence: float
) -> Estimate:
    """Positives among the k best of each time with k names; divided by the samples' base rate if `by_base`."""
    score_N, y_N, time_N = _checked_ranking(score_N, y_N, time_N)
    share_N, picked_N = _picked(score_N, time_N, k)
    share_N, y_N, time_N = share_N[picked_N], y_N[picked_N], time_N[picked_N]
    if not share_N.any():
        return Estimate(None, reason="nothing was picked: no time has enough names")
    order, first = bootstrap.time_groups(time_N)
    columns = np.column_stack([share_N * y_N, share_N, y_N, np.ones(len(y_N))])
    sums_TM = bootstrap.sum_per_time(columns, order, first)

    def ratio(weight_dT: Array) -> Array:
        hits, picked, positives, n = (weight_dT @ sums_TM).T
        precision = np.divide(hits, picked, out=np.full(len(hits), np.nan), where=picked > 0)
        base = positives / n if by_base else np.ones(len(hits))
        return np.divide(precision, base, out=np.full(len(hits), np.nan), where=base > 0)[:, None]

    n_times = len(first) - 1
    value = float(ratio(np.ones((1, n_times)))[0, 0])
    if not np.isfinite(value):
        return Estimate(None, reason="no positive among the samples")
    measured = spread(ratio, n_times, sums_TM[:, [0, 2]], min_block=min_block, cells=columns.shape[1])
    return measured.estimates(confidence)[0]
