"""Merges new bars into stored ones: compares bar by bar, reports differences, keeps old content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from tradsys.core.clock import utc_stamp
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.received import read_json
from tradsys.core.runs import written_atomically
from tradsys.market.bars import PRICES, combine_digests

MOST_LINES = 8  # of one kind, printed by a write
FORMAT = 1
MANIFEST = "manifest.json"
HISTORY = "history"  # earlier manifests, newest last; their files stay until a clean-up
MODES = ("append", "replace")
CONFLICTS = ("refuse", "keep", "take")
VALUES = (*PRICES, "volume")


@dataclass(frozen=True)
class SymbolUpdate:
    """What a write did to one symbol: bars before, added, equal, in conflict.

    Also counts the bars dropped.
    """

    symbol: str
    n_before: int
    n_added: int
    n_same: int
    n_conflicts: int
    n_dropped: int
    first_dropped: datetime | None = None
    last_dropped: datetime | None = None
    gap: tuple[datetime, datetime] | None = None

    def __str__(self) -> str:
        """One line for the terminal."""
        parts = [f"{self.symbol}: {self.n_added:,} bars added, {self.n_same:,} already stored"]
        if self.n_conflicts:
            parts.append(f"{self.n_conflicts:,} differ from stored ones")
        if self.n_dropped:
            parts.append(
                f"{self.n_dropped:,} stored bars dropped, from {self.first_dropped:%Y-%m-%d %H:%M} to "
                f"{self.last_dropped:%Y-%m-%d %H:%M}"
            )
        if self.gap:
            parts.append(f"no bars between {self.gap[0]:%Y-%m-%d %H:%M} and {self.gap[1]:%Y-%m-%d %H:%M}")
        return "; ".join(parts)


@dataclass(frozen=True, eq=False)
class WriteSummary:
    """Result of a write.

    conflicts: symbol, time, column, old, new; a row per differing value.
    """

    name: str
    mode: str
    updates: tuple[SymbolUpdate, ...]
    conflicts: pl.DataFrame
    manifest: Json = field(repr=False)

    @property
    def n_added(self) -> int:
        """Bars that were not stored before."""
        return sum(one.n_added for one in self.updates)

    @property
    def n_dropped(self) -> int:
        """Bars that were stored and no longer are."""
        return sum(one.n_dropped for one in self.updates)


def merge(
    symbol: str, stored: pl.DataFrame, new: pl.DataFrame, mode: str, conflicts: str
) -> tuple[pl.DataFrame, SymbolUpdate, pl.DataFrame]:
    """Content of one symbol after a write, the changes, and the differing values.

    stored, new: bars of that symbol. Values are compared exactly: a revision by the last bit is one.
    """
    both = stored.join(new, on="time", how="inner", suffix="_new")
    differ = pl.any_horizontal(pl.col(n) != pl.col(f"{n}_new") for n in VALUES)
    clash = _long_changes(symbol, both.filter(differ))
    n_conflicts = clash["time"].n_unique()
    dropped = stored.join(new, on="time", how="anti") if mode == "replace" else stored.clear()
    update = SymbolUpdate(
        symbol,
        stored.height,
        new.height - both.height,
        both.height - n_conflicts,
        n_conflicts,
        dropped.height,
        dropped["time"].min() if dropped.height else None,  # type: ignore[arg-type]
        dropped["time"].max() if dropped.height else None,  # type: ignore[arg-type]
        _gap(stored, new) if mode == "append" else None,
    )
    if mode == "replace":
        return new, update, clash.clear()
    winner, other = (new, stored) if conflicts == "take" else (stored, new)
    return pl.concat([winner, other.join(winner, on="time", how="anti")]).sort("time"), update, clash


def check_conflicts(name: str, clashes: pl.DataFrame, conflicts: str) -> None:
    """Raises DataError where bars differ and `conflicts` does not choose."""
    if clashes.is_empty() or conflicts != "refuse":
        return
    n_bars = clashes.select("symbol", "time").n_unique()
    shown = "; ".join(
        f"{r['symbol']} {r['time']:%Y-%m-%d %H:%M} {r['column']} {r['old']:.8g} -> {r['new']:.8g}"
        for r in clashes.head(4).iter_rows(named=True)
    )
    raise DataError(
        f"store {name}: {n_bars} stored bars differ from the new ones: {shown}; nothing was written; keep the stored "
        "ones with conflicts=keep, take the new ones with conflicts=take, or replace the symbol's history with "
        "mode=replace"
    )


def _long_changes(symbol: str, both: pl.DataFrame) -> pl.DataFrame:
    parts = [
        both.filter(pl.col(n) != pl.col(f"{n}_new")).select(
            pl.lit(symbol).alias("symbol"),
            "time",
            pl.lit(n).alias("column"),
            pl.col(n).alias("old"),
            pl.col(f"{n}_new").alias("new"),
        )
        for n in VALUES
    ]
    return pl.concat(parts).sort("time", "column", maintain_order=True)


def _gap(stored: pl.DataFrame, new: pl.DataFrame) -> tuple[datetime, datetime] | None:
    """The gap between stored and new bars if it is longer than the new bars' usual step; else None."""
    if stored.is_empty() or new.is_empty():
        return None
    ends, begins = stored["time"].max(), new["time"].min()
    if ends >= begins:  # type: ignore[operator]
        ends, begins = new["time"].max(), stored["time"].min()
    longest = new["time"].diff().max() if new.height > 1 else None
    apart = begins - ends  # type: ignore[operator]
    return (ends, begins) if longest is not None and apart > longest else None  # type: ignore[return-value, operator]


def as_lines(summary: WriteSummary, limit: int = MOST_LINES) -> list[str]:
    """The updates as lines of text, those with conflicts, drops or gaps first."""
    ordered = sorted(summary.updates, key=lambda u: (-(u.n_conflicts + u.n_dropped + bool(u.gap)), u.symbol))
    lines = [str(one) for one in ordered[:limit]]
    return [*lines, f"and {len(ordered) - limit} symbols more"] if len(ordered) > limit else lines


def manifest_of(name: str, entries: Mapping[str, Mapping[str, Any]], minutes: float, imports: list[Json]) -> Json:
    """The manifest of these symbols."""
    return {
        "format": FORMAT,
        "name": name,
        "digest": combine_digests({symbol: entry["digest"] for symbol, entry in entries.items()}),
        "bar_minutes": minutes,
        "n_rows": sum(entry["n_rows"] for entry in entries.values()),
        "start": min(entry["start"] for entry in entries.values()),
        "end": max(entry["end"] for entry in entries.values()),
        "symbols": dict(sorted(entries.items())),
        "imports": imports,
    }


def imports(
    old: Sequence[Mapping[str, Any]], symbols: Sequence[str], source: Mapping[str, Any], mode: str
) -> list[Json]:
    """The imports of stored symbols.

    One whose symbols have all been replaced is removed.
    """
    gone = symbols if mode == "replace" else ()
    kept = [{**one, "symbols": [s for s in one["symbols"] if s not in gone]} for one in old]
    return [
        *(one for one in kept if one["symbols"]),
        {**source, "symbols": list(symbols), "written": utc_stamp(), "mode": mode},
    ]


def earlier(folder: Path) -> list[Path]:
    """The manifests before this one, the newest last."""
    return sorted((folder / HISTORY).glob("*.json"))


def remember(folder: Path) -> None:
    """Keeps the manifest that is about to be replaced."""
    if (folder / MANIFEST).exists():
        kept = earlier(folder)
        number = int(kept[-1].stem) + 1 if kept else 1
        with written_atomically(folder / HISTORY / f"{number:06d}.json") as draft:
            draft.write_bytes((folder / MANIFEST).read_bytes())


def sweep(folder: Path, manifest: Mapping[str, Any]) -> int:
    """Removes files that no kept manifest lists; returns their number.

    They come from interrupted writes.
    """
    named = _files(manifest)
    for path in earlier(folder):
        named |= _files(read_json(path, "restore it from a copy, or move it away", DataError))
    gone = [p for p in folder.iterdir() if p.name not in named and p.suffix in (".parquet", ".part")]
    for path in gone:
        path.unlink()
    return len(gone)


def _files(manifest: Mapping[str, Any]) -> set[str]:
    """Names of the files that a manifest lists."""
    events = {manifest["events"]["file"]} if manifest.get("events") else set()
    return events | {entry["file"] for entry in manifest["symbols"].values()}
