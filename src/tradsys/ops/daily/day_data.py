"""The bars of one session's run: up to its close, and only as much history as needed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.runs import digest_json
from tradsys.core.tables import Array
from tradsys.market import sessions
from tradsys.market.bars import content_digest, starts_of_symbols
from tradsys.market.calendars import session_of
from tradsys.research.pipeline.dataset import load_bars
from tradsys.research.pipeline.settings import Experiment


@dataclass(frozen=True, eq=False)
class DailyBars:
    """All bars of a source, read once, and its calendar's sessions.

    The calendar is `data.calendar`. Raises DataError for data that names no calendar: which sessions are missing can
    then not be determined.
    """

    experiment: Experiment
    _digests: dict[datetime, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.experiment.data.get("calendar"):
            raise DataError(
                "daily: the data name no calendar, so their sessions are unknown; choose daily data, such as "
                "data=us_daily, or give +data.calendar=XNYS"
            )

    @cached_property
    def all(self) -> pl.DataFrame:
        """Every bar with its segment."""
        return load_bars(self.experiment)

    @cached_property
    def described(self) -> Json:
        """The source's description, made once and without reading its bars."""
        described: Json = self.experiment.data["source"].describe()
        return described

    @cached_property
    def source_digest(self) -> str:
        """Digest of the source's description."""
        return digest_json(self.described)

    @property
    def calendar(self) -> str:
        """The exchange's calendar."""
        return str(self.experiment.data["calendar"])

    @cached_property
    def closes(self) -> pl.DataFrame:
        """session (Date) and close (UTC), ascending, of all closed sessions.

        The first is the session of the first bar.
        """
        first, last = self.all.select(first=pl.col("time").min(), last=pl.col("time").max()).row(0)
        now = max(utc_now(), last)
        known = sessions.closes(self.calendar, session_of(first), now.date())
        return known.filter(pl.col("close") <= now)

    def last_session(self) -> date:
        """The last closed session of the calendar."""
        last: date = self.closes["session"][-1]
        return last

    def close(self, day: date) -> datetime:
        """The close of a session.

        Raises DataError, with the neighbouring sessions, for any other date.
        """
        found = self.closes.filter(session=day)["close"]
        moment: datetime = found[0] if len(found) else sessions.close_of(self.calendar, day)
        return moment

    def session(self, day: str | date) -> date:
        """The session of a date given as text; DataError where it is none."""
        try:
            found = day if isinstance(day, date) else date.fromisoformat(str(day))
        except ValueError as error:
            raise DataError(f"daily: {day!r} is no date; a session is one such as 2022-12-30; give one") from error
        self.close(found)
        return found

    def range(self, first: date, last: date) -> list[date]:
        """The sessions from `first` to `last`, both included.

        Raises DataError where there is none.
        """
        if last < first:
            raise DataError(f"daily: from {first} until {last}; the first date is not after the last; swap them")
        found = self.closes.filter(pl.col("session").is_between(first, last))["session"].to_list()
        if not found:
            raise DataError(f"daily: no session from {first} to {last}; widen date and until")
        return found

    def count(self, after: date, until: date) -> int:
        """Number of sessions after `after`, up to and including `until`."""
        return self.closes.filter((pl.col("session") > after) & (pl.col("session") <= until)).height

    def upcoming(self, day: date) -> datetime | None:
        """When the session after `day` closes; None beyond the calendar's range."""
        first: date = self.closes["session"][0]
        ahead = sessions.closes(self.calendar, first, day + timedelta(days=14))  # by the year of `first`, as `closes`
        closed: datetime | None = ahead.filter(pl.col("session") > day)["close"].min()  # type: ignore[assignment]
        return closed

    def last_bar(self) -> date:
        """The session of the last bar."""
        last: datetime = self.all["time"].max()  # type: ignore[assignment]
        return session_of(last)

    def of(self, day: date) -> "DayBars":
        """The bars up to that session's close."""
        close = self.close(day)
        bars = self.all.filter(pl.col("time") <= close)
        if not bars.height:
            first: datetime = self.all["time"].min()  # type: ignore[assignment]
            raise DataError(f"daily: no bar closed by {day}; the first is of {first:%Y-%m-%d}; ask for a later date")
        return DayBars(day, close, bars, self.digest(close))

    def digest(self, close: datetime) -> str:
        """Hex SHA-256 of every bar up to a close: all inputs of the session's numbers.

        Computed once.
        """
        if close not in self._digests:
            self._digests[close] = content_digest(self.all.filter(pl.col("time") <= close))
        return self._digests[close]


@dataclass(frozen=True, eq=False)
class DayBars:
    """Bars with segments up to one session's close.

    digest: of all of them, as of `DailyBars.digest`.
    """

    day: date
    close: datetime
    bars: pl.DataFrame
    digest: str

    @cached_property
    def today(self) -> pl.DataFrame:
        """The session's own bars."""
        return self.bars.filter(pl.col("time") == self.close)

    @cached_property
    def clock(self) -> pl.Series:
        """Distinct times [T], ascending."""
        return self.bars["time"].unique().sort()

    def window(self, n_bars: int, since: datetime | None = None) -> pl.DataFrame:
        """The fewest bars on which features equal those on all bars.

        They are equal at or after `since`, by default the close. n_bars: bars that a row's features depend on,
        itself included. All
        symbols are cut at one time, so that joins and cross-sectional ranks are complete; a symbol with holes moves the
        cut further back for all.
        """
        at = self.close if since is None else since
        starts, time = starts_of_symbols(self.bars), self.bars["time"]
        before = (time < at).to_numpy()
        n_before = np.add.reduceat(before, starts, dtype=np.int64)
        lasting = n_before < np.diff(starts, append=len(before))  # symbols with a bar at or after `at`
        if not lasting.any():
            return self.bars.clear()
        first = starts + np.maximum(n_before - (n_bars - 1), 0)
        return self.bars.filter(time >= time.gather(first[lasting]).min())

    def sessions_back(self, n: int) -> datetime:
        """The close of the session `n` before this one, or of the first session."""
        moment: datetime = self.clock[max(0, len(self.clock) - 1 - n)]
        return moment


def members(experiment: Experiment, bars: pl.DataFrame) -> Array:
    """bool [R]: rows that are members by the experiment's events."""
    return np.ones(bars.height, dtype=bool) if experiment.events is None else experiment.events.mask(bars)


def data_notes(data: Mapping[str, Any], source: Mapping[str, Any]) -> list[str]:
    """Warnings about the data: survivors only, not point in time.

    data: their config. source: its description.
    """
    notes = []
    if data.get("survivors_only"):
        notes.append(
            "Survivors only: these names were picked with knowledge of who was still there at the end, so returns, hit "
            "rates and drawdowns look better than they could have been."
        )
    for joined in source.get("not_point_in_time", ()):
        notes.append(f"Not point in time: {joined}. Figures of earlier dates that use these columns have look-ahead.")
    return notes
