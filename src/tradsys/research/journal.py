"""The ledger as a story: experiment after experiment, what was asked, what changed, what came out.

The ledger is the spine, so nothing that was looked at can be left out; run folders add the question, the settings and
the result. A run whose folder is gone is still reported, and said to be gone.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.headline import HEADLINE, headline_skill
from tradsys.core.received import parse_yaml, plain_texts, read_json, read_text, refused_in_one_line
from tradsys.evidence.deflation import deflated_sharpe
from tradsys.research.pipeline.trial_ledger import TrialLedger, deflation_of_trials, run_folder, run_identity

# what decides no result: where files lie, and the question, which is shown by itself
_UNTOLD = ("paths", "resume", "question")
MIN_DSR = 0.95
FIX = "restore it from a copy, or move the run's folder away: the ledger keeps its evaluations"


def journal(ledger: TrialLedger, runs: Path, beside: Path) -> dict[str, Any]:
    """All experiments in the order of their first look, ready for JSON; links are relative to the folder `beside`.

    Keys: created, problems (of the chain of hashes, empty where whole), n_looks, n_trials (distinct return series),
    experiments: number, run, task, when, who, code_sha, question, gone and unfinished (why there is no result, or
    None), looks, span, data, compared_with, changed, models, strategies, verdict, overtaken, link.
    runs: the root of runs, where `run` of a look is looked for.
    """
    rows, problems = ledger.entries(), ledger.verify()
    # nothing is deflated by a record that was touched
    deflation = None if problems else _deflation(ledger)
    experiments: list[dict[str, Any]] = []
    configs: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, (run, looks) in enumerate(_by_run(rows), start=1):
        reported = _experiment(run, looks, runs, beside)
        config = reported.pop("config")
        previous = configs.get(reported["task"])
        reported |= _changes(config, previous)
        if config is not None:
            configs[reported["task"]] = (reported["run"], config)
        reported["strategies"] = [s | _today(s, looks, deflation) for s in reported["strategies"]]
        experiments.append({"number": number, **reported, "overtaken": _overtaken(reported["strategies"])})
    return {
        "created": utc_now().isoformat(timespec="seconds"),
        "problems": problems,
        "n_looks": len(rows),
        "n_trials": len({row["series_digest"] for row in rows if row["measure"] == "return"}),
        "experiments": experiments,
    }


def _by_run(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Looks of one run together, runs in order of their first look; a look without a run stands alone."""
    first: dict[str, int] = {}
    keyed = []
    for row in rows:
        key = run_identity(row["run"], row["run_uuid"]) if row["run"] else f"look {row['id']}"
        first.setdefault(key, row["id"])
        keyed.append((first[key], key, row))
    for (_, key), group in groupby(sorted(keyed, key=lambda item: (item[0], item[2]["id"])), key=lambda item: item[:2]):
        yield key, [row for _, _, row in group]


def _experiment(run: str, looks: list[dict[str, Any]], runs: Path, beside: Path) -> dict[str, Any]:
    folder = _run_folder(run, runs) if looks[0]["run"] else None
    with refused_in_one_line(f"journal: run {folder}", FIX, DataError):
        return _of_run(run, folder, looks, beside)


def _of_run(run: str, folder: Path | None, looks: list[dict[str, Any]], beside: Path) -> dict[str, Any]:
    report, metrics = _json(folder, "report.json"), _json(folder, "metrics.json")
    config = _config(folder)
    shown = folder is not None and (folder / "report.html").is_file()
    return {
        "run": run_folder(run).name,
        "task": run_folder(run).parent.name or looks[0]["purpose"],
        "when": looks[0]["when"],
        "who": looks[0]["who"],
        "code_sha": looks[0]["code_sha"],
        "question": report.get("question") or (config or {}).get("question"),
        "gone": None
        if folder or not looks[0]["run"]
        else f"the run folder {run_folder(run)} is gone; the ledger keeps its looks",
        "unfinished": "no metrics.json: the run did not finish, its looks count all the same"
        if folder and not metrics
        else None,
        "looks": _looks(looks),
        "span": [min(row["span_start"] for row in looks), max(row["span_end"] for row in looks)],
        "data": _data(report, looks),
        "config": config,
        "models": _models(metrics),
        "strategies": _strategy_lines(metrics),
        "verdict": metrics.get("verdict"),
        "link": quote(os.path.relpath(folder / "report.html", beside)) if shown and folder else None,
    }


def _run_folder(run: str, runs: Path) -> Path | None:
    """Where a run lies: as written down, or under the root of runs, which may have moved."""
    asked = run_folder(run)
    places = (asked, runs / asked, runs.parent / asked, runs / asked.parent.name / asked.name)
    return next((place for place in places if place.is_dir()), None)


def _json(folder: Path | None, name: str) -> dict[str, Any]:
    """A run's JSON file; empty where there is none."""
    path = folder / name if folder else None
    if not path or not path.is_file():
        return {}
    value: dict[str, Any] = plain_texts(read_json(path, FIX, DataError))
    return value


def _config(folder: Path | None) -> dict[str, Any] | None:
    path = folder / "config.yaml" if folder else None
    return parse_yaml(read_text(path, FIX, DataError), str(path), FIX, DataError) if path and path.is_file() else None


def _looks(looks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How often each purpose looked, and at what."""
    subjects: dict[str, list[str]] = {}
    for row in looks:
        subjects.setdefault(row["purpose"], []).append(row["subject"])
    return [{"purpose": purpose, "subjects": names} for purpose, names in subjects.items()]


def _data(report: Mapping[str, Any], looks: list[dict[str, Any]]) -> str:
    card = report.get("provenance", {}).get("data", {})
    kind = "SYNTHETIC, " if card.get("synthetic") else ""
    digests = sorted({row["data_digest"][:12] for row in looks})
    return f"{kind}digest {', '.join(digests)}"


def _models(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, HEADLINE: headline_skill(row)} for name, row in metrics.get("models", {}).items()]


def _strategy_lines(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    kept = ("sharpe", "dsr", "n_trials", "n_trades")
    found = metrics.get("strategies", {}).items()
    return [{"name": n, "verdict": row["verdict"]["kind"], **{k: row[k] for k in kept}} for n, row in found]


def _changes(config: dict[str, Any] | None, previous: tuple[str, dict[str, Any]] | None) -> dict[str, Any]:
    """Settings that differ from the run of the same task before; None where either config is not known."""
    if config is None or previous is None:
        return {"compared_with": None, "changed": None}
    before, after = _flat(previous[1]), _flat(config)
    keys = [k for k in (before | after) if before.get(k, _ABSENT) != after.get(k, _ABSENT)]
    changed = [{"key": k, "before": before.get(k, _ABSENT), "after": after.get(k, _ABSENT)} for k in keys]
    return {"compared_with": previous[0], "changed": changed}


_ABSENT = "not set"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key, without what decides no result."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key in _UNTOLD:
            continue
        if isinstance(value, dict) and value:
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _deflation(ledger: TrialLedger) -> Any:
    """The trials known today on a span of data: their returns by digest, and what they take off a Sharpe ratio."""

    @cache
    def known(digest: str, start: str, end: str, rate: float) -> dict[str, Any]:
        trials = ledger.trials(digest, datetime.fromisoformat(start), datetime.fromisoformat(end))
        series = {trial.series_digest: trial.returns for trial in trials}
        return {"series": series, "deflation": deflation_of_trials(trials, rate)}

    return known


def _today(strategy: Mapping[str, Any], looks: list[dict[str, Any]], deflation: Any) -> dict[str, Any]:
    """The deflated Sharpe by all trials that the ledger holds by now, those of later runs included."""
    own = [row for row in looks if row["measure"] == "return" and row["subject"] == strategy["name"]]
    unknown = {"dsr_today": None, "n_trials_today": None}
    if not own or strategy["dsr"] is None or deflation is None:
        return unknown
    row = own[-1]
    known = deflation(row["data_digest"], row["span_start"], row["span_end"], row["periods_per_year"])
    series = known["series"].get(row["series_digest"])
    if series is None:  # it never traded by the rule of today
        return unknown
    return {
        "dsr_today": float(deflated_sharpe(series, known["deflation"])),
        "n_trials_today": known["deflation"].n_trials,
    }


def _overtaken(strategies: list[dict[str, Any]]) -> list[str]:
    """Edges that no longer stand, since more has been tried on the same span."""
    return [
        f"{s['name']}: an edge when it was judged, but {s['n_trials_today']} trials have been made on this span by "
        f"now and its deflated Sharpe is {s['dsr_today']:.3f}"
        for s in strategies
        if s["verdict"] == "edge" and s["dsr_today"] is not None and s["dsr_today"] < MIN_DSR
    ]
