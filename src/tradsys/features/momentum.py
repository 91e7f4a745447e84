# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Oscillators and trend strength with TA-Lib's seeds and warm-up. `warmup` is longer: until the seed is forgotten."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from tradsys.features.price import quotient
from tradsys.features.registry import register
from tradsys.features.smoothing import (
    average_true_range,
    ema,
    seeded_ewm,
    settled_rows,
    true_range,
    wilder_mean,
)


@register
@dataclass(frozen=True)
class Rsi:
    """Relative strength index, 0..100; null where no close has moved yet. Source: Wilder 1978."""

    bars: int = 14

    @property
    def name(self) -> str:
        return f"rsi_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars + settled_rows(1 / self.bars)

    def expr(self) -> pl.Expr:
        change = pl.col("close").diff()
        gain = wilder_mean(change.clip(lower_bound=0.0), self.bars, first=1)
        loss = wilder_mean((-change).clip(lower_bound=0.0), self.bars, first=1)
        return quotient(100 * gain, gain + loss)


def macd(part: str, *, fast: int, slow: int, signal: int) -> pl.Expr:
    """MACD `line`, `signal` or `histogram` in price units, all three from row slow + signal - 2, as TA-Lib.

    TA-Lib seeds both means at the slow one's first row. Source: Appel 2005.
    """
    close = pl.col("close")
    line = ema(close, fast, at=slow - 1) - ema(close, slow, at=slow - 1)
    smooth = ema(line, signal, at=slow + signal - 2)
    values = {"line": pl.when(smooth.is_not_null()).then(line), "signal": smooth, "histogram": line - smooth}
    return values[part]


@register
@dataclass(frozen=True)
class Macd:
    """MACD line, signal or histogram as a share of the close."""

    part: Literal["line", "signal", "histogram"]
    fast: int = 12
    slow: int = 26
    signal: int = 9

    @property
    def name(self) -> str:
        return f"macd_{self.part}_{self.fast}_{self.slow}_{self.signal}"

    @property
    def warmup(self) -> int:
        slowest = 2 / (max(self.slow, self.signal) + 1)
        return self.slow + self.signal - 2 + settled_rows(slowest, n_stages=2)

    def expr(self) -> pl.Expr:
        return macd(self.part, fast=self.fast, slow=self.slow, signal=self.signal) / pl.col("close")


def directional_index(side: Literal["plus", "minus"], bars: int) -> pl.Expr:
    """+DI or -DI, 0..100, from row `bars`; null where nothing has moved. Source: Wilder 1978, seeds as TA-Lib.

    TA-Lib seeds the running sums with the first bars - 1 values, one fewer than the ATR does.
    """
    up, down = pl.col("high").diff(), -pl.col("low").diff()
    mine, other = (up, down) if side == "plus" else (down, up)
    movement = pl.when((mine > other) & (mine > 0)).then(mine).when(mine.is_not_null()).then(0.0)
    smooth = [
        seeded_ewm(x, alpha=1 / bars, at=bars - 1, seed=x.rolling_sum(bars - 1) / bars)
        for x in (movement, true_range())
    ]
    index = quotient(100 * smooth[0], smooth[1])
    return pl.when(pl.int_range(pl.len()) >= bars).then(index)


def average_directional_index(bars: int) -> pl.Expr:
    """ADX, 0..100, from row 2 bars - 1, as TA-Lib; a bar where neither side moved is skipped."""
    plus, minus = directional_index("plus", bars), directional_index("minus", bars)
    strength = quotient(100 * (plus - minus).abs(), plus + minus)
    seed = strength.fill_null(0.0).rolling_mean(bars)
    return seeded_ewm(strength, alpha=1 / bars, at=2 * bars - 1, seed=seed)


@register
@dataclass(frozen=True)
class Adx:
    """Average directional index, 0..100: strength of a trend, whichever way."""

    bars: int = 14

    @property
    def name(self) -> str:
        return f"adx_{self.bars}"

    @property
    def warmup(self) -> int:
        return 2 * self.bars - 1 + settled_rows(1 / self.bars, n_stages=2)

    def expr(self) -> pl.Expr:
        return average_directional_index(self.bars)


@register
@dataclass(frozen=True)
class DiDifference:
    """+DI minus -DI, -100..100: direction of the trend."""

    bars: int = 14

    @property
    def name(self) -> str:
        return f"di_difference_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars + settled_rows(1 / self.bars)

    def expr(self) -> pl.Expr:
        return directional_index("plus", self.bars) - directional_index("minus", self.bars)


@register
@dataclass(frozen=True)
class AtrShare:
    """Wilder's ATR as a share of the close: a stop's natural distance."""

    bars: int = 14

    @property
    def name(self) -> str:
        return f"atr_{self.bars}"

    @property
    def warmup(self) -> int:
        return self.bars + settled_rows(1 / self.bars)

    def expr(self) -> pl.Expr:
        return average_true_range(self.bars) / pl.col("close")
