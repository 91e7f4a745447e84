"""One parquet file per symbol, named by its digest, which every read verifies."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NotRequired, TypedDict
from urllib.parse import quote

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.received import inside
from tradsys.core.runs import written_atomically
from tradsys.market.bars import COLUMNS, SCHEMA, bar_length, starts_of_symbols, symbol_digests
from tradsys.market.parquet import read_parquet, read_parquets
from tradsys.market.updates import SymbolUpdate, merge

_SYMBOL = re.compile(r"[\w^][\w^=.:&+$#-]{0,39}")  # letters of any script
MAX_FILE_NAME = 200  # bytes of a symbol in a file's name, where a letter of another script takes nine


class SymbolEntry(TypedDict):
    """One symbol in a dataset's manifest.

    digest: of its bars. vendor: the vendor's spelling, where it differs.
    """

    file: str
    digest: str
    n_rows: int
    start: str
    end: str
    bar_minutes: float
    vendor: NotRequired[str]


def empty_manifest(name: str) -> Json:
    """The manifest of an empty dataset."""
    return {"name": name, "bar_minutes": None, "symbols": {}, "imports": []}


def is_symbol(symbol: str) -> bool:
    """Whether a symbol can be part of a file's name."""
    return bool(_SYMBOL.fullmatch(symbol)) and ".." not in symbol and len(quote(symbol, safe="")) <= MAX_FILE_NAME


def check_symbol(symbol: str) -> None:
    """Raises DataError for a symbol that cannot be part of a file's name."""
    if not is_symbol(symbol):
        raise DataError(
            f"store: {symbol!r} is no symbol that can be stored; letters of any script, digits and "
            "^=_.:&+$#-, starting with a letter, a digit or ^, at most 40, without '..'; rename it with "
            "mapping=FILE.csv (name,symbol), or symbol= where the file holds one series"
        )


def dataset_minutes(bars: pl.DataFrame, old: Mapping[str, Any], meta: Mapping[str, Any]) -> float:
    """The dataset's bar length in minutes; DataError for bars of another length."""
    reported = meta.get("bar_minutes")
    minutes = float(reported if reported is not None else bar_length(bars) / timedelta(minutes=1))
    if old["bar_minutes"] not in (None, minutes):
        raise DataError(
            f"store {old['name']}: holds bars of {old['bar_minutes']:g} minutes, these are of {minutes:g}; "
            "one dataset has one bar length; store them under another name"
        )
    return minutes


def merged(
    folder: Path, old: Mapping[str, Any], bars: pl.DataFrame, mode: str, conflicts: str
) -> tuple[pl.DataFrame, tuple[SymbolUpdate, ...], pl.DataFrame]:
    """New content and changes by symbol, and stored bars that differ.

    Only touched symbols are included.
    """
    frames: list[pl.DataFrame] = []
    updates: list[SymbolUpdate] = []
    clashes: list[pl.DataFrame] = []
    for (symbol,), part in bars.partition_by("symbol", as_dict=True, maintain_order=True).items():
        entry = old["symbols"].get(str(symbol))
        stored = part.clear() if entry is None else read_symbol(folder, str(symbol), entry)
        frame, update, clash = merge(str(symbol), stored, part, mode, conflicts)
        frames, updates, clashes = [*frames, frame], [*updates, update], [*clashes, clash]
    return pl.concat(frames), tuple(updates), pl.concat(clashes)


def write_symbols(
    folder: Path, bars: pl.DataFrame, digests: Mapping[str, str], minutes: float, source: Mapping[str, Any]
) -> dict[str, SymbolEntry]:
    """Writes each symbol's bars; returns the entries of the manifest."""
    entries: dict[str, SymbolEntry] = {}
    spellings = source.get("vendor_symbols") or {}
    parts = bars.partition_by("symbol", as_dict=True, maintain_order=True)
    for (symbol,), part in parts.items():
        digest = digests[str(symbol)]
        file = f"{quote(str(symbol), safe='')}.{digest[:16]}.parquet"
        with written_atomically(folder / file) as draft:
            part.write_parquet(draft, compression="zstd")
        first, last = part["time"][0], part["time"][-1]
        entry: SymbolEntry = {
            "file": file,
            "digest": digest,
            "n_rows": part.height,
            "start": first.isoformat(),
            "end": last.isoformat(),
            "bar_minutes": minutes,
        }
        if str(symbol) in spellings:
            entry["vendor"] = spellings[str(symbol)]
        entries[str(symbol)] = entry
    return entries


def chosen_entries(name: str, manifest: Mapping[str, Any], symbols: Sequence[str] | None) -> dict[str, SymbolEntry]:
    """The manifest's entries of these symbols (None: all), sorted.

    Raises DataError for an unknown one.
    """
    entries: dict[str, SymbolEntry] = manifest["symbols"]
    if symbols is None:
        return dict(sorted(entries.items()))
    missing = sorted(set(symbols) - set(entries))
    if missing or not symbols:
        raise DataError(
            f"store {name}: no symbols {missing} among {len(entries)}: {list(entries)[:12]}; name one of these"
        )
    return {symbol: entries[symbol] for symbol in sorted(set(symbols))}


def read_symbol(folder: Path, symbol: str, entry: Mapping[str, Any]) -> pl.DataFrame:
    """A symbol's bars, verified against its entry; DataError where they do not match."""
    path = inside(folder, entry["file"], DataError)
    if not path.is_file():
        raise DataError(f"store {folder.name}: {path.name} cannot be read: it is missing; fetch the dataset again")
    part = read_parquet(path, "fetch the dataset again")
    right_form = tuple(part.columns) == COLUMNS and all(part.schema[c] == SCHEMA[c] for c in COLUMNS)
    digest = symbol_digests(part).get(symbol) if right_form else None
    if digest != entry["digest"] or part["symbol"].n_unique() != 1:
        raise DataError(
            f"store {folder.name}: {symbol} has content {str(digest)[:12]}, the manifest states "
            f"{entry['digest'][:12]}; stored bars must not be changed by hand; fetch the dataset again"
        )
    return part


def read_symbols(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """Bars of these symbols, one below the other, each verified by its entry.

    Raises as `read_symbol`.
    """
    bars = _read_at_once(folder, entries)
    if bars is None:  # read one by one, the file that is not as its entry states is named
        return pl.concat([read_symbol(folder, symbol, entry) for symbol, entry in entries.items()])
    return bars


def _read_at_once(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame | None:
    """The bars of all files by one query, which takes a third of the time; None unless all are as stated."""
    paths = [inside(folder, entry["file"], DataError) for entry in entries.values()]
    if not all(path.is_file() for path in paths):
        return None
    try:
        bars = read_parquets(paths, SCHEMA, "fetch the dataset again")
    except DataError:
        return None
    starts = starts_of_symbols(bars)
    if bars["symbol"].gather(starts).to_list() != list(entries):
        return None
    return bars if symbol_digests(bars) == {symbol: entry["digest"] for symbol, entry in entries.items()} else None


def kept_digests(
    folder: Path,
    entries: Mapping[str, Mapping[str, Any]],
    *,
    after: datetime | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[dict[str, str], list[tuple[datetime, datetime]]]:
    """Digests of the symbols' bars within the bounds, and the first and last of each.

    A symbol without any has none. after: exclusive; since, until: inclusive; None bounds nothing. Only symbols of which
    bars are left out are read.
    """
    bounds = {"gt": after, "ge": since, "le": until}
    digests: dict[str, str] = {}
    spans = []
    for symbol, entry in entries.items():
        first, last = (datetime.fromisoformat(entry[key]) for key in ("start", "end"))
        if (after is None or first > after) and (since is None or first >= since) and (until is None or last <= until):
            digests[symbol] = entry["digest"]
            spans.append((first, last))
            continue
        part = read_symbol(folder, symbol, entry)
        part = part.filter(
            *(getattr(pl.col("time"), name)(bound) for name, bound in bounds.items() if bound is not None)
        )
        if not part.is_empty():
            digests |= symbol_digests(part)
            spans.append((part["time"][0], part["time"][-1]))
    return digests, spans
