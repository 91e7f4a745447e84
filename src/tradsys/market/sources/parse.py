"""From a vendor's text to typed rows: lossless normalisation only, each kind counted and told."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import PRICES, TIME, Finding
from tradsys.market.parquet import read_parquet
from tradsys.market.sources.layouts import Layout

NUMBERS = (*PRICES, "volume", "adj_close")
ABSENT = ("", "-", "null", "none", "nan", "n/a", "na")
_EPOCH_UNITS = ((1e11, "seconds", 1e6), (1e14, "milliseconds", 1e3), (1e17, "microseconds", 1.0))
_OFFSET, _ISO_OFFSET = r"(?:[+-]\d\d:?\d\d|Z)$", "%Y-%m-%d %H:%M:%S%.f%z"
_FILE_SUFFIX = re.compile(r"_(?:\d+(?:m|min|h|d|w)|minute|hourly|daily)$", re.IGNORECASE)


@dataclass
class Parsed:
    """Typed rows of one file in file order, and what was normalised on the way.

    rows: symbol, stamp (UTC), check (UTC or null), open .. volume, adj_close (null where absent),
    unreadable (the text that could not be read, else null), place (`file:line`).
    """

    rows: pl.DataFrame
    notes: list[Finding] = field(default_factory=list)


def parse_file(path: Path, layout: Layout) -> Parsed:
    """Reads a CSV or parquet file. Raises DataError where the layout finds no time, open or close column."""
    notes: list[Finding] = []
    table = _open(path, layout, notes)
    found = _match_columns(table.columns, layout)
    missing = [name for name in ("time", "open", "close") if name not in found]
    if missing or table.is_empty():
        what = f"no column for {missing}" if missing else "no rows"
        raise DataError(
            f"{path.name}: {what} in layout {layout.name!r}; the file has {table.columns}, "
            f"{table.height} rows; choose another layout"
        )
    # a parquet file has no lines: its rows are numbered from one, a CSV's data begins on line two
    first_line = 1 if path.suffix == ".parquet" else 2
    place = pl.format("{}:{}", pl.lit(path.name), pl.int_range(first_line, table.height + first_line))
    columns = [
        *_numbers(table, found, layout, notes),
        _symbols(table, found, path, notes).alias("symbol"),
        _times(table[found["time"]], layout, notes).alias("stamp"),
        _check_times(table, found, layout, notes).alias("check"),
        table.select(place.alias("place")).to_series(),
    ]
    unread = set(table.columns) - set(found.values()) - ({layout.check} if layout.check else set())
    if unread:
        notes.append(Finding("columns_not_read", len(unread), tuple(sorted(unread))[:6]))
    return Parsed(_flag_unreadable(pl.DataFrame(columns)), notes)


def _open(path: Path, layout: Layout, notes: list[Finding]) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            table = read_parquet(path, "see that it is whole")
        else:
            with path.open("rb") as file:
                head = file.readline()
            if head.startswith(b"\xef\xbb\xbf"):
                notes.append(Finding("byte_order_mark", 1, (f"{path.name}: UTF-8 mark before the header",)))
            banner = head.lstrip(b"\xef\xbb\xbf").startswith(b"http")
            if banner:
                notes.append(Finding("vendor_banner", 1, (head.decode(errors="replace").strip(),)))
            table = pl.read_csv(path, infer_schema=False, separator=layout.separator, skip_rows=int(banner))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path.name}: cannot be read as a table: {error}; see that it is whole") from error
    names = [name.strip().lstrip("\ufeff").lower() for name in table.columns]
    if len(set(names)) != len(names):
        raise DataError(f"{path.name}: header names appear twice: {names}; rename one")
    return table.rename(dict(zip(table.columns, names, strict=True)))


def _match_columns(names: list[str], layout: Layout) -> dict[str, str]:
    """Bar column -> header name, for those that are there."""
    found = {}
    for column, wanted in {**layout.columns, "time": layout.time}.items():
        for want in wanted:
            fits = [n for n in names if n == want or (want.endswith("*") and n.startswith(want[:-1]))]
            if fits:
                found[column] = fits[0]
                break
    return found


def _numbers(table: pl.DataFrame, found: dict[str, str], layout: Layout, notes: list[Finding]) -> list[pl.Series]:
    """One Float64 column per bar column, and `<name>_text` with what could not be read."""
    columns = []
    for name in NUMBERS:
        if name not in found:
            values = pl.Series([None] * table.height, dtype=pl.Float64)
            text = pl.Series([None] * table.height, dtype=pl.String)
        elif table.schema[found[name]].is_numeric():
            values = table[found[name]].cast(pl.Float64).fill_nan(None)
            text = pl.Series([None] * table.height, dtype=pl.String)
        else:
            values, text = _number_text(table[found[name]].cast(pl.String), name, layout, notes)
        columns += [values.alias(name), text.alias(f"{name}_text")]
    return columns


def _number_text(raw: pl.Series, name: str, layout: Layout, notes: list[Finding]) -> tuple[pl.Series, pl.Series]:
    """Numbers with thousands separators, percent signs (kept in percent points) and K, M, B behind them."""
    text = raw.str.strip_chars(" \t\"'$")
    text = text.set(text.str.to_lowercase().is_in(ABSENT), None)
    thousands, decimal = (".", ",") if layout.decimal_comma else (",", ".")
    for kind, pattern in (
        ("thousands_separators", re.escape(thousands)),
        ("percent_signs", "%$"),
        ("magnitude_suffixes", "[KMBkmb]$"),
    ):
        hits = text.filter(text.str.contains(pattern).fill_null(value=False))
        if len(hits):
            notes.append(Finding(kind, len(hits), tuple(hits.head(2).to_list()), f"in {name}"))
    bare = text.str.replace_all(thousands, "", literal=True).str.replace(decimal, ".", literal=True)
    scale = bare.str.slice(-1).str.to_lowercase().replace_strict({"k": 1e3, "m": 1e6, "b": 1e9}, default=1.0)
    values = bare.str.replace("[%KMBkmb]$", "").cast(pl.Float64, strict=False) * scale
    values = values.set(~values.is_finite().fill_null(value=False), None)
    return values, text.set(values.is_not_null(), None)


def _symbols(table: pl.DataFrame, found: dict[str, str], path: Path, notes: list[Finding]) -> pl.Series:
    """The symbol column without slashes (BTC/USDT is BTCUSDT), else the file's name less its bar length."""
    if "symbol" not in found:
        stem = _FILE_SUFFIX.sub("", path.name.removesuffix(path.suffix))
        notes.append(Finding("symbol_from_file_name", 1, (f"{path.name} -> {stem}",)))
        return pl.Series([stem] * table.height, dtype=pl.String)
    raw = table[found["symbol"]].cast(pl.String).str.strip_chars()
    names = raw.str.replace_all("/", "", literal=True)
    if (names != raw).any():
        notes.append(Finding("symbol_respelled", int((names != raw).sum()), (f"{raw[0]} -> {names[0]}",)))
    return names


def _check_times(table: pl.DataFrame, found: dict[str, str], layout: Layout, notes: list[Finding]) -> pl.Series:
    if layout.check in table.columns and found["time"] != layout.check:
        return _times(table[layout.check], layout, notes)
    return pl.Series([None] * table.height, dtype=TIME)


def _times(raw: pl.Series, layout: Layout, notes: list[Finding]) -> pl.Series:
    """Stamps as UTC microseconds, null where unreadable."""
    if raw.dtype == pl.Date or isinstance(raw.dtype, pl.Datetime):
        return _to_utc(raw.cast(pl.Datetime("us", getattr(raw.dtype, "time_zone", None))), layout)
    number = raw.str.strip_chars().cast(pl.Float64, strict=False) if raw.dtype == pl.String else raw.cast(pl.Float64)
    if number.is_not_null().sum() > len(raw) // 2 and (number.drop_nulls() > 1e8).all():
        return _epochs(number, raw.name, notes)
    return _to_utc(_text_times(raw.cast(pl.String), layout, notes), layout)


def _epochs(number: pl.Series, name: str, notes: list[Finding]) -> pl.Series:
    """Epochs whose unit follows from their size; one column may mix units."""
    frame = pl.DataFrame({"n": number})
    scale, unit = pl.lit(1e-3), pl.lit("nanoseconds")
    for limit, label, factor in reversed(_EPOCH_UNITS):
        scale = pl.when(pl.col("n") < limit).then(factor).otherwise(scale)
        unit = pl.when(pl.col("n") < limit).then(pl.lit(label)).otherwise(unit)
    done = frame.select(stamp=(pl.col("n") * scale).round().cast(pl.Int64).cast(TIME), unit=unit)
    counts = done.filter(pl.col("stamp").is_not_null()).group_by("unit").len().sort("len")
    if counts.height > 1:
        texts = tuple(f"{n} rows in {label}" for label, n in counts.iter_rows())
        notes.append(Finding("mixed_epoch_units", int(counts["len"][0]), texts, f"in {name}"))
    return done["stamp"]


def _text_times(raw: pl.Series, layout: Layout, notes: list[Finding]) -> pl.Series:
    text = raw.str.strip_chars(" \t\"'")
    if text.drop_nulls().str.contains(_OFFSET).all() and text.count():
        return (
            text.str.replace("T", " ")
            .str.replace("Z$", "+00:00")
            .str.to_datetime(_ISO_OFFSET, strict=False, time_unit="us")
        )
    stamp = pl.Series([None] * len(raw), dtype=pl.Datetime("us"))
    used = []
    for fmt in layout.formats:
        # an hour without minutes is no time of day to the parser: minutes are put behind it
        bare_hour = ("%I" in fmt or "%H" in fmt) and "%M" not in fmt
        source, wanted = (text + ":00", fmt + ":%M") if bare_hour else (text, fmt)
        tried = source.str.to_datetime(wanted, strict=False, time_unit="us")
        n_new = int((stamp.is_null() & tried.is_not_null()).sum())
        if n_new:
            used.append((n_new, fmt, text.filter(stamp.is_null() & tried.is_not_null())[0]))
            stamp = stamp.fill_null(tried)
    if len(used) > 1:
        texts = tuple(f"{n} rows like {example!r}" for n, _, example in used)
        notes.append(Finding("mixed_time_formats", min(n for n, *_ in used), texts, f"in {raw.name}"))
    return stamp


def _to_utc(stamp: pl.Series, layout: Layout) -> pl.Series:
    """UTC; a naive hour that a clock change skips or repeats has no one meaning and becomes null."""
    if getattr(stamp.dtype, "time_zone", None) is None:
        stamp = stamp.dt.replace_time_zone(layout.time_zone, ambiguous="null", non_existent="null")
    return stamp.dt.convert_time_zone("UTC").cast(TIME)


def _flag_unreadable(rows: pl.DataFrame) -> pl.DataFrame:
    texts = [f"{name}_text" for name in NUMBERS]
    words = [pl.format("{}={}", pl.lit(name), pl.col(f"{name}_text")) for name in NUMBERS]
    no_time = pl.when(pl.col("stamp").is_null()).then(pl.lit("time"))
    return rows.with_columns(unreadable=pl.coalesce(no_time, *words)).drop(texts)
