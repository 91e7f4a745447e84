"""Bars on disk: one parquet file per symbol, a manifest with digests, nothing read that does not match it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from filelock import FileLock

from tradsys.core.clock import Moment, utc, utc_stamp
from tradsys.core.errors import DataError
from tradsys.core.received import inside, read_json
from tradsys.core.runs import digest_json, write_json, written_atomically
from tradsys.market.bars import (
    COLUMNS,
    SCHEMA,
    bar_length,
    check_bars,
    combine_digests,
    content_digest,
    symbol_digests,
    utc_bars,
)
from tradsys.market.parquet import read_parquet

FORMAT = 1
MANIFEST = "manifest.json"
_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_SYMBOL = re.compile(r"[A-Za-z0-9^][A-Za-z0-9^=_.:&+$#-]{0,39}")


@dataclass(frozen=True)
class BarStore:
    """Datasets of bars under one folder: `root/name/manifest.json` beside one parquet file per symbol.

    A symbol's file carries its digest in its name and is never overwritten; the manifest, renamed into
    place last, decides which files count. So a write cut short at any point leaves the dataset as it was.
    """

    root: Path

    def names(self) -> list[str]:
        """The datasets there are, sorted."""
        return sorted(path.parent.name for path in Path(self.root).glob(f"*/{MANIFEST}"))

    def write(self, name: str, bars: pl.DataFrame, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Stores bars (COLUMNS only: what is joined is joined anew at each read) and returns the manifest.

        A dataset may come in file after file: symbols already in it are replaced whole, other symbols stay.
        meta: where these bars are from (source, sha256, layout, repairs), kept in the manifest's `imports`.
        Raises DataError on bad bars or names, or where the bar length is not the dataset's.
        """
        folder = self._folder(name)
        bars = check_bars(utc_bars(bars)).select(COLUMNS)
        digests = symbol_digests(bars)
        if not digests:
            raise DataError(f"store {name}: no bars to write; read a file that has some")
        for symbol in digests:
            _check_symbol(symbol)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder / ".lock")):
            old = self._load(folder) if (folder / MANIFEST).exists() else _empty(name)
            minutes = _bar_minutes(bars, old, meta)
            entries = {**old["symbols"], **_write_symbols(folder, bars, digests)}
            manifest = {
                "format": FORMAT,
                "name": name,
                "digest": combine_digests({symbol: entry["digest"] for symbol, entry in entries.items()}),
                "bar_minutes": minutes,
                "n_rows": sum(entry["n_rows"] for entry in entries.values()),
                "start": min(entry["start"] for entry in entries.values()),
                "end": max(entry["end"] for entry in entries.values()),
                "symbols": dict(sorted(entries.items())),
                "imports": _imports(old["imports"], sorted(digests), meta),
            }
            manifest["sha256"] = digest_json(manifest)
            write_json(folder / MANIFEST, manifest)
            _sweep(folder, manifest)
        return manifest

    def manifest(self, name: str) -> dict[str, Any]:
        """What is stored: format, name, digest, bar_minutes, n_rows, start, end, symbols, imports.

        Raises DataError where the dataset is missing, with those there are and how to bring it in, or is
        damaged.
        """
        folder = self._folder(name)
        if not (folder / MANIFEST).exists():
            raise DataError(
                f"store {self.root}: no dataset {name!r}; it holds {self.names() or 'none'}; bring it "
                f"in with `python -m tradsys.fetch source=file path=... layout=... name={name}`"
            )
        return self._load(folder)

    def read(
        self, name: str, symbols: Sequence[str] | None = None, start: Moment | None = None, end: Moment | None = None
    ) -> pl.DataFrame:
        """Bars of those symbols (None: all), closed after `start` and until `end`.

        start, end: ISO dates or times, UTC where they name no zone. A bar lies in (start, end] by its
        close, so start="2020-01-01", end="2021-01-01" is the year 2020 for hourly and daily bars alike.
        Every file is verified against the manifest's digest before it is cut. Raises DataError on a digest
        that does not match, an unknown symbol, or where nothing is left.
        """
        manifest = self.manifest(name)
        entries = _chosen(name, manifest, symbols)
        first, last = _moment("start", start), _moment("end", end)
        parts = [_read_symbol(self._folder(name), symbol, entry) for symbol, entry in entries.items()]
        bars = pl.concat(parts)
        if first is not None:
            bars = bars.filter(pl.col("time") > first)
        if last is not None:
            bars = bars.filter(pl.col("time") <= last)
        if bars.is_empty():
            raise DataError(
                f"store {name}: no bars of {list(entries)[:6]} in ({start}, {end}]; the dataset spans "
                f"{manifest['start']} to {manifest['end']}; widen start and end"
            )
        return check_bars(bars.rechunk())

    def _folder(self, name: str) -> Path:
        if not _DATASET.fullmatch(name):
            raise DataError(
                f"store: {name!r} is no dataset name; letters, digits, '_', '-' and '.', starting "
                "with a letter or digit, at most 80; choose another name"
            )
        return Path(self.root) / name

    def _load(self, folder: Path) -> dict[str, Any]:
        manifest: dict[str, Any] = read_json(inside(folder, MANIFEST, DataError), "fetch the dataset again", DataError)
        if digest_json({key: value for key, value in manifest.items() if key != "sha256"}) != manifest.pop(
            "sha256", None
        ):
            raise DataError(
                f"store {folder.name}: {MANIFEST} was changed after it was written; fetch the dataset again"
            )
        if manifest["format"] != FORMAT:
            raise DataError(
                f"store {folder.name}: format {manifest['format']}, this code reads {FORMAT}; fetch it again"
            )
        return manifest


@dataclass(frozen=True)
class StoredBars:
    """A source of bars: part of a stored dataset, as conf/data names it; start, end as in `BarStore.read`."""

    root: str
    name: str
    symbols: tuple[str, ...] | None = None
    start: str | None = None
    end: str | None = None

    def __post_init__(self) -> None:
        if self.symbols is not None:  # configuration brings a list
            object.__setattr__(self, "symbols", tuple(self.symbols))

    def bars(self) -> pl.DataFrame:
        """The bars, verified against the manifest."""
        return BarStore(Path(self.root)).read(self.name, self.symbols, self.start, self.end)

    def describe(self) -> dict[str, Any]:
        """For run records: kind, name, digest of exactly these bars, symbols, start, end, `synthetic`."""
        manifest = BarStore(Path(self.root)).manifest(self.name)
        chosen = _chosen(self.name, manifest, self.symbols)
        return {
            "kind": "store",
            "name": self.name,
            "digest": self._digest(chosen),
            "symbols": list(chosen),
            "start": self.start,
            "end": self.end,
            "synthetic": False,
        }

    def _digest(self, chosen: Mapping[str, Mapping[str, Any]]) -> str:
        """`content_digest` of the bars; only symbols that `start` or `end` cuts are read for it."""
        first, last = _moment("start", self.start), _moment("end", self.end)
        digests: dict[str, str] = {}
        for symbol, entry in chosen.items():
            begins, ends = (datetime.fromisoformat(entry[key]) for key in ("start", "end"))
            if (first is None or begins > first) and (last is None or ends <= last):
                digests[symbol] = entry["digest"]
                continue
            part = _read_symbol(Path(self.root) / self.name, symbol, entry)
            inside = pl.lit(value=True) if first is None else pl.col("time") > first
            inside = inside if last is None else inside & (pl.col("time") <= last)
            digests |= symbol_digests(part.filter(inside))
        return combine_digests(digests) if digests else content_digest(self.bars())  # which says that nothing is left


def _empty(name: str) -> dict[str, Any]:
    return {"name": name, "bar_minutes": None, "symbols": {}, "imports": []}


def _check_symbol(symbol: str) -> None:
    if not _SYMBOL.fullmatch(symbol) or ".." in symbol:
        raise DataError(
            f"store: {symbol!r} is no symbol that can be stored; letters, digits and ^=_.:&+$#-, "
            "starting with a letter, "
            "a digit or ^, at most 40, without '..'; give another with symbol=..."
        )


def _bar_minutes(bars: pl.DataFrame, old: Mapping[str, Any], meta: Mapping[str, Any]) -> float:
    """The dataset's bar length; bars of another length do not belong in it."""
    told = meta.get("bar_minutes")
    minutes = float(told if told is not None else bar_length(bars) / timedelta(minutes=1))
    if old["bar_minutes"] not in (None, minutes):
        raise DataError(
            f"store {old['name']}: holds bars of {old['bar_minutes']:g} minutes, these are of {minutes:g}; "
            "one dataset has one bar length; store them under another name"
        )
    return minutes


def _write_symbols(folder: Path, bars: pl.DataFrame, digests: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    entries = {}
    parts = bars.partition_by("symbol", as_dict=True, maintain_order=True)
    for (symbol,), part in parts.items():
        digest = digests[str(symbol)]
        file = f"{quote(str(symbol), safe='')}.{digest[:16]}.parquet"
        with written_atomically(folder / file) as draft:
            part.write_parquet(draft, compression="zstd")
        first, last = part["time"][0], part["time"][-1]
        entries[str(symbol)] = {
            "file": file,
            "digest": digest,
            "n_rows": part.height,
            "start": first.isoformat(),
            "end": last.isoformat(),
        }
    return entries


def _imports(old: Sequence[Mapping[str, Any]], symbols: Sequence[str], meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where each symbol is from; an import whose symbols have all been replaced is forgotten."""
    kept = [{**one, "symbols": [s for s in one["symbols"] if s not in symbols]} for one in old]
    return [
        *(one for one in kept if one["symbols"]),
        {**meta, "symbols": list(symbols), "written": utc_stamp()},
    ]


def _sweep(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Removes files that the manifest does not name: replaced symbols, and what a write cut short left."""
    named = {entry["file"] for entry in manifest["symbols"].values()}
    for path in folder.iterdir():
        if path.name not in named and (path.suffix in (".parquet", ".part")):
            path.unlink()


def _chosen(name: str, manifest: Mapping[str, Any], symbols: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = manifest["symbols"]
    if symbols is None:
        return dict(sorted(entries.items()))
    missing = sorted(set(symbols) - set(entries))
    if missing or not symbols:
        raise DataError(
            f"store {name}: no symbols {missing} among {len(entries)}: {list(entries)[:12]}; name one of these"
        )
    return {symbol: entries[symbol] for symbol in sorted(set(symbols))}


def _read_symbol(folder: Path, symbol: str, entry: Mapping[str, Any]) -> pl.DataFrame:
    path = inside(folder, entry["file"], DataError)
    if not path.is_file():
        raise DataError(f"store {folder.name}: {path.name} cannot be read: it is missing; fetch the dataset again")
    part = read_parquet(path, "fetch the dataset again")
    right_form = tuple(part.columns) == COLUMNS and all(part.schema[c] == SCHEMA[c] for c in COLUMNS)
    digest = symbol_digests(part).get(symbol) if right_form else None
    if digest != entry["digest"] or part["symbol"].n_unique() != 1:
        raise DataError(
            f"store {folder.name}: {symbol} has content {str(digest)[:12]}, the manifest says "
            f"{entry['digest'][:12]}; stored bars are never changed by hand; fetch the dataset again"
        )
    return part


def _moment(what: str, value: Moment | None) -> datetime | None:
    """UTC; a bare date is its midnight."""
    return None if value is None else utc(value, f"store: {what}")
