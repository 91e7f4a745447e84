"""Vendors' files to bars: read right, or refused with one error that names every defect and its repair."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.runs import digest_file, digest_json
from tradsys.market.bars import COLUMNS, SCHEMA, Finding, check_bars, content_digest
from tradsys.market.instruments import RESAMPLED
from tradsys.market.instruments import resample as resample_bars
from tradsys.market.sources.dating import check_daily, session_closes
from tradsys.market.sources.layouts import Layout, layout_named
from tradsys.market.sources.parse import Parsed, parse_file
from tradsys.market.sources.quality import Context, find_defects, remarks
from tradsys.market.sources.repairs import Repair, apply_repairs, check_names, normalisation

log = logging.getLogger(__name__)
_CLOCK = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True, eq=False)
class ReadResult:
    """Bars and how they came to be: every repair and normalisation made, remarks on what was left as it is.

    meta: JSON values for a manifest (source file's name and SHA-256, layout, bar length, repairs, remarks).
    """

    bars: pl.DataFrame
    repairs: tuple[Repair, ...]
    remarks: tuple[Finding, ...]
    meta: dict[str, Any]


def read(
    path: str | Path,
    layout: str | Layout,
    symbol: str | None = None,
    bar_minutes: int | None = None,
    repair: Sequence[str] = (),
    *,
    session_close: str | None = None,
    calendar: str | None = None,
    resample: str | None = None,
) -> ReadResult:
    """Bars (COLUMNS, checked) from one file, or from a folder of files with one instrument each.

    symbol: names the one series of a file, or picks it from a panel; by default the file's symbol column,
    else its name. bar_minutes: by default the most common step. repair: names from `repairs.REMEDIES`;
    lossless normalisation needs none; both are returned and logged. `time` is the bar's close in UTC: a
    vendor's open stamp plus one bar length, so a daily bar is known at the next midnight UTC; with `calendar`
    ("XNYS") at the close of its date's session, summer time and half days as the exchange has them, and a date
    without a session is a defect; with `session_close` ("21:00", UTC) at that fixed time. resample: "1d" puts
    repaired bars together to UTC days. Raises one DataError that lists every remaining kind of defect with count,
    first examples and accepting repairs.
    """
    check_names(repair)
    chosen, source = layout_named(layout), Path(path)
    rows, notes = _pick_symbol(*_parse_all(source, chosen), symbol, source)
    context = Context(chosen, _length(rows, bar_minutes, source), calendar)
    check_daily(calendar, session_close, context.length, chosen.stamp)
    notes += [*_order_notes(rows), *_close_note(rows, context)]
    rows, done, accepted = apply_repairs(rows, repair, context)
    _refuse(find_defects(rows, context, accepted), source, rows.height)
    if rows.is_empty():
        raise DataError(f"{source.name}: no rows are left after {list(repair)}; ask for fewer repairs")
    bars = check_bars(_to_bars(rows, context, session_close))
    seen, length = remarks(rows, context), context.length
    if resample is not None:
        bars, put_together = resample_bars(bars, resample)
        seen, length = [*seen, *put_together], RESAMPLED[resample]
    made = tuple([normalisation(note) for note in notes] + done)
    for one in (*made, *(normalisation(s) for s in seen)):
        log.info("%s: %d x %s %s %s", source.name, one.count, one.kind, one.note, "; ".join(one.examples))
    meta = _meta(source, context, made, seen)
    return ReadResult(bars, made, tuple(seen), meta | {"bar_minutes": length / timedelta(minutes=1)})


@dataclass(frozen=True)
class FileSource:
    """A file or folder with the options to read it: what the fetch command stores, or a source of bars."""

    path: str
    layout: str
    symbol: str | None = None
    bar_minutes: int | None = None
    repair: Sequence[str] = field(default=())
    session_close: str | None = None
    calendar: str | None = None
    resample: str | None = None

    def read(self) -> ReadResult:
        """As `read` of this path with these options."""
        return read(
            self.path,
            self.layout,
            self.symbol,
            self.bar_minutes,
            tuple(self.repair),
            session_close=self.session_close,
            calendar=self.calendar,
            resample=self.resample,
        )

    def bars(self) -> pl.DataFrame:
        """The bars alone."""
        return self.read().bars

    def describe(self) -> dict[str, Any]:
        """What was read, for run records: kind, file name, content digest, symbols, and `synthetic` False."""
        result = self.read()
        symbols = result.bars["symbol"].unique().sort().to_list()
        return {
            "kind": "file",
            **result.meta,
            "digest": content_digest(result.bars),
            "symbols": symbols,
            "synthetic": False,
        }


def _parse_all(source: Path, layout: Layout) -> tuple[pl.DataFrame, list[Finding]]:
    """Rows of all files, numbered in `id`, and the notes with equal kinds of different files put together."""
    paths = _files(source)
    parsed = [parse_file(path, layout) for path in paths]
    rows = pl.concat([one.rows for one in parsed]).with_row_index("id")
    return rows, _merge_notes(parsed)


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    found = sorted(p for p in source.glob("*") if p.suffix in (".csv", ".parquet")) if source.is_dir() else []
    if not found:
        what = "is a folder without .csv or .parquet files" if source.is_dir() else "does not exist"
        raise DataError(f"sources: {source} {what}; give the path of a vendor's file or folder")
    return found


def _merge_notes(parsed: list[Parsed]) -> list[Finding]:
    merged: dict[tuple[str, str], Finding] = {}
    for note in (note for one in parsed for note in one.notes):
        old = merged.get((note.kind, note.note))
        texts = (*old.examples, *note.examples)[:6] if old else note.examples
        merged[note.kind, note.note] = Finding(note.kind, note.count + (old.count if old else 0), texts, note.note)
    return list(merged.values())


def _pick_symbol(
    rows: pl.DataFrame, notes: list[Finding], symbol: str | None, source: Path
) -> tuple[pl.DataFrame, list[Finding]]:
    names = rows["symbol"].drop_nulls().unique().sort().to_list()
    if rows["symbol"].null_count():
        raise DataError(
            f"{source.name}: {rows['symbol'].null_count()} rows have no symbol; name or drop them in the file"
        )
    if symbol is None or names == [symbol]:
        return rows, notes
    if symbol in names:
        return rows.filter(pl.col("symbol") == symbol), notes
    if len(names) > 1:
        raise DataError(f"{source.name}: no symbol {symbol!r} among {len(names)}: {names[:8]}; name one of these")
    notes = [n for n in notes if n.kind not in ("symbol_from_file_name", "symbol_respelled")]
    note = Finding("symbol_given", rows.height, (f"{names[0]} -> {symbol}",))
    return rows.with_columns(symbol=pl.lit(symbol)), [*notes, note]


def _length(rows: pl.DataFrame, bar_minutes: int | None, source: Path) -> timedelta:
    """The asked bar length, else the most common step between stamps of one symbol, shortest of equals."""
    if bar_minutes is not None:
        if bar_minutes <= 0:
            raise DataError(f"{source.name}: bar_minutes is {bar_minutes}; a bar lasts one minute or more")
        return timedelta(minutes=bar_minutes)
    steps = (
        rows.select("symbol", "stamp")
        .drop_nulls()
        .unique()
        .sort("symbol", "stamp")
        .select(step=pl.col("stamp").diff().over("symbol"))
        .drop_nulls()["step"]
        .value_counts()
        .sort("count", "step", descending=[True, False])
    )
    if steps.is_empty():
        raise DataError(f"{source.name}: {rows.height} rows show no step between bars; say bar_minutes")
    length: timedelta = steps["step"][0]
    return length


def _order_notes(rows: pl.DataFrame) -> list[Finding]:
    step = rows.select(pl.col("stamp").diff().over("symbol")).to_series().drop_nulls()
    backward = int((step < timedelta(0)).sum())
    if not backward:
        return []
    kind = "newest_first" if backward > len(step) // 2 else "rows_out_of_order"
    first, last = rows["stamp"][0], rows["stamp"][-1]
    return [Finding(kind, backward, (f"first row {first:%Y-%m-%d %H:%M}, last row {last:%Y-%m-%d %H:%M}",), "sorted")]


def _close_note(rows: pl.DataFrame, context: Context) -> list[Finding]:
    if context.layout.stamp == "close":
        return []
    if context.calendar is not None:
        return [Finding("dates_moved_to_session_closes", rows.height, (f"calendar {context.calendar}",))]
    return [Finding("open_stamps_moved_to_close", rows.height, (f"later by {context.length}",))]


def _refuse(defects: list[tuple[Finding, Any]], source: Path, n_rows: int) -> None:
    if not defects:
        return
    lines = [f"  {finding} -> repair with {' or '.join(rule.repairs)}" for finding, rule in defects]
    raise DataError(
        f"{source.name}: {len(defects)} kinds of defect in {n_rows} rows:\n" + "\n".join(lines) + "\n"
        "bars are taken as the vendor gives them or not at all; name the repairs to accept, "
        "repair=[...], or mend the file"
    )


def _to_bars(rows: pl.DataFrame, context: Context, session_close: str | None) -> pl.DataFrame:
    time = pl.col("stamp") + (context.length if context.layout.stamp == "open" else timedelta(0))
    if session_close is not None:
        if not context.daily or not _CLOCK.fullmatch(session_close):
            raise DataError(
                f"sources: session_close is {session_close!r} for bars of {context.length}; it is "
                "'HH:MM' in UTC and for daily bars only; leave it out"
            )
        hours, minutes = map(int, session_close.split(":"))
        time = pl.col("stamp").dt.truncate("1d") + timedelta(hours=hours, minutes=minutes)
    dated = rows.with_columns(session_closes(rows, context.calendar) if context.calendar else time.alias("time"))
    bars = dated.select(COLUMNS)
    return bars.cast(pl.Schema(SCHEMA)).sort("symbol", "time").rechunk()


def _meta(source: Path, context: Context, made: Sequence[Repair], seen: Sequence[Finding]) -> dict[str, Any]:
    files = {path.name: digest_file(path) for path in _files(source)}
    return {
        "source": source.name,
        "sha256": files[source.name] if source.is_file() else digest_json(files),
        "layout": context.layout.name,
        "calendar": context.calendar,
        "repairs": [one.to_json() for one in made],
        "remarks": [normalisation(one).to_json() for one in seen],
    }
