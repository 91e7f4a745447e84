"""Recursive averages with their own seed, as TA-Lib starts them, in polars expressions.

Every expression reads one segment from its first row; `polars.int_range(polars.len())` is the row number in it.
A NaN would poison a recursion for good: the feature set ends a segment there, so that the indicator starts anew.
"""

import math

import polars as pl

FORGOTTEN = 1e-8  # weight of the oldest history that is left when a recursive indicator counts as warmed up


def settled_rows(alpha: float, n_stages: int = 1) -> int:
    """Rows after its seed until a recursion of step `alpha` has forgotten the seed to 1e-8.

    n_stages: recursions run one on another's output. The remainder after k rows is bounded by
    (1 + k alpha)^(n_stages - 1) (1 - alpha)^k.
    """
    k = math.ceil(math.log(FORGOTTEN) / math.log1p(-alpha))
    while (1 + k * alpha) ** (n_stages - 1) * (1 - alpha) ** k > FORGOTTEN:
        k += 1
    return k


def seeded_ewm(x: pl.Expr, *, alpha: float, at: int, seed: pl.Expr) -> pl.Expr:
    """y[at] = seed[at], then y[t] = y[t-1] + alpha (x[t] - y[t-1]); null before row `at`; a null x is skipped."""
    row = pl.int_range(pl.len())
    started = pl.when(row == at).then(seed).when(row > at).then(x)
    return started.ewm_mean(alpha=alpha, adjust=False, ignore_nulls=True)


def wilder_mean(x: pl.Expr, bars: int, *, first: int) -> pl.Expr:
    """Wilder's smoothing, step 1/bars, seeded with the mean of the first `bars` values.

    first: row of the first value of x, the rows before are null. First output at row first + bars - 1.
    Source: Wilder 1978; seed and warm-up as TA-Lib.
    """
    return seeded_ewm(x, alpha=1 / bars, at=first + bars - 1, seed=x.rolling_mean(bars))


def ema(x: pl.Expr, bars: int, *, at: int) -> pl.Expr:
    """Exponential mean, step 2/(bars + 1), seeded at row `at` with the mean of the `bars` values that end there.

    Source: TA-Lib's EMA in its default compatibility.
    """
    return seeded_ewm(x, alpha=2 / (bars + 1), at=at, seed=x.rolling_mean(bars))


def true_range() -> pl.Expr:
    """Wilder's true range in price units; null on the first row, which has no previous close."""
    before = pl.col("close").shift(1)
    top = pl.max_horizontal(pl.col("high"), before)
    bottom = pl.min_horizontal(pl.col("low"), before)
    return pl.when(before.is_not_null()).then(top - bottom)


def average_true_range(bars: int) -> pl.Expr:
    """Wilder's ATR in price units; first value at row `bars` (0-based), as TA-Lib."""
    return wilder_mean(true_range(), bars, first=1)
