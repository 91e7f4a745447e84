# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Columns right of `volume` as features: fundamentals, macro series, sentiment, joined as known at the bar's close.

`columns` names what a feature reads; the feature set refuses bars that lack it. A value not known yet is NaN. What a
column means and when it became known is the join's business (`market.known`), not ours.
"""

from dataclasses import dataclass

import polars as pl

from tradsys.features.price import quotient
from tradsys.features.registry import register
from tradsys.features.smoothing import window_mean


def log_of(column: str) -> pl.Expr:
    """ln of the column where it is above zero, else NaN: never an infinity."""
    value = pl.col(column)
    return pl.when(value > 0).then(value.log()).otherwise(float("nan"))


@register
@dataclass(frozen=True)
class Known:
    """The column as it is."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def name(self) -> str:
        return f"known_{self.column}"

    @property
    def warmup(self) -> int:
        return 0

    def expr(self) -> pl.Expr:
        return pl.col(self.column) * 1.0


@register
@dataclass(frozen=True)
class KnownLog:
    """ln of the column, for sizes such as market capitalisation; NaN where it is not above zero."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def name(self) -> str:
        return f"known_{self.column}_log"

    @property
    def warmup(self) -> int:
        return 0

    def expr(self) -> pl.Expr:
        return log_of(self.column)


@register
@dataclass(frozen=True)
class KnownYield:
    """The column by the close: earnings per share become the earnings yield, which is known at each close."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def name(self) -> str:
        return f"known_{self.column}_yield"

    @property
    def warmup(self) -> int:
        return 0

    def expr(self) -> pl.Expr:
        return pl.col(self.column) / pl.col("close")


@register
@dataclass(frozen=True)
class KnownChange:
    """The column less what was known `bars` bars before: points of a rate or of a spread."""

    column: str
    bars: int

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def name(self) -> str:
        return f"known_{self.column}_change_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        return pl.col(self.column).diff(self.bars)


@register
@dataclass(frozen=True)
class KnownGrowth:
    """ln of the column by what was known `bars` bars before: an index such as CPI; NaN where not above zero."""

    column: str
    bars: int

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def name(self) -> str:
        return f"known_{self.column}_growth_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        return log_of(self.column).diff(self.bars)


@register
@dataclass(frozen=True)
class KnownRatio:
    """The column by its mean over `bars` bars: attention against its usual level; NaN where that is not above zero."""

    column: str
    bars: int

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def name(self) -> str:
        return f"known_{self.column}_ratio_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars - 1

    def expr(self) -> pl.Expr:
        value = pl.col(self.column)
        return quotient(value, window_mean(value, self.bars))
