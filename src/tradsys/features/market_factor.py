# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Features of a symbol relative to the market symbol, whose close is joined by time as `market_close`.

NaN where the market has no bar at that time. On the market symbol itself beta is 1 and the residual 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from tradsys.features.price import log_return, where_moving
from tradsys.features.registry import Column, register
from tradsys.features.smoothing import window_mean


def market_beta(bars: int) -> pl.Expr:
    """Slope of one-bar log returns on the market's over `bars` bars.

    NaN where the market is flat.
    """
    own, market = log_return(), log_return(column="market_close")
    mean_market = window_mean(market, bars)
    covariance = window_mean(own * market, bars) - window_mean(own, bars) * mean_market
    variance = window_mean(market * market, bars) - mean_market * mean_market
    return where_moving(covariance / variance, "market_close", bars + 1)


@register
@dataclass(frozen=True)
class MarketReturn(Column, name="market_ret_{bars}"):
    """Log return of the market symbol over `bars` bars."""

    reads_market: ClassVar[bool] = True
    bars: int

    def expr(self) -> pl.Expr:
        return log_return(self.bars, column="market_close")


@register
@dataclass(frozen=True)
class MarketBeta(Column, name="market_beta_{bars}"):
    """Slope of the symbol's log returns on the market's over `bars` bars."""

    reads_market: ClassVar[bool] = True
    bars: int

    def expr(self) -> pl.Expr:
        return market_beta(self.bars)


@register
@dataclass(frozen=True)
class MarketResidual(Column, name="market_residual_{bars}"):
    """Log return less beta times the market's.

    Beta over the `bars` bars that end here.
    """

    reads_market: ClassVar[bool] = True
    bars: int

    def expr(self) -> pl.Expr:
        return log_return() - market_beta(self.bars) * log_return(column="market_close")


@register
@dataclass(frozen=True)
class MarketResidualSum(Column, name="market_residual_{bars}_{beta_bars}", warmup=lambda f: max(f.bars, f.beta_bars)):
    """Log return over `bars` bars less beta times the market's over the same bars.

    One beta, over `beta_bars` bars.
    """

    reads_market: ClassVar[bool] = True
    bars: int
    beta_bars: int

    def expr(self) -> pl.Expr:
        return log_return(self.bars) - market_beta(self.beta_bars) * log_return(self.bars, column="market_close")


@register
@dataclass(frozen=True)
class RelativeStrength(Column, name="relative_strength_{bars}"):
    """Log return over `bars` bars less the market's."""

    reads_market: ClassVar[bool] = True
    bars: int

    def expr(self) -> pl.Expr:
        return log_return(self.bars) - log_return(self.bars, column="market_close")


@register
@dataclass(frozen=True)
class ResidualMomentum(Column, name="residual_momentum_{bars}_{skip}"):
    """`Momentum` over `bars` without the last `skip`, less beta times the market's.

    Beta over `bars` that end here. Source: Blitz, Huij and Martens 2011, with one factor and without dividing by the
    residuals' deviation.
    """

    reads_market: ClassVar[bool] = True
    bars: int
    skip: int

    def expr(self) -> pl.Expr:
        own = log_return(self.bars) - log_return(self.skip)
        market = log_return(self.bars, column="market_close") - log_return(self.skip, column="market_close")
        return own - market_beta(self.bars) * market


@register
@dataclass(frozen=True)
class MarketCorrelation(Column, name="market_correlation_{bars}"):
    """Correlation of one-bar log returns with the market's over `bars` bars.

    NaN if either is flat.
    """

    reads_market: ClassVar[bool] = True
    bars: int

    def expr(self) -> pl.Expr:
        own, market = log_return(), log_return(column="market_close")
        correlation = market_beta(self.bars) * market.rolling_std(self.bars) / own.rolling_std(self.bars)
        return where_moving(correlation.clip(-1.0, 1.0), "close", self.bars + 1)


@register
@dataclass(frozen=True)
class ResidualVolatility(Column, name="residual_vol_{bars}"):
    """Deviation of the residual of the return on the market's.

    Over `bars` bars, ddof 1, with a fitted intercept. Source: Ang, Hodrick, Xing and Zhang 2006, with one factor.
    """

    reads_market: ClassVar[bool] = True
    bars: int

    def expr(self) -> pl.Expr:
        own, market = log_return(), log_return(column="market_close")
        explained = (market_beta(self.bars) * market.rolling_std(self.bars)).pow(2)
        return (own.rolling_var(self.bars) - explained).clip(lower_bound=0.0).sqrt()


@register
@dataclass(frozen=True)
class MarketVolatility(Column, name="market_vol_{bars}"):
    """Deviation (ddof 1) of the market's one-bar log returns over `bars` bars."""

    reads_market: ClassVar[bool] = True
    bars: int

    def expr(self) -> pl.Expr:
        return log_return(column="market_close").rolling_std(self.bars)
