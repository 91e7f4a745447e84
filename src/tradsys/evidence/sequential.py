"""Bounds on the mean return of a live record that is checked every day; they hold at all times at once.

An interval for a fixed length is valid for one check; checking daily and stopping at will misleads far more often
than 5 %. A confidence sequence covers the true mean at every period together with probability 1 - alpha.
The mixture boundary needs the variance, which a live record estimates badly: before the first rare loss has come,
the running variance is far too small, and autocorrelated days count as more days than
they are. So bounds begin late, never fall below the deviation of the backtest where that is given, and grow with the
long-run variance. How often they miss is simulated (docs/coverage.md).
Sources: Howard, Ramdas, McAuliffe & Sekhon 2021 (normal mixture boundary, eq. 14); Waudby-Smith, Arbour, Sinha, Kennedy
& Ramdas 2024, theorem 2.2 (the same with the running variance: an asymptotic sequence for any finite variance), section
2.5 (long-run variance).
"""

from typing import TypedDict

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.plurals import counted
from tradsys.core.tables import Array
from tradsys.evidence.sharpe import is_flat

# periods before the running variance is usable; until then the bounds are infinite
MIN_PERIODS = 60
FARTHEST = 100_000  # longest live record in periods that is considered


def half_width(n: float, alpha: float = 0.05, scale: float = 250.0) -> float:
    """Half-width of the sequence after n periods, in standard deviations.

    The deviation is that of one period's return.
    """
    return float(_half_widths(np.array([n], dtype=np.float64), alpha, scale)[0])


def _half_widths(n: Array, alpha: float, scale: float) -> Array:
    """`half_width` after each of n [P] periods."""
    if not (np.isfinite(n).all() and (n > 0).all() and 0 < alpha < 1 and scale > 0):
        shown = n[0] if len(n) == 1 else f"{len(n)} periods"
        raise DataError(
            f"sequential: n={shown}, alpha={alpha}, scale={scale}; n and scale must be above 0 and alpha in "
            "(0, 1); pass n from 1 on"
        )
    # the mixture's variance that is best at `scale`, by the approximation of Waudby-Smith et al., eq. 56
    rho = (-2 * np.log(alpha) + np.log(1 - 2 * np.log(alpha))) / scale
    grown = n * rho + 1
    return np.sqrt(2 * grown / (n**2 * rho) * np.log(np.sqrt(grown) / alpha))


def bars_to_confirm(sharpe: float, alpha: float = 0.05, scale: float | None = None) -> int | None:
    """Periods until the lower bound is expected above zero; None for never.

    sharpe: the true one, per period. The same number refutes it: a record whose mean is zero then has its upper bound
    below that Sharpe. scale: None optimises the bounds for the returned number of periods.
    """
    if not np.isfinite(sharpe) or sharpe <= 0:
        return None
    low, high = float(MIN_PERIODS), float(FARTHEST)
    if half_width(high, alpha, scale or high) > sharpe:
        return None
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if half_width(middle, alpha, scale or middle) <= sharpe else (middle, high)
    return int(np.ceil(high))


class ExpectedRecord(TypedDict):
    """Expected bounds of a live record over its length, see `live_record`."""

    sharpe: float
    periods: int | None
    periods_per_year: float
    n: list[int]
    low: list[float]
    high: list[float]
    no_edge_high: list[float]


def live_record(sharpe: float | None, periods_per_year: float, n_points: int = 60) -> ExpectedRecord | None:
    """Expected bounds of a live record with this Sharpe ratio over time, for a plot.

    sharpe: per period. Keys, yearly where Sharpe ratios: sharpe, periods (until the lower bound passes zero, None where
    that takes too long), periods_per_year, n [P] (periods so far), low [P] and high [P] (expected bounds of
    the Sharpe), no_edge_high [P] (expected upper bound where the true mean is zero). None for a Sharpe that is not
    positive.
    """
    if sharpe is None or not np.isfinite(sharpe) or sharpe <= 0:
        return None
    periods = bars_to_confirm(sharpe)
    last = min(FARTHEST, 2 * periods) if periods else FARTHEST
    n_P = np.unique(np.geomspace(MIN_PERIODS, max(last, 2 * MIN_PERIODS), n_points).round())
    half_P = _half_widths(n_P, 0.05, periods or FARTHEST)
    yearly = np.sqrt(periods_per_year)
    return {
        "sharpe": float(sharpe * yearly),
        "periods": periods,
        "periods_per_year": float(periods_per_year),
        "n": n_P.astype(int).tolist(),
        "low": (yearly * (sharpe - half_P)).tolist(),
        "high": (yearly * (sharpe + half_P)).tolist(),
        "no_edge_high": (yearly * half_P).tolist(),
    }


def followed(
    returns_T: Array, *, expected_deviation: float = 0.0, scale: float = 250.0, alpha: float = 0.05
) -> tuple[Array, Array, Array]:
    """Running mean, lower and upper bound [T] of a live record's returns per period.

    Infinite for the first 60. expected_deviation: standard deviation of a period's return in the backtest, a floor for
    that of the live record; 0 where unknown. scale: periods at which the bounds are tightest. alpha: probability that
    they miss the mean at any time at all. Raises DataError on returns that are not finite.
    """
    returns = np.asarray(returns_T, dtype=np.float64)
    if returns.ndim != 1 or not np.isfinite(returns).all():
        raise DataError(
            f"sequential: returns {returns.shape}, {int((~np.isfinite(returns)).sum())} of them not finite; live "
            "returns are one finite series; leave out what is unknown"
        )
    if not (np.isfinite(expected_deviation) and expected_deviation >= 0):
        raise DataError(f"sequential: expected_deviation={expected_deviation}; it is finite and at least 0")
    n = np.arange(1, len(returns) + 1)
    mean, variance = _running_moments(returns)
    deviation = np.sqrt(np.maximum(variance, expected_deviation**2) * _long_run_factor(returns, mean, variance))
    half = deviation * _half_widths(n.astype(np.float64), alpha, scale)
    half[: MIN_PERIODS - 1] = np.inf
    return mean, mean - half, mean + half


def _running_moments(returns_T: Array) -> tuple[Array, Array]:
    """Mean and variance (ddof 1) of the record so far [T]; the first variance is 0."""
    n, centre = np.arange(1, len(returns_T) + 1), returns_T.mean() if len(returns_T) else 0.0
    shifted = returns_T - centre  # sums of squares of nearly centred values keep their digits
    mean = shifted.cumsum() / n
    square = np.maximum((shifted**2).cumsum() - n * mean**2, 0.0)
    return mean + centre, square / np.maximum(n - 1, 1)


def _long_run_factor(returns_T: Array, mean_T: Array, variance_T: Array) -> Array:
    """Long-run over plain variance of the record so far [T], at least 1: Bartlett's kernel, 1.5 n^(1/3) lags.

    Values below 1 become 1: negative autocorrelation does not narrow the bounds. Source: Newey & West 1987.
    """
    n = np.arange(1, len(returns_T) + 1)
    n_lags, factor = (1.5 * np.cbrt(n)).astype(int), np.ones(len(n))
    total_T = returns_T.cumsum()
    for lag in range(1, min(len(n), int(n_lags.max(initial=0)) + 1)):
        later, earlier = returns_T[lag:], returns_T[:-lag]
        mean, pairs = mean_T[lag:], n[lag:] - lag
        crossed = (later * earlier).cumsum() - mean * (total_T[lag:] - total_T[lag - 1] + earlier.cumsum())
        covariance = (crossed + pairs * mean**2) / np.maximum(n[lag:] - 1, 1)
        weight = np.clip(1 - lag / (n_lags[lag:] + 1), 0.0, None)
        varies = variance_T[lag:] > 0
        factor[lag:][varies] += 2 * (weight * covariance)[varies] / variance_T[lag:][varies]
    return np.maximum(factor, 1.0)


def live_state(
    returns_T: Array, expected: float | None, *, expected_deviation: float = 0.0, scale: float = 250.0
) -> str:
    """State of a live record in one sentence.

    True at every time it is read, with probability 95 %.
    expected: mean return per period of the backtest, None where unknown; expected_deviation: see
    `followed`.
    """
    if len(returns_T) < MIN_PERIODS:
        more = MIN_PERIODS - len(returns_T)
        return f"{counted(len(returns_T), 'live day')}; bounds on the mean begin at {MIN_PERIODS}, after {more} more"
    if is_flat(returns_T) and not expected_deviation:
        return f"{counted(len(returns_T), 'live day')} without a return: it has not traded, so nothing is measured"
    mean, low, high = (float(v[-1]) for v in followed(returns_T, expected_deviation=expected_deviation, scale=scale))
    shown = (
        f"{counted(len(returns_T), 'live day')}, mean {1e4 * mean:.1f} bps a day [{1e4 * low:.1f}, {1e4 * high:.1f}]"
    )
    if low > 0:
        verdict = "it earns, at whatever day one looks"
        if not expected_deviation:
            verdict += "; no backtest is at hand, so losses that are rare and have not come yet are not in these bounds"
    elif high < 0:
        verdict = "it loses, at whatever day one looks"
    elif expected is not None and high < expected:
        verdict = f"refuted, less than the {1e4 * expected:.1f} bps a day of its backtest"
    else:
        verdict = "undecided, zero lies within"
    return f"{shown}: {verdict}"
