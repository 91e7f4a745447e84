"""What names earn by how high they score: equal groups on each date, and the top's lead over the bottom.

Legend: N samples (name and date), T dates, n groups.
"""

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.rank_ic import ranks_within


def decile_codes(score_N: Array, time_N: Array, n: int = 10) -> Array:
    """Group 0 (lowest scores) to n - 1 of each sample among those of its date, int64 [N]; equal scores share one.

    A score of average rank r among m names falls into floor(n (r - 1/2) / m), so that groups differ by one name at
    most where no scores tie. Dates with fewer than n names get -1, as do NaN scores.
    Raises DataError for unequal lengths or n < 2.
    """
    score, time = np.asarray(score_N), np.asarray(time_N)
    if score.shape != time.shape or score.ndim != 1 or n < 2:
        raise DataError(
            f"deciles: scores {score.shape}, times {time.shape}, n={n}; two vectors of one length and n >= 2 groups"
        )
    out = np.full(len(score), -1, dtype=np.int64)
    known = np.flatnonzero(np.isfinite(score))
    code = np.unique(time[known], return_inverse=True)[1]
    size_N = np.bincount(code)[code] if len(code) else np.empty(0)
    group = (n * (ranks_within(score[known], code) - 0.5) / size_N).astype(np.int64)
    out[known] = np.where(size_N >= n, group, -1)
    return out


def decile_spread(score_N: Array, ret_N: Array, time_N: Array, n: int = 10) -> tuple[Array, Array, Array]:
    """Dates [T], the top group's mean return less the bottom's on each [T], and the mean return by group [n].

    ret_N: in whatever unit the answer is wanted; simple returns where it is to be money, as logarithms do not add over
    names. A row where score or return is NaN does not count. Left out are dates with fewer than n names, or whose tied
    scores leave the top or the bottom empty. By group: the mean over the kept dates of a date's mean, NaN where ties
    leave a group empty on all. Costs are not taken off. Raises as `decile_codes`.
    """
    score, ret, time = np.asarray(score_N, dtype=np.float64), np.asarray(ret_N, dtype=np.float64), np.asarray(time_N)
    if ret.shape != score.shape:
        raise DataError(f"deciles: scores {score.shape}, returns {ret.shape}; one return per score; align them first")
    group = decile_codes(np.where(np.isfinite(ret), score, np.nan), time, n)
    used = group >= 0
    times, code = np.unique(time[used], return_inverse=True)
    cell = code * n + group[used]
    count = np.bincount(cell, minlength=len(times) * n).reshape(-1, n)
    total = np.bincount(cell, weights=ret[used], minlength=len(times) * n).reshape(-1, n)
    mean_TG = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    mean_TG, times = mean_TG[kept := (count[:, 0] > 0) & (count[:, -1] > 0)], times[kept]
    held = np.isfinite(mean_TG)
    by_group = np.divide(
        np.where(held, mean_TG, 0).sum(axis=0), held.sum(axis=0), out=np.full(n, np.nan), where=held.any(axis=0)
    )
    return times, mean_TG[:, -1] - mean_TG[:, 0], by_group
