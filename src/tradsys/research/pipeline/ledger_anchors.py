"""The head of the trial ledger's hash chain, as recorded by every run.

A chain of hashes detects changes inside the file, but not that its end, or all of it, was removed. Each run
folder therefore stores in `ledger.json` the last row that it wrote; readers of the ledger compare.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradsys.core.database_url import database_url, shown_url
from tradsys.core.errors import DataError
from tradsys.core.received import read_json
from tradsys.core.runs import write_json

FILE = "ledger.json"
DEPTH = 4  # runs/<task>/<run>, runs/tune/<study>/trials/<slot>
FIX = "restore it from a copy"
RESTORE = (
    "restore the file from a copy; keep runs received from elsewhere outside this folder, or use another paths.runs"
)


@dataclass(frozen=True)
class Anchor:
    """A ledger row recorded by a run. run: its folder. id, hash: of the row."""

    run: Path
    id: int
    hash: str


def write_anchor(run: Path, place: str, row: Mapping[str, Any]) -> None:
    """Records in the run's folder that the ledger at `place` holds this row; a run may record several ledgers."""
    known = _read(run / FILE) if (run / FILE).is_file() else {}
    write_json(run / FILE, known | {_from(run, place): {"id": row["id"], "hash": row["hash"]}})


def anchors(roots: Iterable[Path], place: str) -> list[Anchor]:
    """Rows of the ledger at `place` recorded by the runs below these folders; DataError for a damaged record."""
    found: dict[Path, Anchor] = {}
    for path in _files(roots):
        noted = _read(path).get(_from(path.parent, place))
        if noted is not None:
            found[path] = Anchor(path.parent, noted["id"], noted["hash"])
    return list(found.values())


def missing_rows(known: Iterable[Anchor], hashes: Mapping[int, str]) -> list[str]:
    """One line per run whose row is no longer in the ledger. hashes: of the existing rows, by number."""
    gone = [a for a in known if hashes.get(a.id) != a.hash]
    return [f"ledger: row {a.id}, which {a.run} wrote, is missing or another" for a in gone]


def refuse(shown: str, problems: Sequence[str]) -> None:
    """Raises DataError where there are problems; names the first. shown: the ledger's place without its password."""
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise DataError(
            f"ledger: {shown} is damaged: {problems[0].removeprefix('ledger: ')}{more}; no deflated figure is made "
            f"from it; {RESTORE}"
        )


def _from(run: Path, place: str) -> str:
    """The ledger's path relative to a run's folder, so that a tree of runs can be moved; passwords are never stored."""
    if "://" in place:
        return shown_url(database_url(place, "ledger").set(query={}))
    return os.path.relpath(Path(place).resolve(), run.resolve())


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    """Every record below these folders; a folder that vanishes meanwhile, such as a run's draft, has none."""
    for root in {root.resolve() for root in roots}:
        for folder, inner, files in os.walk(root, followlinks=True):  # a task's folder may lie on another volume
            inner.sort()
            if len(Path(folder).relative_to(root).parts) == DEPTH:
                inner.clear()
            if FILE in files:
                yield Path(folder, FILE)


def _read(path: Path) -> dict[str, Any]:
    noted: dict[str, Any] = read_json(path, FIX, DataError)
    for row in noted.values():
        if not (isinstance(row, dict) and isinstance(row.get("id"), int) and isinstance(row.get("hash"), str)):
            raise DataError(f"ledger: {path} is no run's record of ledger rows; {FIX}")
    return noted
