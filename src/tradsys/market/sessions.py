"""Opens and closes of an exchange's sessions in UTC, with daylight saving and half days."""

import functools
from datetime import date, datetime, timedelta

import polars as pl

from tradsys.core.clock import utc, utc_now
from tradsys.core.errors import DataError
from tradsys.market.bars import utc_series
from tradsys.market.calendars import ROUND_THE_CLOCK, exchange_calendar, session_date

__all__ = ["ROUND_THE_CLOCK", "close_of", "closes", "hours", "last_closed", "time_zone", "weekdays"]


def closes(calendar: str, first: date, last: date) -> pl.DataFrame:
    """One row per session from `first` to `last`: session (Date), close (UTC).

    Both dates are included. calendar: a name of exchange_calendars, by ISO 10383 code: XNYS, XASX, XLON, ...; `24/7`
    for markets that never close. Raises DataError on an unknown name, or dates beyond the calendar's range.
    """
    if last < first:
        raise DataError(
            f"sessions: from {first:%Y-%m-%d} to {last:%Y-%m-%d}; the first date is not after the last; swap them"
        )
    return hours(calendar, first, last).select("session", "close")


def hours(calendar: str, first: date, last: date) -> pl.DataFrame:
    """One row per session, as `closes`, with its open.

    session (Date), open and close (UTC).
    """
    schedule = _schedule(calendar, first.year)
    known_until = schedule["session"][-1]
    if last - known_until > timedelta(days=31):  # no exchange pauses for so long
        raise DataError(
            f"sessions: calendar {calendar} has sessions until {known_until}, needed until {last}; it covers about a "
            "year ahead; check the dates, or upgrade exchange_calendars"
        )
    return schedule.filter(pl.col("session").is_between(first, last))


def last_closed(calendar: str, now: datetime | None = None) -> date:
    """The latest session whose close has passed at `now`.

    now: aware; this moment by default.
    """
    moment = utc_now() if now is None else utc(now, "now")
    closed = _schedule(calendar, moment.year - 1).filter(pl.col("close") <= moment)
    if closed.is_empty():
        raise DataError(f"sessions: calendar {calendar} has no session closed by {moment}; name another calendar")
    session: date = closed["session"][-1]
    return session


def close_of(calendar: str, session: date) -> datetime:
    """The close of that session, UTC.

    Raises DataError, with the neighbouring sessions, where it is none.
    """
    around = closes(calendar, session - timedelta(days=31), session + timedelta(days=31))
    found = around.filter(session=session)
    if found.is_empty():
        before, after = around.filter(pl.col("session") < session), around.filter(pl.col("session") > session)
        raise DataError(
            f"sessions: {session} is no session of {calendar}; the one before is {before['session'][-1]}, the next "
            f"{after['session'][0]}; name one of them"
        )
    close: datetime = found["close"][0]
    return close


def time_zone(calendar: str) -> str:
    """IANA name of the exchange's own time zone."""
    return str(exchange_calendar(calendar, utc_now().year - 1).tz)


def weekdays(calendar: str) -> list[int]:
    """Current weekdays of an exchange's sessions.

    0 is Monday. New York: 0 to 4, 24/7: 0 to 6.
    """
    mask = exchange_calendar(calendar, utc_now().year - 1).weekmask
    return [day for day, opens in enumerate(mask) if opens == "1"]


@functools.lru_cache(maxsize=32)
def _schedule(calendar: str, from_year: int) -> pl.DataFrame:
    """Sessions and closes from that year's first day to about a year from now."""
    schedule = exchange_calendar(calendar, from_year).schedule
    frame = pl.DataFrame(
        {
            "session": pl.Series(schedule.index.to_numpy()).cast(pl.Date),
            **{name: utc_series(schedule[name].to_numpy("datetime64[us]")) for name in ("open", "close")},
        }
    )
    frame = frame.filter(pl.col("session") >= date(from_year, 1, 1))
    if frame.filter(session_date("close") != pl.col("session")).height:
        raise DataError(
            f"sessions: calendar {calendar} has sessions that close on another UTC date than their own; a close then "
            "does not tell its session; such a calendar cannot date bars here"
        )
    return frame
