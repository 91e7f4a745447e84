"""Files into the store: bars, the events that they imply, files of actions; and what the command prints of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradsys.core.errors import DataError
from tradsys.core.runs import digest_file
from tradsys.market.events.action_files import read_actions
from tradsys.market.sources.sniff import FormKeys
from tradsys.market.store import BarStore
from tradsys.market.updates import MOST_LINES, as_lines


def store_files(source: Any, store: BarStore, plain: Mapping[str, Any], console: Any) -> None:
    """Reads path= and actions=, whichever is given, writes the store and prints what came in.

    source: of the bars, as `sources.files.FileSource`. plain: the fetch configuration. Raises DataError as the readers
    and the store do; what was stored of path= stays where actions= is refused.
    """
    name = str(plain["name"])
    if plain["path"] is None and plain["actions"] is None:
        raise DataError("config: 'path' has no value; it is the file or folder to read; give path=...")
    if plain["path"] is not None:
        result = source.read()
        summary = store.append(name, result.bars, result.meta, mode=plain["mode"], conflicts=plain["conflicts"])
        print_import(console, result, summary)
        if result.events.height:
            new, revised = store.add_events(name, result.events, {"source": result.meta["source"]})
            console.print(f"events from adjusted closes: {new:,} new, {revised:,} revised")
    if plain["actions"] is not None:
        console.print(add_actions(store, name, plain))


def add_actions(store: BarStore, name: str, plain: Mapping[str, Any]) -> str:
    """Reads a file of dividends, splits or funding into a dataset; what came in, as a line."""
    path = Path(str(plain["actions"]))
    keys = FormKeys(plain["separator"], plain["decimal"], plain["date_format"], plain["zone"], plain["header"], None)
    events = read_actions(path, plain["symbol"], keys, list(store.manifest(name)["symbols"]))
    new, revised = store.add_events(name, events, {"source": path.name, "sha256": digest_file(path)})
    counts = ", ".join(f"{n:,} {kind}" for kind, n in events.group_by("kind").len().sort("kind").iter_rows())
    return f"actions {path.name}: {counts}; {new:,} new, {revised:,} revised"


def housekeeping(store: BarStore, name: str, mode: str) -> str:
    """mode=undo or mode=clean of a dataset; what was done, as a line."""
    if mode == "clean":
        return f"{name}: {store.clean(name)} files of earlier content removed"
    manifest = store.undo(name)
    return f"{name}: restored {manifest['n_rows']:,} bars, {manifest['start']} to {manifest['end']}"


def print_import(console: Any, result: Any, summary: Any) -> None:
    """Prints how the files were read, what was repaired, and what is stored now."""
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
