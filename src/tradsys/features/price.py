# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Price features: returns, distances from means and ranges, the shape of one candle."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from tradsys.features.registry import Column, register
from tradsys.features.smoothing import window_mean


def quotient(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """part / whole where whole > 0, else NaN: a window without movement has no ratio."""
    return pl.when(whole > 0).then(part / whole).otherwise(float("nan"))


def where_moving(value: pl.Expr, column: str, rows: int) -> pl.Expr:
    """The value where the column changed within its last `rows` rows, else NaN.

    Exact, where a rolling deviation of a flat window may come out as float noise instead of zero. Changes are
    counted, which is cheaper than comparing the window's highest with its lowest. NaN counts as a change, so the
    value has to be NaN there itself.
    """
    changed = (pl.col(column) != pl.col(column).shift(1)).cast(pl.UInt32)
    moving = changed.rolling_sum(max(rows - 1, 1)) > 0
    return pl.when(moving).then(value).otherwise(float("nan"))


def log_return(bars: int = 1, column: str = "close") -> pl.Expr:
    """ln(price[t] / price[t - bars]); null on the first `bars` rows."""
    return pl.col(column).log().diff(bars)


@register
@dataclass(frozen=True)
class LogReturn(Column, name="ret_{bars}"):
    """Log return of the close over `bars` bars."""

    bars: int

    def expr(self) -> pl.Expr:
        return log_return(self.bars)


@register
@dataclass(frozen=True)
class SmaDistance(Column, name="sma_distance_{bars}", warmup=lambda f: f.bars - 1):
    """ln(close / mean of the last `bars` closes); > 0 in a rising market."""

    bars: int

    def expr(self) -> pl.Expr:
        close = pl.col("close")
        return (close / window_mean(close, self.bars)).log()


@register
@dataclass(frozen=True)
class ZScore(Column, name="z_{bars}", warmup=lambda f: f.bars - 1):
    """Deviations (ddof 1) of the close from its mean over `bars` bars; NaN if flat."""

    bars: int

    def expr(self) -> pl.Expr:
        close = pl.col("close")
        score = (close - window_mean(close, self.bars)) / close.rolling_std(self.bars)
        return where_moving(score, "close", self.bars)


@register
@dataclass(frozen=True)
class RangePosition(Column, name="range_position_{bars}", warmup=lambda f: f.bars - 1):
    """Close in the high-low range of `bars` bars: 0 its low, 1 its high; NaN if flat."""

    bars: int

    def expr(self) -> pl.Expr:
        top = pl.col("high").rolling_max(self.bars)
        bottom = pl.col("low").rolling_min(self.bars)
        return quotient(pl.col("close") - bottom, top - bottom)


@register
@dataclass(frozen=True)
class CandleShare(Column, name="candle_{part}"):
    """Part of a bar's range: signed body, upper or lower wick.

    0 in a bar without range.
    """

    part: Literal["body", "upper_wick", "lower_wick"]

    def expr(self) -> pl.Expr:
        first, last, high, low = (pl.col(c) for c in ("open", "close", "high", "low"))
        size = {
            "body": last - first,
            "upper_wick": high - pl.max_horizontal(first, last),
            "lower_wick": pl.min_horizontal(first, last) - low,
        }[self.part]
        return pl.when(high > low).then(size / (high - low)).otherwise(0 * size)


@register
@dataclass(frozen=True)
class OvernightReturn(Column, name="overnight_ret_{bars}"):
    """Mean over `bars` bars of the log return from the close before to the open."""

    bars: int

    def expr(self) -> pl.Expr:
        return window_mean((pl.col("open") / pl.col("close").shift(1)).log(), self.bars)


@register
@dataclass(frozen=True)
class IntradayReturn(Column, name="intraday_ret_{bars}", warmup=lambda f: f.bars - 1):
    """Mean over `bars` bars of the log return from open to close."""

    bars: int

    def expr(self) -> pl.Expr:
        return window_mean((pl.col("close") / pl.col("open")).log(), self.bars)
