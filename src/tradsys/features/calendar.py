# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Phase of the day, week, month and year at the bar's close, in UTC, on a circle: 23:00 is near 00:00."""

import math
from dataclasses import dataclass
from typing import Literal

import polars as pl

from tradsys.features.registry import Column, register

Wave = Literal["sine", "cosine"]


def on_circle(share: pl.Expr, wave: Wave) -> pl.Expr:
    """Sine or cosine of `share` of a full turn, share in 0..1."""
    angle = share * (2 * math.pi)
    return angle.sin() if wave == "sine" else angle.cos()


@register
@dataclass(frozen=True)
class HourOfDay(Column, name="hour_{wave}"):
    """Sine or cosine of the time of day, with a period of 24 hours; to the minute."""

    wave: Wave

    def expr(self) -> pl.Expr:
        time = pl.col("time").dt
        minutes = time.hour().cast(pl.Float64) * 60 + time.minute()
        return on_circle(minutes / (24 * 60), self.wave)


@register
@dataclass(frozen=True)
class DayOfWeek(Column, name="weekday_{wave}"):
    """Sine or cosine of the weekday of the close, Monday first.

    The period is seven days.
    """

    wave: Wave

    def expr(self) -> pl.Expr:
        day = pl.col("time").dt.weekday().cast(pl.Float64) - 1
        return on_circle(day / 7, self.wave)


@register
@dataclass(frozen=True)
class DayOfMonth(Column, name="month_day_{wave}"):
    """Sine or cosine of the day of the month, the first at zero.

    The period is that month's number of days.
    """

    wave: Wave

    def expr(self) -> pl.Expr:
        time = pl.col("time").dt
        share = (time.day().cast(pl.Float64) - 1) / time.days_in_month()
        return on_circle(share, self.wave)


@register
@dataclass(frozen=True)
class MonthOfYear(Column, name="month_{wave}"):
    """Sine or cosine of the month of the close, January first.

    The period is twelve months.
    """

    wave: Wave

    def expr(self) -> pl.Expr:
        return on_circle((pl.col("time").dt.month().cast(pl.Float64) - 1) / 12, self.wave)
