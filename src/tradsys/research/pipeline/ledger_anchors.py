"""The head of the trial ledger's hash chain, as recorded by every run.

A chain of hashes detects changes inside the file, but not that its end, or all of it, was removed. Each run
folder therefore stores in `ledger.json` the last row that it wrote; readers of the ledger compare. A finished run
that lost its note must still be named by a row.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradsys.core.database_url import database_url, shown_url
from tradsys.core.errors import DataError, TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.received import read_json
from tradsys.core.runs import write_json

FILE = "ledger.json"
DEPTH = 4  # runs/<task>/<run>, runs/tune/<study>/trials/<slot>
REPORT = "report.json"
FIX = "restore it from a copy"
RESTORE = (
    "restore the file from a copy; keep runs received from elsewhere outside this folder, or use another paths.runs"
)


@dataclass(frozen=True)
class Anchor:
    """A ledger row recorded by a run.

    run: its folder. id, hash: of the row; None and "" where its note is lost.
    """

    run: Path
    id: int | None
    hash: str


def write_anchor(run: Path, place: str, row: Mapping[str, Any]) -> None:
    """Records in the run's folder that the ledger at `place` holds this row.

    A run may record several ledgers.
    """
    known = _read(run / FILE) if (run / FILE).is_file() else {}
    write_json(run / FILE, known | {_from(run, place): {"id": row["id"], "hash": row["hash"]}})


def anchors(roots: Iterable[Path], place: str) -> list[Anchor]:
    """Rows of the ledger at `place` recorded by the runs below these folders.

    Raises DataError for a damaged record. A finished run whose note is gone, or names only ledgers that are gone, is
    one of them: some row must be its own.
    """
    found: dict[Path, Anchor] = {}
    for run, files in _folders(roots):
        notes = _read(run / FILE) if FILE in files else {}
        if (noted := _note_of(run, notes, place)) is not None:
            found[run] = Anchor(run, noted["id"], noted["hash"])
        elif REPORT in files and not any(_is_there(run, name) for name in notes) and _counted_trials(run / REPORT):
            found[run] = Anchor(run, None, "")
    return list(found.values())


def check_same_ledger(run: Path | None, place: str) -> None:
    """Raises DataError where a resumed run's rows are in another ledger.

    Counted in a second ledger, they would be too few in both. run: its folder; None for a new run.
    """
    if run is None or not (run / FILE).is_file():
        return
    notes = _read(run / FILE)
    others = [name for name in notes if _is_there(run, name)]
    if others and _note_of(run, notes, place) is None:
        known = others[0] if "://" in others[0] else os.path.relpath(run / others[0])
        raise DataError(
            f"ledger: {run} is resumed with paths.ledger={place}, but its evaluations are rows of {known}; a run's "
            f"trials are counted in one ledger; give paths.ledger={known}"
        )


def missing_rows(known: Iterable[Anchor], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per run whose row is no longer in the ledger. rows: the existing ones."""
    hashes = {row["id"]: row["hash"] for row in rows}
    named = {Path(row["run"].partition("#")[0]).name for row in rows}
    lines = []
    for anchor in known:
        if anchor.id is None:
            if anchor.run.name not in named:
                lines.append(f"ledger: {anchor.run} was evaluated, but no row names it and its {FILE} is gone")
        elif hashes.get(anchor.id) != anchor.hash:
            lines.append(f"ledger: row {anchor.id}, which {anchor.run} wrote, is missing or another")
    return lines


def refuse(shown: str, problems: Sequence[str]) -> None:
    """Raises DataError where there are problems.

    Names the first. shown: the ledger's place without its password.
    """
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


def _note_of(run: Path, notes: Mapping[str, Any], place: str) -> Any:
    """A run's note of the ledger at `place`, which a link may have moved since; None where there is none."""
    if (own := notes.get(_from(run, place))) is not None or "://" in place:
        return own
    here = Path(place).resolve()
    return next((row for name, row in notes.items() if "://" not in name and (run / name).resolve() == here), None)


def performances(report: Mapping[str, Any], figure: str) -> list[Mapping[str, Any]]:
    """Performance of a run's strategies of which this figure is known.

    Such as `n_trials` or `dsr`.
    """
    strategies = report.get("strategies")
    rows = [s.get("performance") for s in strategies if isinstance(s, dict)] if isinstance(strategies, list) else []
    return [row for row in rows if isinstance(row, dict) and row.get(figure) is not None]


def _counted_trials(path: Path) -> bool:
    """Whether a report's strategies were trials among those of a ledger."""
    try:
        return bool(performances(read_json(path, FIX), "n_trials"))
    except TradsysError:  # the run itself is damaged, and says so where it is read
        return False


def _is_there(run: Path, name: str) -> bool:
    """Whether a ledger that a run noted exists; of a server nobody can tell."""
    return "://" in name or (run / name).exists()


def _folders(roots: Iterable[Path]) -> Iterator[tuple[Path, Sequence[str]]]:
    """Every folder with a note or a report and its files, once; one that vanishes meanwhile, as a draft, holds none."""
    seen: set[Path] = set()
    for root in {root.resolve() for root in roots}:
        for name, inner, files in os.walk(root, followlinks=True):  # a task's folder may lie on another volume
            inner.sort()
            folder = Path(name)
            if len(folder.relative_to(root).parts) == DEPTH:
                inner.clear()
            if (FILE in files or REPORT in files) and (real := folder.resolve()) not in seen:
                seen.add(real)
                yield real, files


def _read(path: Path) -> dict[str, Json]:
    noted: dict[str, Json] = read_json(path, FIX, DataError)
    for row in noted.values():
        if not (isinstance(row, dict) and isinstance(row.get("id"), int) and isinstance(row.get("hash"), str)):
            raise DataError(f"ledger: {path} is no run's record of ledger rows; {FIX}")
    return noted
