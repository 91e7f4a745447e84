# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Columns right of `volume` as features: fundamentals, macro series, sentiment, joined point in time.

`columns` names what a feature reads; the feature set refuses bars that lack it. A value not yet published is NaN. The
join (`market.known`) decides what a column means and when it is published.
"""

from dataclasses import dataclass

import polars as pl

from tradsys.features.price import quotient
from tradsys.features.registry import Column, register
from tradsys.features.smoothing import window_mean


def log_of(column: str) -> pl.Expr:
    """ln of the column where it is above zero, else NaN: never an infinity."""
    value = pl.col(column)
    return pl.when(value > 0).then(value.log()).otherwise(float("nan"))


@register
@dataclass(frozen=True)
class Known(Column, name="known_{column}"):
    """The column unchanged."""

    column: str

    def expr(self) -> pl.Expr:
        return pl.col(self.column) * 1.0


@register
@dataclass(frozen=True)
class KnownClass(Known, name="trait_{column}_of_{classes}"):
    """Class code of a slow trait, 1..classes and 0 for unknown."""

    classes: int


@register
@dataclass(frozen=True)
class KnownLog(Column, name="known_{column}_log"):
    """ln of the column, for sizes such as market capitalisation.

    NaN where it is not above zero.
    """

    column: str

    def expr(self) -> pl.Expr:
        return log_of(self.column)


@register
@dataclass(frozen=True)
class KnownYield(Column, name="known_{column}_yield"):
    """The column divided by the close: earnings per share become the earnings yield."""

    column: str

    def expr(self) -> pl.Expr:
        return pl.col(self.column) / pl.col("close")


@register
@dataclass(frozen=True)
class KnownChange(Column, name="known_{column}_change_{bars}"):
    """The column less its value `bars` bars before: points of a rate or of a spread."""

    column: str
    bars: int

    def expr(self) -> pl.Expr:
        return pl.col(self.column).diff(self.bars)


@register
@dataclass(frozen=True)
class KnownGrowth(Column, name="known_{column}_growth_{bars}"):
    """ln growth of the column over `bars` bars, for an index such as CPI.

    NaN where a value is not above zero.
    """

    column: str
    bars: int

    def expr(self) -> pl.Expr:
        return log_of(self.column).diff(self.bars)


@register
@dataclass(frozen=True)
class KnownRatio(Column, name="known_{column}_ratio_{bars}", warmup=lambda f: f.bars - 1):
    """The column divided by its mean over `bars` bars, such as attention.

    NaN where the mean is not above zero.
    """

    column: str
    bars: int

    def expr(self) -> pl.Expr:
        value = pl.col(self.column)
        return quotient(value, window_mean(value, self.bars))
