"""Reads vendors' files as bars, or refuses them with one error that lists every defect and its repair."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.plurals import counted
from tradsys.core.runs import digest_file, digest_json
from tradsys.market.bars import COLUMNS, SCHEMA, Finding, check_bars, content_digest, in_order
from tradsys.market.daily_quality import remarks
from tradsys.market.events import actions
from tradsys.market.events.action_files import events_of_adjusted
from tradsys.market.instruments import RESAMPLED
from tradsys.market.instruments import resample as resample_bars
from tradsys.market.sources.dating import bar_ends, check_clock, check_daily, check_dated, dates_rule
from tradsys.market.sources.gathering import Gathered, gather
from tradsys.market.sources.layouts import Layout, layout_named
from tradsys.market.sources.lengths import in_turn, measure
from tradsys.market.sources.opening import MAX_ROWS
from tradsys.market.sources.quality import Context, Rule, find_defects
from tradsys.market.sources.repairs import Repair, apply_repairs, check_names, normalisation, offered
from tradsys.market.sources.sniff import FormKeys

log = logging.getLogger(__name__)
_CLOCK = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True, eq=False)
class ReadResult:
    """Bars with their provenance: repairs, normalisations and remarks.

    meta: JSON values for a manifest (source file's name and SHA-256, layout, form, bar length, repairs, remarks,
    vendors' spellings). seen: the form of each file in a sentence. events: dividends and splits implied by adjusted and
    raw closes (`actions.SCHEMA`), empty where prices were adjusted instead.
    """

    bars: pl.DataFrame
    repairs: tuple[Repair, ...]
    remarks: tuple[Finding, ...]
    meta: Json
    seen: tuple[str, ...] = ()
    events: pl.DataFrame = field(default_factory=actions.SCHEMA.to_frame)


def read(
    path: str | Path,
    layout: str | Layout,
    symbol: str | None = None,
    bar_minutes: float | None = None,
    repair: Sequence[str] = (),
    *,
    session_close: str | None = None,
    calendar: str | None = None,
    resample: str | None = None,
    keys: FormKeys | None = None,
    mapping: str | Path | None = None,
    max_rows: int = MAX_ROWS,
    now: datetime | None = None,
) -> ReadResult:
    """Bars (COLUMNS, checked) from one file, archive or folder.

    symbol: names the one series of a file, picks it from a panel, or joins the files of a folder that are parts of
    it; by default the file's symbol column, else its name. mapping: a CSV of names and symbols that does so for many.
    bar_minutes: by default measured per symbol and stretch of time. keys: the file's form where it cannot be detected.
    repair: names from `repairs.REMEDIES`; lossless normalisation needs none; both are returned and logged.

    `time` is the bar's end in UTC: a vendor's open stamp plus one bar length in the vendor's zone; with `calendar`
    ("XNYS") a date becomes the close of its session, with the exchange's summer time and half days, and a date
    without a session is a defect; with `session_close` ("21:00", UTC) that fixed time. A time of day in the file is
    never overridden by a calendar. resample: "1d" builds UTC days, or sessions of `calendar`, from the repaired
    bars. now: bars that end later have not closed (default: this moment). max_rows: of one file.

    Raises one DataError that lists every remaining kind of defect with count, first examples and the repairs after
    which all rules pass.
    """
    check_names(repair)
    chosen, moment = layout_named(layout), utc_now() if now is None else now
    source = Path(path)
    found = gather(source, chosen, keys or FormKeys(), symbol, mapping, moment, max_rows)
    context = _read_context(found, chosen, keys, bar_minutes, calendar, moment, source.name)
    check_dated(found, context.length.every, source.name)
    if found.assumed:
        check_clock(found.rows, context.length.every, source.name)
    check_daily(calendar, session_close, context.length.every, context.stamp, resample)
    if "adjust_for_dividends" in repair and found.rows["adj_close"].null_count() == found.rows.height:
        raise DataError(
            f"{source.name}: repair adjust_for_dividends needs adjusted closes, and the file has none; leave it out, "
            "or fetch the dividends with actions=FILE"
        )
    rows, done, accepted = apply_repairs(found.rows, repair, context)
    _refuse(find_defects(rows, context, accepted), found.rows, repair, context, source.name, found.notes)
    if rows.is_empty():
        raise DataError(f"{source.name}: no rows are left after {list(repair)}; request fewer repairs")
    # before the bars, so that one table less is in memory
    seen, minutes = remarks(rows, context), context.length.minutes
    bars = check_bars(_to_bars(rows, context, session_close))
    adjusted = "adjust_for_dividends" in repair or resample is not None
    events = actions.SCHEMA.to_frame() if adjusted else events_of_adjusted(in_turn(rows), bars, moment)
    if resample is not None:
        bars, put_together = resample_bars(bars, resample, calendar)
        seen, minutes = [*seen, *put_together], RESAMPLED[resample] / timedelta(minutes=1)
    notes = [*found.notes, *_order_notes(found.rows), *_close_note(rows, context)]
    made = tuple([normalisation(note) for note in notes] + done)
    for one in (*made, *(normalisation(s) for s in seen)):
        log.info("%s: %d x %s %s %s", source.name, one.count, one.kind, one.note, "; ".join(one.examples))
    meta = _meta(source, found, context, made, seen) | {"bar_minutes": minutes}
    return ReadResult(bars, made, tuple(seen), meta, found.seen, events)


@dataclass(frozen=True)
class FileSource:
    """A file or folder with the options of `read`; the source of the fetch command."""

    path: str | None
    layout: str
    symbol: str | None = None
    bar_minutes: float | None = None
    repair: str | Sequence[str] = field(default=())
    session_close: str | None = None
    calendar: str | None = None
    resample: str | None = None
    separator: str | None = None
    decimal: str | None = None
    date_format: str | None = None
    zone: str | None = None
    header: int | Sequence[str] | None = None
    stamp: str | None = None
    price_scale: float | None = None
    mapping: str | None = None
    max_rows: int = MAX_ROWS

    def __post_init__(self) -> None:
        if isinstance(self.repair, str):
            object.__setattr__(self, "repair", (self.repair,))
        if isinstance(self.max_rows, bool) or not isinstance(self.max_rows, int) or self.max_rows < 1:
            raise DataError(f"sources: max_rows={self.max_rows!r} is no number of rows from 1; correct max_rows=")
        for name in ("symbol", "layout"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str | Layout):
                raise DataError(f"sources: {name}={value!r} is no text; put it in quotes: {name}='\"...\"'")

    def read(self) -> ReadResult:
        """`read` of this path with these options."""
        if self.path is None:
            raise DataError("sources: no file; give path=FILE")
        keys = FormKeys(
            self.separator, self.decimal, self.date_format, self.zone, self.header, self.stamp, self.price_scale
        )
        return read(
            self.path,
            self.layout,
            self.symbol,
            self.bar_minutes,
            tuple(self.repair),
            session_close=self.session_close,
            calendar=self.calendar,
            resample=self.resample,
            keys=keys,
            mapping=self.mapping,
            max_rows=self.max_rows,
        )

    def bars(self) -> pl.DataFrame:
        """The bars alone."""
        return self.read().bars

    def describe(self) -> Json:
        """For run records: kind, file, digest, symbols, `synthetic` False."""
        result = self.read()
        symbols = result.bars["symbol"].unique().sort().to_list()
        return {
            "kind": "file",
            **result.meta,
            "digest": content_digest(result.bars),
            "symbols": symbols,
            "synthetic": False,
        }


def _read_context(
    found: Gathered,
    layout: Layout,
    keys: FormKeys | None,
    bar_minutes: float | None,
    calendar: str | None,
    now: datetime,
    name: str,
) -> Context:
    stamp = (keys.stamp if keys else None) or layout.stamp
    return Context(
        layout,
        measure(found.rows, bar_minutes, found.hints, name),
        calendar,
        stamp=stamp,
        zone=found.zone,
        bare=found.bare,
        original=found.rows,
        files=found.files,
        now=now,
    )


def _order_notes(rows: pl.DataFrame) -> list[Finding]:
    if in_turn(rows) is rows:
        return []
    step = rows.select(
        pl.when(pl.col("symbol") == pl.col("symbol").shift(1)).then(pl.col("stamp").diff())
    ).to_series().drop_nulls()  # fmt: skip
    backward = int((step < timedelta(0)).sum())
    if not backward:
        return []
    kind = "newest_first" if backward > len(step) // 2 else "rows_out_of_order"
    first, last = rows["stamp"].drop_nulls()[0], rows["stamp"].drop_nulls()[-1]
    return [Finding(kind, backward, (f"first row {first:%Y-%m-%d %H:%M}, last row {last:%Y-%m-%d %H:%M}",), "sorted")]


def _close_note(rows: pl.DataFrame, context: Context) -> list[Finding]:
    if context.stamp == "close":
        return []
    if context.calendar is not None and context.daily and dates_rule(rows, context.calendar):
        return [Finding("dates_moved_to_session_closes", rows.height, (f"calendar {context.calendar}",))]
    return [Finding("open_stamps_moved_to_close", rows.height, (f"later by {context.length}",))]


def _refuse(
    defects: list[tuple[Finding, Rule]],
    rows: pl.DataFrame,
    given: Sequence[str],
    context: Context,
    name: str,
    notes: Sequence[Finding],
) -> None:
    if not defects:
        return
    offers = offered(defects, rows, given, context)
    lines = [
        f"  {finding} -> "
        + (f"repair with {' or '.join(offers[rule.kind])}" if offers[rule.kind] else "no repair is right for this")
        for finding, rule in defects
    ]
    open_kinds = [rule.kind for _, rule in defects if not offers[rule.kind]]
    step = (
        "see date_format=, zone=, bar_minutes=, calendar= and stamp=, or correct the file"
        if open_kinds
        else "name the repairs to accept, repair=[...], or correct the file"
    )
    if missing := _no_volume_column(defects, rows, notes):
        step = f"{missing}; {step}"
    raise DataError(
        f"{name}: {counted(len(defects), 'kind')} of defect in {rows.height} rows:\n" + "\n".join(lines) + ";\n"
        f"a file with defects is refused unless repairs are named; {step}"
    )


def _no_volume_column(defects: Sequence[tuple[Finding, Rule]], rows: pl.DataFrame, notes: Sequence[Finding]) -> str:
    """Advice where no bar has a volume although unread columns exist; "" otherwise.

    Orders do not fill in a bar without volume, so with zero volume in every bar nothing would ever fill.
    """
    unread = [text for note in notes if note.kind == "columns_not_read" for text in note.examples]
    if not unread or rows["volume"].null_count() < rows.height or all(rule.kind != "no_volume" for _, rule in defects):
        return ""
    return (
        f"no column is recognised as volume, and {', '.join(unread)} are not read: name the volume with header=[...] "
        "(with zero for all of them nothing is ever filled)"
    )


def _to_bars(rows: pl.DataFrame, context: Context, session_close: str | None) -> pl.DataFrame:
    ordered = in_turn(rows)
    if session_close is not None:
        if not context.daily or not _CLOCK.fullmatch(session_close):
            raise DataError(
                f"sources: session_close is {session_close!r} for bars of {context.length}; it is "
                "'HH:MM' in UTC and for daily bars only; leave it out"
            )
        hours, minutes = map(int, session_close.split(":"))
        time = ordered["stamp"].dt.truncate("1d") + timedelta(hours=hours, minutes=minutes)
    else:
        time = bar_ends(ordered, context)
    bars = ordered.select("symbol", time.alias("time"), *COLUMNS[2:])
    bars = bars.cast(pl.Schema(SCHEMA))
    return (bars if in_order(bars) else bars.sort("symbol", "time")).rechunk()


def _meta(source: Path, found: Gathered, context: Context, made: Sequence[Repair], seen: Sequence[Finding]) -> Json:
    files = {path.name: digest_file(path) for path in found.paths}
    return {
        "source": source.name,
        "sha256": files[source.name] if source.is_file() else digest_json(files),
        "layout": context.layout.name,
        "form": list(found.seen),
        "calendar": context.calendar,
        "vendor_symbols": _spellings(found.rows),
        "repairs": [one.to_json() for one in made],
        "remarks": [normalisation(one).to_json() for one in seen],
    }


def _spellings(rows: pl.DataFrame) -> Mapping[str, list[str]]:
    """Symbol -> the vendor's spellings, where they differ from the symbol."""
    pairs = (
        rows.lazy()
        .select("symbol", "vendor")
        .filter(pl.col("symbol") != pl.col("vendor"))
        .unique()
        .collect()
        .sort("symbol", "vendor")
    )
    return {str(s): list(v) for s, v in pairs.group_by("symbol", maintain_order=True).agg("vendor").iter_rows()}
