"""Parses a vendor's file into typed rows; lossless normalisations are counted and reported."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import PRICES, TIME, Finding
from tradsys.market.sources.layouts import CLOSED_FLAGS, END_TIMES, INDEXES, LAYOUTS, OFFSETS, Layout
from tradsys.market.sources.names import guess_symbol, normalised
from tradsys.market.sources.numerals import cleaned, decimal_sign, to_numbers
from tradsys.market.sources.opening import MAX_ROWS, RawFile, table
from tradsys.market.sources.sniff import FormKeys
from tradsys.market.sources.stamps.times import Moments, TimeKeys, parse_moments
from tradsys.market.sources.stamps.zones import split_zone, zone_named, zone_wanted
from tradsys.market.sources.tables.shapes import no_prices, row_per_bar, tickers_of, to_money
from tradsys.market.sources.texts import clock_text, read_text

_TWO_COLUMNS = {"date": "date", "dtyyyymmdd": "date", "time": "time", "minute": "time", "time_of_day": "time"}
NUMBERS = (*PRICES, "volume", "adj_close")


@dataclass
class Parsed:
    """Typed rows of one file in file order, and the normalisations made.

    rows: symbol, vendor (the symbol as the vendor spells it), stamp (UTC), check (a second stamp, UTC or null),
    end (the vendor's own end of the bar, UTC or null), open .. volume, adj_close (null where absent), open_now (the
    vendor states that the bar has not closed), unreadable (the text that could not be read, else null), line (of the
    file). bare: no stamp shows a time of day. zone: of its stamps. assumed: the zone is an assumption.
    seen: the file's form in words. named: whether the symbol comes from a column.
    """

    rows: pl.DataFrame
    notes: list[Finding] = field(default_factory=list)
    bare: bool = False
    zone: str = "UTC"
    assumed: bool = False
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
    """Reads one table.

    Raises DataError where no time, open or close column is found, with the keys to give.
    """
    notes: list[Finding] = []
    keys = _with_layout(keys or FormKeys(), layout)
    tickers: tuple[str, ...] = ()
    if raw.kind == "text":
        frame, form = read_text(raw, keys, layout.known_names(), notes, max_rows)
        words, tickers, first, named = str(form), form.tickers, form.skip + 1, form.header_rows > 0
    else:
        frame, words, first, named = table(raw, max_rows), raw.kind, 1, True
        frame, tickers = _wide(frame) or (_lower(frame, raw.name), ())
    frame = frame.with_columns(pl.int_range(first, frame.height + first, dtype=pl.UInt32).alias("\0line"))
    frame = _long(frame, tickers) if tickers else row_per_bar(frame, raw.name)
    return _typed(frame, raw, layout, keys, notes, now, words, multi=bool(tickers), named=named)


def _wide(frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]] | None:
    """A frame with a column per price and symbol under `field|ticker`, and each column's ticker; None for others."""
    wide = tickers_of(["", *frame.columns])
    rest = [n for n in frame.columns if n not in wide]
    if not wide or len(rest) != 1:
        return None
    names = {n: "|".join(of) for n, of in wide.items()} | {rest[0]: rest[0].lower()}
    return frame.select(*rest, *wide).rename(names), ("", *(ticker for _, ticker in wide.values()))


def _with_layout(keys: FormKeys, layout: Layout) -> FormKeys:
    decimal = None if layout.decimal_comma is None else ("comma" if layout.decimal_comma else "point")
    return FormKeys(
        separator=keys.separator or layout.separator,
        decimal=keys.decimal or decimal,
        date_format=keys.date_format,
        zone=keys.zone or layout.time_zone,
        header=keys.header,
        stamp=keys.stamp or layout.stamp,
        price_scale=keys.price_scale,
    )


def _lower(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    names = [n.strip().lstrip("\ufeff").lower() for n in frame.columns]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{name}: header names appear twice: {twice}; rename one")
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def _long(frame: pl.DataFrame, tickers: Sequence[str]) -> pl.DataFrame:
    """One row per date and ticker from a table with a column per price and ticker; rows without any price are gaps."""
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
    named: bool,
) -> Parsed:
    names = [n for n in frame.columns if n != "\0line"]
    found = _match_columns(names, layout)
    found = _index_columns(frame, found)
    missing = [name for name in ("time", "open", "close") if name not in found]
    if missing or frame.is_empty():
        what = f"no column for {missing}" if missing else "no rows"
        raise DataError(
            f"{raw.name}: {what} in layout {layout.name!r}; the file has {names[:20]}, {frame.height} rows "
            f"({words}); {no_prices(missing, names, ', '.join(LAYOUTS), has_close='close' in found)}"
        )
    vendor = _vendor_names(frame, found, raw, notes)
    times = TimeKeys(keys.date_format, keys.zone, layout.formats, now, vendor if "symbol" in found else None)
    numbers, texts, decimal = _numbers(frame, found, keys, notes, raw.name)
    numbers = to_money(numbers, keys.price_scale, names if named else (), notes, raw.name)
    moments = _moments(frame, found, times, notes, raw.name)
    read = {*found.values(), *({layout.check} if layout.check else ())}
    open_now, flag = _not_closed(frame)
    read |= {flag}
    check = _second(frame, layout.check, found, times, raw.name, notes)
    ends_at = next((n for n in END_TIMES if n in names and n not in found.values()), None)
    ends = _second(frame, ends_at, found, times, raw.name, [])
    if ends_at is not None:
        read.add(ends_at)
        ends = _rounded_up(ends)
    unread = set(names) - read - set(moments[1])
    if unread:
        notes.append(Finding("columns_not_read", len(unread), tuple(sorted(unread))[:6]))
    rows = pl.DataFrame(
        [
            vendor.alias("vendor"),
            moments[0].stamp.alias("stamp"),
            check.alias("check"),
            ends.alias("end"),
            *numbers,
            open_now,
            frame["\0line"].alias("line"),
        ]
    )
    symbol = normalised(rows["vendor"], notes) if "symbol" in found else rows["vendor"]
    rows = rows.with_columns(
        symbol.alias("symbol"), _unreadable(moments[0].stamp, texts, frame, found).alias("unreadable")
    )
    stamp = moments[0]
    seen = f"{words}, decimal {decimal}, times {stamp.form}, zone {stamp.zone}{' (assumed)' if stamp.assumed else ''}"
    return Parsed(rows, notes, stamp.bare, stamp.zone, stamp.assumed, seen, "symbol" in found or multi)


def _match_columns(names: Sequence[str], layout: Layout) -> dict[str, str]:
    """Bar column -> header name of the columns found; a nameless first column may hold the times."""
    found = {}
    bases = {n: split_zone(n)[0] for n in names}
    for column, wanted in {**layout.columns, "time": layout.time}.items():
        for want in wanted:
            fits = [n for n in names if n == want or (want.endswith("*") and n.startswith(want[:-1]))]
            fits = fits or [n for n in names if column == "time" and bases[n] == want]
            if fits:
                found[column] = fits[0]
                break
    return found


def _index_columns(frame: pl.DataFrame, found: dict[str, str]) -> dict[str, str]:
    """`found` plus nameless index columns of pandas: times and symbols, in either order."""
    free = [n for n in frame.columns if n in INDEXES and n not in found.values()]
    if "time" not in found and free:
        texts = [n for n in free if frame.schema[n] == pl.String and not _looks_like_times(frame[n])]
        times = [n for n in free if n not in texts]
        found = found | ({"time": times[0]} if times else {"time": free[0]})
        if len(texts) == 1 and times and "symbol" not in found:
            found = found | {"symbol": texts[0]}
    return found


def _looks_like_times(column: pl.Series) -> bool:
    first = column.drop_nulls().head(1)
    return bool(len(first) and first.str.contains(r"^\d{4,}")[0])


def _not_closed(frame: pl.DataFrame) -> tuple[pl.Series, str]:
    """True [n] where the vendor's flag marks an unclosed bar; and the flag's column, "" without one."""
    for name in frame.columns:
        if name in CLOSED_FLAGS:
            word = frame[name].cast(pl.String).str.strip_chars().str.to_lowercase().str.replace(r"\.0+$", "")
            if word.drop_nulls().is_in(("0", "1", "true", "false", "yes", "no")).all():
                return word.is_in(("0", "false", "no")).fill_null(value=False).alias("open_now"), name
    return pl.repeat(value=False, n=frame.height, eager=True).alias("open_now"), ""


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
        if column == "volume" and one.null_count() < len(one) and (one == -1).all():  # Interactive Brokers: no volume
            notes.append(Finding("volume_not_recorded", len(one), ("-1 in every row",)))
            one = one.set(one == -1, None)
        values.append(one.alias(column))
    return values, unread, "comma" if sign == "," else "point"


def _unreadable(stamp: pl.Series, texts: dict[str, pl.Series], frame: pl.DataFrame, found: dict[str, str]) -> pl.Series:
    """The unreadable text of each row, else null."""
    bad = [c for c in texts if texts[c].null_count() < frame.height]
    if not stamp.null_count() and not bad:
        return pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
    frame = pl.DataFrame({"stamp": stamp, "time_text": frame[found["time"]].cast(pl.String), **texts})
    no_time = pl.when(pl.col("stamp").is_null()).then(pl.format("time={}", pl.col("time_text").fill_null("")))
    words = [pl.format("{}={}", pl.lit(name), pl.col(name)) for name in bad]
    return frame.select(pl.coalesce(no_time, *words)).to_series()


def _moments(
    frame: pl.DataFrame, found: dict[str, str], times: TimeKeys, notes: list[Finding], name: str
) -> tuple[Moments, tuple[str, ...]]:
    """Stamps of the time column, or of a date column and one of times of day together; and the columns read.

    A zone in a header is that of its stamps. An ambiguous zone (EST) with naive stamps raises DataError.
    """
    by_base = {_TWO_COLUMNS.get(split_zone(n)[0], ""): n for n in reversed(frame.columns)}
    time, word = found["time"], split_zone(found["time"])[1]
    named = None if word == "" else zone_named(word)
    beside = _zone_beside(frame)
    if named is None and beside is not None and "/" in (found_zone := zone_named(beside[1]) or "") and not word:
        named = None if found_zone.startswith("Etc/") else found_zone
    given = times if times.zone is not None else replace(times, zone=named)
    both = None
    if {"date", "time"} <= set(by_base) and time in by_base.values():
        both = clock_text(frame[by_base["date"]], frame[by_base["time"]])
        word = word or split_zone(by_base["time"])[1]
    column = frame[time] if both is None else both.alias("date and time")
    moments = parse_moments(column, given, notes, name)
    if moments.assumed and (word or beside):
        column_, zone = (time, word) if word else beside or ("", "")
        raise zone_wanted(name, f"the column {column_!r}", zone)
    if both is not None:
        return moments, (by_base["date"], by_base["time"])
    return moments, (time,)


def _zone_beside(frame: pl.DataFrame) -> tuple[str, str] | None:
    """A column of zones, and its first word that is not UTC; None without one."""
    for column in frame.columns:
        if column in OFFSETS:
            words = frame[column].cast(pl.String).str.strip_chars().drop_nulls()
            other = words.filter(~words.str.contains(r"(?i)^(?:utc|gmt|z|[+-]?0+(?::?0+)?(?:\.0+)?)?$"))
            if len(other):
                return column, str(other[0])
    return None


def _second(
    frame: pl.DataFrame, column: str | None, found: dict[str, str], times: TimeKeys, name: str, notes: list[Finding]
) -> pl.Series:
    if column is None or column not in frame.columns or found["time"] == column:
        return pl.Series([None], dtype=TIME).new_from_index(0, frame.height)
    if frame[column].cast(pl.String).str.strip_chars().replace("", None).is_null().all():
        return pl.Series([None], dtype=TIME).new_from_index(0, frame.height)
    later = replace(times, date_format=None, now=_later(times))
    return parse_moments(frame[column], later, notes, name).stamp


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
