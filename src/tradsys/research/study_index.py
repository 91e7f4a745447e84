"""Comparisons and sweeps as rows of the index of runs: listed with their pages, not ranked, never cleaned up."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradsys.core.errors import TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.received import one_line, plain_texts, read_json
from tradsys.research.run_index import RunRow

RESULTS = {"compare": "table.json", "tune": "report.json"}


def read_studies(root: Path) -> list[RunRow]:
    """Every comparison and sweep with a result below `root`.

    Damaged ones have a note, links are left out.
    """
    rows = []
    for task, result in RESULTS.items():
        for path in sorted((root / task).glob(f"*/{result}")):
            if not (path.is_symlink() or path.parent.is_symlink()):
                rows.append(_read_study(root, task, path))
    return sorted(rows, key=lambda row: row.when, reverse=True)


def _read_study(root: Path, task: str, path: Path) -> RunRow:
    folder = path.parent.relative_to(root).as_posix()
    try:
        fields = plain_texts((_of_comparison if task == "compare" else _of_sweep)(read_json(path, "run it again")))
        return RunRow(folder, task, state="done", page=(path.parent / "report.html").is_file(), **fields)
    except (TradsysError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        note = f"{path.name}: {type(error).__name__}: {one_line(error, 100)}"
        return RunRow(folder, task, "", "damaged", note=note)


def _of_comparison(table: Mapping[str, Any]) -> Json:
    source = table["provenance"]
    data = source["data"]
    return {
        "when": str(source["created"]),
        "experiment": str(table["name"]),
        "data": str(data.get("name") or data.get("kind") or ""),
        "model": f"{len(table['variants'])} variants",
        "code": str(source.get("code_sha") or "")[:12],
        "synthetic": bool(table["synthetic"]),
    }


def _of_sweep(report: Mapping[str, Any]) -> Json:
    return {
        "when": str(report["begun"]),
        "experiment": str(report["study"]),
        "model": f"{len(report['trials'])} trials",
        "code": str(report.get("code_sha") or "")[:12],
        "synthetic": bool(report["synthetic"]),
        "minutes": round(60 * float(report["machine_hours"]), 2),
    }
