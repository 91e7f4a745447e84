"""The head of the trial ledger's chain as every run's own record keeps it.

A chain of hashes shows what was changed inside the file, not that its end, or all of it, was taken away. Each run
folder therefore notes in `ledger.json` the last row that it wrote; whoever reads the ledger compares.
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
    """A row that a run saw in the ledger. run: its folder. id, hash: of the row."""

    run: Path
    id: int
    hash: str


def write_anchor(run: Path, place: str, row: Mapping[str, Any]) -> None:
    """Notes in the run's folder that the ledger at `place` holds this row; a run may know several ledgers."""
    known = _read(run / FILE) if (run / FILE).is_file() else {}
    write_json(run / FILE, known | {_from(run, place): {"id": row["id"], "hash": row["hash"]}})


def anchors(roots: Iterable[Path], place: str) -> list[Anchor]:
    """What the runs below these folders know of the ledger at `place`; DataError for a damaged record."""
    found: dict[Path, Anchor] = {}
    for path in _files(roots):
        noted = _read(path).get(_from(path.parent, place))
        if noted is not None:
            found[path] = Anchor(path.parent, noted["id"], noted["hash"])
    return list(found.values())


def missing_rows(known: Iterable[Anchor], hashes: Mapping[int, str]) -> list[str]:
    """One line per run whose row is not in the ledger any more. hashes: of the rows there are, by number."""
    gone = [a for a in known if hashes.get(a.id) != a.hash]
    return [f"ledger: row {a.id}, which {a.run} wrote, is missing or another" for a in gone]


def refuse(shown: str, problems: Sequence[str]) -> None:
    """Raises DataError where there are problems; the first is named. shown: the ledger's place without its password."""
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise DataError(
            f"ledger: {shown} is damaged: {problems[0].removeprefix('ledger: ')}{more}; no deflated figure is made "
            f"from it; {RESTORE}"
        )


def _from(run: Path, place: str) -> str:
    """The ledger as seen from a run's folder, so that a tree of runs can be moved; a URL's password is never kept."""
    if "://" in place:
        return shown_url(database_url(place, "ledger").set(query={}))
    return os.path.relpath(Path(place).resolve(), run.resolve())


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    """Every record below these folders; a folder that vanishes meanwhile, such as a run's draft, holds none."""
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
            raise DataError(f"ledger: {path} is no record of rows; {FIX}")
    return noted
