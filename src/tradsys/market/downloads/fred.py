"""Macro series from FRED, each value from the day on which it was released (ALFRED vintages)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.runs import written_atomically
from tradsys.market.bars import TIME
from tradsys.market.downloads.client import Http, LimitError
from tradsys.market.downloads.progress import Job, SymbolRow
from tradsys.market.parquet import read_parquet

CHICAGO = ZoneInfo("America/Chicago")  # the vendor's days are those of St. Louis
MAX_VINTAGES = 1000  # release days of one call; the vendor refuses more than 2000
PAGE = 100_000
BEGIN = "1776-07-04"  # the vendor's word for the first vintage


@dataclass(frozen=True)
class FredSeries:
    """Series with all their releases. Needs a free key in the environment.

    Writes `macro/<name>_vintages.parquet` (series, date, value, available_at: every release) and `macro/<name>.parquet`
    in the `wide` form of conf/data `known`: available_at, and for each series the newest reference period's value as
    first known. The vendor states the day of a release, not its time: a value counts from that day's end (St. Louis).
    """

    http: Http
    series: Sequence[str] = ()
    name: str = "fred"

    def collect(self, job: Job) -> list[SymbolRow]:
        """One row per series; a series that fails leaves the others."""
        wanted = list(dict.fromkeys(job.symbols or self.series))
        if not wanted:
            raise DataError("fred: no series; give symbols=[DGS10,CPIAUCSL]")
        folder = job.root / "macro"
        path = folder / f"{job.name}_vintages.parquet"
        kept = (
            read_parquet(path, "move it away and download it again").partition_by("series", as_dict=True)
            if path.exists()
            else {}
        )
        frames = {str(key[0]): frame for key, frame in kept.items()}
        rows: list[SymbolRow] = []
        try:
            for one in wanted:
                try:
                    new = self._vintages(one)
                    rows.append(_series_row(one, new, frames.get(one)))
                    frames[one] = new
                except LimitError:
                    raise
                except DataError as error:
                    rows.append(SymbolRow(one, error=str(error)))
        except LimitError as error:
            rows += [SymbolRow(one, error=str(error), not_tried=i > 0) for i, one in enumerate(wanted[len(rows) :])]
        finally:
            self.http.close()
        if frames and any(row.error is None for row in rows):
            everything = pl.concat([frames[one] for one in sorted(frames)])
            for target, table in ((path, everything), (folder / f"{job.name}.parquet", as_known(everything))):
                with written_atomically(target) as draft:
                    table.write_parquet(draft)
        return rows

    def _vintages(self, series: str) -> pl.DataFrame:
        """Every value of a series with the moment of its release; a release that repeats a value is no row."""
        days = [str(d) for d in self._paged("/series/vintagedates", "vintage_dates", series_id=series)]
        if not days:
            raise DataError(f"fred: {series} has no releases; check the series' name")
        values: dict[tuple[str, str], str] = {}
        for k in range(0, len(days), MAX_VINTAGES):
            window = days[k : k + MAX_VINTAGES]
            for row in self._paged(
                "/series/observations",
                "observations",
                series_id=series,
                realtime_start=window[0],
                realtime_end=window[-1],
            ):
                values[row["date"], row["realtime_start"]] = row["value"]
        rows: list[tuple[Any, ...]] = []
        last: dict[str, str] = {}
        for (day, released), value in sorted(values.items(), key=lambda item: item[0]):
            if last.get(day) != value:
                rows.append(
                    (series, date.fromisoformat(day), None if value == "." else float(value), known_from(released))
                )
            last[day] = value
        schema = {"series": pl.String(), "date": pl.Date(), "value": pl.Float64(), "available_at": TIME}
        return pl.DataFrame(rows, schema=schema, orient="row").drop_nulls("value").sort("date", "available_at")

    def _paged(self, path: str, key: str, **query: Any) -> Iterator[Any]:
        offset, limit = 0, 10_000 if key == "vintage_dates" else PAGE
        whole = {} if "realtime_start" in query else {"realtime_start": BEGIN, "realtime_end": "9999-12-31"}
        while True:
            found = self.http.json(
                f"/fred{path}",
                {**whole, **query, "file_type": "json", "limit": limit, "offset": offset},
                check=_form(key),
            )
            yield from found[key]
            offset += limit
            if offset >= int(found["count"]):
                return


def known_from(released: str) -> datetime:
    """The end of a release day in St. Louis, as UTC."""
    day = date.fromisoformat(released) + timedelta(days=1)
    return datetime.combine(day, time(), CHICAGO).astimezone(UTC)


def as_known(vintages: pl.DataFrame) -> pl.DataFrame:
    """available_at and a column per series: at each release the value of the newest reference date known by then.

    A release that changes an earlier reference date alone gives no row: the newest value is still the same.
    """
    ordered = vintages.sort("series", "available_at", "date")
    newest = pl.col("date").cum_max().over("series")
    kept = ordered.filter(pl.col("date") == newest).unique(["series", "available_at"], keep="last", maintain_order=True)
    return kept.pivot("series", index="available_at", values="value").sort("available_at")


def _series_row(series: str, new: pl.DataFrame, old: pl.DataFrame | None) -> SymbolRow:
    if new.is_empty():
        raise DataError(f"fred: {series} has no values; check the series' name")
    n_old = 0 if old is None else old.height
    first, last = (datetime.combine(new["date"][i], time(), UTC) for i in (0, -1))
    return SymbolRow(series, first, last, new.height, max(new.height - n_old, 0))


def _form(key: str) -> Any:
    def check(content: Any) -> None:
        if not isinstance(content, dict) or key not in content or "count" not in content:
            raise DataError(f"fred: the answer has no {key!r}; the vendor's page changed its form; nothing was written")

    return check
