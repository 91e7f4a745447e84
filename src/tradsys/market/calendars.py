"""The day that a bar belongs to, and how many bars a year has, from the bars' own calendar."""

from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from tradsys.core.tables import Array
from tradsys.market.bars import bar_length, utc_bars

TICK = timedelta(microseconds=1)

DAYS_PER_YEAR = 365.0  # markets that never close: 24/7 hourly is 8760, not 8766
SESSIONS_PER_YEAR = 252.0  # exchanges with weekends and holidays; 252 sessions are 50.4 full weeks
MIN_WHOLE_WEEKS = 2


def periods_per_year(bars: pl.DataFrame) -> float:
    """Bars per year for annualisation, from what the bars show, not from their length alone.

    Method: bars per full week (median over symbols' whole weeks) times full weeks per year: 365/7 where
    bars fall on at least six and a half days a week, else 252/5. Hourly 24/7: 168 * 365/7 = 8760. Daily
    equities: 5 * 50.4 = 252. Seven hourly bars per session: 35 * 50.4 = 1764. Foreign exchange, 24 hours on
    five days: 6048. No session times are assumed, so sessions that cross UTC midnight count right. Bars of
    a week or longer: 365 days over their mean step. With fewer than two whole weeks, bars per weekday stand
    in, and a market that is open round the clock counts as 24/7 unless a weekend without bars is seen.
    Raises DataError with fewer than two bars.
    """
    bars = utc_bars(bars)
    length = bar_length(bars)
    if length >= timedelta(days=5):
        return _from_mean_step(bars)
    days = _bars_per_day(bars)
    weeks = _whole_weeks(days)
    if weeks.height < MIN_WHOLE_WEEKS:
        return _from_short_span(days, length)
    per_week = float(weeks["n"].median())  # type: ignore[arg-type]
    n_days = float(weeks["n_days"].median())  # type: ignore[arg-type]
    return per_week * (DAYS_PER_YEAR / 7 if n_days >= 6.5 else SESSIONS_PER_YEAR / 5)


def session_of(time: datetime) -> date:
    """The date of the session that closed at `time` (UTC): its own date, the day before at midnight."""
    return (time - TICK).date()


def session_date(time: str = "time") -> pl.Expr:
    """`session_of` a column of closes, as an expression of type Date."""
    return (pl.col(time) - TICK).dt.date()


def session_dates(time_N: Array) -> Array:
    """`session_of` closes datetime64[us] [N], as datetime64[D] [N]."""
    return (time_N - np.timedelta64(TICK)).astype("datetime64[D]")


def days_in_a_year(time: pl.Series) -> float:
    """Days with bars in a year, from the closes of a series: 365 or 252; a hole in the series changes nothing.

    time: closes in UTC; one at midnight belongs to the day that it ends.
    """
    day = session_date().cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return periods_per_year(pl.DataFrame({"symbol": "days", "time": time}).with_columns(time=day).unique().sort("time"))


def _bars_per_day(bars: pl.DataFrame) -> pl.DataFrame:
    """Rows (symbol, date, n); a bar belongs to the day before a close at midnight."""
    return bars.group_by("symbol", date=session_date()).agg(n=pl.len()).sort("symbol", "date")


def _whole_weeks(days: pl.DataFrame) -> pl.DataFrame:
    """Rows (symbol, week, n bars, n_days by how full they are) without each symbol's first and last week."""
    fullness = (pl.col("n") / pl.col("n").median().over("symbol")).clip(upper_bound=1.0)
    weeks = (
        days.with_columns(week=pl.col("date").dt.truncate("1w"), full=fullness)
        .group_by("symbol", "week")
        .agg(n=pl.col("n").sum(), n_days=pl.col("full").sum())
    )
    inner = (pl.col("week") > pl.col("week").min().over("symbol")) & (
        pl.col("week") < pl.col("week").max().over("symbol")
    )
    return weeks.filter(inner)


def _from_short_span(days: pl.DataFrame, length: timedelta) -> float:
    per_day = float(days["n"].max())  # type: ignore[arg-type]
    round_the_clock = per_day * length >= timedelta(hours=23) and length < timedelta(days=1)
    first, last = days["date"].min(), days["date"].max()
    spanned = pl.select(day=pl.date_range(first, last, interval="1d"))["day"]  # type: ignore[arg-type]
    weekend_spanned = bool((spanned[1:-1].dt.weekday() >= 6).any())
    weekend_traded = bool((days["date"].dt.weekday() >= 6).any())
    if weekend_traded or (round_the_clock and not weekend_spanned):
        return per_day * DAYS_PER_YEAR
    return per_day * SESSIONS_PER_YEAR


def _from_mean_step(bars: pl.DataFrame) -> float:
    steps = bars.select(step=pl.col("time").diff().over("symbol")).drop_nulls()
    mean: timedelta = steps["step"].mean()  # type: ignore[assignment]
    return timedelta(days=DAYS_PER_YEAR) / mean
