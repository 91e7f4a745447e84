"""Sharpe ratio statistics: its error, its luck over many trials, the record length it needs.

Everything is per period (a bar or a day), never annualised: multiply by sqrt(periods_per_year) to show it.
Kurtosis is plain (normal = 3), skewness and kurtosis are the moment (biased) estimators, and the error of a
Sharpe ratio uses sqrt(T - 1), as in the papers. Shapes: T periods, K strategies; [T] gives a float, [T, K]
gives [K].
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from tradsys.core.errors import DataError
from tradsys.core.tables import Array

EULER_GAMMA = 0.5772156649015329
# a deviation below this share of the largest return is rounding, not risk
FLAT_SHARE = 1e-10
# the same for a variance from sums of squares, as a share of their mean
FLAT_SQUARES = 1e-12
# of the equity: splitting cash leaves rounding of about 1e-16 a period where nothing was traded
FLAT_RETURN = 1e-12
# with fewer closed trades, or fewer periods with a return, there is no probability and no interval
MIN_TRADES = 30
MIN_ACTIVE_PERIODS = 30


@dataclass(frozen=True, eq=False)
class SharpeMoments:
    """Moments of a series that the formulas need.

    Built directly where only published moments are available.
    """

    sharpe: Array | float
    n_periods: int
    skew: Array | float = 0.0
    kurtosis: Array | float = 3.0

    def variance(self) -> Array:
        """Squared error of the estimated Sharpe times (T - 1).

        1 + SR^2/2 for normal returns. Source: Mertens 2002; Bailey & Lopez de Prado 2012, eq. 4. Raises DataError where
        no series has such moments.
        """
        sharpe = np.asarray(self.sharpe, dtype=np.float64)
        spread = 1 - self.skew * sharpe + (np.asarray(self.kurtosis) - 1) / 4 * sharpe**2
        if not (spread > 0).all():
            raise DataError(
                f"sharpe: skewness {self.skew} with plain kurtosis {self.kurtosis} gives a Sharpe "
                f"variance of {spread}; kurtosis must exceed skewness^2 + 1; pass plain kurtosis, not excess"
            )
        return spread


def checked_returns(returns: Array, where: str, least: int = 2) -> Array:
    """The returns as float64 [T] or [T, K].

    Raises DataError when too short, misshapen or not finite.
    """
    try:
        values = np.asarray(returns, dtype=np.float64)
    except ValueError as error:  # numpy on a list of series of several lengths
        raise DataError(
            f"{where}: series of different lengths, or no numbers; all trials cover the same periods; "
            "align them with evidence.trials.aligned_trials"
        ) from error
    if values.ndim not in (1, 2) or 0 in values.shape[1:]:
        raise DataError(f"{where}: returns of shape {values.shape}; give [T] or [T, K] with K >= 1")
    if len(values) < least:
        raise DataError(f"{where}: {len(values)} periods; at least {least} are needed; give a longer record")
    if not np.isfinite(values).all():
        n_bad = int((~np.isfinite(values)).sum())
        raise DataError(f"{where}: {n_bad} of {values.size} returns are not finite; cut the record where it is known")
    return values


def is_flat(returns: Array) -> Array | bool:
    """Whether returns [T] or [T, K] never differ but for rounding.

    So they are for a strategy that never traded. Their deviation (ddof 1) is at most 1e-10 of the largest return, or at
    most 1e-12: the floor is absolute, because rounding in sums of cash is small relative to the equity, not to itself.
    A single period is flat. Returns a bool or bool [K].
    """
    values = np.asarray(returns, dtype=np.float64)
    if len(values) < 2:
        return True if values.ndim == 1 else np.ones(values.shape[1], dtype=bool)
    with np.errstate(invalid="ignore"):  # an infinite return is not flat
        flat = values.std(axis=0, ddof=1) <= np.maximum(FLAT_SHARE * np.abs(values).max(axis=0), FLAT_RETURN)
    return bool(flat) if values.ndim == 1 else flat


def flat_variance(variance: Array, mean_square: Array) -> Array:
    """Whether variances from sums of squares are rounding; see `is_flat`.

    mean_square: of the same returns. A difference of sums is exact to about 1e-12 of it, not to 1e-20 as a sum of
    squared differences; the absolute floor is the same.
    """
    return variance <= np.maximum(FLAT_SQUARES * mean_square, FLAT_RETURN**2)


def active_periods(returns_T: Array) -> int:
    """Number of periods with a return beyond rounding.

    They are the strategy's effective observations.
    """
    return int((np.abs(np.asarray(returns_T)) > FLAT_RETURN).sum())


def sharpe_ratio(returns: Array) -> Array | float:
    """Mean over standard deviation (ddof 1) of the returns, per period.

    returns: excess returns [T] or [T, K]. Source: Sharpe 1994. Raises DataError on NaN, T < 2 or zero
    variance.
    """
    return _scalar(_sharpe(checked_returns(returns, "sharpe_ratio"), "sharpe_ratio"))


def sharpe_moments(returns: Array) -> SharpeMoments:
    """Sharpe, length, skewness and plain kurtosis of returns [T] or [T, K].

    Raises as `sharpe_ratio`.
    """
    values = checked_returns(returns, "sharpe_moments", least=4)
    sharpe = _sharpe(values, "sharpe_moments")
    # one pass over the squares instead of a power of every return for each moment
    centred = values - values.mean(axis=0)
    squares = centred * centred
    second = squares.mean(axis=0)
    third, fourth = (np.einsum("t...,t...->...", squares, other) / len(values) for other in (centred, squares))
    return SharpeMoments(sharpe, len(values), third / second**1.5, fourth / second**2)


def probabilistic_sharpe_ratio(returns: Array | SharpeMoments, benchmark_sharpe: Array | float = 0.0) -> Array | float:
    """P(true Sharpe > benchmark), given length, skewness and fat tails.

    returns: [T], [T, K] or their SharpeMoments. benchmark_sharpe: per period. Returns a float or [K] in [0,
    1]. Assumes returns independent over time. Source: Bailey & Lopez de Prado 2012, eq. 11.
    """
    moments = _moments(returns)
    gap = np.asarray(moments.sharpe) - _checked_benchmark(benchmark_sharpe)
    return _scalar(special.ndtr(gap * np.sqrt(moments.n_periods - 1) / np.sqrt(moments.variance())))


def expected_max_sharpe(n_trials: float, sharpe_variance: float = 1.0) -> float:
    """Highest Sharpe that luck alone is expected to show over trials.

    The trials are independent and their true Sharpe is zero. n_trials: >= 1, may be a fraction
    (`trials.independent_trials`); one trial gives 0. sharpe_variance: variance (ddof 1) of the trials' per-period
    Sharpe ratios; see `trial_variance`. Same unit as its square root. Source: Bailey & Lopez de Prado 2014, eq. 1;
    Bailey et al. 2014, eq. 4.
    """
    if not n_trials >= 1 or not np.isfinite(n_trials):
        raise DataError(f"expected_max_sharpe: {n_trials} trials; there is at least 1; count the strategy itself")
    if not sharpe_variance >= 0 or not np.isfinite(sharpe_variance):
        raise DataError(f"expected_max_sharpe: a variance of {sharpe_variance}; it must be finite and >= 0")
    if n_trials == 1:
        return 0.0
    quantiles = special.ndtri([1 - 1 / n_trials, 1 - 1 / (n_trials * np.e)])
    # between one and two trials the extreme-value formula falls below the mean of a single draw
    luck = max(0.0, (1 - EULER_GAMMA) * quantiles[0] + EULER_GAMMA * quantiles[1])
    return float(np.sqrt(sharpe_variance) * luck)


def deflated_sharpe_ratio(returns: Array | SharpeMoments, n_trials: float, sharpe_variance: float) -> Array | float:
    """P(true Sharpe > 0), corrected for the luck of picking among trials.

    The probabilistic Sharpe ratio against `expected_max_sharpe(n_trials, sharpe_variance)`. returns: [T],
    [T, K] or SharpeMoments. sharpe_variance: `trial_variance` of every trial's per-period Sharpe, the evaluated
    one included. Returns a float or [K]. Source: Bailey & Lopez de Prado 2014, eq. 2.
    """
    return probabilistic_sharpe_ratio(returns, expected_max_sharpe(n_trials, sharpe_variance))


def min_track_record_length(
    returns: Array | SharpeMoments, benchmark_sharpe: Array | float = 0.0, confidence: float = 0.95
) -> Array | float:
    """Periods until the observed Sharpe exceeds the benchmark.

    The probability of that is `confidence`. Returns a float or [K], in periods; inf where the observed Sharpe does
    not exceed the benchmark,
    since no length is enough. Source: Bailey & Lopez de Prado 2012, eq. 13.
    """
    if not 0 < confidence < 1:
        raise DataError(f"min_track_record_length: confidence {confidence}; it lies between 0 and 1; 0.95 is usual")
    moments = _moments(returns)
    gap = np.asarray(moments.sharpe, dtype=np.float64) - _checked_benchmark(benchmark_sharpe)
    above = gap > 0
    needed = 1 + moments.variance() * (special.ndtri(confidence) / np.where(above, gap, 1.0)) ** 2
    return _scalar(np.where(above, needed, np.inf))


def trial_variance(trial_sharpes: Array) -> float:
    """Variance (ddof 1) of the per-period Sharpe ratios [M] of all trials.

    0 for one trial.
    """
    sharpes = np.asarray(trial_sharpes, dtype=np.float64)
    if sharpes.ndim != 1 or not len(sharpes) or not np.isfinite(sharpes).all():
        raise DataError(
            f"trial_variance: Sharpe ratios {sharpes.tolist()[:5]}; give [M] finite values, M >= 1; "
            "leave out trials that never traded"
        )
    return float(sharpes.var(ddof=1)) if len(sharpes) > 1 else 0.0


def _checked_benchmark(benchmark_sharpe: Array | float) -> Array:
    benchmark = np.asarray(benchmark_sharpe, dtype=np.float64)
    if not np.isfinite(benchmark).all():
        raise DataError(f"sharpe: a benchmark of {benchmark_sharpe}; it must be finite; 0 is holding cash")
    return benchmark


def _sharpe(values: Array, where: str) -> Array:
    mean, deviation, flat = values.mean(axis=0), values.std(axis=0, ddof=1), is_flat(values)
    if np.any(flat):
        which = f" in columns {np.flatnonzero(flat)[:5].tolist()}" if values.ndim == 2 else ""
        raise DataError(
            f"{where}: returns without variance{which}; a Sharpe ratio needs risk; "
            "leave out strategies that never traded"
        )
    return mean / deviation


def _moments(returns: Array | SharpeMoments) -> SharpeMoments:
    if isinstance(returns, SharpeMoments):
        if returns.n_periods < 2:
            raise DataError(f"sharpe: {returns.n_periods} periods; at least 2 are needed; give a longer record")
        return returns
    return sharpe_moments(returns)


def _scalar(values: Array) -> Array | float:
    return float(values) if np.ndim(values) == 0 else values
