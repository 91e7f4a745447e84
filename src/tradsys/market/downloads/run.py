"""Downloads of the fetch command: wanted symbols, progress and the closing table."""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.masking import masked_text
from tradsys.core.progress.bars import bar
from tradsys.core.progress.stages import is_quiet, is_watched
from tradsys.core.received import one_line, read_csv
from tradsys.market.downloads.progress import InterruptedDownload, Job, SymbolRow, download
from tradsys.market.downloads.revisions import RevisionRule
from tradsys.market.symbol_files import check_symbol

SOME_FAILED = 3  # exit code: at least one symbol failed, the others are stored
COUNTED_KINDS = ("", "coin")  # rows of a universe file that are downloaded; stablecoins and wrapped tokens are not
N_HOLES = 3


def run_download(source: Any, keys: Mapping[str, Any], console: Console) -> int:
    """Downloads as the fetch command's keys state, prints the table.

    Returns the exit code.
    """
    symbols, notes = wanted_symbols(keys.get("symbols"), keys.get("universe"), needed=not hasattr(source, "collect"))
    for note in notes:
        console.print(note)
    if hasattr(source, "http"):
        source.http.secret()  # so that a missing key is reported once, and not for every symbol
    job = Job(
        Path(keys["paths"]["data"]),
        str(keys["name"]),
        symbols,
        start=_moment_of("start", keys["start"]),
        end=_moment_of("end", keys["end"]),
        reread_bars=int(keys["reread_bars"]),
        rule=RevisionRule(keys["revisions"], float(keys["max_revised_share"])),
    )
    try:
        with _alone(job):
            rows = _with_progress(source, job)
    except InterruptedDownload as stopped:
        print_rows(console, stopped.rows)
        console.print("interrupted: complete pages are kept; the same command resumes there")
        raise
    print_rows(console, rows)
    return SOME_FAILED if any(row.error for row in rows) else 0


def wanted_symbols(given: Any, universe: str | None, *, needed: bool = True) -> tuple[tuple[str, ...], list[str]]:
    """Symbols as they will be stored, each once, and remarks on symbols left out.

    given: a list, or one symbol. universe: a CSV with a column `symbol`, and perhaps `kind` (coin, stablecoin,
    wrapped): only coins are downloaded. Raises DataError where there is none, or the file has no such column.
    """
    if given is not None and universe is not None:
        raise DataError("fetch: symbols= and universe= are both given; give one of them")
    notes: list[str] = []
    if universe is not None:
        names = _universe(Path(universe), notes)
    else:
        names = [given] if isinstance(given, str) else list(given or [])
        if wrong := [n for n in names if not isinstance(n, str)]:
            raise DataError(f"fetch: symbols {wrong} are no texts; put them in quotes, such as symbols=['NAN']")
    names = [name.strip().replace("/", "") for name in names]
    twice = {name: n for name, n in Counter(names).items() if n > 1}
    if twice:
        shown = ", ".join(f"{name} ({n} times)" for name, n in list(twice.items())[:5])
        notes.append(f"named more than once, downloaded once: {shown}")
    if not names and needed:
        raise DataError("fetch: no symbols to download; give symbols=[BTC-USD,ETH-USD] or universe=coins.csv")
    for name in names if universe is None else ():  # a bad symbol of a universe file becomes a failed row
        check_symbol(name)
    return tuple(dict.fromkeys(names)), notes


def _universe(path: Path, notes: list[str]) -> list[str]:
    fix = "give a CSV with a column symbol"
    if not path.is_file():
        raise DataError(f"fetch: universe={path.name} cannot be read: there is no such file; {fix}")
    header, *lines = read_csv(path, fix, DataError) or [[]]
    rows = [dict(zip(header, line, strict=False)) for line in lines]
    if not rows or "symbol" not in header:
        raise DataError(
            f"fetch: universe={path.name} has {len(rows)} rows of the columns {one_line(header)}; it needs a column "
            "`symbol` with one symbol a row, such as BTC-USD; correct the file"
        )
    empty = [n for n, row in enumerate(rows, 2) if not row.get("symbol")]
    if empty:
        raise DataError(f"fetch: universe={path.name} has no symbol in line {empty[0]}; correct the file")
    out = [row["symbol"] for row in rows if (row.get("kind") or "") not in COUNTED_KINDS]
    if out:
        notes.append(f"{path.name}: {len(out)} stablecoins or wrapped tokens left out: {', '.join(out[:6])}")
    return [row["symbol"] for row in rows if (row.get("kind") or "") in COUNTED_KINDS]


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """Holds the lock of downloads into this dataset; DataError where another download holds it."""
    job.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(job.root / f".fetch_{job.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DataError(
            f"fetch: another download into name={job.name} is running; wait until it ends, or give another name="
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass
class Lines:
    """Progress lines without a terminal: the first page, then every `every` s."""

    n_symbols: int
    every: float = 10.0
    shown: float = -math.inf

    def show(self, symbol: str, number: int, n_rows: int) -> None:
        """Prints the progress if a line is due."""
        if is_watched() or is_quiet() or time.monotonic() - self.shown < self.every:
            return
        self.shown = time.monotonic()
        place = f"{number + 1} of {max(self.n_symbols, number + 1)}"
        sys.stderr.write(f"{utc_now():%H:%M:%S} {symbol} ({place}): {n_rows:,} rows\n")
        sys.stderr.flush()


def _with_progress(source: Any, job: Job) -> list[SymbolRow]:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
    with bar(*columns, transient=True) as progress:
        task = progress.add_task("downloading", total=len(job.symbols) or None)

        lines = Lines(len(job.symbols))

        def report(symbol: str, number: int, n_rows: int) -> None:
            progress.update(task, completed=number, description=f"{symbol}: {n_rows:,} rows")
            lines.show(symbol, number, n_rows)

        if hasattr(source, "collect"):
            rows: list[SymbolRow] = source.collect(job, report)
            return rows
        return download(source, job, report)


def print_rows(console: Console, rows: Sequence[SymbolRow]) -> None:
    """Prints the closing table, then holes, revisions and the reasons of failures."""
    good = [row for row in rows if row.error is None]
    if good:
        table = Table(box=None, pad_edge=False)
        table.add_column("symbol", overflow="fold")
        for name in ("first", "last", "bars", "new", "holes", "repairs", "revisions"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in good:
            n_revised = row.revisions.n if row.revisions else 0
            counts = (row.n_bars, row.n_added, len(row.holes), row.n_repairs, n_revised)
            table.add_row(row.symbol, _day_text(row.first), _day_text(row.last), *(f"{n:,}" for n in counts))
        console.print(table)
    for row in good:
        for line in _remarks(row):
            console.print(line)
    for row in rows:
        if row.error is not None:
            state = "not tried" if row.not_tried else "failed"
            console.print(masked_text(f"{state} {one_line(row.symbol)}: {' '.join(row.error.split())}"))


def _remarks(row: SymbolRow) -> list[str]:
    lines = [
        f"{row.symbol}: no bars between {before:%Y-%m-%d %H:%M} and {after:%Y-%m-%d %H:%M}"
        for before, after in row.holes[:N_HOLES]
    ]
    if len(row.holes) > N_HOLES:
        lines.append(f"{row.symbol}: and {len(row.holes) - N_HOLES} holes more")
    if row.revisions and row.revisions.n:
        found = row.revisions
        lines.append(
            f"{row.symbol}: of {found.n_reread:,} re-read bars {found.n_changed} changed, {found.n_vanished} vanished, "
            f"{found.n_appeared} appeared; recorded in the revision ledger"
        )
    return [*lines, *(f"{row.symbol}: {remark}" for remark in row.remarks)]


def _day_text(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d}"


def _moment_of(key: str, value: Any) -> datetime | None:
    """The moment of a key, in UTC where no zone is given; a date is its midnight."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise DataError(f"fetch: {key}={value!r} is no date; write it as 2021-06-30; set {key}=") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
