"""Bars on disk: one parquet file per symbol, and a manifest whose digests every read verifies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock

from tradsys.core.clock import Moment, utc
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.received import check_folder_name, inside, read_json
from tradsys.core.runs import digest_json, write_json
from tradsys.market.bars import (
    COLUMNS,
    check_bar_minutes,
    check_bars,
    combine_digests,
    content_digest,
    symbol_digests,
    utc_bars,
)
from tradsys.market.downloads.revisions import RevisionLedger
from tradsys.market.events import actions
from tradsys.market.symbol_files import (
    SymbolEntry,
    check_symbol,
    chosen_entries,
    dataset_minutes,
    empty_manifest,
    kept_digests,
    merged,
    read_symbols,
    write_symbols,
)
from tradsys.market.updates import (
    CONFLICTS,
    FORMAT,
    MANIFEST,
    MODES,
    WriteSummary,
    check_conflicts,
    earlier,
    imports,
    manifest_of,
    remember,
    sweep,
)

MONTH_MINUTES = 28 * 1440
PRINTS = ("final", "first")  # which values of a revised bar are read


@dataclass(frozen=True)
class BarStore:
    """Datasets of bars under one folder.

    `root/name/manifest.json` beside one parquet file per symbol. A symbol's file has its digest in its name and is
    never overwritten. The manifest is renamed into place last and lists the valid files, so an interrupted write leaves
    the dataset as it was.
    """

    root: Path

    def names(self) -> list[str]:
        """The names of all datasets, sorted."""
        return sorted(path.parent.name for path in Path(self.root).glob(f"*/{MANIFEST}"))

    def write(self, name: str, bars: pl.DataFrame, meta: Mapping[str, Any]) -> Json:
        """Replaces all stored bars of these symbols; returns the manifest."""
        return self.append(name, bars, meta, mode="replace").manifest

    def append(
        self,
        name: str,
        bars: pl.DataFrame,
        source: Mapping[str, Any],
        *,
        mode: str = "append",
        conflicts: str = "refuse",
    ) -> WriteSummary:
        """Stores bars (COLUMNS only); returns a summary of the changes.

        Joined columns are added at each read.
        mode: `append` compares these bars with stored ones and adds the new ones; `replace` replaces all stored bars of
        their symbols, and the summary counts dropped bars. conflicts: where a stored bar differs, `refuse` the complete
        write, `keep` the stored bar, or `take` the new one.
        source: the origin of these bars (source, sha256, layout, repairs), kept in the manifest's `imports`.
        The previous content can be restored with `undo` until `clean`.
        Raises DataError on bad bars or names, on conflicts, or where the bar length is not the dataset's.
        """
        for key, value, known in (("mode", mode, MODES), ("conflicts", conflicts, CONFLICTS)):
            if value not in known:
                raise DataError(f"store {name}: {key}={value!r}; it is one of {', '.join(known)}; give one of these")
        folder = self._folder(name)
        bars = check_bars(utc_bars(bars)).select(COLUMNS)
        if bars.is_empty():
            raise DataError(f"store {name}: no bars to write; read a file that has some")
        for symbol in bars["symbol"].unique().sort():
            check_symbol(symbol)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder / ".lock")):
            old = self._load(folder) if (folder / MANIFEST).exists() else empty_manifest(name)
            minutes = dataset_minutes(bars, old, source)
            content, updates, clashes = merged(folder, old, bars, mode, conflicts)
            check_conflicts(name, clashes, conflicts)
            digests = symbol_digests(content)
            entries = {**old["symbols"], **write_symbols(folder, content, digests, minutes, source)}
            if mode == "replace" and (gone := sorted(u.symbol for u in updates if u.n_dropped or u.n_conflicts)):
                source = {**source, "rewrote": gone}
            manifest = manifest_of(name, entries, minutes, imports(old["imports"], sorted(digests), source, mode))
            manifest |= {"events": old["events"]} if old.get("events") else {}
            if manifest["digest"] != old.get("digest"):
                remember(folder)
            manifest["sha256"] = digest_json(manifest)
            write_json(folder / MANIFEST, manifest)
            sweep(folder, manifest)
        return WriteSummary(name, mode, updates, clashes, manifest)

    def add_events(self, name: str, found: pl.DataFrame, source: Mapping[str, Any]) -> tuple[int, int]:
        """Adds dividends, splits and funding; returns the counts of new and revised.

        A revised event keeps its earlier value for reads as of an earlier moment. source: for the manifest's imports.
        """
        manifest, folder = self.manifest(name), self._folder(name)
        events = actions.check_events(found, f"store {name}")
        missing = sorted(set(events["symbol"].to_list()) - set(manifest["symbols"]))
        if missing:
            raise DataError(f"store {name}: no symbols {missing[:6]} for these events; fetch their bars first")
        with FileLock(str(folder / ".lock")):
            manifest = self._load(folder)
            stored = actions.read_events(folder, manifest.get("events"))
            together, n_new, n_revised = actions.merged(stored, events)
            if n_new + n_revised == 0:
                return 0, 0
            remember(folder)
            manifest["events"] = actions.write_events(folder, together)
            touched = events["symbol"].unique().sort().to_list()
            manifest["imports"] = imports(manifest["imports"], touched, {**source, "events": events.height}, "append")
            manifest["sha256"] = digest_json(manifest)
            write_json(folder / MANIFEST, manifest)
            sweep(folder, manifest)
        return n_new, n_revised

    def events(self, name: str, moment: Moment | None = None) -> pl.DataFrame:
        """A dataset's events as known at a moment: symbol, time, kind, value."""
        found = actions.read_events(self._folder(name), self.manifest(name).get("events"))
        return actions.as_known(found, _moment("as_of", moment))

    def undo(self, name: str) -> Json:
        """Restores the content before the last write; returns its manifest.

        Raises DataError where no earlier content is kept.
        """
        folder = self._folder(name)
        self.manifest(name)
        with FileLock(str(folder / ".lock")):
            kept = earlier(folder)
            if not kept:
                raise DataError(f"store {name}: no earlier content is kept; fetch the files you want again")
            manifest: Json = self._load(folder, kept[-1])
            manifest["sha256"] = digest_json(manifest)
            write_json(folder / MANIFEST, manifest)
            kept[-1].unlink()
            sweep(folder, manifest)
        return manifest

    def clean(self, name: str) -> int:
        """Removes all earlier content of a dataset; returns the number of removed files."""
        folder = self._folder(name)
        manifest = self.manifest(name)
        with FileLock(str(folder / ".lock")):
            for path in earlier(folder):
                path.unlink()
            return sweep(folder, manifest)

    def manifest(self, name: str) -> Json:
        """The dataset's manifest.

        format, name, digest, bar_minutes, n_rows, start, end, symbols, imports. Raises DataError where the dataset is
        damaged or missing; then the error lists the existing ones and the command.
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

        start, end: ISO dates or times, UTC without a zone. A bar lies in (start, end] by its
        close, so start="2020-01-01", end="2021-01-01" is the year 2020 for hourly and daily bars alike.
        Every file is verified by the manifest's digest before it is cut. Raises DataError for a digest that does not
        match, an unknown symbol, or an empty result.
        """
        manifest = self.manifest(name)
        entries = chosen_entries(name, manifest, symbols)
        first, last = _moment("start", start), _moment("end", end)
        bars = read_symbols(self._folder(name), entries)
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
        check_folder_name("store: dataset", name, DataError)
        return Path(self.root) / name

    def _load(self, folder: Path, path: Path | None = None) -> Json:
        path = path or folder / MANIFEST
        found = inside(path.parent, path.name, DataError)
        manifest: Json = read_json(found, "fetch the dataset again", DataError)
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
    """A source of bars: part of a stored dataset. start, end: as in `BarStore.read`.

    reference: a symbol such as the market's, read in addition to `symbols`. Where it is not traded, its bars before the
    first and after the last of the others are left out, so that it does not outlast them.
    as_of: the bars as of that moment: the vendor's later revisions are undone by the revision ledger.
    events: whether stored dividends, splits and funding are applied to the bars (`actions.on_bars`).
    prints: `final`, or `first`: each bar as it was first stored, with all later revisions undone.
    trade_reference: whether the reference is traded like the others; null: if `symbols` names it or is null.
    """

    root: str
    name: str
    symbols: tuple[str, ...] | None = None
    start: str | None = None
    end: str | None = None
    reference: str | None = None
    as_of: str | None = None
    trade_reference: bool | None = None
    events: bool = True
    prints: str = "final"

    def __post_init__(self) -> None:
        if self.prints not in PRINTS or (self.prints == "first" and self.as_of is not None):
            raise DataError(
                f"data.source.prints={self.prints!r} with as_of={self.as_of}; it is one of "
                f"{', '.join(PRINTS)}, and as_of= does not apply to first prints; set data.source.prints= or "
                "leave data.as_of= out"
            )
        kinds = {"root": str, "name": str, "reference": str | None, "trade_reference": bool | None, "events": bool}
        for key, kind in kinds.items():
            if not isinstance(value := getattr(self, key), kind):  # type: ignore[arg-type]
                words = getattr(kind, "__name__", str(kind)).replace("None", "null")
                raise DataError(f"data.source.{key}={value!r} is no {words}; correct data.source.{key}")
        for key in ("start", "end", "as_of"):
            _moment(f"data.source.{key}", getattr(self, key))
        if self.symbols is not None:  # configuration brings a list
            given = [self.symbols] if isinstance(self.symbols, str) else list(self.symbols)
            wrong = [s for s in given if not isinstance(s, str)]
            if wrong:
                raise DataError(f"store {self.name}: symbols {wrong} are no texts; put them in quotes, such as 'NAN'")
            object.__setattr__(self, "symbols", tuple(given))

    @property
    def untraded(self) -> str | None:
        """The reference symbol, if it is read by features but not traded."""
        traded = self.trade_reference
        if traded is None:
            traded = self.symbols is None or self.reference in self.symbols
        return None if traded else self.reference

    def bars(self) -> pl.DataFrame:
        """The bars, verified against the manifest."""
        store = BarStore(Path(self.root))
        bars = store.read(self.name, self._wanted(), self.start, self.end)
        manifest = store.manifest(self.name)  # after the bars, so that it names every write that they hold
        self._chosen(manifest)
        self._check_length(bars, manifest)
        if (moment := _moment("as_of", self.as_of)) is not None:
            self._check_rewritten(moment, manifest)
            bars = RevisionLedger(Path(self.root) / self.name).before(bars, moment)
            if bars.is_empty():
                raise DataError(f"store {self.name}: nothing had closed by as_of={self.as_of}; set a later moment")
        if self.prints == "first":
            bars = RevisionLedger(Path(self.root) / self.name).first_prints(bars)
        bars = self._with_events(bars, manifest)
        if self.untraded is None:
            return bars
        others = bars.filter(pl.col("symbol") != self.untraded)["time"]
        if others.is_empty():
            raise DataError(
                f"store {self.name}: {self.untraded} is a reference and not traded, and no other symbol is left; name "
                "symbols to trade, or data.source.trade_reference=true"
            )
        inside = pl.col("time").is_between(others.min(), others.max())
        return bars.filter(inside | (pl.col("symbol") != self.untraded)).rechunk()

    def _check_rewritten(self, moment: datetime, manifest: Json) -> None:
        """Raises DataError where mode=replace changed bars after that moment: their old values are lost."""
        wanted = self._wanted()
        for one in manifest["imports"]:
            gone = [s for s in one.get("rewrote", ()) if wanted is None or s in wanted]
            if gone and utc(one["written"], "store: written") > moment:
                raise DataError(
                    f"store {self.name}: mode=replace replaced bars of {gone[0]} on {one['written']}, so "
                    f"it cannot be read as_of={self.as_of}; set a later moment, or restore it with mode=undo"
                )

    def _check_length(self, bars: pl.DataFrame, manifest: Json) -> None:
        """Raises DataError where the bar length differs from the manifest's; months are not checked."""
        minutes = float(manifest["bar_minutes"])
        if minutes < MONTH_MINUTES:
            rule = "one dataset has one bar length; fetch the files again, each length under its own name="
            check_bar_minutes(bars, minutes, f"store {self.name}", rule)

    def _with_events(self, bars: pl.DataFrame, manifest: Json) -> pl.DataFrame:
        if not self.events or not manifest.get("events"):
            return bars
        found = BarStore(Path(self.root)).events(self.name, self.as_of)
        own = found.filter(pl.col("symbol").is_in(bars["symbol"].unique().implode()))
        return check_bars(actions.on_bars(bars, own))

    def _wanted(self) -> tuple[str, ...] | None:
        """The symbols to read, with the reference."""
        if self.symbols is None or self.reference is None or self.reference in self.symbols:
            return self.symbols
        return (*self.symbols, self.reference)

    def _chosen(self, manifest: Json) -> dict[str, SymbolEntry]:
        """The manifest's entries of the symbols to read; DataError for one that is not stored."""
        chosen = chosen_entries(self.name, manifest, self._wanted())
        if self.untraded is not None and self.untraded not in chosen:
            raise DataError(
                f"store {self.name}: no reference {self.untraded!r} among {len(chosen)}: {list(chosen)[:12]}; fetch "
                "its bars too, or set data.market_symbol to another one"
            )
        return chosen

    def describe(self) -> Json:
        """For run records: kind, name, digest of these bars, symbols, span."""
        manifest = BarStore(Path(self.root)).manifest(self.name)
        chosen = self._chosen(manifest)
        return {
            "kind": "store",
            "name": self.name,
            "digest": self._digest(manifest, chosen),
            "symbols": list(chosen),
            **({"reference": self.untraded} if self.untraded else {}),
            "start": self.start,
            "end": self.end,
            **({"as_of": self.as_of} if self.as_of else {}),
            **({"prints": self.prints} if self.prints != "final" else {}),
            **({"events": manifest["events"]["digest"]} if self.events and manifest.get("events") else {}),
            "synthetic": False,
        }

    def _digest(self, manifest: Json, chosen: Mapping[str, SymbolEntry]) -> str:
        """`content_digest` of the bars; only symbols that `start`, `end` or the others' span cuts are read for it."""
        has_events = self.events and manifest.get("events")
        if self.as_of is not None or self.prints == "first" or has_events:
            return content_digest(self.bars())
        folder, first, last = Path(self.root) / self.name, _moment("start", self.start), _moment("end", self.end)
        others = {symbol: entry for symbol, entry in chosen.items() if symbol != self.untraded}
        digests, spans = kept_digests(folder, others, after=first, until=last)
        if self.untraded is not None and spans:
            since, until = min(begin for begin, _ in spans), max(end for _, end in spans)
            digests |= kept_digests(folder, {self.untraded: chosen[self.untraded]}, since=since, until=until)[0]
        # without any, reading the bars raises DataError
        return combine_digests(digests) if spans else content_digest(self.bars())


def _moment(what: str, value: Moment | None) -> datetime | None:
    """The moment in UTC; a bare date is its midnight."""
    return None if value is None else utc(value, f"store: {what}")
