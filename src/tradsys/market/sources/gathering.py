"""The rows of all files of a source, each under its symbol; parts of one series are joined only on request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import Finding
from tradsys.market.sources.layouts import Layout
from tradsys.market.sources.names import alike_parts, alike_spellings, applied, guess_minutes, read_mapping
from tradsys.market.sources.opening import RawFile, list_files
from tradsys.market.sources.parse import Parsed, parse_file
from tradsys.market.sources.sniff import FormKeys
from tradsys.market.sources.tables.json_tables import SUFFIXES
from tradsys.market.sources.tables.shapes import excel_advice


@dataclass(frozen=True, eq=False)
class Gathered:
    """All rows read from a source.

    rows: as in `Parsed`, with id (row number) and file (number into `files`). hints: symbol -> minutes of a bar, from
    its file's name. bare, zone, assumed: of all stamps. dated: files whose stamps are all dates. seen: the form of each
    file in a sentence. paths: the files read.
    """

    rows: pl.DataFrame
    notes: list[Finding]
    files: tuple[str, ...]
    paths: tuple[Path, ...]
    hints: Mapping[str, float | None]
    bare: bool
    zone: str
    assumed: bool
    seen: tuple[str, ...]
    dated: tuple[str, ...] = ()


def gather(
    source: Path,
    layout: Layout,
    keys: FormKeys,
    symbol: str | None,
    mapping: str | Path | None,
    now: datetime,
    max_rows: int,
) -> Gathered:
    """Rows of a file, an archive or a folder, with their symbols as requested."""
    raws, skipped = list_files(source)
    raws, parsed = _parsed_files(raws, skipped, layout, keys, now, max_rows)
    rows, files = _together(parsed, [raw.name for raw in raws], max_rows, source.name)
    notes = _merge_notes(parsed)
    if skipped:
        advice = excel_advice(skipped) or "no tables of a known kind"
        notes.append(Finding("not_read", len(skipped), tuple(skipped[:6]), advice))
    _check_symbols(rows, source.name)
    notes += alike_spellings(rows["symbol"].unique().to_list())
    if mapping is not None:
        rows = applied(rows, read_mapping(mapping), files)
    else:
        parts = _parts(parsed, files, symbol, source.name)
        if symbol in parts:  # one of them has the requested name
            rows = rows.with_columns(
                symbol=pl.when(pl.col("symbol").is_in(parts)).then(pl.lit(symbol)).otherwise("symbol")
            )
    rows, notes = _pick_symbol(rows, notes, symbol, source.name, several=len(files) > 1)
    rows = rows.with_row_index("id")
    zones = {one.zone for one in parsed}
    return Gathered(
        rows,
        notes,
        tuple(files),
        tuple(dict.fromkeys(raw.path for raw in raws)),
        _hints(rows, raws),
        all(one.bare for one in parsed),
        zones.pop() if len(zones) == 1 else "several zones",
        any(one.assumed for one in parsed),
        tuple(dict.fromkeys(f"{raw.name}: {one.seen}" for raw, one in zip(raws, parsed, strict=True))),
        tuple(raw.name for raw, one in zip(raws, parsed, strict=True) if one.bare and raw.kind == "text"),
    )


def _parsed_files(
    raws: Sequence[RawFile], skipped: list[str], layout: Layout, keys: FormKeys, now: datetime, max_rows: int
) -> tuple[list[RawFile], list[Parsed]]:
    """Each file parsed; a .txt or JSON without a table among them is listed as not read."""
    kept, parsed = [], []
    for raw in raws:
        try:
            parsed.append(parse_file(raw, layout, keys, now=now, max_rows=max_rows))
            kept.append(raw)
        except DataError:
            if len(raws) == 1 or not raw.name.lower().endswith((".txt", ".txt.gz", *SUFFIXES)):
                raise
            skipped.append(raw.name)
    return kept, parsed


def _together(
    parsed: Sequence[Parsed], names: Sequence[str], max_rows: int, source: str
) -> tuple[pl.DataFrame, list[str]]:
    n_rows = sum(one.rows.height for one in parsed)
    if len(parsed) > 1 and n_rows > 4 * max_rows:
        raise DataError(
            f"{source}: {len(parsed)} files hold {n_rows:,} rows, the limit is four times max_rows={max_rows:,}; read "
            "them in parts, or give a larger max_rows="
        )
    numbers = (pl.Series("file", [at], pl.UInt32).new_from_index(0, one.rows.height) for at, one in enumerate(parsed))
    frames = [one.rows.hstack([number]) for one, number in zip(parsed, numbers, strict=True)]  # no copy of the data
    return (pl.concat(frames) if len(frames) > 1 else frames[0]), list(names)


def _merge_notes(parsed: Sequence[Parsed]) -> list[Finding]:
    merged: dict[tuple[str, str], Finding] = {}
    for note in (note for one in parsed for note in one.notes):
        old = merged.get((note.kind, note.note))
        texts = (*old.examples, *note.examples)[:6] if old else note.examples
        merged[note.kind, note.note] = Finding(note.kind, note.count + (old.count if old else 0), texts, note.note)
    return list(merged.values())


def _check_symbols(rows: pl.DataFrame, name: str) -> None:
    missing = rows["symbol"].null_count() + int((rows["symbol"] == "").sum())
    if missing:
        raise DataError(f"{name}: {missing} rows have no symbol; name or drop them in the file")


def _parts(parsed: Sequence[Parsed], files: Sequence[str], symbol: str | None, name: str) -> list[str]:
    """The symbols of files that look like parts of one series; DataError unless joining was requested."""
    guesses: dict[str, list[str]] = {}
    for one, file in zip(parsed, files, strict=True):
        if not one.named:
            guesses.setdefault(one.rows["symbol"][0], []).append(file)
    for guess, parts in guesses.items():
        if len(parts) > 1 and symbol is None:
            raise DataError(
                f"{name}: {len(parts)} files look like parts of {guess}: {parts[:4]}; parts are joined "
                f"only on request: give symbol={guess} to join them, or mapping=FILE.csv with name,symbol"
            )
    spans = [
        (str(one.rows["symbol"][0]), file, one.rows["stamp"].min(), one.rows["stamp"].max())
        for one, file in zip(parsed, files, strict=True)
        if not one.named and one.rows["stamp"].null_count() < one.rows.height
    ]
    in_turn = alike_parts(spans)  # type: ignore[arg-type]
    if symbol is None and in_turn:
        raise DataError(
            f"{name}: {len(in_turn)} files look like parts of one series, one after another: "
            f"{[file for _, file in in_turn[:4]]}; give symbol= to join them, or mapping=FILE.csv with name,symbol, a "
            "row per file, for what each is"
        )
    return [one for one, _ in in_turn]


def _pick_symbol(
    rows: pl.DataFrame, notes: list[Finding], symbol: str | None, name: str, *, several: bool
) -> tuple[pl.DataFrame, list[Finding]]:
    names = rows["symbol"].unique().sort().to_list()
    joined = rows.filter(pl.col("symbol") == symbol)["file"].n_unique() if symbol is not None else 0
    if joined > 1:
        notes = [*notes, Finding("parts_joined", joined, (f"{joined} files are {symbol}",), "as symbol= requests")]
    if symbol is None or names == [symbol]:
        return rows, notes
    if symbol in names:
        return rows.filter(pl.col("symbol") == symbol), notes
    by_vendor = rows.filter(pl.col("vendor") == symbol)
    if by_vendor.height:
        return by_vendor, notes
    from_names = any(n.kind == "symbol_from_file_name" for n in notes)
    if len(names) > 1 and not (several and from_names):
        raise DataError(f"{name}: no symbol {symbol!r} among {len(names)}: {names[:8]}; name one of these")
    notes = [n for n in notes if n.kind not in ("symbol_from_file_name", "symbol_respelled")]
    text = f"{names[0]} -> {symbol}" if len(names) == 1 else f"{len(names)} files are joined: {names[:4]} -> {symbol}"
    kind = "symbol_given" if len(names) == 1 else "parts_joined"
    return rows.with_columns(symbol=pl.lit(symbol)), [*notes, Finding(kind, rows.height, (text,))]


def _hints(rows: pl.DataFrame, raws: Sequence[RawFile]) -> dict[str, float | None]:
    """Symbol -> the longest bar that the name of one of its files states."""
    if all(guess_minutes(raw.stem) is None for raw in raws):
        return {}
    pairs = rows.select("symbol", "file").unique().sort("symbol", "file")
    hints: dict[str, float | None] = {}
    for symbol, file in pairs.iter_rows():
        minutes = guess_minutes(raws[file].stem)
        if minutes is not None:
            hints[str(symbol)] = max(minutes, hints.get(str(symbol)) or 0)
    return hints
