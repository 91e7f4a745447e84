"""Averages: plain ones over a window, and recursive ones with their own seed, as in TA-Lib.

Each reads the rows of all symbols at once, however many segments; a NaN ends a run, and the next number starts one.
"""

import math

import numpy as np
import polars as pl

from tradsys.core.compiled import compiled, read_only
from tradsys.core.tables import Array
from tradsys.features.kernels import kernel

FORGOTTEN = 1e-8  # weight of older history that remains when a recursive indicator counts as warmed up


def settled_rows(alpha: float, n_stages: int = 1) -> int:
    """Rows after its seed until a recursion of step `alpha` has forgotten it.

    n_stages: recursions chained one after another. The weight left after k rows is bounded by
    (1 + k alpha)^(n_stages - 1) (1 - alpha)^k; the result is the first k where that is at most 1e-8.
    """
    if alpha >= 1:
        return 0
    k = math.ceil(math.log(FORGOTTEN) / math.log1p(-alpha))
    while (1 + k * alpha) ** (n_stages - 1) * (1 - alpha) ** k > FORGOTTEN:
        k += 1
    return k


def window_mean(x: pl.Expr, bars: int) -> pl.Expr:
    """Mean of the last `bars` values; NaN where one of them is missing or infinite.

    Polars' `rolling_mean` carries one running sum on through NaN: the rounding error of a large symbol was measured as
    1e-4 of the mean of a small one that followed it in the frame. Here a NaN starts a new sum.
    """
    return kernel(x, "window_mean", window_mean_values, bars=bars)


def wilder_mean(x: pl.Expr, bars: int) -> pl.Expr:
    """Wilder's smoothing: a step of 1/bars.

    Seeded with the plain mean of the first `bars` values. First output with the seed's last value. A NaN or null gives
    NaN and restarts. Source: Wilder 1978.
    """
    return _seeded_mean(x, alpha=1 / bars, n_seed=bars)


def wilder_running(x: pl.Expr, bars: int) -> pl.Expr:
    """Wilder's running sum / `bars`, as TA-Lib's directional system starts it.

    The sum of the first bars - 1 values is the seed, and the first output comes one value later. For ratios
    only: at first the level is too low by one value in `bars`. Source: TA-Lib, ta_ADX.c.
    """
    return _seeded_mean(x, alpha=1 / bars, n_seed=bars - 1, late=1)


def ema(x: pl.Expr, bars: int, *, n_skip: int = 0) -> pl.Expr:
    """Exponential mean: a step of 2/(bars + 1).

    Seeded with the plain mean of `bars` values. n_skip: values left out before the seed. First output with the seed's
    last value. A NaN or null gives NaN and restarts. Source: TA-Lib, ta_EMA.c, default compatibility.
    """
    return _seeded_mean(x, alpha=2 / (bars + 1), n_seed=bars, n_skip=n_skip)


def true_range() -> pl.Expr:
    """Wilder's true range in price units; NaN or null without a previous close."""
    high, low, before = pl.col("high"), pl.col("low"), pl.col("close").shift(1)
    missing = 0 * (high + low + before)  # the horizontal extremes skip a NaN; a sum keeps it
    return pl.max_horizontal(high, before) - pl.min_horizontal(low, before) + missing


def average_true_range(bars: int) -> pl.Expr:
    """Wilder's ATR in price units; first value at row `bars` (0-based), as TA-Lib."""
    return wilder_mean(true_range(), bars)


def window_mean_values(x: Array, bars: int) -> Array:
    """`window_mean` of float64 values [R]."""
    mean: Array = _window_mean(*read_only((x,)), bars)
    return mean


def seeded_mean_values(x: Array, *, alpha: float, n_seed: int, n_skip: int, late: int) -> Array:
    """The seeded recursion of float64 values [R]."""
    mean: Array = _smoothed(*read_only((x,)), alpha, n_seed, n_skip, late)
    return mean


@compiled
def _window_mean(x: Array, bars: int) -> Array:
    """The running sum with compensated rounding, so that a past spike leaves no error.

    Source: Neumaier 1974, the improved Kahan-Babuska summation.
    """
    out = np.full(len(x), np.nan)
    seen, total, lost = 0, 0.0, 0.0
    for t in range(len(x)):
        if not np.isfinite(x[t]):
            seen, total, lost = 0, 0.0, 0.0
            continue
        seen += 1
        for value in (x[t], -x[t - bars] if seen > bars else 0.0):
            new = total + value
            lost += (total - new) + value if abs(total) >= abs(value) else (value - new) + total
            total = new
        if seen >= bars:
            out[t] = (total + lost) / bars
    return out


def _seeded_mean(x: pl.Expr, *, alpha: float, n_seed: int, n_skip: int = 0, late: int = 0) -> pl.Expr:
    return kernel(x, "seeded_mean", seeded_mean_values, alpha=alpha, n_seed=n_seed, n_skip=n_skip, late=late)


@compiled
def _smoothed(x: Array, alpha: float, n_seed: int, n_skip: int, late: int) -> Array:
    """The seed is the sum of n_seed values by n_seed + late; the first output is `late` values after it."""
    out = np.full(len(x), np.nan)
    seen, total, mean = 0, 0.0, 0.0
    for t in range(len(x)):
        if np.isnan(x[t]):
            seen, total = 0, 0.0
            continue
        seen += 1
        if seen <= n_skip:
            continue
        if seen <= n_skip + n_seed:
            total += x[t]
            mean = total / (n_seed + late)
        else:
            mean += alpha * (x[t] - mean)
        if seen >= n_skip + n_seed + late:
            out[t] = mean
    return out
