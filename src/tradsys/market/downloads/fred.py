"""Macro series from FRED, each value from the day on which it was released (ALFRED vintages)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.runs import written_atomically
from tradsys.market.bars import TIME
from tradsys.market.downloads.client import Http
from tradsys.market.downloads.progress import Job, Report, SymbolRow, each_symbol, silent
from tradsys.market.downloads.revisions import Revisions, enter
from tradsys.market.downloads.vintages import KEYS, as_known, vintages_beside
from tradsys.market.parquet import read_parquet

CHICAGO = ZoneInfo("America/Chicago")  # the time zone of the vendor's dates (St. Louis)
MAX_VINTAGES = 1000  # release days of one call; the vendor refuses more than 2000
PAGE = 100_000
BEGIN = "1776-07-04"  # the vendor's date for the first vintage


@dataclass(frozen=True)
class FredSeries:
    """Series with all their releases. Needs a free key in the environment.

    Writes `macro/<name>_vintages.parquet` (series, date, value, available_at: every release) and `macro/<name>.parquet`
    in the `wide` form of conf/data `known`: available_at, and for each series the newest reference period's value as
    first released. The vendor gives the day of a release, not its time: a value is available from that day's end (St.
    Louis).
    """

    http: Http
    series: Sequence[str] = ()
    name: str = "fred"

    def collect(self, job: Job, report: Report = silent) -> list[SymbolRow]:
        """One row per series; a failed series does not affect the others."""
        wanted = list(dict.fromkeys(job.symbols or self.series))
        if not wanted:
            raise DataError("fred: no series; give symbols=[DGS10,CPIAUCSL]")
        try:
            return each_symbol(wanted, partial(self._one, job), report)
        finally:
            self.http.close()

    def _one(self, job: Job, series: str, report: Callable[[int], None]) -> SymbolRow:
        """Downloads one series, records the vendor's revisions and writes both files."""
        folder = job.root / "macro"
        wide = folder / f"{job.name}.parquet"
        path = vintages_beside(wide)
        kept = read_parquet(path, "move it away and download it again") if path.exists() else None
        new = self._vintages(series)
        report(new.height)
        old = None if kept is None else kept.filter(pl.col("series") == series)
        found = None if old is None or old.is_empty() else _revised(folder / path.stem, old, new, job)
        others = [] if kept is None else [kept.filter(pl.col("series") != series)]
        everything = pl.concat([*others, new]).sort("series", maintain_order=True)
        for target, table in ((path, everything), (wide, as_known(everything))):
            with written_atomically(target) as draft:
                table.write_parquet(draft)
        first, last = (datetime.combine(new["date"][i], time(), UTC) for i in (0, -1))
        n_old = 0 if old is None else old.height
        return SymbolRow(series, first, last, new.height, max(new.height - n_old, 0), revisions=found)

    def _vintages(self, series: str) -> pl.DataFrame:
        """Every value of a series with its release moment; repeated values are left out."""
        days = list(self._paged("/series/vintagedates", "vintage_dates", series_id=series))
        if not days:
            raise DataError(f"fred: {series} has no releases; check the series' name")
        values: dict[tuple[date, datetime], float | None] = {}
        for k in range(0, len(days), MAX_VINTAGES):
            window = days[k : k + MAX_VINTAGES]
            values |= dict(
                self._paged(
                    "/series/observations",
                    "observations",
                    series_id=series,
                    realtime_start=window[0],
                    realtime_end=window[-1],
                )
            )
        rows: list[tuple[Any, ...]] = []
        last: dict[date, float | None] = {}
        for (day, released), value in sorted(values.items(), key=lambda item: item[0]):
            if last.get(day) != value:
                rows.append((series, day, value, released))
            last[day] = value
        schema = {"series": pl.String(), "date": pl.Date(), "value": pl.Float64(), "available_at": TIME}
        table = pl.DataFrame(rows, schema=schema, orient="row").drop_nulls("value").sort("date", "available_at")
        if table.is_empty():
            raise DataError(f"fred: {series} has no values; check the series' name")
        return table

    def _paged(self, path: str, key: str, **query: Any) -> Iterator[Any]:
        offset, limit = 0, 10_000 if key == "vintage_dates" else PAGE
        all_releases = {} if "realtime_start" in query else {"realtime_start": BEGIN, "realtime_end": "9999-12-31"}
        while True:
            found = self.http.json(
                f"/fred{path}",
                {**all_releases, **query, "file_type": "json", "limit": limit, "offset": offset},
                check=FORMS[key],
            )
            rows, count = FORMS[key](found)
            yield from rows
            offset += limit
            if offset >= count or not rows:
                return


def known_from(released: str) -> datetime:
    """The end of a release day in St. Louis, as UTC."""
    day = date.fromisoformat(released) + timedelta(days=1)
    return datetime.combine(day, time(), CHICAGO).astimezone(UTC)


def _revised(folder: Path, old: pl.DataFrame, new: pl.DataFrame, job: Job) -> Revisions:
    """Records releases that the vendor changed, added in the past or withdrew, by release time."""
    named = pl.col("date").dt.strftime("%Y-%m-%d").alias("column")  # the reference period
    both = old.join(new, on=KEYS, suffix="_new").filter(pl.col("value") != pl.col("value_new"))
    past = new.filter(pl.col("available_at") <= old["available_at"].max())
    parts = [
        both.select(symbol="series", time="available_at", column=named, old="value", new="value_new"),
        past.join(old, on=KEYS, how="anti").select(
            symbol="series", time="available_at", column=named, old=pl.lit(None, pl.Float64), new="value"
        ),
        old.join(new, on=KEYS, how="anti").select(
            symbol="series", time="available_at", column=named, old="value", new=pl.lit(None, pl.Float64)
        ),
    ]
    found = Revisions(old.height, *(part.height for part in parts))
    return enter(folder, found, pl.concat(parts), "fred", job.rule)


def _days(content: Any) -> tuple[list[str], int]:
    """Release days of this page, and the total number."""
    days = [date.fromisoformat(day).isoformat() for day in content["vintage_dates"]]
    return days, int(content["count"])


def _values(content: Any) -> tuple[list[tuple[tuple[date, datetime], float | None]], int]:
    """((reference date, moment of availability), value or None) of this page, and the total number."""
    rows = []
    for row in content["observations"]:
        value = None if row["value"] == "." else float(row["value"])
        if value is not None and not math.isfinite(value):
            raise ValueError(f"value {row['value']!r}")
        rows.append(((date.fromisoformat(row["date"]), known_from(row["realtime_start"])), value))
    return rows, int(content["count"])


FORMS: Mapping[str, Callable[[Any], tuple[list[Any], int]]] = {"vintage_dates": _days, "observations": _values}
