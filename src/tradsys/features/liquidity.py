# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Liquidity features: how much is traded, how evenly, and with what price impact. Turnover is close times volume."""

from dataclasses import dataclass

import polars as pl

from tradsys.core.errors import DataError
from tradsys.features.price import log_return, quotient
from tradsys.features.registry import Column, register
from tradsys.features.smoothing import window_mean


def turnover() -> pl.Expr:
    """Close times volume of each bar, in the price's currency."""
    return pl.col("close") * pl.col("volume")


def where_traded(value: pl.Expr, bars: int) -> pl.Expr:
    """The value where something was traded in the last `bars` bars, else NaN.

    Exact, where a rolling sum may keep float noise of values that have left the window.
    """
    return pl.when(pl.col("volume").rolling_max(bars) > 0).then(value).otherwise(float("nan"))


@register
@dataclass(frozen=True)
class LogDollarVolume(Column, name="log_dollar_volume_{bars}", warmup=lambda f: f.bars - 1):
    """ln of the mean turnover of `bars` bars, in the price's currency.

    NaN where nothing was traded. The only price feature with a unit: scaling all prices by c adds ln c.
    """

    bars: int

    def expr(self) -> pl.Expr:
        return where_traded(window_mean(turnover(), self.bars).log(), self.bars)


@register
@dataclass(frozen=True)
class VolumeTrend(Column, name="volume_trend_{bars}", warmup=lambda f: f.bars - 1):
    """Least-squares slope per bar of volume over `bars` bars, divided by its mean.

    NaN where nothing was traded.
    """

    bars: int

    def __post_init__(self) -> None:
        if self.bars < 2:
            raise DataError(f"features: VolumeTrend of {self.bars} bars; a slope needs two or more; raise its bars")

    def expr(self) -> pl.Expr:
        volume, n = pl.col("volume"), self.bars
        steps = [k - (n - 1) / 2 for k in range(n)]
        size = sum(step * step for step in steps)
        slope = volume.rolling_sum(n, weights=[step / size for step in steps])
        return where_traded(slope / window_mean(volume, n), n)


@register
@dataclass(frozen=True)
class Amihud(Column, name="amihud_{bars}"):
    """ln of the mean of abs(log return) / turnover over `bars` bars.

    Turnover is in millions: the price impact of a million. Bars without trades are left out of the mean; NaN where none
    is left, or no price moved. Scaling all prices by c subtracts ln c. Source: Amihud 2002, eq. 1, in logs.
    """

    bars: int

    def expr(self) -> pl.Expr:
        traded = pl.col("volume") > 0  # true for NaN as well, whose quotient is NaN
        moved = pl.when(traded).then(log_return().abs() / (turnover() / 1e6)).otherwise(0 * log_return())
        mean = window_mean(moved, self.bars) / window_mean(traded.cast(pl.Float64), self.bars)
        return pl.when(moved.rolling_max(self.bars) > 0).then(mean.log()).otherwise(float("nan"))


@register
@dataclass(frozen=True)
class TurnoverVariation(Column, name="turnover_variation_{bars}", warmup=lambda f: f.bars - 1):
    """Standard deviation (ddof 1) of turnover divided by its mean over `bars` bars.

    NaN where nothing was traded. Source: Chordia, Subrahmanyam and Anshuman 2001, whose turnover is in shares
    outstanding.
    """

    bars: int

    def expr(self) -> pl.Expr:
        money = turnover()
        return where_traded(quotient(money.rolling_std(self.bars), window_mean(money, self.bars)), self.bars)


@register
@dataclass(frozen=True)
class ZeroVolumeShare(Column, name="zero_volume_share_{bars}", warmup=lambda f: f.bars - 1):
    """Share of the last `bars` bars in which nothing was traded.

    Source: after Lesmond, Ogden and Trzcinka 1999.
    """

    bars: int

    def expr(self) -> pl.Expr:
        volume = pl.col("volume")
        idle = (volume == 0).cast(pl.Float64) + 0 * volume  # 0 * NaN keeps a missing volume missing
        return window_mean(idle, self.bars)


@register
@dataclass(frozen=True)
class VolumeRatio(Column, name="volume_ratio_{bars}", warmup=lambda f: f.bars - 1):
    """Volume divided by its mean over `bars` bars; NaN where nothing was traded."""

    bars: int

    def expr(self) -> pl.Expr:
        return quotient(pl.col("volume"), window_mean(pl.col("volume"), self.bars))


@register
@dataclass(frozen=True)
class DollarVolumeZ(Column, name="dollar_volume_z_{bars}", warmup=lambda f: 2 * (f.bars - 1)):
    """Z-score of log dollar volume over `bars` bars.

    Of ln(1 + dollar volume / its mean), with ddof 1: dividing first makes it free of units and keeps a
    bar without trades finite.
    """

    bars: int

    def expr(self) -> pl.Expr:
        dollars = pl.col("close") * pl.col("volume")
        size = quotient(dollars, window_mean(dollars, self.bars)).log1p()
        return quotient(size - window_mean(size, self.bars), size.rolling_std(self.bars))


@register
@dataclass(frozen=True)
class VolumeVolatility(Column, name="volume_vol_{bars}", warmup=lambda f: f.bars - 1):
    """Standard deviation (ddof 1) of volume divided by its mean over `bars` bars.

    NaN where nothing was traded.
    """

    bars: int

    def expr(self) -> pl.Expr:
        volume = pl.col("volume")
        return quotient(volume.rolling_std(self.bars), window_mean(volume, self.bars))
