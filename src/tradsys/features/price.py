# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Where the close stands: returns, distances from means and ranges, the shape of one candle."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from tradsys.features.registry import register


def quotient(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """part / whole where whole > 0, else null: a window without movement has no ratio."""
    return pl.when(whole > 0).then(part / whole)


def moves(column: str, rows: int) -> pl.Expr:
    """True where a column is not constant over its last `rows` rows; exact, unlike a rolling deviation of zero."""
    return pl.col(column).rolling_max(rows) > pl.col(column).rolling_min(rows)


def log_return(bars: int = 1, column: str = "close") -> pl.Expr:
    """ln(price[t] / price[t - bars]); null on the first `bars` rows."""
    return pl.col(column).log().diff(bars)


@register
@dataclass(frozen=True)
class LogReturn:
    """Log return of the close over `bars` bars."""

    bars: int

    @property
    def name(self) -> str:
        return f"ret_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        return log_return(self.bars)


@register
@dataclass(frozen=True)
class SmaDistance:
    """ln(close / simple mean of the last `bars` closes): above zero in a rising market."""

    bars: int

    @property
    def name(self) -> str:
        return f"sma_distance_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars - 1

    def expr(self) -> pl.Expr:
        close = pl.col("close")
        return (close / close.rolling_mean(self.bars)).log()


@register
@dataclass(frozen=True)
class ZScore:
    """Deviations (ddof 1) of the close from its mean over `bars` bars; null where the window is flat."""

    bars: int

    @property
    def name(self) -> str:
        return f"z_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars - 1

    def expr(self) -> pl.Expr:
        close = pl.col("close")
        score = (close - close.rolling_mean(self.bars)) / close.rolling_std(self.bars)
        return pl.when(moves("close", self.bars)).then(score)


@register
@dataclass(frozen=True)
class RangePosition:
    """Close inside the high-low range of `bars` bars: 0 at its low, 1 at its high; null where the range is nil."""

    bars: int

    @property
    def name(self) -> str:
        return f"range_position_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars - 1

    def expr(self) -> pl.Expr:
        top = pl.col("high").rolling_max(self.bars)
        bottom = pl.col("low").rolling_min(self.bars)
        return quotient(pl.col("close") - bottom, top - bottom)


@register
@dataclass(frozen=True)
class CandleShare:
    """Part of a bar's high-low range: signed body, upper or lower wick. A bar without range has all three at 0."""

    part: Literal["body", "upper_wick", "lower_wick"]

    @property
    def name(self) -> str:
        return f"candle_{self.part}"

    @property
    def warmup(self) -> int:
        return 0

    def expr(self) -> pl.Expr:
        first, last, high, low = (pl.col(c) for c in ("open", "close", "high", "low"))
        size = {
            "body": last - first,
            "upper_wick": high - pl.max_horizontal(first, last),
            "lower_wick": pl.min_horizontal(first, last) - low,
        }[self.part]
        return pl.when(high == low).then(0.0).otherwise(size / (high - low))
