# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""How much the price moves per bar, from closes and from ranges; Bollinger bands."""

import math
from dataclasses import dataclass

import polars as pl

from tradsys.features.price import log_return, where_moving
from tradsys.features.registry import Column, register
from tradsys.features.smoothing import window_mean


@register
@dataclass(frozen=True)
class Volatility(Column, name="vol_{bars}"):
    """Deviation (ddof 1) of one-bar log returns over `bars` bars; not annualised."""

    bars: int

    def expr(self) -> pl.Expr:
        return log_return().rolling_std(self.bars)


@register
@dataclass(frozen=True)
class VolatilityRatio(Column, name="vol_ratio_{short}_{long}", warmup=lambda f: max(f.short, f.long)):
    """Volatility over `short` bars by volatility over `long`; NaN where the long window is flat."""

    short: int
    long: int

    def expr(self) -> pl.Expr:
        ratio = log_return().rolling_std(self.short) / log_return().rolling_std(self.long)
        return where_moving(ratio, "close", self.long + 1)


@register
@dataclass(frozen=True)
class ParkinsonVolatility(Column, name="parkinson_{bars}", warmup=lambda f: f.bars - 1):
    """Per-bar volatility from high-low ranges over `bars` bars. Source: Parkinson 1980."""

    bars: int

    def expr(self) -> pl.Expr:
        spread = (pl.col("high") / pl.col("low")).log()
        return (window_mean(spread.pow(2), self.bars) / (4 * math.log(2))).sqrt()


@register
@dataclass(frozen=True)
class GarmanKlassVolatility(Column, name="garman_klass_{bars}", warmup=lambda f: f.bars - 1):
    """Per-bar volatility from all four prices over `bars` bars.

    Source: Garman, Klass 1980, the practical estimator of eq. 20.
    """

    bars: int

    def expr(self) -> pl.Expr:
        spread = (pl.col("high") / pl.col("low")).log()
        body = (pl.col("close") / pl.col("open")).log()
        variance = 0.5 * spread.pow(2) - (2 * math.log(2) - 1) * body.pow(2)
        return window_mean(variance, self.bars).clip(lower_bound=0.0).sqrt()


def bollinger_width(bars: int, deviations: float) -> pl.Expr:
    """(upper - lower) / middle band; ddof 0, as TA-Lib's BBANDS. Source: Bollinger 2001."""
    close = pl.col("close")
    return 2 * deviations * close.rolling_std(bars, ddof=0) / window_mean(close, bars)


@register
@dataclass(frozen=True)
class BollingerWidth(Column, name="bollinger_width_{bars}", warmup=lambda f: f.bars - 1):
    """Width of the Bollinger bands as a share of the middle one."""

    bars: int = 20
    deviations: float = 2.0

    def expr(self) -> pl.Expr:
        return bollinger_width(self.bars, self.deviations)


@register
@dataclass(frozen=True)
class BollingerWidthRank(
    Column, name="bollinger_width_rank_{bars}_{rank_bars}", warmup=lambda f: f.bars + f.rank_bars - 2
):
    """Rank of the Bollinger width among its last `rank_bars`, 0..1: low is a squeeze."""

    bars: int = 20
    rank_bars: int = 168

    def expr(self) -> pl.Expr:
        # rounded, so that widths which differ by float noise alone tie in a live buffer as in the batch
        width = bollinger_width(self.bars, 1.0).round(12)
        return width.rolling_rank(self.rank_bars) / self.rank_bars


@register
@dataclass(frozen=True)
class BollingerPosition(Column, name="bollinger_position_{bars}", warmup=lambda f: f.bars - 1):
    """%B: 0 with the close on the lower band, 1 on the upper; NaN if flat."""

    bars: int = 20
    deviations: float = 2.0

    def expr(self) -> pl.Expr:
        close = pl.col("close")
        score = (close - window_mean(close, self.bars)) / close.rolling_std(self.bars, ddof=0)
        return where_moving(0.5 + score / (2 * self.deviations), "close", self.bars)


@register
@dataclass(frozen=True)
class RangeContraction(Column, name="range_contraction_{short}_{long}", warmup=lambda f: max(f.short, f.long) - 1):
    """Mean range (high - low) / close of `short` bars by that of `long`: below one it contracts; NaN without range.

    After the narrow ranges of Crabel 1990, as a ratio instead of a count.
    """

    short: int
    long: int

    def expr(self) -> pl.Expr:
        width = (pl.col("high") - pl.col("low")) / pl.col("close")
        ratio = window_mean(width, self.short) / window_mean(width, self.long)
        return pl.when(width.rolling_max(self.long) > 0).then(ratio).otherwise(float("nan"))
