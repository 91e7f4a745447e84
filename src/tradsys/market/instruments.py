"""Resamples bars to days or sessions; finds instruments that ended before the data did."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import COLUMNS, Finding, bar_length, examples, span
from tradsys.market.calendars import session_date
from tradsys.market.sessions import ROUND_THE_CLOCK, hours, time_zone

DAY = timedelta(days=1)
RESAMPLED: Mapping[str, timedelta] = MappingProxyType({"1d": DAY})


def resample(bars: pl.DataFrame, rule: str, calendar: str | None = None) -> tuple[pl.DataFrame, list[Finding]]:
    """Bars of UTC days or of an exchange's sessions from shorter bars.

    Findings on dropped and thin days. `time` is the midnight after the day; with a calendar (XNYS) the session's close:
    see `to_sessions`.

    rule: "1d". open is the day's first, close its last, volume the sum; a bar belongs to the day before a close at
    midnight. Days within which the data begin or end are dropped for every symbol. A symbol's own first and last day
    are kept however short: a coin delisted at noon has no later hours, and its last loss is real.
    Raises DataError where bars do not fit into days, or no complete day is left.
    """
    if rule not in RESAMPLED:
        raise DataError(f"instruments: resample={rule!r}; the rules are {list(RESAMPLED)}; leave it out for none")
    length = bar_length(bars)
    if calendar not in (None, ROUND_THE_CLOCK) and length < DAY:
        return to_sessions(bars, str(calendar), length)
    if length >= DAY or DAY % length:
        raise DataError(
            f"instruments: bars of {length} to days; resampling needs several equal bars a day; leave resample out"
        )
    first, last = span(bars)
    opened = first - length
    complete = (pl.col("day") >= opened.date() + (timedelta(0) if opened == _midnight(opened) else DAY)) & (
        pl.col("day") < last.date()
    )
    days = (
        bars.group_by("symbol", day=session_date(), maintain_order=True)
        .agg(*_merged(), n=pl.len())
        .with_columns(time=(pl.col("day") + DAY).cast(bars.schema["time"]))
        .sort("symbol", "time")
    )
    kept, cut = days.filter(complete), days.filter(~complete)
    if kept.is_empty():
        raise DataError(f"instruments: no complete UTC day between {first} and {last}; bring more bars")
    thin = kept.filter(pl.col("n") < DAY // length)
    notes = [
        Finding("resampled_to_days", bars.height, (f"{bars.height} bars of {length} to {kept.height} days",)),
        Finding("partial_day_dropped", cut.height, examples(cut, ("n",)), "the data begin or end within it"),
        Finding("thin_day", thin.height, examples(thin, ("n",)), f"kept with fewer than {DAY // length} bars"),
    ]
    return kept.select(COLUMNS).rechunk(), [note for note in notes if note.count]


OUTSIDE_SHARE = 0.5  # largest share of bars outside every session: above it the times are in another zone than assumed


def to_sessions(bars: pl.DataFrame, calendar: str, length: timedelta) -> tuple[pl.DataFrame, list[Finding]]:
    """Bars of an exchange's sessions from shorter bars.

    Findings on dropped and thin sessions. A bar belongs to the session within which it opens; a session's bar has the
    time of its close. Bars outside trading hours are left out and counted. A session within which the data begin or end
    is dropped for every symbol. Raises DataError where most bars open outside every session: their times are in another
    zone.
    """
    first, last = (moment.date() for moment in span(bars))
    days = hours(calendar, first - DAY, last + DAY).select("session", opens="open", closes="close")
    opened = bars.with_columns(start=pl.col("time") - length).sort("start")
    placed = opened.join_asof(days.sort("opens"), left_on="start", right_on="opens", check_sortedness=False)
    inside = (pl.col("start") < pl.col("closes")).fill_null(value=False)
    outside, kept = placed.filter(~inside), placed.filter(inside)
    if outside.height > OUTSIDE_SHARE * bars.height:
        raise DataError(
            f"instruments: {outside.height} of {bars.height} bars open outside the sessions of {calendar}, such "
            f"as {examples(outside, ())[0]} UTC; their times are in another zone; give zone={time_zone(calendar)}"
        )
    begins, ends = kept["start"].min(), kept["time"].max()
    complete = (pl.col("opens") >= begins) & (pl.col("closes") <= ends)
    sessions = (
        kept.sort("symbol", "time")
        .group_by("symbol", "session", "opens", "closes", maintain_order=True)
        .agg(*_merged(), n=pl.len())
        .with_columns(time=pl.col("closes").cast(bars.schema["time"]))
        .sort("symbol", "time")
    )
    full, cut = sessions.filter(complete), sessions.filter(~complete)
    if full.is_empty():
        raise DataError(f"instruments: no complete session of {calendar} from {begins!s} to {ends!s}; bring more bars")
    thin = full.filter(pl.col("n") * pl.lit(length) < pl.col("closes") - pl.col("opens"))
    notes = [
        Finding("resampled_to_sessions", bars.height, (f"{kept.height} bars of {length} to {full.height} sessions",)),
        Finding(
            "outside_session", outside.height, examples(outside.sort("symbol", "time")), f"left out, of {calendar}"
        ),
        Finding("partial_session_dropped", cut.height, examples(cut, ("n",)), "the data begin or end within it"),
        Finding("thin_session", thin.height, examples(thin, ("n",)), "kept with fewer bars than the session is long"),
    ]
    return full.select(COLUMNS).rechunk(), [note for note in notes if note.count]


def _merged() -> list[pl.Expr]:
    return [
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    ]


def ended(bars: pl.DataFrame, within: timedelta) -> dict[str, datetime]:
    """Last close of each symbol that ended `within` or more before the data.

    The earlier instrument of a re-used ticker counts separately: LUNAUSDT ended, LUNAUSDT.2 did not.
    """
    if within < timedelta(0):
        raise DataError(f"instruments: within={within}; it must not be negative; use zero or more")
    last = span(bars)[1]
    lasts = bars.group_by("symbol").agg(pl.col("time").max()).filter(pl.col("time") < last - within).sort("symbol")
    return dict(lasts.iter_rows())


def _midnight(time: datetime) -> datetime:
    return time.replace(hour=0, minute=0, second=0, microsecond=0)
