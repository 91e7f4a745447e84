"""Journal of the trial ledger: experiment after experiment, its question, its changes and its results.

The ledger is the source, so no evaluation can be left out; run folders add the question, the settings and
the result. A run whose folder is gone is still listed, marked as gone.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypedDict
from urllib.parse import quote

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.headline import EstimateRow, headline_skill
from tradsys.core.plain_data import Config
from tradsys.core.received import parse_yaml, plain_texts, read_json, read_text, refused_in_one_line
from tradsys.core.tables import Array
from tradsys.evidence.deflation import Deflation, deflated_sharpe
from tradsys.research.pipeline.ledger_database import LedgerRow
from tradsys.research.pipeline.trial_ledger import TrialLedger, deflation_of_trials, run_folder, run_identity

# keys that affect no result: file locations, and the question, which is shown separately
_UNTOLD = ("paths", "resume", "question")
MIN_DSR = 0.95
MADE_UP = "tradsys.market.synthetic"  # the modules of markets that are made up
FIX = "restore it from a copy, or move the run's folder away: the ledger keeps its evaluations"


class PurposeRow(TypedDict):
    """Number of evaluations for one purpose, with the subject of each."""

    purpose: str
    subjects: list[str]


class ModelLine(TypedDict):
    """A model of a run."""

    name: str
    skill_beyond_level: EstimateRow


class StrategyLine(TypedDict):
    """A strategy of a run.

    verdict: its kind; dsr and n_trials at its evaluation, and by all trials as of today.
    """

    name: str
    verdict: str
    sharpe: EstimateRow
    dsr: float | None
    n_trials: float | None
    n_trades: int
    dsr_today: float | None
    n_trials_today: float | None


class ChangedSetting(TypedDict):
    """A setting that differs from the run before."""

    key: str
    before: Any
    after: Any


class ExperimentRow(TypedDict):
    """One run of the journal, or one evaluation without a run.

    gone, unfinished: why there is no result, None where there is one. span: first and last evaluated moment.
    compared_with: the previous run of the same task, whose settings `changed` lists; None where either is unknown.
    confidence: of the intervals, None where unknown. verdict: as in the run's metrics. overtaken: edges that later
    trials invalidated. link: the run's page.
    """

    number: int
    run: str
    task: str
    when: str
    who: str
    code_sha: str
    question: str | None
    gone: str | None
    unfinished: str | None
    looks: list[PurposeRow]
    span: list[str]
    data: str
    compared_with: str | None
    changed: list[ChangedSetting] | None
    models: list[ModelLine]
    confidence: float | None
    strategies: list[StrategyLine]
    verdict: Mapping[str, Any] | None
    overtaken: list[str]
    link: str | None


class Journal(TypedDict):
    """All experiments, ready for JSON.

    problems: of the chain of hashes. n_trials: distinct return series.
    """

    created: str
    problems: list[str]
    n_looks: int
    n_trials: int
    experiments: list[ExperimentRow]


class KnownTrials(Protocol):
    """Trials as of today on a span of data: returns and deflation.

    Returns by digest; the deflation is that of a Sharpe ratio.
    """

    def __call__(
        self, digest: str, start: str, end: str, rate: float | None, /
    ) -> tuple[Mapping[str, Array], Deflation]:
        """For one digest of data and one span, at a number of periods per year."""


def journal(ledger: TrialLedger, runs: Path, beside: Path) -> Journal:
    """All experiments in the order of their first evaluation.

    Links are relative to the folder `beside`. runs: the root of runs, below which the run folders are found.
    """
    rows, problems = ledger.entries(), ledger.verify()
    # a tampered record deflates nothing
    deflation = None if problems else _deflation(ledger)
    experiments: list[ExperimentRow] = []
    configs: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for number, (run, evaluations) in enumerate(_by_run(rows), start=1):
        reported, config = _experiment(number, run, evaluations, runs, beside)
        if config is not None:
            if (previous := configs.get(reported["task"])) is not None:
                reported["compared_with"], reported["changed"] = previous[0], _changes(config, previous[1])
            configs[reported["task"]] = (reported["run"], config)
        for strategy in reported["strategies"]:
            strategy["dsr"] = None if problems else strategy["dsr"]
            strategy["dsr_today"], strategy["n_trials_today"] = _today(strategy, evaluations, deflation)
        reported["overtaken"] = _overtaken(reported["strategies"])
        experiments.append(reported)
    return {
        "created": utc_now().isoformat(timespec="seconds"),
        "problems": problems,
        "n_looks": len(rows),
        "n_trials": len({row["series_digest"] for row in rows if row["measure"] == "return"}),
        "experiments": experiments,
    }


def _by_run(rows: list[LedgerRow]) -> Iterator[tuple[str, list[LedgerRow]]]:
    """Evaluations of one run together, runs in order of their first one; one without a run stands alone."""
    first: dict[str, int] = {}
    keyed = []
    for row in rows:
        key = run_identity(row["run"], row["run_uuid"]) if row["run"] else f"look {row['id']}"
        first.setdefault(key, row["id"])
        keyed.append((first[key], key, row))
    for (_, key), group in groupby(sorted(keyed, key=lambda item: (item[0], item[2]["id"])), key=lambda item: item[:2]):
        yield key, [row for _, _, row in group]


def _experiment(
    number: int, run: str, evaluations: list[LedgerRow], runs: Path, beside: Path
) -> tuple[ExperimentRow, Mapping[str, Any] | None]:
    """The run without its comparison with others, and its configuration, None where that is unknown."""
    folder = _run_folder(run, runs) if evaluations[0]["run"] else None
    with refused_in_one_line(f"journal: run {folder}", FIX, DataError):
        config = _config(folder)
        return _of_run(number, run, folder, evaluations, beside, config), config


def _of_run(
    number: int,
    run: str,
    folder: Path | None,
    evaluations: list[LedgerRow],
    beside: Path,
    config: Mapping[str, Any] | None,
) -> ExperimentRow:
    report, metrics = _json(folder, "report.json"), _json(folder, "metrics.json")
    shown = folder is not None and (folder / "report.html").is_file()
    task, name = _task_and_name(run_folder(run))
    return {
        "number": number,
        "run": name,
        "task": task or evaluations[0]["purpose"],
        "when": evaluations[0]["when"],
        "who": evaluations[0]["who"],
        "code_sha": evaluations[0]["code_sha"],
        "question": report.get("question") or (config or {}).get("question"),
        "gone": None
        if folder or not evaluations[0]["run"]
        else f"the run folder {run_folder(run)} is gone; the ledger keeps its evaluations",
        "unfinished": "no metrics.json: the run did not finish, its evaluations count all the same"
        if folder and not metrics
        else None,
        "looks": _by_purpose(evaluations),
        "span": [min(row["span_start"] for row in evaluations), max(row["span_end"] for row in evaluations)],
        "data": _data(report, config, evaluations),
        "compared_with": None,
        "changed": None,
        "models": _models(metrics),
        "confidence": _confidence(metrics),
        "strategies": _strategy_lines(metrics),
        "verdict": metrics.get("verdict"),
        "overtaken": [],
        "link": quote(os.path.relpath(folder / "report.html", beside)) if shown and folder else None,
    }


def _run_folder(run: str, runs: Path) -> Path | None:
    """Folder of a run: as recorded, or under the root of runs, which may have moved."""
    recorded = run_folder(run)
    places = (recorded, runs / recorded, runs.parent / recorded, runs / recorded.parent.name / recorded.name)
    return next((place for place in places if place.is_dir()), None)


def _json(folder: Path | None, name: str) -> Mapping[str, Any]:
    """A run's JSON file; empty where there is none."""
    path = folder / name if folder else None
    if not path or not path.is_file():
        return {}
    value: Mapping[str, Any] = plain_texts(read_json(path, FIX, DataError))
    return value


def _config(folder: Path | None) -> Mapping[str, Any] | None:
    path = folder / "config.yaml" if folder else None
    return parse_yaml(read_text(path, FIX, DataError), str(path), FIX, DataError) if path and path.is_file() else None


def _by_purpose(evaluations: list[LedgerRow]) -> list[PurposeRow]:
    """Number of evaluations for each purpose, with their subjects."""
    subjects: dict[str, list[str]] = {}
    for row in evaluations:
        subjects.setdefault(row["purpose"], []).append(row["subject"])
    return [{"purpose": purpose, "subjects": names} for purpose, names in subjects.items()]


def _task_and_name(folder: Path) -> tuple[str, str]:
    """The command of a run and what tells it from others; a trial of a sweep has its study's name before it."""
    if folder.parent.name == "trials":
        return folder.parent.parent.parent.name, f"{folder.parent.parent.name}, trial {folder.name.lstrip('0') or '0'}"
    return folder.parent.name, folder.name


def _data(report: Mapping[str, Any], config: Mapping[str, Any] | None, evaluations: list[LedgerRow]) -> str:
    card = report.get("provenance", {}).get("data", {})
    source: Any = config
    for key in ("data", "source", "_target_"):  # of trials and comparisons, whose folders hold no run report
        source = source.get(key) if isinstance(source, Mapping) else None
    kind = "SYNTHETIC, " if card.get("synthetic") or str(source).startswith(MADE_UP) else ""
    digests = sorted({row["data_digest"][:12] for row in evaluations})
    return f"{kind}digest {', '.join(digests)}"


def _confidence(metrics: Mapping[str, Any]) -> float | None:
    stated = [row["confidence"] for row in metrics.get("models", {}).values() if "confidence" in row]
    return float(stated[0]) if stated else None


def _models(metrics: Mapping[str, Any]) -> list[ModelLine]:
    return [
        {"name": name, "skill_beyond_level": headline_skill(row)} for name, row in metrics.get("models", {}).items()
    ]


def _strategy_lines(metrics: Mapping[str, Any]) -> list[StrategyLine]:
    return [
        {
            "name": name,
            "verdict": row["verdict"]["kind"],
            "sharpe": row["sharpe"],
            "dsr": row["dsr"],
            "n_trials": row["n_trials"],
            "n_trades": row["n_trades"],
            "dsr_today": None,
            "n_trials_today": None,
        }
        for name, row in metrics.get("strategies", {}).items()
    ]


def _changes(config: Mapping[str, Any], previous: Mapping[str, Any]) -> list[ChangedSetting]:
    """Settings that differ from those of the previous run."""
    before, after = _flat(previous), _flat(config)
    keys = [k for k in (before | after) if before.get(k, _ABSENT) != after.get(k, _ABSENT)]
    return [{"key": k, "before": before.get(k, _ABSENT), "after": after.get(k, _ABSENT)} for k in keys]


_ABSENT = "not set"


def _flat(config: Mapping[str, Any], prefix: str = "") -> Config:
    """Leaves by dotted key, without keys that affect no result."""
    out: Config = {}
    for key, value in config.items():
        if not prefix and key in _UNTOLD:
            continue
        if isinstance(value, dict) and value:
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _deflation(ledger: TrialLedger) -> KnownTrials:
    @cache
    def known(digest: str, start: str, end: str, rate: float | None) -> tuple[Mapping[str, Array], Deflation]:
        trials = ledger.trials(digest, datetime.fromisoformat(start), datetime.fromisoformat(end))
        assert rate is not None, "a series of returns has its periods a year"
        return {trial.series_digest: trial.returns for trial in trials}, deflation_of_trials(trials, rate)

    return known


def _today(
    strategy: StrategyLine, evaluations: list[LedgerRow], deflation: KnownTrials | None
) -> tuple[float | None, float | None]:
    """The deflated Sharpe by all trials in the ledger as of today, later runs' included, and their number."""
    own = [row for row in evaluations if row["measure"] == "return" and row["subject"] == strategy["name"]]
    if not own or strategy["dsr"] is None or deflation is None:
        return None, None
    row = own[-1]
    series, known = deflation(row["data_digest"], row["span_start"], row["span_end"], row["periods_per_year"])
    returns = series.get(row["series_digest"] or "")
    if returns is None:  # it never traded by today's rule
        return None, None
    return float(deflated_sharpe(returns, known)), known.n_trials


def _overtaken(strategies: list[StrategyLine]) -> list[str]:
    """Edges that no longer hold, because more trials were made on the same span."""
    return [
        f"{s['name']}: an edge when it was evaluated, but {s['n_trials_today']} trials have been made on this span by "
        f"now and its deflated Sharpe is {s['dsr_today']:.3f}"
        for s in strategies
        if s["verdict"] == "edge" and s["dsr_today"] is not None and s["dsr_today"] < MIN_DSR
    ]
