"""Runs the quick research process on thousands of simulated markets: share of `edge` verdicts by planted Sharpe.

Resumable: rows are written in blocks of seeds, each file atomically, named after the digest of its setting.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from tradsys.core.errors import TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.received import read_json
from tradsys.core.runs import digest_json, write_json
from tradsys.evidence.multiple_testing import wilson_interval
from tradsys.portfolio.costs import Costs
from tradsys.research.power_study.markets import EVALUATIONS, KINDS, PLANTS
from tradsys.research.power_study.quick_panel import PANEL_KINDS
from tradsys.research.power_study.quick_research import Setting, research
from tradsys.research.power_study.study import MOST_FALSE, StudySettings

LOG = logging.getLogger(__name__)
BLOCK = 20  # seeds of one file


@dataclass(frozen=True)
class Cell:
    """One line of the table: how often each evaluation ended in `edge`.

    The counts are of n markets of one setting.
    """

    setting: Setting
    n: int
    edges: tuple[int, ...]
    n_tried: tuple[float, ...]
    sharpe: float
    oracle: int
    seconds: float

    def interval(self, look: int) -> tuple[float, float]:
        """Wilson's 95 % bounds of the share found by that evaluation."""
        return wilson_interval(self.edges[look], self.n)


class RowOfMarket(TypedDict):
    """The used fields of a `quick_research.Row` in a block."""

    seed: int
    edges: list[bool]
    n_tried: list[int]
    sharpe: float
    oracle: bool
    seconds: float


class Block(TypedDict):
    """Markets of one setting, in order of their seeds."""

    setting: Json
    rows: list[RowOfMarket]


class EvaluationRow(TypedDict):
    """Markets with `edge` by an evaluation, and their share's interval.

    Wilson's interval; also the number of trials.
    """

    look: str
    n_edge: int
    n_tried: float
    interval: list[float]


class CellRow(TypedDict):
    """One setting.

    sharpe: of the strategy that validation chose, the mean over n markets.
    """

    setting: Json
    n: int
    sharpe: float
    looks: list[EvaluationRow]


class KindsSummary(TypedDict):
    """Content of summary.json.

    broken: kinds without an edge of which more than 5 % ended in `edge`.
    """

    n_markets: int
    cells: list[CellRow]
    broken: list[str]
    folder: str


def run_blocks(settings: Sequence[Setting], n_markets: int, folder: Path, first_seed: int = 0) -> Iterator[Path]:
    """Runs the markets missing in `folder`.

    A block of every setting in turn, so that partial results cover all.
    """
    last = first_seed + n_markets
    for start in range(first_seed, last, BLOCK):
        for setting in settings:
            path = folder / f"{digest_json(asdict(setting))[:12]}_{start}.json"
            rows = _kept_rows(path)
            more = range(start + len(rows), min(start + BLOCK, last))
            if more:
                rows += [cast("RowOfMarket", asdict(research(setting, seed))) for seed in more]
                write_json(path, {"setting": asdict(setting), "rows": rows})
                yield path


def _kept_rows(path: Path) -> list[RowOfMarket]:
    return list(_block(path)["rows"]) if path.exists() else []


def _block(path: Path) -> Block:
    """The block that `run_blocks` wrote: setting and rows; TradsysError where it is damaged."""
    fix = "delete it and run the same command again"
    found: Block = read_json(path, fix, TradsysError)
    if not isinstance(found.get("setting"), dict) or not isinstance(found.get("rows"), list):
        raise TradsysError(f"study: {path} holds no setting with rows; {fix}")
    return found


def study_of(settings: StudySettings, costs: Costs, folder: Path) -> KindsSummary:
    """`study_kinds` with a study's settings and the experiment's costs.

    Results lie in a folder of the study's name.
    """
    return study_kinds(
        settings.kinds, settings.plants, settings.edges, settings.n_markets, folder / f"{settings.name}_kinds",
        round_trip=2 * (costs.fee_bps + costs.slippage_bps) / 1e4, years=settings.years,
        first_seed=settings.first_seed,
    )  # fmt: skip


def study_kinds(
    kinds: Sequence[str], plants: Sequence[str], edges: Sequence[float], n_markets: int, folder: Path, *,
    round_trip: float = 0.0, years: float = 2.95, first_seed: int = 0,
) -> KindsSummary:  # fmt: skip
    """Runs the quick process on `n_markets` of every kind, plant and edge.

    Reuses what `folder` holds.
    Returns and writes summary.json.
    Raises TradsysError for an unknown kind or plant.
    """
    unknown = sorted(set(kinds) - {*KINDS, *PANEL_KINDS}), sorted(set(plants) - set(PLANTS))
    if unknown[0] or unknown[1] or not kinds or not plants:
        raise TradsysError(
            f"study: unknown kinds {unknown[0]}, plants {unknown[1]} of kinds={list(kinds)}, "
            f"plants={list(plants)}; the kinds are {[*KINDS, *PANEL_KINDS]}, the plants {list(PLANTS)}; set "
            "study.kinds and study.plants"
        )
    # with an edge of zero nothing is planted, so there is one form only
    planted = [(plant, float(edge)) for edge in edges for plant in (plants if edge else plants[:1])]
    settings = [
        Setting(kind, plant if edge else "steady", edge, round_trip, years) for kind in kinds for plant, edge in planted
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for path in run_blocks(settings, n_markets, folder, first_seed):
        LOG.info("written %s", path.name)
    cells = [_cell(setting, _requested_rows(setting, n_markets, folder, first_seed)) for setting in settings]
    summary: KindsSummary = {
        "n_markets": n_markets,
        "cells": [_plain(cell) for cell in cells],
        "broken": [c.setting.kind for c in cells if c.setting.edge == 0 and c.edges[-1] > MOST_FALSE * c.n],
        "folder": str(folder),
    }
    write_json(folder / "summary.json", summary)
    return summary


def _requested_rows(setting: Setting, n_markets: int, folder: Path, first_seed: int) -> list[RowOfMarket]:
    key, last = digest_json(asdict(setting))[:12], first_seed + n_markets
    rows = [r for start in range(first_seed, last, BLOCK) for r in _kept_rows(folder / f"{key}_{start}.json")]
    return [row for row in rows if row["seed"] < last]


def _plain(cell: Cell) -> CellRow:
    looks: list[EvaluationRow] = [
        {"look": look, "n_edge": cell.edges[k], "n_tried": cell.n_tried[k], "interval": list(cell.interval(k))}
        for k, look in enumerate(EVALUATIONS)
    ]
    return {"setting": asdict(cell.setting), "n": cell.n, "sharpe": cell.sharpe, "looks": looks}


def read_cells(folder: Path) -> list[Cell]:
    """One line per setting from all blocks in `folder`.

    In order of kind, plant, costs, years and edge.
    """
    found: dict[str, tuple[Setting, list[RowOfMarket]]] = {}
    for path in sorted(folder.glob("*_*.json")):
        block = _block(path)
        key = path.name.split("_")[0]
        found.setdefault(key, (Setting(**block["setting"]), []))[1].extend(block["rows"])
    cells = [_cell(setting, rows) for setting, rows in found.values()]
    return sorted(cells, key=_order)


def _order(cell: Cell) -> tuple[Any, ...]:
    s = cell.setting
    return (s.edge > 0, s.plant, s.kind, s.round_trip, s.years, s.edge)


def _cell(setting: Setting, rows: Sequence[RowOfMarket]) -> Cell:
    return Cell(
        setting=setting,
        n=len(rows),
        edges=tuple(sum(row["edges"][k] for row in rows) for k in range(len(EVALUATIONS))),
        n_tried=tuple(float(np.mean([row["n_tried"][k] for row in rows])) for k in range(len(EVALUATIONS))),
        sharpe=float(np.mean([row["sharpe"] for row in rows])),
        oracle=sum(row["oracle"] for row in rows),
        seconds=float(np.mean([row["seconds"] for row in rows])),
    )
