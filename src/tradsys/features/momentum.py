# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Oscillators and trend strength, seeded as in TA-Lib.

Their `warmup` reaches beyond TA-Lib's first value, until the seed no longer matters.
"""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from tradsys.core.errors import DataError
from tradsys.features.price import quotient, where_moving
from tradsys.features.registry import Column, register
from tradsys.features.smoothing import (
    average_true_range,
    ema,
    settled_rows,
    true_range,
    wilder_mean,
    wilder_running,
    window_mean,
)


@register
@dataclass(frozen=True)
class Rsi(Column, name="rsi_{bars}", warmup=lambda f: f.bars + settled_rows(1 / f.bars)):
    """Relative strength index, 0..100.

    NaN where no close has moved yet. Source: Wilder 1978.
    """

    bars: int = 14

    def expr(self) -> pl.Expr:
        change = pl.col("close").diff()
        gain = wilder_mean(change.clip(lower_bound=0.0), self.bars)
        loss = wilder_mean((-change).clip(lower_bound=0.0), self.bars)
        return quotient(100 * gain, gain + loss)


@register
@dataclass(frozen=True)
class CutlerRsi(Column, name="cutler_rsi_{bars}"):
    """Relative strength index with plain means instead of Wilder's, 0..100.

    NaN where the close has not moved. It forgets after `bars` bars, where Wilder's needs some 250: for short histories.
    Source: Cutler's variant, as in Kaufman, Trading Systems and Methods.
    """

    bars: int = 14

    def expr(self) -> pl.Expr:
        change = pl.col("close").diff()
        # the gains are half of movement plus change: a sum of one side would keep float noise of the other
        moved, net = window_mean(change.abs(), self.bars), window_mean(change, self.bars)
        return where_moving((50 + 50 * net / moved).clip(0.0, 100.0), "close", self.bars + 1)


def macd(part: str, *, fast: int, slow: int, signal: int) -> pl.Expr:
    """MACD `line`, `signal` or `histogram` in price units, from row slow + signal - 2.

    All three start together and both means end their seed on the same row, as in TA-Lib. Source: Appel 2005.
    """
    close = pl.col("close")
    line = ema(close, fast, n_skip=slow - fast) - ema(close, slow)
    smooth = ema(line, signal)
    return {"line": line + 0 * smooth, "signal": smooth, "histogram": line - smooth}[part]


@register
@dataclass(frozen=True)
class Macd(Column, name="macd_{part}_{fast}_{slow}_{signal}"):
    """MACD line, signal or histogram as a share of the close."""

    part: Literal["line", "signal", "histogram"]
    fast: int = 12
    slow: int = 26
    signal: int = 9

    def __post_init__(self) -> None:
        if not 0 < self.fast < self.slow:
            raise DataError(
                f"features: MACD with fast {self.fast}, slow {self.slow}; a MACD needs 0 < fast < slow; set both"
            )

    @property
    def warmup(self) -> int:
        slowest = 2 / (max(self.slow, self.signal) + 1)
        return self.slow + self.signal - 2 + settled_rows(slowest, n_stages=2)

    def expr(self) -> pl.Expr:
        return macd(self.part, fast=self.fast, slow=self.slow, signal=self.signal) / pl.col("close")


def directional_movement() -> pl.Expr:
    """Directional movement +DM - -DM in price units.

    The wider of the range's two moves, up positive, else 0. At most one is nonzero, so +DM and -DM are its positive and
    negative parts. Source: Wilder 1978.
    """
    up, down = pl.col("high").diff(), -pl.col("low").diff()
    rise, fall = (up > down) & (up > 0), (down > up) & (down > 0)
    return pl.when(rise).then(up).when(fall).then(-down).otherwise(0 * up)  # 0 * NaN stays NaN


def directional_index(side: str, bars: int) -> pl.Expr:
    """Directional index, in percent, as TA-Lib from row `bars` on.

    +DI (`plus`), -DI (`minus`) or their `difference`. NaN where nothing has moved. Source: Wilder 1978.
    """
    move = directional_movement()
    sides = {"plus": move.clip(lower_bound=0.0), "minus": (-move).clip(lower_bound=0.0), "difference": move}
    return quotient(100 * wilder_running(sides[side], bars), wilder_running(true_range(), bars))


def average_directional_index(bars: int) -> pl.Expr:
    """ADX, 0..100, from row 2 bars - 1, as TA-Lib; 0 while nothing has moved.

    The true range cancels from DX = |+DI - -DI| / (+DI + -DI). Source: Wilder 1978.
    """
    move = directional_movement()
    net, gross = wilder_running(move, bars), wilder_running(move.abs(), bars)
    strength = pl.when(gross > 0).then(100 * net.abs() / gross).otherwise(0.0)
    return wilder_mean(strength, bars)


@register
@dataclass(frozen=True)
class Adx(Column, name="adx_{bars}", warmup=lambda f: 2 * f.bars - 1 + settled_rows(1 / f.bars, n_stages=2)):
    """Average directional index, 0..100: strength of a trend, whichever way."""

    bars: int = 14

    def expr(self) -> pl.Expr:
        return average_directional_index(self.bars)


@register
@dataclass(frozen=True)
class DiDifference(Column, name="di_difference_{bars}", warmup=lambda f: f.bars + settled_rows(1 / f.bars)):
    """+DI minus -DI, -100..100: direction of the trend."""

    bars: int = 14

    def expr(self) -> pl.Expr:
        return directional_index("difference", self.bars)


@register
@dataclass(frozen=True)
class AtrShare(Column, name="atr_{bars}", warmup=lambda f: f.bars + settled_rows(1 / f.bars)):
    """Wilder's ATR as a share of the close: a common unit for stop distances."""

    bars: int = 14

    def expr(self) -> pl.Expr:
        return average_true_range(self.bars) / pl.col("close")
