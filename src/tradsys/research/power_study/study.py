"""Power study: the complete research process on many synthetic markets, and how often it ends in `edge`."""

import contextlib
import logging
import signal
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import polars as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.optimize import isotonic_regression

from tradsys.core.errors import TradsysError
from tradsys.core.headline import Interval
from tradsys.core.progress.bars import bar
from tradsys.core.received import read_json, refused_in_one_line
from tradsys.core.runs import code_sha, digest_json, write_json, written_atomically
from tradsys.core.tables import Array
from tradsys.evidence.cosines import student_quantile
from tradsys.evidence.multiple_testing import wilson_interval
from tradsys.market.synthetic import SyntheticMarket
from tradsys.models.training.ranks.launcher import start_method
from tradsys.reports.power_study_page import write_study
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.single_thread import single_threads
from tradsys.research.power_study.markets import EVALUATIONS
from tradsys.research.power_study.simulated_research import (
    REFUSED,
    MarketRow,
    SpanEvaluation,
    candidates_of,
    run_market,
)

LOG = logging.getLogger(__name__)
AGAIN = "delete it and run the same command again"
MOST_FALSE = 0.05  # share of markets without an edge that may end in `edge`
FOUND = 0.8  # share of markets with an edge that must end in `edge` for that edge to count as found


@dataclass(frozen=True)
class StudySettings:
    """Which markets, which levels are tried on each, how many at once.

    edges: planted, in sigmas per bar, 0 for none. n_markets: of each edge; their seeds are first_seed, first_seed + 1,
    ..., the same for every edge. levels: by strategy profile, the values that replace its rule's value. n_jobs:
    processes of one thread each; 0 uses this one. kinds: of markets for the quick process (`quick_study`) instead
    of the complete one, empty for that; plants: shapes of their edges; years: of each market. Raises TradsysError out
    of range.
    """

    name: str
    edges: Sequence[float]
    n_markets: int
    levels: Mapping[str, Sequence[float]]
    first_seed: int = 0
    n_jobs: int = 2
    confidence: float = 0.95
    kinds: Sequence[str] = ()
    plants: Sequence[str] = ("steady",)
    years: float = 2.95

    def __post_init__(self) -> None:
        if not self.edges or len(set(self.edges)) != len(self.edges):
            raise TradsysError(f"study: edges {list(self.edges)}; at least one, each once; set study.edges")
        for name, least in (("n_markets", 1), ("n_jobs", 0)):
            if getattr(self, name) < least:
                raise TradsysError(
                    f"study: {name}={getattr(self, name)}; it must be at least {least}; set study.{name}"
                )

    @property
    def markets(self) -> list[tuple[float, int]]:
        """(edge, seed) of every market, in the order in which they run.

        Each seed takes all edges in turn, so that partial results cover all edges.
        """
        seeds = range(self.first_seed, self.first_seed + self.n_markets)
        return [(float(edge), seed) for seed, edge in product(seeds, self.edges)]


class EvaluationRow(TypedDict):
    """Of n markets, how many had ended in `edge` by an evaluation.

    After how many distinct and effective trials.
    """

    look: str
    n_edge: int
    n: int
    share: Interval
    n_trials: float
    n_effective: float


class FalseEdges(EvaluationRow):
    """Share of markets without an edge that ended in `edge`; most: the limit."""

    most: float


class EdgeRow(TypedDict):
    """n markets of one planted edge.

    A refused market counts as no edge and stays in n. sharpe: yearly, after costs, of the strategy that validation
    chose. skill: mean.
    """

    edge: float
    n: int
    n_refused: int
    verdicts: dict[str, int]
    sharpe: Interval | None
    skill: float | None
    looks: list[EvaluationRow]


class SmallestEdge(TypedDict):
    """The smallest edge found in `share` of the markets.

    In sigmas and in Sharpe after costs.
    """

    share: float
    edge: Interval
    sharpe: Interval


class Summary(TypedDict):
    """Content of summary.json.

    false_edges: of the edge 0, by the last evaluation. code: versions of the rows.
    """

    name: str
    n_markets: int
    confidence: float
    years: float | None
    test_years: float | None
    seconds_per_market: float
    code: list[str]
    by_edge: list[EdgeRow]
    false_edges: FalseEdges | None
    smallest: SmallestEdge | None
    folder: NotRequired[str]


def study(experiment: Experiment, settings: StudySettings, folder: Path, config: Mapping[str, Any]) -> Summary:
    """Runs the process on the markets missing in `folder`, summarises all.

    Each finished market is one file, written atomically, in a folder named after the digest of what determines a row,
    so an interrupted study resumes, and a changed config starts anew. Writes summary.json and rows.parquet next to
    them; returns the summary with `folder` in it. Raises TradsysError where the experiment is not on a synthetic
    market.
    """
    _check_study(experiment, settings)
    place = folder / f"{settings.name}_{_digest(config)[:12]}"
    todo = [market for market in settings.markets if not _path(place, *market).exists()]
    LOG.info("%d of %d markets to go in %s", len(todo), len(settings.markets), place)
    one = partial(_run_market, experiment, dict(settings.levels), dict(config), place, code_sha())
    with contextlib.closing(_done(one, todo, settings.n_jobs)) as done, _progress() as progress:
        bar = progress.add_task("markets", total=len(settings.markets), completed=len(settings.markets) - len(todo))
        for _ in done:
            progress.advance(bar)
    rows = [_read_row(_path(place, *market)) for market in settings.markets]
    summary = summarise(rows, settings)
    summary["folder"] = str(place)
    write_json(place / "summary.json", summary)
    with written_atomically(place / "rows.parquet") as draft:
        flat(rows).write_parquet(draft)
    write_study(summary, place)
    return summary


def is_broken(summary: Summary) -> bool:
    """True where more than 5 % of the markets without an edge ended in one."""
    false = summary["false_edges"]
    return false is not None and (false["share"]["value"] or 0.0) > false["most"]


def _check_study(experiment: Experiment, settings: StudySettings) -> None:
    if not isinstance(experiment.data["source"], SyntheticMarket):
        raise TradsysError("study: the data are not synthetic; a power study needs a known edge; use data=synthetic")
    if not candidates_of(experiment):
        raise TradsysError("study: no candidates; baselines beside the base rate compete; name some with baselines=all")
    if set(settings.levels) != set(experiment.strategy):
        raise TradsysError(
            f"study: levels for {sorted(settings.levels)}, profiles {sorted(experiment.strategy)}; each profile needs "
            "the levels that are tried; set study.levels or strategy="
        )


def _digest(config: Mapping[str, Any]) -> str:
    """Digest of what determines a row: not how many markets, which edges, or where files lie."""
    decides = {k: v for k, v in config.items() if k not in ("paths", "resume", "study", "audit", "question")}
    return digest_json(decides | {"levels": config["study"]["levels"]})


def _path(place: Path, edge: float, seed: int) -> Path:
    return place / "rows" / f"edge_{edge:g}_seed_{seed}.json"


def _run_market(
    experiment: Experiment,
    levels: Mapping[str, Sequence[float]],
    config: Mapping[str, Any],
    place: Path,
    sha: str,
    market: tuple[float, int],
) -> tuple[float, int]:
    """One market's row, written atomically. sha: of the code that was loaded when the study began, not a later one."""
    row = replace(run_market(experiment, levels, config, *market), code_sha=sha)
    write_json(_path(place, *market), row.as_dict())
    return market


def _read_row(path: Path) -> MarketRow:
    with refused_in_one_line(f"study: {path}", AGAIN, TradsysError):
        row = read_json(path, AGAIN, TradsysError)
        looks = tuple(SpanEvaluation(**{**look, "winners": tuple(look["winners"])}) for look in row["looks"])
        return MarketRow(**{**row, "looks": looks})


def _done(one: Any, todo: Sequence[tuple[float, int]], n_jobs: int) -> Generator[tuple[float, int], None, None]:
    """Yields markets as they finish. Closed early, running ones are finished and waiting ones dropped."""
    if n_jobs == 0 or not todo:
        yield from map(one, todo)
        return
    forked = start_method("tradsys.research.power_study.simulated_research")
    # workers leave Ctrl-C to this process, finish their market and write its row
    quiet = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with single_threads():
        pool = ProcessPoolExecutor(n_jobs, forked, quiet)
        try:
            for future in as_completed([pool.submit(one, market) for market in todo]):
                yield future.result()
        finally:
            # not the pool's own `with`: its second shutdown would undo the cancelling
            pool.shutdown(cancel_futures=True)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return bar(*columns)


def summarise(rows: Sequence[MarketRow], settings: StudySettings) -> Summary:
    """Shares of `edge` by planted edge and evaluation, with Wilson intervals.

    Where edges were planted, the power.
    """
    by_edge = [_of_edge(edge, [r for r in rows if r.edge == edge], settings.confidence) for edge in settings.edges]
    completed = [r for r in rows if r.verdict != REFUSED]
    null = next((e for e in by_edge if e["edge"] == 0), None)
    planted = [e for e in by_edge if e["edge"] > 0]
    return {
        "name": settings.name,
        "n_markets": len(rows),
        "confidence": settings.confidence,
        "years": float(np.mean([r.years for r in completed])) if completed else None,
        "test_years": float(np.mean([r.test_years for r in completed])) if completed else None,
        "seconds_per_market": float(np.mean([r.seconds for r in rows])),
        "code": sorted({r.code_sha for r in rows}),
        "by_edge": by_edge,
        "false_edges": {**null["looks"][-1], "most": MOST_FALSE} if null and null["looks"] else None,
        "smallest": smallest_found(planted, rows, settings) if len(planted) > 1 else None,
    }


def _of_edge(edge: float, rows: Sequence[MarketRow], confidence: float) -> EdgeRow:
    sharpes = np.array([r.sharpe for r in rows if r.sharpe is not None])
    skills = [r.skill for r in rows if r.skill is not None]
    seen = [look for r in rows for look in r.looks]
    return {
        "edge": edge,
        "n": len(rows),
        "n_refused": sum(r.verdict == REFUSED for r in rows),
        "verdicts": {kind: sum(r.verdict == kind for r in rows) for kind in sorted({r.verdict for r in rows})},
        "sharpe": mean_of_markets(sharpes, confidence) if len(sharpes) else None,
        "skill": float(np.mean(skills)) if skills else None,
        "looks": [
            _of_evaluation(look, rows, confidence) for look in EVALUATIONS if any(one.name == look for one in seen)
        ],
    }


def _of_evaluation(look: str, rows: Sequence[MarketRow], confidence: float) -> EvaluationRow:
    """Number of markets with `edge` by this evaluation, and the distinct and effective trials by then."""
    found = sum(r.found_by(look) for r in rows)
    low, high = wilson_interval(found, len(rows), confidence)
    last = [[one for one in r.looks if one.name == look][-1] for r in rows if r.looks]
    return {
        "look": look,
        "n_edge": found,
        "n": len(rows),
        "share": {"value": found / len(rows), "low": low, "high": high},
        "n_trials": float(np.mean([one.n_trials for one in last])),
        "n_effective": float(np.mean([one.n_effective for one in last])),
    }


def mean_of_markets(values: Array, confidence: float) -> Interval:
    """Mean of independent markets with Student's interval; none of one market.

    Source: Student 1908.
    """
    n, mean = len(values), float(values.mean())
    if n < 2:
        return {"value": mean, "low": None, "high": None}
    half = float(student_quantile(confidence, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return {"value": mean, "low": mean - half, "high": mean + half}


def smallest_found(
    planted: Sequence[EdgeRow], rows: Sequence[MarketRow], settings: StudySettings, n_draws: int = 500
) -> SmallestEdge:
    """The smallest edge that ends in `edge` 80 % of the time.

    By the last evaluation: in sigmas, and as a Sharpe. The share found and the mean Sharpe are made monotone in the
    edge (pool adjacent violators) and interpolated. {value, low, high} each; the Sharpe is after costs. The interval is
    the percentiles over resampled seeds, all edges of a seed together, with None for a bound beyond the edges tried,
    and `value` None where no edge tried was found often enough.
    """
    ordered = sorted(planted, key=lambda e: e["edge"])
    edges = np.array([e["edge"] for e in ordered])
    of = {(r.edge, r.seed): r for r in rows}
    seeds = sorted({r.seed for r in rows if r.edge > 0})
    found_SE = np.array([[of[edge, s].found_by(EVALUATIONS[-1]) for edge in edges] for s in seeds], dtype=float)
    sharpe_SE = np.array([[of[edge, s].sharpe or 0.0 for edge in edges] for s in seeds])
    all_seeds = _crossing(edges, found_SE.mean(axis=0), sharpe_SE.mean(axis=0))
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(n_draws):
        picked = rng.integers(0, len(seeds), len(seeds))
        draws.append(_crossing(edges, found_SE[picked].mean(axis=0), sharpe_SE[picked].mean(axis=0)))
    # beyond the edges tried counts as infinite, on that side
    spread = np.quantile(
        np.array(draws), [(1 - settings.confidence) / 2, (1 + settings.confidence) / 2], axis=0, method="nearest"
    )

    def named(k: int) -> Interval:
        value, low, high = (float(v) if np.isfinite(v) else None for v in (all_seeds[k], *spread[:, k]))
        return {"value": value, "low": low, "high": high}

    return {"share": FOUND, "edge": named(0), "sharpe": named(1)}


def _crossing(edges: Array, share_E: Array, sharpe_E: Array) -> tuple[float, float]:
    """Edge and mean Sharpe at which the monotone share reaches 80 %; plus or minus infinity outside the edges."""
    share, sharpe = monotone(share_E), monotone(sharpe_E)
    if share[-1] < FOUND:
        return np.inf, np.inf
    k = int(np.argmax(share >= FOUND))
    if k == 0:
        return (edges[0], sharpe[0]) if share[0] == FOUND else (-np.inf, -np.inf)
    part = (FOUND - share[k - 1]) / (share[k] - share[k - 1])
    return tuple(float(v[k - 1] + part * (v[k] - v[k - 1])) for v in (edges, sharpe))  # type: ignore[return-value]


def monotone(values: Array) -> Array:
    """The nearest never-falling series in squared error (Ayer et al. 1955)."""
    fitted: Array = isotonic_regression(values).x
    return fitted


def flat(rows: Sequence[MarketRow]) -> pl.DataFrame:
    """One row per market: verdict, trials and best Sharpe by evaluation.

    Each evaluation's as columns.
    """
    plain = [f.name for f in fields(MarketRow) if f.name != "looks"]
    out = []
    for row in rows:
        values = {name: getattr(row, name) for name in plain}
        for look in row.looks:
            values |= {f"{look.name}_{k}": getattr(look, k) for k in ("verdict", "n_trials", "n_effective", "best")}
        out.append(values)
    return pl.DataFrame(out, infer_schema_length=None)
