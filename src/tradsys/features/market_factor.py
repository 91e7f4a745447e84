# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""A symbol against the market symbol, whose close the feature set joins by time as `market_close`.

NaN where the market has no bar at that time. On the market symbol itself beta is 1 and the residual 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from tradsys.features.price import log_return, where_moving
from tradsys.features.registry import register


def market_beta(bars: int) -> pl.Expr:
    """Slope of one-bar log returns on the market's over `bars` bars; NaN if that is flat."""
    own, market = log_return(), log_return(column="market_close")
    mean_market = market.rolling_mean(bars)
    covariance = (own * market).rolling_mean(bars) - own.rolling_mean(bars) * mean_market
    variance = (market * market).rolling_mean(bars) - mean_market * mean_market
    return where_moving(covariance / variance, "market_close", bars + 1)


@register
@dataclass(frozen=True)
class MarketReturn:
    """Log return of the market symbol over `bars` bars."""

    reads_market: ClassVar[bool] = True
    bars: int

    @property
    def name(self) -> str:
        return f"market_ret_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        return log_return(self.bars, column="market_close")


@register
@dataclass(frozen=True)
class MarketBeta:
    """Slope of the symbol's log returns on the market's over `bars` bars."""

    reads_market: ClassVar[bool] = True
    bars: int

    @property
    def name(self) -> str:
        return f"market_beta_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        return market_beta(self.bars)


@register
@dataclass(frozen=True)
class MarketResidual:
    """Log return less beta times the market's; beta over the `bars` bars that end here."""

    reads_market: ClassVar[bool] = True
    bars: int

    @property
    def name(self) -> str:
        return f"market_residual_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        return log_return() - market_beta(self.bars) * log_return(column="market_close")
