# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Side of a position: +1 long, -1 short, 0 none; NaN in the warm-up and on a flat market.

Each of these features is named `side`, so a set holds at most one. Labels follow this side and strategies enter
on it. A comparison with NaN is true in polars, hence `+ 0 * x` wherever a NaN in x must stay NaN.
"""

from dataclasses import dataclass

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import SIDE
from tradsys.features.price import ZScore, log_return, where_moving
from tradsys.features.registry import Column, register


@register
@dataclass(frozen=True)
class MomentumSide(Column, name=SIDE):
    """Side of the trend: sign of the log return over `bars` bars.

    0 where it is below `dead_zone` of its own standard deviations. The deviation is that of the one-bar log returns
    inside the same window (ddof 1), times sqrt(bars). Source: time-series momentum, Moskowitz, Ooi and Pedersen 2012,
    with a zone of no position around zero.
    """

    bars: int
    dead_zone: float = 0.0

    def __post_init__(self) -> None:
        if self.bars < 2 or not self.dead_zone >= 0:
            raise DataError(
                f"features: MomentumSide of {self.bars} bars, dead_zone {self.dead_zone}; a deviation needs bars >= 2 "
                "and a zone is >= 0; set features.extra"
            )

    def expr(self) -> pl.Expr:
        deviation = log_return().rolling_std(self.bars) * self.bars**0.5
        move = where_moving(log_return(self.bars) / deviation, "close", self.bars + 1)
        return pl.when(move.abs() >= self.dead_zone).then(move.sign()).otherwise(0.0) + 0 * move


@register
@dataclass(frozen=True)
class ReversionSide(Column, name=SIDE, warmup=lambda f: f.bars - 1):
    """Side against an extreme: minus the sign of the close's z-score.

    Over `bars` bars; 0 where it is below `stretch`. The z-score is that of `features.price.ZScore`.
    """

    bars: int
    stretch: float = 2.0

    def __post_init__(self) -> None:
        if self.bars < 2 or not self.stretch > 0:
            raise DataError(
                f"features: ReversionSide of {self.bars} bars, stretch {self.stretch}; a z-score needs bars >= 2 and a "
                "stretch is > 0; set features.extra"
            )

    def expr(self) -> pl.Expr:
        z = ZScore(self.bars).expr()
        return pl.when(z.abs() >= self.stretch).then(-z.sign()).otherwise(0.0) + 0 * z


@register
@dataclass(frozen=True)
class BreakoutSide(Column, name=SIDE):
    """Side of a breakout: +1 above the high of the last `bars` bars, -1 below.

    The high and low are of the `bars` previous bars. The bar itself is no part of the range. Source: Donchian's channel
    rule.
    """

    bars: int

    def __post_init__(self) -> None:
        if self.bars < 1:
            raise DataError(f"features: BreakoutSide of {self.bars} bars; a range holds bars >= 1; set features.extra")

    def expr(self) -> pl.Expr:
        close = pl.col("close")
        top = pl.col("high").rolling_max(self.bars).shift(1)
        bottom = pl.col("low").rolling_min(self.bars).shift(1)
        broken = pl.when(close > top).then(1.0).when(close < bottom).then(-1.0).otherwise(0.0)
        return broken + 0 * (close + top + bottom)
