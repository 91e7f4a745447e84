# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Volatility per bar, from closes and from ranges; Bollinger bands."""

import math
import operator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from typing import Self

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
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
class VolatilityClass(Column, name="trait_vol_{bars}_of_{classes}"):
    """Class 1..classes of `Volatility` over `bars` bars, as a trait's column.

    See `core.tables.trait_classes`. edges: upper bound of each class but the last, ascending; None until `fit` takes
    the quantiles k / classes of all symbols' training bars, so that the classes are those of the training span,
    whatever follows.
    """

    bars: int
    classes: int = 5
    edges: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", None if self.edges is None else tuple(self.edges))
        rising = self.edges is None or all(a < b for a, b in pairwise(self.edges))
        n_edges = self.classes - 1 if self.edges is None else len(self.edges)
        if self.classes < 2 or n_edges != self.classes - 1 or not rising:
            raise DataError(
                f"volatility class: classes={self.classes} with edges={self.edges}; two classes at least, and one "
                "ascending edge fewer than classes; leave edges null to have them fitted"
            )

    def expr(self) -> pl.Expr:
        if self.edges is None:
            raise DataError(
                "volatility class: edges are not fitted; training bars give them; call FeatureSet.fit first"
            )
        volatility = self._volatility()
        above = (pl.when(volatility > edge).then(1.0).otherwise(0.0) for edge in self.edges)
        return volatility * 0.0 + 1.0 + reduce(operator.add, above)  # the first term is NaN where the volatility is

    def fit(self, bars: pl.DataFrame) -> Self:
        """A copy with the quantiles of these bars as edges; itself where they are given.

        Raises DataError where volatility has too few distinct values to separate the classes.
        """
        if self.edges is not None:
            return self
        found = bars.select(self._volatility().over("segment")).to_series()
        values = found.filter(found.is_finite()).to_numpy()
        edges = np.quantile(values, np.arange(1, self.classes) / self.classes) if len(values) else np.empty(0)
        if len(np.unique(edges)) < self.classes - 1:
            raise DataError(
                f"volatility class: {len(values)} training bars with {self.bars} before them do not separate "
                f"{self.classes} classes; train on more bars, or set fewer classes"
            )
        return replace(self, edges=tuple(edges.tolist()))

    def _volatility(self) -> pl.Expr:
        # rounded, so that a live buffer's float noise does not change the class
        return log_return().rolling_std(self.bars).round(12)


@register
@dataclass(frozen=True)
class VolatilityRatio(Column, name="vol_ratio_{short}_{long}", warmup=lambda f: max(f.short, f.long)):
    """Volatility over `short` bars by volatility over `long`.

    NaN where the long window is flat.
    """

    short: int
    long: int

    def expr(self) -> pl.Expr:
        ratio = log_return().rolling_std(self.short) / log_return().rolling_std(self.long)
        return where_moving(ratio, "close", self.long + 1)


@register
@dataclass(frozen=True)
class ParkinsonVolatility(Column, name="parkinson_{bars}", warmup=lambda f: f.bars - 1):
    """Per-bar volatility from high-low ranges over `bars` bars.

    Source: Parkinson 1980.
    """

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
    """(upper - lower) / middle band.

    Ddof 0, as TA-Lib's BBANDS. Source: Bollinger 2001.
    """
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
    """Mean range (high - low) / close of `short` bars divided by that of `long`.

    Below one it contracts. NaN without range. After the narrow ranges of Crabel 1990, as a ratio instead of a count.
    """

    short: int
    long: int

    def expr(self) -> pl.Expr:
        width = (pl.col("high") - pl.col("low")) / pl.col("close")
        ratio = window_mean(width, self.short) / window_mean(width, self.long)
        return pl.when(width.rolling_max(self.long) > 0).then(ratio).otherwise(float("nan"))
