# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""How much trades, against the recent past of the same symbol."""

from dataclasses import dataclass

import polars as pl

from tradsys.features.price import quotient
from tradsys.features.registry import register
from tradsys.features.smoothing import window_mean


@register
@dataclass(frozen=True)
class VolumeRatio:
    """Volume by its mean over `bars` bars; NaN where nothing traded."""

    bars: int

    @property
    def name(self) -> str:
        return f"volume_ratio_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars - 1

    def expr(self) -> pl.Expr:
        return quotient(pl.col("volume"), window_mean(pl.col("volume"), self.bars))


@register
@dataclass(frozen=True)
class DollarVolumeZ:
    """Deviations of log dollar volume from its mean over `bars` bars.

    Of ln(1 + close volume / its mean), with ddof 1: dividing first makes it free of units and keeps a
    bar without trades finite.
    """

    bars: int

    @property
    def name(self) -> str:
        return f"dollar_volume_z_{self.bars}"

    @property
    def warmup(self) -> int:
        return 2 * (self.bars - 1)

    def expr(self) -> pl.Expr:
        dollars = pl.col("close") * pl.col("volume")
        size = quotient(dollars, window_mean(dollars, self.bars)).log1p()
        return quotient(size - window_mean(size, self.bars), size.rolling_std(self.bars))


@register
@dataclass(frozen=True)
class VolumeVolatility:
    """Deviation (ddof 1) of volume by its mean over `bars` bars; NaN where nothing traded."""

    bars: int

    @property
    def name(self) -> str:
        return f"volume_vol_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars - 1

    def expr(self) -> pl.Expr:
        volume = pl.col("volume")
        return quotient(volume.rolling_std(self.bars), window_mean(volume, self.bars))
