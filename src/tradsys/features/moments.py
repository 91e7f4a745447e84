# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""The shape of the last one-bar log returns: reward per risk, downside, skew, tails. NaN where the close is flat."""

from dataclasses import dataclass

import polars as pl

from tradsys.features.price import log_return, where_moving
from tradsys.features.registry import register
from tradsys.features.smoothing import window_mean


@register
@dataclass(frozen=True)
class Sharpe:
    """Mean by deviation (ddof 1) of one-bar log returns over `bars` bars; per bar, no riskless rate."""

    bars: int

    @property
    def name(self) -> str:
        return f"sharpe_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        ret = log_return()
        return where_moving(window_mean(ret, self.bars) / ret.rolling_std(self.bars), "close", self.bars + 1)


@register
@dataclass(frozen=True)
class DownsideVolatility:
    """Root mean square of the negative one-bar log returns over `bars` bars, gains counting as zero.

    Source: Sortino and Price 1994, with zero as the target.
    """

    bars: int

    @property
    def name(self) -> str:
        return f"downside_vol_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        loss = log_return().clip(upper_bound=0.0)
        return window_mean(loss.pow(2), self.bars).sqrt()


@register
@dataclass(frozen=True)
class Skewness:
    """Third standardised moment of one-bar log returns over `bars` bars, without correction for bias."""

    bars: int

    @property
    def name(self) -> str:
        return f"skew_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        return where_moving(log_return().rolling_skew(self.bars), "close", self.bars + 1)


@register
@dataclass(frozen=True)
class Kurtosis:
    """Fourth standardised moment less 3 of one-bar log returns over `bars` bars, without correction for bias."""

    bars: int

    @property
    def name(self) -> str:
        return f"kurtosis_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        return where_moving(log_return().rolling_kurtosis(self.bars), "close", self.bars + 1)


@register
@dataclass(frozen=True)
class MaxReturn:
    """Highest one-bar log return of the last `bars`. Source: Bali, Cakici and Whitelaw 2011, MAX."""

    bars: int

    @property
    def name(self) -> str:
        return f"max_ret_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars

    def expr(self) -> pl.Expr:
        return log_return().rolling_max(self.bars)
