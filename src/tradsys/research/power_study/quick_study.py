"""Thousands of simulated markets through the quick research process: how often it ends in edge, and at which Sharpe.

Resumable: rows are written in blocks of seeds, each file atomically, named after the digest of its setting.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradsys.core.runs import digest_json, write_json
from tradsys.evidence.multiple_testing import wilson_interval
from tradsys.research.power_study.quick_research import LOOKS, Setting, research

LOG = logging.getLogger(__name__)
BLOCK = 20  # seeds of one file


@dataclass(frozen=True)
class Cell:
    """One line of the table: how often each look had ended in `edge`, of n markets of a setting."""

    setting: Setting
    n: int
    edges: tuple[int, ...]
    n_tried: tuple[float, ...]
    sharpe: float
    oracle: int
    seconds: float

    def interval(self, look: int) -> tuple[float, float]:
        """Wilson's 95 % bounds of the share found by that look."""
        return wilson_interval(self.edges[look], self.n)


def run_blocks(settings: Sequence[Setting], n_markets: int, folder: Path, first_seed: int = 0) -> Iterator[Path]:
    """Runs what `folder` lacks, a block of every setting in turn, so that an early look has all of them."""
    for start in range(first_seed, first_seed + n_markets, BLOCK):
        for setting in settings:
            path = folder / f"{digest_json(asdict(setting))[:12]}_{start}.json"
            if not path.exists():
                rows = [asdict(research(setting, seed)) for seed in range(start, start + BLOCK)]
                write_json(path, {"setting": asdict(setting), "rows": rows})
                yield path


def read_cells(folder: Path) -> list[Cell]:
    """One line per setting from all blocks in `folder`, in order of kind, plant, costs, years and edge."""
    found: dict[str, tuple[Setting, list[dict[str, Any]]]] = {}
    for path in sorted(folder.glob("*_*.json")):
        block = json.loads(path.read_text(encoding="utf-8"))
        key = path.name.split("_")[0]
        found.setdefault(key, (Setting(**block["setting"]), []))[1].extend(block["rows"])
    cells = [_cell(setting, rows) for setting, rows in found.values()]
    return sorted(cells, key=_order)


def _order(cell: Cell) -> tuple[Any, ...]:
    s = cell.setting
    return (s.edge > 0, s.plant, s.kind, s.round_trip, s.years, s.edge)


def _cell(setting: Setting, rows: Sequence[dict[str, Any]]) -> Cell:
    return Cell(
        setting=setting,
        n=len(rows),
        edges=tuple(sum(row["edges"][k] for row in rows) for k in range(len(LOOKS))),
        n_tried=tuple(float(np.mean([row["n_tried"][k] for row in rows])) for k in range(len(LOOKS))),
        sharpe=float(np.mean([row["sharpe"] for row in rows])),
        oracle=sum(row["oracle"] for row in rows),
        seconds=float(np.mean([row["seconds"] for row in rows])),
    )
