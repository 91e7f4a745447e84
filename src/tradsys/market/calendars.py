"""The day that a bar belongs to, and how many bars a year has, from the bars' own calendar."""

import contextlib
import functools
import importlib.metadata
import warnings
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.market.bars import bar_length, in_order, starts_of_symbols, utc_bars

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

TICK = timedelta(microseconds=1)

ROUND_THE_CLOCK = "24/7"  # every UTC day is a session and closes at the next midnight
DAYS_PER_YEAR = 365.0  # markets that never close: 24/7 hourly is 8760, not 8766
WEEKDAY_SESSIONS = 252.0  # for markets with five days a week, where no calendar is named and the record is short
COUNTED_YEARS = range(2005, 2025)  # fixed span of an exchange's mean sessions a year, so that runs compare
LONGEST_REST = timedelta(days=12)  # between two sessions of an exchange (Shanghai 2020: 11); longer is a hole
MEASURED_FROM = timedelta(days=365)  # a shorter record has too uneven a share of holidays
MIN_FULL_WEEKS = 2


def periods_per_year(bars: pl.DataFrame, calendar: str | None = None) -> float:
    """Bars per year for annualisation, by the exchange's calendar and the bars.

    Markets with bars on at least six and a half days a week: bars per full week (median over symbols' full weeks)
    times 365/7; hourly 24/7 is 168 * 365/7 = 8760. All others: bars per full week over five, times
    1. `sessions_per_year(calendar)`, where a calendar is named: daily NYSE 251.65, seven bars a session 1761.55;
    2. without one, and with bars over a year or more: bars per 365.25 days as they came, pauses of more than
       LONGEST_REST left out (so a hole changes nothing), the median over symbols;
    3. without either: 252 sessions. No session times are assumed, so sessions that cross UTC midnight count right. Bars
    of a week or longer: 365 days over their mean step. With fewer than two full weeks, bars per weekday are used
    instead, and a market that is open round the clock counts as 24/7 unless there is a weekend without bars. Raises
    DataError with fewer than two bars.
    """
    bars = utc_bars(bars)
    length = bar_length(bars)
    if length >= timedelta(days=5):
        return _from_mean_step(bars)
    sessions = None if calendar in (None, ROUND_THE_CLOCK) else sessions_per_year(str(calendar))
    days = _bars_per_day(bars)
    weeks = _full_weeks(days)
    if weeks.height < MIN_FULL_WEEKS:
        return _from_short_span(days, length, sessions or WEEKDAY_SESSIONS)
    per_week = float(weeks["n"].median())  # type: ignore[arg-type]
    if float(weeks["n_days"].median()) >= 6.5:  # type: ignore[arg-type]
        return per_week * DAYS_PER_YEAR / 7
    if sessions is None and (measured := _as_they_came(bars)) is not None:
        return measured
    return per_week / 5 * (sessions or WEEKDAY_SESSIONS)


@functools.lru_cache(maxsize=32)
def sessions_per_year(calendar: str) -> float:
    """Sessions that an exchange holds in a year: the mean of the years 2005 to 2024.

    24/7 is 365. A constant of the exchange, so that figures of two spans compare: XNYS 251.65, XTKS 244.85, XASX 253.0.
    A calendar that begins later in exchange_calendars (XSAU: 2021) uses its own full years. Raises DataError on an
    unknown name.
    """
    if calendar == ROUND_THE_CLOCK:
        return DAYS_PER_YEAR
    unknown: DataError | None = None
    for first in (COUNTED_YEARS[0], 2010, 2015, 2020, 2022):
        try:
            years = exchange_calendar(calendar, first).sessions.year
        except DataError as error:
            unknown = error
            continue
        counted = range(max(first, years[0]), COUNTED_YEARS[-1] + 1)
        return float(years.isin(list(counted)).sum()) / len(counted)
    raise unknown  # type: ignore[misc]  # the loop has at least one round


@functools.lru_cache(maxsize=32)
def exchange_calendar(calendar: str, from_year: int) -> "ExchangeCalendar":
    """The calendar of that name, to about a year from now.

    It begins on that year's first day or earlier. Raises DataError.
    """
    if from_year > COUNTED_YEARS[0]:  # one calendar, which takes long to build, serves all later years
        with contextlib.suppress(DataError):
            return exchange_calendar(calendar, COUNTED_YEARS[0])
    import exchange_calendars  # noqa: PLC0415 - imports pandas, which most code that reads bars does not need
    from exchange_calendars.errors import InvalidCalendarName  # noqa: PLC0415 - as above

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of 4.13 on pandas 3: deprecations that change no value read here
            return exchange_calendars.get_calendar(calendar, start=f"{from_year}-01-01")
    except InvalidCalendarName as error:
        raise DataError(
            f"sessions: no calendar {calendar!r}; names are exchange_calendars' own, such as XNYS, XASX, XLON, 24/7"
        ) from error
    except (ValueError, NotImplementedError) as error:
        version = importlib.metadata.version("exchange_calendars")
        raise DataError(
            f"sessions: exchange_calendars {version} cannot date {calendar} from {from_year}: {str(error)[:200]}; ask "
            "for later dates, name another calendar, or upgrade it"
        ) from error


def session_of(time: datetime) -> date:
    """The date of the session that closed at `time` (UTC).

    Its own date, at midnight the day before.
    """
    return (time - TICK).date()


def session_date(time: str = "time") -> pl.Expr:
    """`session_of` a column of closes, as an expression of type Date."""
    return (pl.col(time) - TICK).dt.date()


def session_dates(time_N: Array) -> Array:
    """`session_of` closes datetime64[us] [N], as datetime64[D] [N]."""
    return (time_N - np.timedelta64(TICK)).astype("datetime64[D]")


def days_in_a_year(time: pl.Series, calendar: str | None = None) -> float:
    """Days with bars in a year, by the rule of `periods_per_year`.

    A hole in the series changes nothing. 365 round the clock, XNYS 251.65, XTKS 244.85. time: closes in UTC; one at
    midnight belongs to the day that it ends. calendar: the exchange's, as in `data.calendar`; None: estimated from the
    days themselves.
    """
    day = session_date().cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    days = pl.DataFrame({"symbol": "days", "time": time}).with_columns(time=day).unique().sort("time")
    return periods_per_year(days, calendar)


def _bars_per_day(bars: pl.DataFrame) -> pl.DataFrame:
    """Rows (symbol, date, n), a symbol as its number; a bar belongs to the day before a close at midnight."""
    ordered = bars if in_order(bars) else bars.sort("symbol", "time")
    dates, starts = ordered.select(session_date()).to_series(), starts_of_symbols(ordered)
    new = np.diff(dates.to_physical().to_numpy(), prepend=0) != 0
    new[starts] = True
    first = np.flatnonzero(new)
    number = np.repeat(np.arange(len(starts)), np.add.reduceat(new, starts, dtype=np.int64))
    return pl.DataFrame({"symbol": number, "date": dates.gather(first), "n": np.diff(first, append=ordered.height)})


def _full_weeks(days: pl.DataFrame) -> pl.DataFrame:
    """Rows (n bars, n_days weighted by their bars) of the weeks between each symbol's first and last."""
    symbol = days["symbol"].to_numpy()
    week = (days["date"].to_physical().to_numpy() + 3) // 7  # day 0 is a Thursday, weeks begin on Mondays
    first = np.flatnonzero(np.append(True, (np.diff(symbol) != 0) | (np.diff(week) != 0)))
    fullness = days.select((pl.col("n") / pl.col("n").median().over("symbol")).clip(upper_bound=1.0)).to_series()
    own = symbol[first]
    inner = np.zeros(len(first), dtype=bool)
    inner[1:-1] = (own[1:-1] == own[:-2]) & (own[1:-1] == own[2:])
    n, n_days = (np.add.reduceat(one.to_numpy(), first)[inner] for one in (days["n"], fullness))
    return pl.DataFrame({"n": n, "n_days": n_days})


def _as_they_came(bars: pl.DataFrame) -> float | None:
    """Median bars per 365.25 days without holes, over symbols with a year of bars; else None."""
    step = pl.col("time").diff().over("symbol")
    reported = (
        bars.select("symbol", step=step)
        .filter(pl.col("step") <= LONGEST_REST)
        .group_by("symbol")
        .agg(n=pl.len(), lasted=pl.col("step").sum())
        .filter(pl.col("lasted") >= MEASURED_FROM)
    )
    if reported.is_empty():
        return None
    rate = pl.col("n") * timedelta(days=365.25).total_seconds() / pl.col("lasted").dt.total_seconds()
    return float(reported.select(rate.median()).item())


def _from_short_span(days: pl.DataFrame, length: timedelta, sessions: float) -> float:
    per_day = float(days["n"].max())  # type: ignore[arg-type]
    round_the_clock = per_day * length >= timedelta(hours=23) and length < timedelta(days=1)
    first, last = days["date"].min(), days["date"].max()
    spanned = pl.select(day=pl.date_range(first, last, interval="1d"))["day"]  # type: ignore[arg-type]
    weekend_spanned = bool((spanned[1:-1].dt.weekday() >= 6).any())
    weekend_traded = bool((days["date"].dt.weekday() >= 6).any())
    if weekend_traded or (round_the_clock and not weekend_spanned):
        return per_day * DAYS_PER_YEAR
    return per_day * sessions


def _from_mean_step(bars: pl.DataFrame) -> float:
    steps = bars.select(step=pl.col("time").diff().over("symbol")).drop_nulls()
    mean: timedelta = steps["step"].mean()  # type: ignore[assignment]
    return timedelta(days=DAYS_PER_YEAR) / mean
