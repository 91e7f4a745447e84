"""Reads text files as tables of text, in the detected or given form."""

from collections.abc import Collection
from pathlib import Path

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import Finding
from tradsys.market.sources.opening import MAX_ROWS, RawFile, content, head
from tradsys.market.sources.sniff import WORDS, FileForm, FormKeys, sniff

LARGE = 32 << 20  # from this size in bytes on, columns of plain numbers are parsed directly


def read_text(
    raw: RawFile, keys: FormKeys, known: Collection[str], notes: list[Finding], max_rows: int = MAX_ROWS
) -> tuple[pl.DataFrame, FileForm]:
    """The rows of a text as columns of text, and their form. Empty lines are left out.

    Raises DataError where lines have more cells than columns, with the first of them.
    """
    start = head(raw)
    form = sniff(start, keys, known, raw.name)
    if start.startswith(b"\xef\xbb\xbf"):
        notes.append(Finding("byte_order_mark", 1, (f"{raw.name}: UTF-8 mark before the header",)))
    if form.skip > form.header_rows:
        first = start.decode(errors="replace").lstrip("\ufeff").splitlines()[0].strip()
        notes.append(Finding("vendor_banner", form.skip - form.header_rows, (first[:80],)))
    if form.header_rows == 0:
        notes.append(Finding("no_header_row", 1, (f"{raw.name}: columns taken for {', '.join(form.names[:8])}",)))
    data = content(raw, max_rows)
    if form.encoding != "utf-8":
        data = _bytes(data).decode(form.encoding, errors="replace").encode()
    table = _lines(data, form, raw.name, max_rows)
    if not _ends_with_newline(data):
        notes.append(Finding("no_final_line_break", 1, (f"{raw.name}: its last line may be cut",)))
    return _without_empty(table), form


def _without_empty(table: pl.DataFrame) -> pl.DataFrame:
    """The rows that are not empty; only those with an empty first cell are checked."""
    if not table.height:
        return table
    first = table.to_series(0)
    blank = first.is_null()
    if first.dtype == pl.String:  # it begins with a blank, or with a letter that may be one
        blank = blank | ((first < "!") | (first > "\x7f")).fill_null(value=False)
    if not blank.any():
        return table
    empty = pl.all_horizontal(pl.all().is_null() | (pl.all().cast(pl.String).str.strip_chars() == ""))
    at = blank.arg_true()
    gone = at.filter(table[at].select(empty).to_series())
    return table if gone.is_empty() else table.filter(~pl.int_range(pl.len()).is_in(gone.implode()))


def _bytes(data: bytes | Path) -> bytes:
    return data.read_bytes() if isinstance(data, Path) else data


def _ends_with_newline(data: bytes | Path) -> bool:
    if isinstance(data, bytes):
        return data[-1:] in (b"\n", b"\r", b"")
    with data.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) in (b"\n", b"\r")


def _lines(data: bytes | Path, form: FileForm, name: str, max_rows: int) -> pl.DataFrame:
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    if size >= LARGE:
        try:
            return _scan(data, form, _numeric_columns(data, form), max_rows)
        except pl.exceptions.PolarsError:  # some value is no plain number: read everything as text
            pass
    try:
        return _scan(data, form, frozenset(), max_rows)
    except pl.exceptions.PolarsError as error:
        raise _ragged(_bytes(data), form, name) from error


def _scan(data: bytes | Path, form: FileForm, numeric: frozenset[str], max_rows: int) -> pl.DataFrame:
    schema: dict[str, pl.DataType] = {n: pl.Float64() if n in numeric else pl.String() for n in form.names}
    table = pl.read_csv(
        data, has_header=False, schema=schema, separator=form.separator, skip_lines=form.skip, n_rows=max_rows + 1
    )
    if table.height > max_rows:
        raise DataError(
            f"sources: a file has more than max_rows={max_rows:,} rows; check that it is the right file, split it, or "
            "give a larger max_rows="
        )
    return table


def _numeric_columns(data: bytes | Path, form: FileForm) -> frozenset[str]:
    """Columns whose first rows are plain decimal numbers with a fraction, so neither epochs nor dates."""
    sample = pl.read_csv(
        data,
        has_header=False,
        schema=dict.fromkeys(form.names, pl.String()),
        separator=form.separator,
        skip_lines=form.skip,
        n_rows=1000,
    )
    plain = r"^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$"
    names = [n for n in form.names if sample[n].str.contains(plain).fill_null(value=True).all()]
    return frozenset(n for n in names if sample[n].str.contains(r"\.").any() or n in ("volume", "vol", "tickvol"))


def _ragged(data: bytes, form: FileForm, name: str) -> DataError:
    """The error for lines with more or fewer cells than the header."""
    width = len(form.names)
    lines = data.decode(form.encoding if form.encoding == "utf-8" else "utf-8", errors="replace").splitlines()
    for at, line in enumerate(lines[form.skip :], form.skip + 1):
        cells = line.count(form.separator) + 1
        if cells > width and '"' not in line:
            return DataError(
                f"{name}:{at}: {cells} cells where {width} columns are named, separator {WORDS[form.separator]}: "
                f"{line[:80]!r}; give separator=, decimal= or header=, or quote numbers with a {form.separator!r}"
            )
    return DataError(
        f"{name}: its lines cannot be cut into {width} columns with separator {WORDS[form.separator]}; an open quote "
        "or another separator would do that; give separator= or correct the file"
    )


def clock_text(date: pl.Series, clock: pl.Series) -> pl.Series | None:
    """Date and time of day of two columns as one text.

    None where the second is no time of day.
    """
    if date.dtype == pl.Date or isinstance(date.dtype, pl.Datetime):
        date = date.dt.strftime("%Y-%m-%d")
    hour = clock.cast(pl.String).str.strip_chars(" \t\"'")
    known = hour.drop_nulls()
    if known.is_empty():
        return None
    if known.str.contains(r"^\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[APap][Mm])?$").all():
        return date.cast(pl.String).str.strip_chars(" \t\"'") + " " + hour
    if known.str.contains(r"^\d{1,6}$").all():
        number = known.cast(pl.Int64)
        if number.max() <= 240_000 and (number % 100 < 60).all():  # type: ignore[operator]
            wide = 6 if (known.str.len_chars() > 4).any() or number.max() > 2_400 else 4  # type: ignore[operator]
            return date.cast(pl.String).str.strip_chars(" \t\"'") + " " + hour.str.zfill(wide)
    return None
