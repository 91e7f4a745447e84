"""Dates of daily files to the moments at which their sessions closed."""

from datetime import date, timedelta

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.sessions import closes, time_zone

MIDNIGHT = pl.col("stamp") == pl.col("stamp").dt.truncate("1d")


def trading_dates(rows: pl.DataFrame, calendar: str) -> pl.Series:
    """The date [n] of each `stamp`: as written where all are bare dates, else that of the exchange's own zone.

    A vendor that writes 2020-01-02 00:00+11:00 means the second of January in Sydney, though the stamp lies on the
    first in UTC.
    """
    bare = rows.select(MIDNIGHT.fill_null(value=True).all()).item()
    local = pl.col("stamp") if bare else pl.col("stamp").dt.convert_time_zone(time_zone(calendar))
    return rows.select(date=local.dt.date()).to_series()


def off_calendar(rows: pl.DataFrame, calendar: str) -> pl.Series:
    """True [n] at rows whose date is no session of the calendar; False where there is no stamp."""
    dates = trading_dates(rows, calendar)
    if dates.drop_nulls().is_empty():
        return dates.is_null() & dates.is_not_null()
    sessions = closes(calendar, *_span(dates))["session"]
    return dates.is_not_null() & ~dates.is_in(sessions.implode())


def session_closes(rows: pl.DataFrame, calendar: str) -> pl.Series:
    """The close [n], UTC, of the session on each row's date. Raises DataError where a date is no session."""
    dates = trading_dates(rows, calendar)
    sessions = closes(calendar, *_span(dates))
    found = pl.DataFrame({"session": dates}).join(sessions, on="session", how="left", maintain_order="left")["close"]
    if found.null_count():
        raise DataError(f"sources: {found.null_count()} dates are no sessions of {calendar}; drop_non_sessions")
    return found.alias("time")


def check_daily(calendar: str | None, session_close: str | None, length: timedelta, stamp: str) -> None:
    """Raises DataError where a calendar is given for bars that it cannot date."""
    if calendar is None:
        return
    if session_close is not None:
        raise DataError(
            f"sources: calendar={calendar} and session_close={session_close!r}; a session closes once; give one of them"
        )
    if length != timedelta(days=1) or stamp != "open":
        raise DataError(
            f"sources: calendar={calendar} for bars of {length} stamped at their {stamp}; a calendar dates daily bars "
            "that a vendor stamps by date; leave it out"
        )


def _span(dates: pl.Series) -> tuple[date, date]:
    first, last = dates.min(), dates.max()
    assert isinstance(first, date), first
    assert isinstance(last, date), last
    return first, last
