"""Imports files of bars and of corporate actions into the store, and prints the result."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.runs import digest_file
from tradsys.market.bars import COLUMNS
from tradsys.market.downloads.revisions import RevisionRule, revise
from tradsys.market.events.action_files import read_actions
from tradsys.market.sources.names import alike_spellings
from tradsys.market.sources.sniff import FormKeys
from tradsys.market.store import BarStore
from tradsys.market.updates import MOST_LINES, as_lines

# keys that one way of calling `fetch` does not read, by the keys that choose that way
DOWNLOADED = ("symbols", "universe", "start", "end", "reread_bars", "revisions", "max_revised_share")
READ = ("path", "actions", "layout", "symbol", "mapping", "mode", "conflicts")


def check_keys(plain: Mapping[str, Any], given: Collection[str], *, downloads: bool) -> None:
    """Refuses keys that this way of calling `fetch` ignores.

    Nothing has been read by then. plain: the fetch configuration. given: keys set on the command line. Raises DataError
    with the keys.
    """
    mode, files = plain["mode"], [key for key in ("path", "actions") if plain[key] is not None]
    if mode in ("undo", "clean"):
        way, unread = f"mode={mode}", {*DOWNLOADED, *READ} - {"mode"}
    elif downloads:
        way, unread = "source= downloads", set(READ)
    else:
        way, unread = f"{files[0]}=" if files else "source=file", set(DOWNLOADED)
        if mode == "replace":
            way, unread = "mode=replace", unread | {"conflicts"}
        if files == ["actions"]:
            unread |= {"mode", "conflicts"}
    if odd := sorted(unread & set(given)):
        raise DataError(
            f"fetch: {', '.join(f'{key}={plain[key]}' for key in odd)} given with {way}, which does not read "
            f"{'it' if len(odd) == 1 else 'them'}; leave {'it' if len(odd) == 1 else 'them'} out"
        )


def store_files(source: Any, store: BarStore, plain: Mapping[str, Any], console: Any) -> None:
    """Reads path= and actions= where given, writes the store and prints the result.

    source: of the bars, a `sources.files.FileSource`. plain: the fetch configuration. Raises DataError as the readers
    and the store do; both files are read before anything is stored.
    """
    name = str(plain["name"])
    if plain["path"] is None and plain["actions"] is None:
        raise DataError("config: 'path' has no value; it is the file or folder to read; give path=...")
    result = source.read() if plain["path"] is not None else None
    actions = None
    if plain["actions"] is not None:
        stored = store.manifest(name)["symbols"] if result is None or name in store.names() else ()
        known = {*stored, *(() if result is None else result.bars["symbol"].unique())}
        actions = events_of_file(plain, sorted(known))
    if result is not None:
        if plain["conflicts"] == "take" and plain["mode"] == "append":
            enter_revisions(store, name, result.bars, str(result.meta["source"]))
        stored = set(store.manifest(name)["symbols"]) if name in store.names() else set()
        summary = store.append(name, result.bars, result.meta, mode=plain["mode"], conflicts=plain["conflicts"])
        print_import(console, result, summary)
        for line in new_spellings(stored, set(result.bars["symbol"].unique())):
            console.print(line)
        if result.events.height:
            new, revised = store.add_events(name, result.events, {"source": result.meta["source"]})
            console.print(f"events from adjusted closes: {new:,} new, {revised:,} revised")
    if actions is not None:
        console.print(add_actions(store, name, Path(str(plain["actions"])), actions))


def new_spellings(stored: Collection[str], new: Collection[str]) -> list[str]:
    """A line for each new symbol that looks like a stored one.

    It would start a second history.
    """
    added = set(new) - set(stored)
    texts = [text for found in alike_spellings({*stored, *added}) for text in found.examples]
    shown = [text for text in texts if {*text.split(" and ")} & added and {*text.split(" and ")} & set(stored)]
    return [f"alike: {text} are two histories; undo with mode=undo and give symbol= or mapping=" for text in shown]


def enter_revisions(store: BarStore, name: str, bars: pl.DataFrame, source: str) -> None:
    """Records in the revision ledger what a file changes in stored bars.

    Before it is stored.
    """
    stored = store.manifest(name)["symbols"] if name in store.names() else {}
    for key, own in bars.partition_by("symbol", as_dict=True).items():
        if (symbol := str(key[0])) in stored:
            revise(store.root / name, store.read(name, [symbol]), own.select(COLUMNS), source, RevisionRule())


def events_of_file(plain: Mapping[str, Any], known: Collection[str]) -> pl.DataFrame:
    """Dividends, splits and funding of actions=, of the symbols `known`.

    Raises DataError as `read_actions`.
    """
    keys = FormKeys(plain["separator"], plain["decimal"], plain["date_format"], plain["zone"], plain["header"], None)
    return read_actions(Path(str(plain["actions"])), plain["symbol"], keys, known)


def add_actions(store: BarStore, name: str, path: Path, events: pl.DataFrame) -> str:
    """Adds the events of a file to a dataset; returns a line with the counts."""
    new, revised = store.add_events(name, events, {"source": path.name, "sha256": digest_file(path)})
    counts = ", ".join(f"{n:,} {kind}" for kind, n in events.group_by("kind").len().sort("kind").iter_rows())
    return f"actions {path.name}: {counts}; {new:,} new, {revised:,} revised"


def housekeeping(store: BarStore, name: str, mode: str) -> str:
    """Runs mode=undo or mode=clean on a dataset; returns a line with the result."""
    if mode == "clean":
        return f"{name}: {store.clean(name)} files of earlier content removed"
    manifest = store.undo(name)
    return f"{name}: restored {manifest['n_rows']:,} bars, {manifest['start']} to {manifest['end']}"


def print_import(console: Any, result: Any, summary: Any) -> None:
    """Prints how the files were read, the repairs, and the stored content."""
    for line in result.seen[:MOST_LINES]:
        console.print(f"read {line}")
    if len(result.seen) > MOST_LINES:
        console.print(f"and {len(result.seen) - MOST_LINES} files more")
    for finding in (*result.repairs, *result.remarks):
        console.print(
            f"{finding.kind}: {finding.count:,} rows, such as {'; '.join(finding.examples[:3])}. {finding.note}"
        )
    for line in as_lines(summary):
        console.print(line)
    symbols = {update.symbol for update in summary.updates}
    written = {symbol: entry for symbol, entry in summary.manifest["symbols"].items() if symbol in symbols}
    for symbol, entry in list(written.items())[:MOST_LINES]:
        console.print(f"stored {symbol}: {entry['n_rows']:,} bars, {entry['start']} to {entry['end']}")
    if len(written) > MOST_LINES:
        rows = sum(entry["n_rows"] for entry in written.values())
        console.print(f"stored {len(written):,} symbols in all: {rows:,} bars")
    console.print(f"digest {summary.manifest['digest']}")
