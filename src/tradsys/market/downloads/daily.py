"""Daily bars of an exchange: a bar closes with its session, and a session without a bar is a hole."""

from datetime import datetime
from itertools import pairwise

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import COLUMNS, SCHEMA
from tradsys.market.calendars import session_date
from tradsys.market.sessions import closes


def session_bars(rows: pl.DataFrame, calendar: str) -> pl.DataFrame:
    """Dated rows as bars that close with their session.

    Rows have symbol, date, open, high, low, close, volume. Raises DataError where a date is no session of the calendar.
    """
    if rows.is_empty():
        return pl.Schema(SCHEMA).to_frame()
    sessions = closes(calendar, rows["date"].min(), rows["date"].max())  # type: ignore[arg-type]
    found = rows.join(sessions.rename({"close": "time"}), left_on="date", right_on="session", how="left")
    odd = found.filter(pl.col("time").is_null()).sort("date")
    if odd.height:
        raise DataError(
            f"{odd['symbol'][0]}: {odd.height} dates are no sessions of {calendar}, such as {odd['date'][0]}; set "
            "source.calendar= to the exchange's"
        )
    return found.select(COLUMNS).cast(pl.Schema(SCHEMA)).sort("time")  # type: ignore[arg-type]


def daily_holes(bars: pl.DataFrame, calendar: str) -> list[tuple[datetime, datetime]]:
    """Spans between bars of a symbol in which the calendar has sessions.

    Each is (close before, close after).
    """
    if bars.height < 2:
        return []
    dates = bars.select(day=session_date())["day"]
    sessions = closes(calendar, dates[0], dates[-1])["session"]
    number = {day: n for n, day in enumerate(sessions)}
    places = [number.get(day) for day in dates]
    times = bars["time"].to_list()
    return [
        (times[i - 1], times[i])
        for i, (before, after) in enumerate(pairwise(places), 1)
        if before is not None and after is not None and after - before > 1
    ]
