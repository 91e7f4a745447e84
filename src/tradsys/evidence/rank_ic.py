"""Information coefficient: on each date, do scores rank the names as their returns later do?

Legend: N samples (name and date), T dates. Labels of H bars taken every bar overlap, so the series of coefficients is
serially dependent however good the model; its mean carries a Newey-West interval.
"""

import numpy as np
import statsmodels.api as sm

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap
from tradsys.evidence.bootstrap import Estimate


def rank_ic(score_N: Array, ret_N: Array, time_N: Array, least: int = 5) -> tuple[Array, Array]:
    """Dates [T], rising, and Spearman's rank correlation of score and return among the names of each, float64 [T].

    score_N, ret_N: a row where one of them is NaN does not count. time_N: date or its code. least: names that a date
    needs. Left out are dates with fewer and those whose scores or returns are all equal: no order, no coefficient.
    Ties take their average rank. Raises DataError for unequal lengths or least < 2.
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


def newey_west_mean(series_T: Array, lags: int, confidence: float = 0.95) -> Estimate:
    """Mean of a serially dependent series with its Newey-West interval.

    series_T: finite, in time order. lags: autocovariances that count, Bartlett-weighted; see `newey_west_lags`. The
    interval is Student's with T - 1 degrees of freedom, the variance scaled by T / (T - 1). None, with the reason,
    where T < 10 * (lags + 1), under which such intervals are far too narrow, and for a series that never moves. Raises
    DataError on NaN or lags < 0.
    Source: Newey and West 1987, eq. 5.
    """
    series = np.asarray(series_T, dtype=np.float64)
    if series.ndim != 1 or not np.isfinite(series).all() or lags < 0 or not 0 < confidence < 1:
        raise DataError(
            f"newey_west: series {series.shape} with {int((~np.isfinite(series)).sum())} values that are not finite, "
            f"lags={lags}, confidence={confidence}; one whole series, lags >= 0, 0 < confidence < 1"
        )
    if not len(series):
        return Estimate(None, reason="no date has a value")
    value, n = float(series.mean()), len(series)
    if n < bootstrap.MIN_BLOCKS * (lags + 1):
        return Estimate(value, reason=f"{n} dates are fewer than 10 times the {lags + 1} that one label overlaps")
    if np.ptp(series) <= 1e-12 * np.abs(series).max():
        return Estimate(value, reason="the series never moves")
    settings = {"maxlags": int(lags), "kernel": "bartlett", "use_correction": True}
    found = sm.OLS(series, np.ones(n)).fit(cov_type="HAC", cov_kwds=settings, use_t=True)
    low, high = found.conf_int(1 - confidence)[0]
    return Estimate(value, float(low), float(high))


def newey_west_lags(n_times: int, horizon_bars: int) -> int:
    """Lags for the mean of daily values of labels that last `horizon_bars` bars: no fewer than they overlap.

    max(horizon_bars - 1, floor(4 (T / 100)^(2/9))): the second term is what an unlabelled series would get.
    Source: Newey and West 1994, section 3 (the rate for the Bartlett kernel).
    """
    return max(horizon_bars - 1, int(4 * (n_times / 100) ** (2 / 9)))


def ranks_within(values_N: Array, code_N: Array) -> Array:
    """Average rank, 1 to n, of each finite value among those of the same code, float64 [N]."""
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
    # the mean of the positions that a tie takes up, counted from one
    out[order] = np.repeat(position[first] + (size + 1) / 2, size)
    return out


def _centred(rank_N: Array, code_N: Array, n_T: Array) -> Array:
    """Ranks less their date's mean, which is (n + 1) / 2 whatever the ties."""
    return rank_N - (n_T[code_N] + 1) / 2
