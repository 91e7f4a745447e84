"""Daily series of exchanges joined point in time to bars of any length.

A vendor dates a daily close by its session, without the hour. The close of a session moves with daylight saving and is
earlier on half days. A value is therefore used from that close plus the vendor's delay on, never from its date.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.runs import digest_file
from tradsys.market.bars import COLUMNS, TIME, utc_bars
from tradsys.market.sessions import closes, hours, time_zone
from tradsys.market.sources.known_table import KnownTable, read_known
from tradsys.market.sources.sniff import FormKeys

CHANGES = ("log", "points")
BREAK = timedelta(hours=24)  # a longer pause between two sessions is a weekend or a holiday


@dataclass(frozen=True)
class SessionSeries:
    """One daily series of a vendor's file, with the availability of each value.

    path: a file with a column `date`, the column `value`, and `symbol` where it holds many series. series: the symbol
    to read; None for a file of one series. name: of the columns that are joined:
        <name>                 the value of the latest session that was known, in the vendor's units
        <name>_<k>s            its change over k sessions: ln of the quotient (change=log) or the difference (points)
        <name>_age             hours since that value became available
    calendar: the dates are its sessions (exchange_calendars). settles: local time before which the value is not final,
    whenever the session closes; None for the session's own close. delay_minutes: from then until the vendor has it.
    zone: of `settles`, None for the calendar's own. A date that is no session of the calendar gives no value.
    max_age_days: a value available for longer is no longer used. Changes count the sessions that the file has values
    for.

    Raises DataError where settings do not fit, the file lacks a column or the series, a date occurs twice, or a change
    needs a logarithm of a value that is not above zero.
    """

    path: str
    name: str
    series: str | None = None
    value: str = "close"
    calendar: str = "XNYS"
    settles: str | None = None
    zone: str | None = None
    delay_minutes: float = 60.0
    sessions: Sequence[int] = (1, 5, 21)
    change: str = "log"
    max_age_days: float = 7.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sessions", tuple(self.sessions))
        wrong = [k for k in self.sessions if not isinstance(k, int) or k < 1]
        taken = sorted({*COLUMNS, "segment"} & set(self.names))
        if self.change not in CHANGES or wrong or taken or not self.delay_minutes >= 0 or not self.max_age_days > 0:
            raise DataError(
                f"known: {self.file}: name={self.name!r}, change={self.change!r}, "
                f"sessions={list(self.sessions)}, delay_minutes={self.delay_minutes}, "
                f"max_age_days={self.max_age_days}; the change must be one of {CHANGES}, sessions whole "
                "numbers from 1, the delay not negative, the age above 0, and the name no column of bars; "
                "fix conf/data"
            )
        self._settled  # noqa: B018 - raises for an unreadable time

    @property
    def file(self) -> str:
        """The file's name without its folder."""
        return Path(self.path).name

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are joined, the age last."""
        return (self.name, *(f"{self.name}_{k}s" for k in self.sessions), f"{self.name}_age")

    @property
    def point_in_time(self) -> bool:
        """Always True: each value is used only from its availability on."""
        return True

    def frame(self) -> pl.DataFrame:
        """available_at (UTC, ascending), session (Date) and the columns without the age.

        One row per session.
        """
        read = read_known(Path(self.path), [self.value], FormKeys())
        dated = self._sessions_of(read).join(self._known_from(read), on="session", how="inner").sort("available_at")
        if dated.is_empty():
            raise DataError(f"known: {self.file}: no date of {self._label} is a session of {self.calendar}; check it")
        value = pl.col("value")
        if self.change == "log" and not dated["value"].min() > 0:  # type: ignore[operator]
            raise DataError(
                f"known: {self.file}: {self._label} falls to {dated['value'].min()!r}; a logarithm needs values above "
                "zero; use change: points"
            )
        base = value.log() if self.change == "log" else value
        changes = [base.diff(k).alias(f"{self.name}_{k}s") for k in self.sessions]
        return dated.select("available_at", "session", value.alias(self.name), *changes)

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars with the columns on the right, in their order.

        Null where no value is available or it is too old.
        """
        bars = utc_bars(bars)
        if taken := sorted(set(self.names) & set(bars.columns)):
            raise DataError(f"known: the bars have columns {taken} already; names must be unique; rename one")
        known = self.frame().drop("session")
        moments = bars.select("time").unique().sort("time")
        found = moments.join_asof(
            known, left_on="time", right_on="available_at", tolerance=timedelta(days=self.max_age_days)
        )
        age = (pl.col("time") - pl.col("available_at")).dt.total_seconds() / 3600
        columns = found.with_columns(age.alias(f"{self.name}_age")).select("time", *self.names)
        joined = bars.join(columns, on="time", how="left", maintain_order="left")
        assert joined.height == bars.height, (joined.height, bars.height)
        return joined

    def describe(self) -> Json:
        """For run records: file, its SHA-256, columns, and the rule in a sentence."""
        at = f"{self.settles} {self._place} or the close, whichever is later," if self.settles else "the close"
        rule = f"known {self.delay_minutes:g} minutes after {at} of its {self.calendar} session; not revised"
        return {
            "file": self.file,
            "sha256": digest_file(Path(self.path)),
            "columns": sorted(self.names),
            "point_in_time": True,
            "note": f"{self.name} ({self._label}) from {self.file}: {rule}",
        }

    @property
    def _label(self) -> str:
        return self.series or self.value

    @property
    def _place(self) -> str:
        return self.zone or time_zone(self.calendar)

    @property
    def _settled(self) -> time | None:
        if self.settles is None:
            return None
        try:
            return time.fromisoformat(self.settles)
        except (TypeError, ValueError):
            raise DataError(
                f'known: {self.file}: settles={self.settles!r} is no time of day; write it as "17:00"'
            ) from None

    def _sessions_of(self, read: KnownTable) -> pl.DataFrame:
        """session (Date) and value of the series, empty values left out."""
        table = read.frame
        lacking = [n for n in ("date", self.value, *(["symbol"] if self.series else [])) if n not in table.columns]
        if lacking:
            raise DataError(
                f"known: {self.file}: no {lacking}; the file has {list(read.names)[:30]}; correct series= or value="
            )
        if self.series:
            there = table["symbol"].unique().sort().to_list()
            table = table.filter(pl.col("symbol") == self.series)
            if table.is_empty():
                raise DataError(f"known: {self.file}: no series {self.series!r}; it has {there[:30]}; correct series=")
        zone = read.dates.zone if read.dates and "/" in read.dates.zone else "UTC"
        day = pl.col("date").dt.convert_time_zone(zone).dt.date()
        rows = table.select(session=day, value=pl.col(self.value).cast(pl.Float64).fill_nan(None)).drop_nulls()
        twice = rows.filter(pl.col("session").is_duplicated())
        if twice.height or rows.is_empty():
            seen = f"{twice.height} rows of one date, such as {twice['session'][0]}" if twice.height else "no value"
            raise DataError(f"known: {self.file}: {self._label} has {seen}; a session has one value; correct the file")
        return rows.sort("session")

    def _known_from(self, read: KnownTable) -> pl.DataFrame:
        """session and available_at of every session of the calendar over the file's dates."""
        first, last = (read.frame["date"].min(), read.frame["date"].max())
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        calendar = closes(self.calendar, first.date() - timedelta(days=1), last.date() + timedelta(days=1))
        final = pl.col("close")
        if (settled := self._settled) is not None:
            zone = ZoneInfo(self._place)
            local = [datetime.combine(day, settled, zone).astimezone(UTC) for day in calendar["session"]]
            final = pl.max_horizontal(final, pl.Series(local).cast(TIME))
        delay = pl.duration(microseconds=round(self.delay_minutes * 60e6))
        return calendar.select("session", available_at=(final + delay).cast(TIME))


@dataclass(frozen=True)
class SessionClock:
    """A bar's position between an exchange's sessions.

    It is read from the published calendar. Joined columns: `<name>` is 1 where the bar ends in a pause of more than
    24 hours
    between two sessions (weekends and holidays), else 0; `<name>_hours` the hours since the last session's close, 0
    within a session.
    """

    calendar: str = "XNYS"
    name: str = "weekend"

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are joined."""
        return (self.name, f"{self.name}_hours")

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars with both columns on the right, in their order."""
        bars = utc_bars(bars)
        if taken := sorted(set(self.names) & set(bars.columns)):
            raise DataError(f"known: the bars have columns {taken} already; names must be unique; rename one")
        moments = bars.select("time").unique().sort("time")
        rests = self._rests(moments["time"][0].date(), moments["time"][-1].date())
        found = moments.join_asof(rests, left_on="time", right_on="close")
        resting = pl.col("time") <= pl.col("next_open")
        since = (pl.col("time") - pl.col("close")).dt.total_seconds() / 3600
        long = resting & (pl.col("next_open") - pl.col("close") > BREAK)
        marked = found.select(
            "time",
            long.cast(pl.Float64).alias(self.name),
            pl.when(resting).then(since).otherwise(0.0).alias(f"{self.name}_hours"),
        )
        return bars.join(marked, on="time", how="left", maintain_order="left")

    def describe(self) -> Json:
        """For run records: the columns and the rule.

        The calendar is published ahead, so it is point in time.
        """
        return {
            "file": f"calendar {self.calendar}",
            "sha256": None,
            "columns": sorted(self.names),
            "point_in_time": True,
            "note": f"{self.name} from the published calendar {self.calendar}: rests of more than 24 hours",
        }

    def _rests(self, first: date, last: date) -> pl.DataFrame:
        """close of each session and the open of the next one, from before `first` to after `last`."""
        around = hours(self.calendar, first - timedelta(days=15), last + timedelta(days=15))
        return pl.DataFrame({"close": around["close"][:-1], "next_open": around["open"][1:]})
