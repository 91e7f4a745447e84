"""Information coefficient: rank correlation of scores with later returns on each date.

Legend: N samples (name and date), T dates. Labels of H bars taken every bar overlap, so the series of coefficients is
serially dependent however good the model; `cosines.mean_interval` gives the interval of its mean.
"""

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array


def rank_ic(score_N: Array, ret_N: Array, time_N: Array, least: int = 5) -> tuple[Array, Array]:
    """Dates [T], rising, and the rank IC of each date, float64 [T].

    It is Spearman's correlation of score and return among that date's names. score_N, ret_N: a row where one of them is
    NaN does not count. time_N: date or its code. least: names that a date needs. Dates with fewer names are left out,
    as are those whose scores or returns are all equal. Ties take their average rank. Raises DataError for unequal
    lengths or least < 2.
    """
    score, ret, time = (np.asarray(a) for a in (score_N, ret_N, time_N))
    if not score.shape == ret.shape == time.shape or score.ndim != 1 or least < 2:
        raise DataError(
            f"rank_ic: scores {score.shape}, returns {ret.shape}, times {time.shape}, least={least}; three vectors of "
            "one length, and two names at least have an order; align them first"
        )
    known = np.isfinite(score) & np.isfinite(ret)
    times, code = np.unique(time[known], return_inverse=True)
    n_T = np.bincount(code, minlength=len(times))
    a, b = (_centred(ranks_within(values[known], code), code, n_T) for values in (score, ret))
    ab, aa, bb = (np.bincount(code, weights=product, minlength=len(times)) for product in (a * b, a * a, b * b))
    kept = (n_T >= least) & (aa > 0) & (bb > 0)
    return times[kept], ab[kept] / np.sqrt(aa[kept] * bb[kept])


def ranks_within(values_N: Array, code_N: Array) -> Array:
    """Average rank, 1 to n, of each finite value within its code, float64 [N]."""
    if not len(values_N):
        return np.empty(0)
    by_value = np.argsort(values_N)  # ties need no order, they share their rank
    order = by_value[np.argsort(code_N[by_value], kind="stable")]
    value, code = np.asarray(values_N)[order], np.asarray(code_N)[order]
    opens = np.concatenate([[True], code[1:] != code[:-1]])
    new = opens | np.concatenate([[True], value[1:] != value[:-1]])
    first = np.flatnonzero(new)
    size = np.diff(np.append(first, len(value)))
    position = np.arange(len(value)) - np.maximum.accumulate(np.where(opens, np.arange(len(value)), 0))
    out = np.empty(len(value))
    # the mean of the positions that a tie occupies, counted from one
    out[order] = np.repeat(position[first] + (size + 1) / 2, size)
    return out


def _centred(rank_N: Array, code_N: Array, n_T: Array) -> Array:
    """Ranks less their date's mean, which is (n + 1) / 2 whatever the ties."""
    return rank_N - (n_T[code_N] + 1) / 2


def decile_codes(score_N: Array, time_N: Array, n: int = 10) -> Array:
    """Group 0 (lowest scores) to n - 1 of each sample on its date, int64 [N].

    Equal scores share a group.
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
    """Top less bottom group's mean return by date, and each group's mean [n].

    Returns dates [T], spreads [T], means [n].
    ret_N: in the unit of the result; use simple returns for money, as logarithms do not add over
    names. A row where score or return is NaN does not count. Left out are dates with fewer than n names, or whose tied
    scores leave the top or the bottom empty. By group: the mean over the kept dates of a date's mean, NaN where ties
    leave a group empty on all. Costs are not subtracted. Raises as `decile_codes`.
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
