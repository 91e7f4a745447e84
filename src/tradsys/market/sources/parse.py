"""From a vendor's file to typed rows: lossless normalisation only, each kind counted and named."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import PRICES, TIME, Finding
from tradsys.market.sources.layouts import END_TIMES, Layout
from tradsys.market.sources.names import guess_symbol, normalised
from tradsys.market.sources.numerals import cleaned, decimal_sign, to_numbers
from tradsys.market.sources.opening import MAX_ROWS, RawFile, table
from tradsys.market.sources.sniff import FormKeys
from tradsys.market.sources.texts import clock_text, read_text
from tradsys.market.sources.times import Moments, TimeKeys, parse_moments

NUMBERS = (*PRICES, "volume", "adj_close")


@dataclass
class Parsed:
    """Typed rows of one file in file order, and what was normalised on the way.

    rows: symbol, vendor (the symbol as the vendor spells it), stamp (UTC), check (a second stamp, UTC or null),
    end (the vendor's own end of the bar, UTC or null), open .. volume, adj_close (null where absent), unreadable (the
    text that could not be read, else null), line (of the file). bare: no stamp shows a time of day. zone: of its
    stamps. seen: the file's form in words. named: whether the symbol comes from a column.
    """

    rows: pl.DataFrame
    notes: list[Finding] = field(default_factory=list)
    bare: bool = False
    zone: str = "UTC"
    seen: str = ""
    named: bool = False


def parse_file(
    raw: RawFile,
    layout: Layout,
    keys: FormKeys | None = None,
    *,
    now: datetime | None = None,
    max_rows: int = MAX_ROWS,
) -> Parsed:
    """Reads one table. Raises DataError where no time, open or close column is found, with the keys to give."""
    notes: list[Finding] = []
    keys = _with_layout(keys or FormKeys(), layout)
    tickers: tuple[str, ...] = ()
    if raw.kind == "text":
        frame, form = read_text(raw, keys, layout.known_names(), notes, max_rows)
        words, tickers, first = str(form), form.tickers, form.skip + 1
    else:
        frame, words, first = _lower(table(raw, max_rows), raw.name), raw.kind, 1
    frame = frame.with_columns(pl.int_range(first, frame.height + first, dtype=pl.UInt32).alias("\0line"))
    if tickers:
        frame, named = _long(frame, tickers), True
    else:
        named = False
    return _typed(frame, raw, layout, keys, notes, now, words, multi=named)


def _with_layout(keys: FormKeys, layout: Layout) -> FormKeys:
    decimal = None if layout.decimal_comma is None else ("comma" if layout.decimal_comma else "point")
    return FormKeys(
        separator=keys.separator or layout.separator,
        decimal=keys.decimal or decimal,
        date_format=keys.date_format,
        zone=keys.zone or layout.time_zone,
        header=keys.header,
        stamp=keys.stamp or layout.stamp,
    )


def _lower(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    names = [n.strip().lstrip("\ufeff").lower() for n in frame.columns]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{name}: header names appear twice: {twice}; rename one")
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def _long(frame: pl.DataFrame, tickers: Sequence[str]) -> pl.DataFrame:
    """One row per date and ticker of a table that has a column per price and ticker; rows without any are gaps."""
    time = frame.columns[0]
    parts = []
    for tick in dict.fromkeys(t for t in tickers if t):
        chosen = [n for n, of in zip(frame.columns, tickers, strict=False) if of == tick]
        there = pl.any_horizontal(pl.col(n).is_not_null() for n in chosen)
        part = frame.filter(there) if len(set(tickers)) > 2 else frame
        parts.append(
            part.select(
                time, "\0line", *(pl.col(n).alias(n.split("|", 1)[0]) for n in chosen), pl.lit(tick).alias("symbol")
            )
        )
    return pl.concat(parts, how="diagonal")


def _typed(
    frame: pl.DataFrame,
    raw: RawFile,
    layout: Layout,
    keys: FormKeys,
    notes: list[Finding],
    now: datetime | None,
    words: str,
    *,
    multi: bool,
) -> Parsed:
    names = [n for n in frame.columns if n != "\0line"]
    found = _match_columns(names, layout)
    missing = [name for name in ("time", "open", "close") if name not in found]
    if missing or frame.is_empty():
        what = f"no column for {missing}" if missing else "no rows"
        raise DataError(
            f"{raw.name}: {what} in layout {layout.name!r}; the file has {names[:20]}, {frame.height} rows "
            f"({words}); give header=[...] with the names of its columns, separator= or another layout="
        )
    times = TimeKeys(keys.date_format, keys.zone, layout.formats, now)
    numbers, texts, decimal = _numbers(frame, found, keys, notes, raw.name)
    moments = _moments(frame, found, times, notes, raw.name)
    vendor = _vendor_names(frame, found, raw, notes)
    read = {*found.values(), *({layout.check} if layout.check else ())}
    check = _second(frame, layout.check, found, times, raw.name, notes)
    ends_at = next((n for n in END_TIMES if n in names and n not in found.values()), None)
    ends = _second(frame, ends_at, found, times, raw.name, [])
    if ends_at is not None:
        read.add(ends_at)
        ends = _rounded_up(ends)
    unread = set(names) - read - ({"date", "time"} if "time" in moments[1] else set())
    if unread:
        notes.append(Finding("columns_not_read", len(unread), tuple(sorted(unread))[:6]))
    rows = pl.DataFrame(
        [
            vendor.alias("vendor"),
            moments[0].stamp.alias("stamp"),
            check.alias("check"),
            ends.alias("end"),
            *numbers,
            frame["\0line"].alias("line"),
        ]
    )
    symbol = normalised(rows["vendor"], notes) if "symbol" in found else rows["vendor"]
    rows = rows.with_columns(
        symbol.alias("symbol"), _unreadable(moments[0].stamp, texts, frame, found).alias("unreadable")
    )
    stamp = moments[0]
    seen = f"{words}, decimal {decimal}, times {stamp.form}, zone {stamp.zone}{' (assumed)' if stamp.assumed else ''}"
    return Parsed(rows, notes, stamp.bare, stamp.zone, seen, "symbol" in found or multi)


def _match_columns(names: Sequence[str], layout: Layout) -> dict[str, str]:
    """Bar column -> header name, for those that are there; a nameless first column may hold the times."""
    found = {}
    for column, wanted in {**layout.columns, "time": layout.time}.items():
        for want in wanted:
            fits = [n for n in names if n == want or (want.endswith("*") and n.startswith(want[:-1]))]
            if fits:
                found[column] = fits[0]
                break
    if "time" not in found and names and names[0] in ("unnamed_0", "", "index", "__index_level_0__"):
        found["time"] = names[0]
    return found


def _numbers(
    frame: pl.DataFrame, found: dict[str, str], keys: FormKeys, notes: list[Finding], name: str
) -> tuple[list[pl.Series], dict[str, pl.Series], str]:
    """One Float64 series per bar column; by column, the texts that could not be read; the decimal sign in words."""
    texts = {
        column: cleaned(frame[found[column]].cast(pl.String))
        for column in NUMBERS
        if column in found and not frame.schema[found[column]].is_numeric()
    }
    sign = decimal_sign(texts.values(), keys.decimal, name)
    values, unread = [], {}
    for column in NUMBERS:
        if column not in found:
            one = pl.Series([None], dtype=pl.Float64).new_from_index(0, frame.height)
        elif column in texts:
            one, unread[column] = to_numbers(texts[column], sign, column, notes)
        else:
            one = frame[found[column]].cast(pl.Float64).fill_nan(None)
        values.append(one.alias(column))
    return values, unread, "comma" if sign == "," else "point"


def _unreadable(stamp: pl.Series, texts: dict[str, pl.Series], frame: pl.DataFrame, found: dict[str, str]) -> pl.Series:
    """What could not be read of each row in words, else null."""
    bad = [c for c in texts if texts[c].null_count() < frame.height]
    if not stamp.null_count() and not bad:
        return pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
    frame = pl.DataFrame({"stamp": stamp, "time_text": frame[found["time"]].cast(pl.String), **texts})
    no_time = pl.when(pl.col("stamp").is_null()).then(pl.format("time={}", pl.col("time_text").fill_null("")))
    words = [pl.format("{}={}", pl.lit(name), pl.col(name)) for name in bad]
    return frame.select(pl.coalesce(no_time, *words)).to_series()


def _moments(
    frame: pl.DataFrame, found: dict[str, str], times: TimeKeys, notes: list[Finding], name: str
) -> tuple[Moments, str]:
    """Stamps of the time column, or of a date column and one of times of day together."""
    if {"date", "time"} <= set(frame.columns) and found["time"] in ("date", "time"):
        both = clock_text(frame["date"], frame["time"])
        if both is not None:
            return parse_moments(both.alias("date and time"), times, notes, name), "date and time"
    return parse_moments(frame[found["time"]], times, notes, name), found["time"] if found["time"] != "time" else ""


def _second(
    frame: pl.DataFrame, column: str | None, found: dict[str, str], times: TimeKeys, name: str, notes: list[Finding]
) -> pl.Series:
    if column is None or column not in frame.columns or found["time"] == column:
        return pl.Series([None], dtype=TIME).new_from_index(0, frame.height)
    if frame[column].cast(pl.String).str.strip_chars().replace("", None).is_null().all():
        return pl.Series([None], dtype=TIME).new_from_index(0, frame.height)
    return parse_moments(frame[column], TimeKeys(None, times.zone, times.formats, _later(times)), notes, name).stamp


def _later(times: TimeKeys) -> datetime:
    return times.latest + timedelta(days=40)  # the end of the last bar may lie ahead


def _rounded_up(ends: pl.Series) -> pl.Series:
    """Ends such as 00:59:59.999 to the full second they stand for."""
    return (ends + pl.Series([999_999], dtype=pl.Duration("us"))).dt.truncate("1s")


def _vendor_names(frame: pl.DataFrame, found: dict[str, str], raw: RawFile, notes: list[Finding]) -> pl.Series:
    if "symbol" in found:
        return frame[found["symbol"]].cast(pl.String).str.strip_chars()
    symbol = guess_symbol(raw.stem)
    notes.append(Finding("symbol_from_file_name", 1, (f"{raw.name} -> {symbol}",)))
    return pl.Series([symbol]).new_from_index(0, frame.height)
