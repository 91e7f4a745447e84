"""Joins fundamentals, macro and sentiment to bars point in time: by availability, not by date."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import polars as pl

from tradsys.core.bounds import is_within
from tradsys.core.clock import utc
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.runs import digest_file
from tradsys.market.bars import COLUMNS, TIME, check_bars, content_digest, utc_bars
from tradsys.market.coverage import check_join
from tradsys.market.downloads.revisions import RevisionLedger
from tradsys.market.downloads.vintages import known_before, vintages_beside
from tradsys.market.sources.known_table import KnownTable, read_known
from tradsys.market.sources.sniff import FormKeys
from tradsys.market.universe import untraded_of

LAYOUTS = ("series", "wide", "snapshot")
PERIODS: Mapping[str, str] = MappingProxyType({"day": "1d", "week": "1w", "month": "1mo", "quarter": "3mo"})
ALWAYS = datetime(1900, 1, 1, tzinfo=UTC)  # `available_at` of a snapshot's values


class KnownValues(Protocol):
    """Protocol: joins values to bars point in time."""

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars in their order, with the columns on the right."""

    def describe(self) -> Json:
        """file, sha256, columns, point_in_time, and the rule as `note`."""


class BarsSource(Protocol):
    """Protocol: a source of bars with a description."""

    def bars(self) -> pl.DataFrame:
        """Bars in the schema of `market.bars`."""

    def describe(self) -> Json:
        """Description of the bars for run records."""


def join_known(
    bars: pl.DataFrame,
    known: pl.DataFrame,
    columns: Sequence[str],
    *,
    by_symbol: bool,
    max_age: timedelta | None = None,
) -> pl.DataFrame:
    """The bars with those columns on the right, joined point in time.

    Float64: the latest value with `available_at <= time`. known: available_at (UTC), the columns, and symbol where
    `by_symbol`. A null in a column keeps its previous value. The result is null before the first value, and where the
    latest became available more than `max_age` before the bar. Raises DataError where a column is missing, exists in
    the bars already, or two rows have one `available_at`.
    """
    bars = utc_bars(bars)
    keys = ["symbol"] if by_symbol else []
    missing = sorted({*keys, *columns, "available_at"} - set(known.columns))
    taken = sorted(set(columns) & set(bars.columns))
    if missing or taken or known.schema.get("available_at") != TIME:
        raise DataError(
            f"known: missing {missing}, already in the bars {taken}, available_at is "
            f"{known.schema.get('available_at')}; values to join have {[*keys, 'available_at', *columns]}, moments in "
            f"{TIME}; rename or add the columns"
        )
    joined = bars
    for column in columns:
        found = _as_of(joined.select("symbol", "time"), _one_column(known, column, keys), keys, max_age)
        joined = joined.with_columns(found.alias(column))
    return check_join(bars, joined, ", ".join(columns))


def _one_column(known: pl.DataFrame, column: str, keys: list[str]) -> pl.DataFrame:
    """Values of one column, sorted for the join, each moment once."""
    value = pl.col(column).cast(pl.Float64).fill_nan(None).alias("value")
    values = known.select(*keys, "available_at", value).drop_nulls().sort(*keys, "available_at")
    twice = values.filter(pl.struct(*keys, "available_at").is_duplicated())
    if twice.height:
        raise DataError(
            f"known: {twice.height:,} rows of {column} share their available_at with another row, such as "
            f"{twice.row(0)}; one value is valid at a time; keep the last of them"
        )
    return values


def _as_of(rows: pl.DataFrame, values: pl.DataFrame, keys: list[str], max_age: timedelta | None) -> pl.Series:
    """The latest available value [R] at each row's time."""
    moments = rows if keys else rows.select("time").unique().sort("time")
    found = moments.join_asof(  # by default the last at or before the left moment
        values,
        left_on="time",
        right_on="available_at",
        by=keys or None,
        tolerance=max_age,
        check_sortedness=False,
    )
    if not keys:
        found = rows.join(found, on="time", how="left", maintain_order="left")
    return found["value"]


@dataclass(frozen=True)
class KnownSource:
    """A vendor's file of values to join to bars, with the rule of their availability.

    path: a file in any format that bars may have. layout: `series` (date, series, value), `wide` (date, a column per
    value, symbol where a value belongs to one) or `snapshot` (one row per symbol and no date). columns: vendor's name
    -> our column.

    A value becomes available `lag_days` after its reference period ends: available_at = the midnight (UTC) at which the
    period of length `period` that begins on `date` is over, plus lag_days. A day's rate with lag_days 4 is used from
    the fifth midnight after its date on; May's CPI (dated 1 May, period month, lag_days 45) from 16 July on. Without
    lag_days the file must give `available_at` itself. max_age_days: a value available for longer than that is no longer
    used. revised: the file holds the latest vintage, so its values include later revisions; reported by `describe`.

    A snapshot has no history and is look-ahead on every earlier row. It is refused unless `allow_snapshot`. as_of: the
    values as of that moment: later revisions are undone by the revision ledger that the download keeps in the folder of
    the file's name (`funding/NAME_SYMBOL/`, `macro/NAME_vintages/`). zone, date_format, decimal, separator: as of the
    fetch command, where the file does not show them. A date with a zone ends at its own midnight: 2024-01-04
    00:00+09:00 is over at 15:00 UTC. Raises DataError where these settings do not fit each other or the file.
    """

    path: str
    layout: str
    columns: Mapping[str, str]
    lag_days: int | None = None
    period: str = "day"
    max_age_days: int | None = None
    revised: bool = False
    allow_snapshot: bool = False
    zone: str | None = None
    date_format: str | None = None
    decimal: str | None = None
    separator: str | None = None
    as_of: str | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))
        if self.layout not in LAYOUTS or self.period not in PERIODS or not self.columns:
            raise DataError(
                f"known: {self.file}: layout {self.layout!r}, period {self.period!r}, columns {dict(self.columns)}; "
                f"layouts are {LAYOUTS}, periods {tuple(PERIODS)}, and at least one column is named; fix conf/data"
            )
        ours = list(self.columns.values())
        clash = sorted({name for name in ours if ours.count(name) > 1} | (set(ours) & {*COLUMNS, "segment"}))
        if clash:
            raise DataError(f"known: {self.file}: columns {clash} are named twice or are columns of bars; rename them")
        if self.layout == "snapshot" and not self.allow_snapshot:
            raise DataError(
                f"known: {self.file} is a snapshot without history: a backtest on it uses values that were not known "
                "then; leave it out, or set allow_snapshot: true, which every report then shows"
            )

    def _check_kinds(self) -> None:
        """Raises DataError for the first key with a value of the wrong type."""
        words = ("zone", "date_format", "decimal", "separator", "as_of")
        rules = {
            "path": (isinstance(self.path, str | Path) and bool(str(self.path)), "the path of a file"),
            "columns": (
                isinstance(self.columns, Mapping)
                and all(isinstance(word, str) and word for pair in self.columns.items() for word in pair),
                "vendor's name: our column, as words",
            ),
            "lag_days": (
                is_within(self.lag_days, "null or whole [0, inf)"),
                "null or whole days >= 0, since no value is available before its period ends",
            ),
            "max_age_days": (is_within(self.max_age_days, "null or whole [1, inf)"), "null or whole days >= 1"),
            **{
                name: (isinstance(getattr(self, name), bool), "true or false") for name in ("revised", "allow_snapshot")
            },
            **{name: (getattr(self, name) is None or isinstance(getattr(self, name), str), "a text") for name in words},
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise DataError(f"known: {self.path}: {name}={getattr(self, name)!r}; it must be {rule}; set {name}")

    @property
    def file(self) -> str:
        """The file's name without its folder."""
        return Path(self.path).name

    @property
    def point_in_time(self) -> bool:
        """Whether each value is used only from its availability on; False for a snapshot."""
        return self.layout != "snapshot"

    def frame(self) -> pl.DataFrame:
        """The file's values as available_at (UTC), symbol and our columns, sorted.

        symbol only where values belong to one; Float64.
        """
        keys = FormKeys(self.separator, self.decimal, self.date_format, self.zone)
        read = read_known(Path(self.path), list(self.columns), keys)
        table = read.frame
        wanted = {"series": ["date", "series", "value"], "wide": list(self.columns), "snapshot": ["symbol"]}
        need = [*wanted[self.layout], *(self.columns if self.layout == "snapshot" else ())]
        if self.layout == "wide":
            need.append("available_at" if self.lag_days is None else "date")
        self._need(need, list(read.names))
        if self.layout == "series":
            table = self._spread(table)
        self._check_zone(read)
        keyed = [name for name in ("symbol",) if name in table.columns]
        values = [pl.col(theirs).alias(ours) for theirs, ours in self.columns.items()]
        frame = table.select(self._available(read).alias("available_at"), *keyed, *values).sort(*keyed, "available_at")
        return frame if self.as_of is None else self._before(frame, utc(self.as_of, f"known: {self.file}: as_of"))

    def _before(self, frame: pl.DataFrame, moment: datetime) -> pl.DataFrame:
        """The values as of a moment, where the download of this file keeps a revision ledger."""
        path = Path(self.path)
        if self.layout == "wide" and self.lag_days is None and vintages_beside(path).is_file():
            wide = known_before(vintages_beside(path), moment)
            self._need(list(self.columns), wide.columns)
            return wide.select("available_at", *(pl.col(theirs).alias(ours) for theirs, ours in self.columns.items()))
        folder = path.with_suffix("")
        if not folder.is_dir() or "symbol" in frame.columns:
            return frame
        rows = frame.rename({"available_at": "time"})
        for theirs, ours in self.columns.items():
            rows = RevisionLedger(folder).value_before(rows, ours, theirs, moment)
        return rows.rename({"time": "available_at"})

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars with the columns on the right; see `join_known`."""
        frame = self.frame()
        max_age = None if self.max_age_days is None else timedelta(days=self.max_age_days)
        by_symbol = "symbol" in frame.columns
        return join_known(bars, frame, list(self.columns.values()), by_symbol=by_symbol, max_age=max_age)

    def describe(self) -> Json:
        """For run records: file, SHA-256, columns, and the rule in a sentence.

        Also whether it is point in time.
        """
        return {
            "file": self.file,
            "sha256": digest_file(Path(self.path)),
            "columns": sorted(self.columns.values()),
            "point_in_time": self.point_in_time,
            "note": f"{', '.join(sorted(self.columns.values()))} from {self.file}: {self._rule()}",
        }

    def _rule(self) -> str:
        if not self.point_in_time:
            return "NOT POINT IN TIME, a snapshot without history that allow_snapshot puts on all rows"
        known = f"{self.lag_days} days after the {self.period} it is for" if self.lag_days is not None else "as filed"
        return f"known {known}" + ("; latest vintage, values were revised since" if self.revised else "")

    def _available(self, read: KnownTable) -> pl.Expr:
        if self.layout == "snapshot":
            return pl.lit(ALWAYS, TIME)
        if self.lag_days is None:
            return pl.col("available_at").cast(TIME)
        assert read.dates is not None
        zone = read.dates.zone if "/" in read.dates.zone else "UTC"
        day = pl.col("date").dt.convert_time_zone(zone)
        if "offsets" not in read.dates.zone:
            day = day.dt.truncate("1d")
        over = day.dt.offset_by(PERIODS[self.period]).dt.offset_by(f"{self.lag_days}d")
        return over.dt.convert_time_zone("UTC").cast(TIME)

    def _check_zone(self, read: KnownTable) -> None:
        naive = read.moments is not None and read.moments.assumed
        if self.lag_days is None and self.layout == "wide" and naive:
            raise DataError(
                f"known: {self.file}: available_at is without a zone; it is the moment from which a value is used; "
                "write its zone, or give zone="
            )

    def _spread(self, table: pl.DataFrame) -> pl.DataFrame:
        """One column per wanted series, one row per date."""
        self._need(list(self.columns), table["series"].unique().sort().to_list())
        if self.lag_days is None:
            raise DataError(
                f"known: {self.file}: a file of series needs lag_days, since its dates are no times of availability; "
                "set lag_days"
            )
        rows = table.filter(pl.col("series").is_in(list(self.columns)))
        twice = rows.filter(pl.struct("date", "series").is_duplicated())
        if twice.height:
            raise DataError(f"known: {self.file}: {twice.height} rows repeat a date of a series; keep one of each")
        return rows.pivot("series", index="date", values="value")

    def _need(self, names: list[str], there: list[str]) -> None:
        missing = [name for name in names if name not in there]
        if missing:
            raise DataError(
                f"known: {self.file}: no {missing} in layout {self.layout!r}; the file has {there[:30]}; correct "
                "`columns` or `layout`" + ("" if self.lag_days is not None else ", or give lag_days")
            )


@dataclass(frozen=True)
class JoinedBars:
    """A source of bars with values of other sources joined point in time.

    They are joined in the order of `known`. known: sources of values by name; the names only let configuration add
    and remove them.
    """

    source: BarsSource
    known: Mapping[str, KnownValues]

    def __post_init__(self) -> None:
        if not isinstance(self.known, Mapping) or not all(hasattr(one, "join") for one in self.known.values()):
            raise DataError(f"known: {self.known!r}; it must name sources of values; set data.source.known.NAME")
        if not hasattr(self.source, "bars"):
            raise DataError(f"known: source={self.source!r}; it must be a source of bars; set data.source.source")

    @property
    def untraded(self) -> str | None:
        """See the source's `untraded`."""
        return untraded_of(self.source)

    def bars(self) -> pl.DataFrame:
        """The bars, and further float columns; checked."""
        return check_bars(self.join(self.source.bars()))

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """These bars, of any feed, with the same columns as stored ones."""
        for one in self.known.values():
            bars = one.join(bars)
        return bars

    def describe(self) -> Json:
        """The source's description with `known`, `point_in_time` and a digest.

        known: a sentence per file; the digest includes joined columns. known_sha256: digest of each file.
        not_point_in_time: the sentences of files that are not point in time.
        """
        reported = [one.describe() for one in self.known.values()]
        return {
            **self.source.describe(),
            "digest": content_digest(self.bars()),
            "known": [one["note"] for one in reported],
            "known_sha256": {one["file"]: one["sha256"] for one in reported},
            "point_in_time": all(one["point_in_time"] for one in reported),
            "not_point_in_time": [one["note"] for one in reported if not one["point_in_time"]],
        }
