# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Direction of moving averages, their relation to one another, and the close relative to its own past.

Comparisons of two averages use their log ratio rounded to twelve digits, so that averages which differ by float noise
alone are equal in a live buffer as in the batch.
"""

from dataclasses import dataclass
from itertools import combinations, pairwise

import polars as pl

from tradsys.core.errors import DataError
from tradsys.features.price import log_return
from tradsys.features.registry import Column, register
from tradsys.features.smoothing import window_mean

DIGITS = 12


def sma(bars: int) -> pl.Expr:
    """Simple mean of the last `bars` closes."""
    return pl.col("close") if bars == 1 else window_mean(pl.col("close"), bars)


def sma_ratio(short: int, long: int) -> pl.Expr:
    """ln(sma(short) / sma(long)) to twelve digits."""
    return (sma(short) / sma(long)).log().round(DIGITS)


def is_positive(x: pl.Expr) -> pl.Expr:
    """1 where x > 0, else 0.

    NaN where x is NaN, which polars' `>` would count as above.
    """
    return x.sign().clip(lower_bound=0.0)


@register
@dataclass(frozen=True)
class SmaRatio(Column, name="sma_ratio_{short}_{long}", warmup=lambda f: max(f.short, f.long) - 1):
    """ln(mean over `short` bars / mean over `long`).

    Above zero where the recent past is the higher one.
    """

    short: int
    long: int

    def expr(self) -> pl.Expr:
        return sma_ratio(self.short, self.long)


@register
@dataclass(frozen=True)
class SmaAbove(Column, warmup=lambda f: max(f.short, f.long) - 1):
    """1 where the mean of `short` closes is above that of `long`, else 0.

    `short` 1 is the close itself.
    """

    short: int
    long: int

    @property
    def name(self) -> str:
        return f"close_above_sma_{self.long}" if self.short == 1 else f"sma_above_{self.short}_{self.long}"

    def expr(self) -> pl.Expr:
        return is_positive(sma_ratio(self.short, self.long))


@register
@dataclass(frozen=True)
class SmaSlope(Column, name="sma_slope_{bars}_{over}", warmup=lambda f: f.bars - 1 + f.over):
    """Log growth per bar of the mean over `bars` closes, over `over` steps."""

    bars: int
    over: int

    def expr(self) -> pl.Expr:
        return sma(self.bars).log().diff(self.over) / self.over


def _rising(spans: tuple[int, ...]) -> tuple[int, ...]:
    """The spans as a tuple, from YAML or JSON a list; DataError unless two or more, rising from 1 on."""
    if len(spans) < 2 or spans[0] < 1 or any(a >= b for a, b in pairwise(spans)):
        raise DataError(
            f"features: moving averages of spans {list(spans)}; they must be two or more, rising, from 1 on; set spans"
        )
    return tuple(spans)


@register
@dataclass(frozen=True)
class SmaSpread(Column, warmup=lambda f: f.spans[-1] - 1):
    """ln(highest / lowest) of the means over `spans` bars.

    Near zero where they converge.
    """

    spans: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", _rising(self.spans))

    @property
    def name(self) -> str:
        return "_".join(["sma_spread", *map(str, self.spans)])

    def expr(self) -> pl.Expr:
        means = [sma(bars) for bars in self.spans]
        # the horizontal extremes skip a null of the longest mean's warm-up; a sum keeps it
        return (pl.max_horizontal(means) / pl.min_horizontal(means)).log() + 0 * means[-1]


@register
@dataclass(frozen=True)
class SmaAlignment(Column, warmup=lambda f: f.spans[-1] - 1):
    """Order of the means over `spans`: 1 rising order, -1 the reverse.

    1 where every shorter mean is above every longer one. Mean over all pairs of the sign of their difference; equal
    means count 0. This is Kendall's tau of the means against minus their spans, where none are equal.
    """

    spans: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", _rising(self.spans))

    @property
    def name(self) -> str:
        return "_".join(["sma_alignment", *map(str, self.spans)])

    def expr(self) -> pl.Expr:
        signs = [sma_ratio(short, long).sign() for short, long in combinations(self.spans, 2)]
        total = signs[0]
        for sign in signs[1:]:
            total = total + sign
        return total / len(signs)


@register
@dataclass(frozen=True)
class Momentum(Column, name="momentum_{bars}_{skip}"):
    """Log return from `bars` bars ago to `skip` bars ago.

    252 and 21 are twelve months without the last. Source: Jegadeesh and Titman 1993; the last month is left out because
    it tends to reverse.
    """

    bars: int
    skip: int

    def __post_init__(self) -> None:
        if not 0 <= self.skip < self.bars:
            raise DataError(
                f"features: Momentum of {self.bars} bars, skip {self.skip}; it needs 0 <= skip < bars; set both"
            )

    def expr(self) -> pl.Expr:
        return log_return(self.bars) - log_return(self.skip)


@register
@dataclass(frozen=True)
class Drawdown(Column, name="drawdown_{bars}", warmup=lambda f: f.bars - 1):
    """ln(close / highest close of the last `bars`): zero at a new high, else below."""

    bars: int

    def expr(self) -> pl.Expr:
        close = pl.col("close")
        return (close / close.rolling_max(self.bars)).log()
