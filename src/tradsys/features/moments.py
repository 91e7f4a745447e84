# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""The shape of the last one-bar log returns: reward per risk, downside, skew, tails. NaN where the close is flat."""

from dataclasses import dataclass

import polars as pl

from tradsys.features.price import log_return, where_moving
from tradsys.features.registry import Column, register
from tradsys.features.smoothing import window_mean


@register
@dataclass(frozen=True)
class Sharpe(Column, name="sharpe_{bars}"):
    """Mean by deviation (ddof 1) of one-bar log returns over `bars` bars.

    Per bar, no riskless rate.
    """

    bars: int

    def expr(self) -> pl.Expr:
        ret = log_return()
        return where_moving(window_mean(ret, self.bars) / ret.rolling_std(self.bars), "close", self.bars + 1)


@register
@dataclass(frozen=True)
class DownsideVolatility(Column, name="downside_vol_{bars}"):
    """Root mean square of the negative log returns over `bars` bars.

    Gains count as zero. Source: Sortino and Price 1994, with zero as the target.
    """

    bars: int

    def expr(self) -> pl.Expr:
        loss = log_return().clip(upper_bound=0.0)
        return window_mean(loss.pow(2), self.bars).sqrt()


@register
@dataclass(frozen=True)
class Skewness(Column, name="skew_{bars}"):
    """Third standardised moment of log returns over `bars` bars.

    One-bar returns, without correction for bias.
    """

    bars: int

    def expr(self) -> pl.Expr:
        return where_moving(log_return().rolling_skew(self.bars), "close", self.bars + 1)


@register
@dataclass(frozen=True)
class Kurtosis(Column, name="kurtosis_{bars}"):
    """Fourth standardised moment less 3 of log returns over `bars` bars.

    One-bar returns, without correction for bias.
    """

    bars: int

    def expr(self) -> pl.Expr:
        return where_moving(log_return().rolling_kurtosis(self.bars), "close", self.bars + 1)


@register
@dataclass(frozen=True)
class MaxReturn(Column, name="max_ret_{bars}"):
    """Highest one-bar log return of the last `bars`.

    Source: Bali, Cakici and Whitelaw 2011, MAX.
    """

    bars: int

    def expr(self) -> pl.Expr:
        return log_return().rolling_max(self.bars)
