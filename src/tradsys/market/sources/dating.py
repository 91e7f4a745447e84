"""The close of each bar in UTC: its stamp plus its length in its zone, or its session's close."""

from datetime import date, timedelta
from typing import Any

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import TIME
from tradsys.market.sessions import ROUND_THE_CLOCK, closes, hours, time_zone
from tradsys.market.sources.lengths import ends

MIDNIGHT = pl.col("stamp") == pl.col("stamp").dt.truncate("1d")
LEAST_DAYS = 3  # of bars needed to detect the trading hours of a market
SATURDAY = 6
MOSTLY = 0.9  # with this share of rows at midnight UTC, stamps count as dates


def bare_dates(rows: pl.DataFrame) -> bool:
    """Whether stamps are dates: nearly all lie at midnight UTC."""
    share = rows.select(MIDNIGHT.mean()).item()
    return share is None or share >= MOSTLY


def trading_dates(rows: pl.DataFrame, calendar: str) -> pl.Series:
    """The trading date [n] of each `stamp`.

    As written for a bare date, else in the exchange's own zone. A vendor that writes 2020-01-02 00:00+11:00 means the
    second of January in Sydney, although the stamp is on the first in UTC. One row with a time of day among dates does
    not change how the others are read.
    """
    local = pl.col("stamp").dt.convert_time_zone(time_zone(calendar)).dt.date()
    as_written = pl.col("stamp").dt.date()
    dated = pl.when(MIDNIGHT).then(as_written).otherwise(local) if bare_dates(rows) else local
    return rows.select(date=dated).to_series()


def dates_rule(rows: pl.DataFrame, calendar: str | None) -> bool:
    """Whether the calendar sets the close of these bars.

    Not for 24/7 stamps with a time of day.
    """
    return calendar is not None and (
        calendar != ROUND_THE_CLOCK or bool(rows.select(MIDNIGHT.fill_null(value=True).all()).item())
    )


def off_calendar(rows: pl.DataFrame, calendar: str) -> pl.Series:
    """True [n] at rows whose date is no session of the calendar.

    False where there is no stamp.
    """
    dates = trading_dates(rows, calendar)
    if dates.drop_nulls().is_empty():
        return dates.is_null() & dates.is_not_null()
    sessions = closes(calendar, *_first_and_last(dates))["session"]
    return dates.is_not_null() & ~dates.is_in(sessions.implode())


def off_session_clock(rows: pl.DataFrame, calendar: str) -> pl.Series:
    """True [n] at stamps that are neither a date nor within their date's session."""
    if calendar == ROUND_THE_CLOCK or rows["stamp"].null_count() == rows.height:
        return pl.repeat(value=False, n=rows.height, eager=True)
    zone = time_zone(calendar)
    dates = trading_dates(rows, calendar)
    frame = pl.DataFrame({"session": dates, "stamp": rows["stamp"]}).join(
        hours(calendar, *_first_and_last(dates)), on="session", how="left", maintain_order="left"
    )
    local = pl.col("stamp").dt.convert_time_zone(zone)
    at_midnight = (local == local.dt.truncate("1d")) | (MIDNIGHT if bare_dates(rows) else pl.lit(value=False))
    # a stamp before the open names that session, whose close is later in any case
    inside = pl.col("stamp") < pl.col("close")
    return frame.select((~(at_midnight | inside) & pl.col("open").is_not_null()).fill_null(value=False)).to_series()


def session_closes(rows: pl.DataFrame, calendar: str) -> pl.Series:
    """The close [n], UTC, of the session on each row's date.

    Null where the date is no session.
    """
    dates = trading_dates(rows, calendar)
    if dates.drop_nulls().is_empty():
        return rows["stamp"]
    sessions = closes(calendar, *_first_and_last(dates))
    return (
        pl.DataFrame({"session": dates})
        .join(sessions, on="session", how="left", maintain_order="left")["close"]
        .alias("time")
    )


def check_daily(
    calendar: str | None, session_close: str | None, length: timedelta, stamp: str, resample: str | None
) -> None:
    """Raises DataError where a calendar is given for bars that it does not apply to."""
    if calendar is None or (resample is not None and length < timedelta(days=1)):
        return
    if session_close is not None:
        raise DataError(
            f"sources: calendar={calendar} and session_close={session_close!r}; a session closes once; give one of them"
        )
    if length != timedelta(days=1) or stamp != "open":
        raise DataError(
            f"sources: calendar={calendar} for bars of {length} stamped at their {stamp}; a calendar applies to daily "
            "bars that a vendor stamps by date; leave it out, or give resample=1d to build sessions from shorter bars"
        )


def check_dated(found: Any, every: timedelta, name: str) -> None:
    """Raises DataError where a file of dates is among files of shorter bars.

    found: `gathering.Gathered`. A daily bar read as an hourly one would be available at one o'clock in the morning of
    its day.
    """
    if every < timedelta(days=1) and found.dated and not found.bare:
        raise DataError(
            f"{name}: {found.dated[0]} has dates without a time of day, the other files bars of {every}; a daily bar "
            "must not be available after an hour; put daily files into a folder of their own, under another name="
        )


def check_clock(rows: pl.DataFrame, every: timedelta, name: str) -> None:
    """Raises DataError for intraday stamps without a zone.

    They count only for a market that closes at night or over the weekend. A market that closes has local trading
    hours, and its stamps
    are usually local. Read as UTC, New York's bars would be available five hours early. A market that never closes is
    stamped in UTC.
    """
    if every > timedelta(hours=6):
        return
    stamp = rows["stamp"].dt.truncate("1h").unique().drop_nulls()
    days = stamp.dt.date().unique()
    if len(days) < LEAST_DAYS:
        return
    hours_seen = stamp.dt.hour().unique().sort().to_list()
    gaps = [(b - a) % 24 or 24 for a, b in zip(hours_seen, [*hours_seen[1:], hours_seen[0]], strict=True)]
    nightly = timedelta(hours=max(gaps)) >= max(timedelta(hours=6), 2 * every)
    over_a_weekend = (days.max() - days.min()).days >= 7  # type: ignore[operator, union-attr]
    weekly = over_a_weekend and SATURDAY not in stamp.dt.weekday()
    if nightly or weekly:
        when = f"between {hours_seen[gaps.index(max(gaps))]}:59 and the next morning" if nightly else "on Saturdays"
        first = rows["stamp"].drop_nulls()[0]
        raise DataError(
            f"{name}: times such as {first:%Y-%m-%d %H:%M} name no zone, and this market has no bar {when}: "
            "its clock may be the exchange's, and bars read as UTC would be available too early; give "
            "zone=America/New_York, zone=UTC or the zone that they are in"
        )


def _first_and_last(dates: pl.Series) -> tuple[date, date]:
    first, last = dates.min(), dates.max()
    assert isinstance(first, date), first
    assert isinstance(last, date), last
    return first, last


def bar_ends(rows: pl.DataFrame, context: Any) -> pl.Series:
    """UTC end [n] of each bar of sorted rows; context: `quality.Context`.

    A stamp that is a close is its own end, and a bare date ends with its day. The vendor's own end is used where it is
    later, because no bar is available before that.
    """
    dated = rows.with_columns(time=_ends(rows, context).cast(TIME))
    if "end" not in rows.columns or rows["end"].null_count() == rows.height:
        return dated["time"]
    return dated.select(pl.max_horizontal("time", "end")).to_series().alias("time")


def _ends(rows: pl.DataFrame, context: Any) -> pl.Series:
    if context.stamp == "close":
        if not context.bare:
            return rows["stamp"]
        if context.calendar is None or not context.daily:
            return rows.select(_day_over(context.zone)).to_series()
    plain = rows.select(ends(context.length, context.zone)).to_series()
    if not context.daily or not dates_rule(rows, context.calendar):
        return plain
    by_session = session_closes(rows, context.calendar)
    return pl.DataFrame({"s": by_session, "p": plain}).select(pl.coalesce("s", "p")).to_series()


def _day_over(zone: str) -> pl.Expr:
    if "/" not in zone:
        return pl.col("stamp") + timedelta(days=1)
    return pl.col("stamp").dt.convert_time_zone(zone).dt.offset_by("1d").dt.convert_time_zone("UTC")
