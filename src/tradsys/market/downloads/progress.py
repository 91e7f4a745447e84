"""Download of many symbols: complete pages are kept, a failed symbol does not stop the others."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.received import check_folder_name
from tradsys.core.runs import digest_json, written_atomically
from tradsys.market.bars import COLUMNS, PRICES, SCHEMA
from tradsys.market.downloads.client import LimitError
from tradsys.market.downloads.revisions import RevisionRule, Revisions, revise
from tradsys.market.parquet import read_parquet
from tradsys.market.store import BarStore
from tradsys.market.symbol_files import check_symbol

log = logging.getLogger(__name__)
PARTIAL = "partial"  # folder of complete pages, inside the dataset's own
EVENTS = ".events"  # suffix of the file with a page's dividends and splits
VALUES = (*PRICES, "volume")


@dataclass(frozen=True, eq=False)
class Page:
    """Result of one call: bars, and the moment up to which they are complete.

    Bars have COLUMNS, time = close in UTC. n_repairs: rows that the reader repaired or left out. events: dividends and
    splits (events.actions.SCHEMA).
    """

    bars: pl.DataFrame
    until: datetime
    n_repairs: int = 0
    events: pl.DataFrame | None = None


class BarVendor(Protocol):
    """A vendor of bars.

    minutes: their length. first: where its history begins at the earliest, UTC.
    """

    name: str
    minutes: float
    first: datetime

    def spell(self, symbol: str) -> str:
        """The vendor's spelling.

        Raises DataError where the symbol cannot be one of this vendor's.
        """

    def identity(self) -> Json:
        """The settings that determine the numbers.

        Pages of another identity are not resumed.
        """

    def pages(self, spelling: str, since: datetime, until: datetime) -> Iterator[Page]:
        """Pages in the order of time: bars that close in (since, until]."""

    def close(self) -> None:
        """Closes open connections."""

    def holes(self, bars: pl.DataFrame) -> list[tuple[datetime, datetime]]:
        """Spans (last close before, first close after) in which bars are missing."""


@dataclass(frozen=True)
class Job:
    """What to download.

    symbols: as they will be stored. reread_bars: stored bars to download again.
    """

    root: Path
    name: str
    symbols: Sequence[str]
    start: datetime | None = None
    end: datetime | None = None
    reread_bars: int = 48
    rule: RevisionRule = field(default_factory=RevisionRule)
    now: datetime | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_folder_name("fetch: dataset", self.name, DataError)
        moment = self.now or utc_now()
        if self.start is not None and self.start >= moment:
            raise DataError(
                f"fetch: start={self.start:%Y-%m-%d} lies in the future; nothing can be downloaded; set start="
            )
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise DataError(
                f"fetch: end={self.end:%Y-%m-%d} is not after start={self.start:%Y-%m-%d}; correct one of them"
            )
        if self.reread_bars < 0:
            raise DataError(f"fetch: reread_bars={self.reread_bars}; it must be zero or more; set reread_bars=")

    @property
    def until(self) -> datetime:
        """The end of the request: `end`, but never later than now."""
        moment = self.now or utc_now()
        return moment if self.end is None else min(self.end, moment)


@dataclass(frozen=True)
class SymbolRow:
    """One row of the closing table.

    error: why this symbol failed, or None. remarks: lines below the table.
    """

    symbol: str
    first: datetime | None = None
    last: datetime | None = None
    n_bars: int = 0
    n_added: int = 0
    holes: tuple[tuple[datetime, datetime], ...] = ()
    n_repairs: int = 0
    revisions: Revisions | None = None
    error: str | None = None
    not_tried: bool = False
    remarks: tuple[str, ...] = ()


Report = Callable[[str, int, int], None]  # after each page: the symbol, its number from 0, rows so far


def silent(symbol: str, number: int, n_rows: int) -> None:
    """A `Report` without output."""


def download(vendor: BarVendor, job: Job, report: Report = silent) -> list[SymbolRow]:
    """Downloads every symbol of a job and stores it.

    One row each, in the order of the job. Failures as in `each_symbol`.
    """
    try:
        return each_symbol(job.symbols, partial(_fetch_symbol, vendor, job), report)
    finally:
        vendor.close()


def each_symbol(
    symbols: Sequence[str], one: Callable[[str, Callable[[int], None]], SymbolRow], report: Report
) -> list[SymbolRow]:
    """One row per symbol.

    one: downloads a symbol; receives a function to call with the rows so far. A failed symbol becomes a row with the
    reason. A vendor's limit ends the download; later symbols become rows with that reason. KeyboardInterrupt is raised
    as `InterruptedDownload`, which holds the rows so far.
    """
    rows: list[SymbolRow] = []
    limit: str | None = None
    for number, symbol in enumerate(symbols):
        if limit is not None:
            rows.append(SymbolRow(symbol, error=limit, not_tried=True))
            continue
        try:
            check_symbol(symbol)  # before any request
            rows.append(one(symbol, partial(report, symbol, number)))
        except LimitError as error:
            limit = str(error)
            rows.append(SymbolRow(symbol, error=limit))
        except DataError as error:
            rows.append(SymbolRow(symbol, error=str(error)))
        except KeyboardInterrupt as error:
            raise InterruptedDownload(rows) from error
    return rows


class InterruptedDownload(KeyboardInterrupt):
    """Ctrl-C in a download. rows: the symbols that were finished before it."""

    def __init__(self, rows: list[SymbolRow]) -> None:
        super().__init__("interrupted")
        self.rows = rows


def _fetch_symbol(vendor: BarVendor, job: Job, symbol: str, report: Callable[[int], None]) -> SymbolRow:
    spelling = vendor.spell(symbol)
    store = BarStore(job.root)
    since = _since(store, vendor, job, symbol)
    kept = Partial(job.root / job.name / PARTIAL, symbol, {**vendor.identity(), "since": since.isoformat()})
    pages = kept.read()
    reached = pages[-1].until if pages else since
    n_bars = sum(page.bars.height for page in pages)
    if reached < job.until:
        for page in vendor.pages(spelling, reached, job.until):
            kept.keep(page)
            pages.append(page)
            n_bars += page.bars.height
            report(n_bars)
    with kept.used_up():
        return _store(store, vendor, job, symbol, pages, since)


def _since(store: BarStore, vendor: BarVendor, job: Job, symbol: str) -> datetime:
    """Start of the request: the last stored bars again, or `start` where it lies before all earlier requests."""
    begin = job.start or vendor.first
    manifest = store.manifest(job.name) if job.name in store.names() else {"symbols": {}, "imports": []}
    entry = manifest["symbols"].get(symbol)
    if entry is None:
        return begin
    first, last = (datetime.fromisoformat(entry[key]) for key in ("start", "end"))
    step = timedelta(minutes=vendor.minutes)
    requested = [
        datetime.fromisoformat(one["since"]) for one in manifest["imports"] if symbol in one.get("since_of", ())
    ]
    if begin < min([first - step, *requested]) and (job.start is not None or not requested):
        return begin
    return max(begin, first - step, last - job.reread_bars * step)


def _store(
    store: BarStore, vendor: BarVendor, job: Job, symbol: str, pages: list["Page"], since: datetime
) -> SymbolRow:
    bars, n_repeated = _joined_pages(vendor, symbol, pages, job)
    known = store.manifest(job.name)["symbols"] if job.name in store.names() else {}
    if bars.is_empty() and symbol not in known:
        raise DataError(
            f"{vendor.name}: no bars of {symbol} between {since:%Y-%m-%d %H:%M} and {job.until:%Y-%m-%d %H:%M} UTC; "
            "check the symbol and start=, or whether the vendor changed the form of its answer"
        )
    found = None
    if symbol in known:
        found = revise(job.root / job.name, store.read(job.name, [symbol]), bars, vendor.name, job.rule)
    n_added = 0
    if not bars.is_empty():
        meta = {
            "source": vendor.name,
            "bar_minutes": vendor.minutes,
            "request": vendor.identity(),
            "since": since.isoformat(),
            "since_of": [symbol],
            "vendor_symbols": {symbol: [vendor.spell(symbol)]},
        }
        n_added = store.append(job.name, bars, meta, mode="append", conflicts="take").n_added
    remarks = _store_events(store, vendor, job, symbol, pages)
    stored = store.read(job.name, [symbol])
    times = stored["time"]
    return SymbolRow(
        symbol,
        times[0],
        times[-1],
        stored.height,
        n_added,
        tuple(vendor.holes(stored)),
        n_repeated + sum(page.n_repairs for page in pages),
        found,
        remarks=remarks,
    )


def _store_events(store: BarStore, vendor: BarVendor, job: Job, symbol: str, pages: list["Page"]) -> tuple[str, ...]:
    """Adds the dividends and splits of the pages to the dataset; returns remarks with counts."""
    frames = [page.events for page in pages if page.events is not None and page.events.height]
    if not frames:
        return ()
    found = pl.concat(frames).with_columns(symbol=pl.lit(symbol))
    n_new, n_revised = store.add_events(job.name, found, {"source": vendor.name})
    return (f"{n_new} dividends and splits are new, {n_revised} changed",) if n_new + n_revised else ()


def _joined_pages(vendor: BarVendor, symbol: str, pages: list["Page"], job: Job) -> tuple[pl.DataFrame, int]:
    """The pages as one frame of closed bars, and the number of repeated rows left out."""
    frames = [page.bars for page in pages if page.bars.height]
    if not frames:
        return pl.Schema(SCHEMA).to_frame(), 0
    rows = pl.concat(frames).with_columns(symbol=pl.lit(symbol)).select(COLUMNS)
    once = rows.unique(maintain_order=True)
    twice = once.filter(pl.struct("time").is_duplicated()).sort("time")
    if twice.height:
        a, b = twice.row(0, named=True), twice.row(1, named=True)
        wrong = next(n for n in VALUES if a[n] != b[n])
        raise DataError(
            f"{vendor.name}: gives {symbol} {a['time']:%Y-%m-%d %H:%M} twice, {wrong} {a[wrong]:.8g} and "
            f"{b[wrong]:.8g} ({twice['time'].n_unique()} such bars); nothing was stored; run it again later"
        )
    closed = once.filter(pl.col("time") <= job.until).sort("time")
    return closed, rows.height - once.height


def gaps(bars: pl.DataFrame, minutes: float) -> list[tuple[datetime, datetime]]:
    """Spans without bars of one symbol, for markets that never close.

    Each is (close before, close after).
    """
    step = pl.col("time").diff()
    rows = bars.select("time", before=pl.col("time").shift(1), step=step).filter(
        pl.col("step") > timedelta(minutes=minutes)
    )
    return list(zip(rows["before"].to_list(), rows["time"].to_list(), strict=True))


@dataclass(frozen=True)
class Partial:
    """Complete pages of one symbol on disk, until the symbol is stored.

    In `partial/<symbol>/<request>/`. request: digest of the settings that determine the numbers; pages of another
    request are not read.
    """

    root: Path
    symbol: str
    request: Mapping[str, Any]
    schema: pl.Schema = field(default_factory=lambda: pl.Schema(SCHEMA))

    @property
    def folder(self) -> Path:
        """The folder of this request's pages."""
        return self.root / quote(self.symbol, safe="") / digest_json(self.request)[:16]

    def keep(self, page: Page) -> None:
        """Writes a page atomically; its name holds its number, its end and its repairs."""
        number = len(list(self.folder.glob("*.parquet")))
        path = self.folder / f"{number:06d}_{page.until.astimezone(UTC):%Y%m%dT%H%M%S}_{page.n_repairs}.parquet"
        if page.events is not None:  # before its page, so that a kept page always has its events
            with written_atomically(path.with_suffix(EVENTS)) as draft:
                page.events.write_parquet(draft)
        with written_atomically(path) as draft:
            page.bars.write_parquet(draft)

    def read(self) -> list[Page]:
        """The kept pages in order, up to the first damaged one."""
        pages: list[Page] = []
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                _, stamp, n_repairs = path.stem.split("_")
                until = datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
                bars = read_parquet(path, "it is downloaded again").select(self.schema.names())
                own = path.with_suffix(EVENTS)
                events = read_parquet(own, "it is downloaded again") if own.exists() else None
                pages.append(Page(bars.cast(self.schema), until, int(n_repairs), events))  # type: ignore[arg-type]
            except (pl.exceptions.PolarsError, OSError, ValueError) as error:
                log.warning("%s: a kept page is damaged (%s); it is downloaded again", self.symbol, error)
                for rest in [p for p in self.folder.glob("*.parquet") if p.name >= path.name]:
                    rest.unlink()
                break
        return pages

    @contextmanager
    def used_up(self) -> Iterator[None]:
        """Removes the pages after the block stored or refused them.

        Refused pages would fail for ever.
        """
        try:
            yield
        except DataError:
            self.remove()
            raise
        self.remove()

    def remove(self) -> None:
        """Removes every page of the symbol, those of other requests included."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        for folder in (self.root,):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
