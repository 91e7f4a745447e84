"""Builds the logged content of a run, study or comparison: names, numbers with bounds, files."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tradsys.core.headline import HEADLINE, headline_skill
from tradsys.core.masking import masked
from tradsys.core.plain_data import Json

BOUNDED = frozenset(("value", "low", "high"))
SHORT = {HEADLINE: "skill"}
RUN_FILES = ("report.html", "metrics.json", "config.yaml", "overrides.txt", "bundle")


@dataclass(frozen=True)
class Record:
    """One run as a tracker shows it.

    metrics: numbers by name; an interval's bounds are `<name>_low` and `<name>_high`.
    curve: (step, value) of the score during training. tags: short texts to filter by. files: files and folders.
    key: of a child; the same key under the same parent is the same run, and is logged once.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[tuple[int, float]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    key: str = ""


def flat_metrics(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every finite number of a JSON value as (path, number).

    Parts of a path are joined by `/`. An estimate {value, low, high, reason} becomes `name`, `name_low`, `name_high`;
    values that are no numbers are left out.
    """
    if isinstance(value, Mapping) and value.keys() >= BOUNDED:
        for part, ending in (("value", ""), ("low", "_low"), ("high", "_high")):
            yield from flat_metrics(value[part], name + ending)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            own = SHORT.get(str(key), str(key))
            yield from flat_metrics(inner, f"{name}/{own}" if name else own)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield name, float(value)


def flat_config(config: Mapping[str, Any]) -> dict[str, str]:
    """The resolved config as dotted keys and texts, secrets masked.

    An empty group is left out.
    """

    def leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from leaves(inner, f"{name}.{key}" if name else str(key))
        else:
            yield name, str(value)

    return dict(leaves(masked(dict(config)), ""))


def run_record(report: Mapping[str, Any], folder: Path) -> Record:
    """A run's report as one record: skill, models and strategies.

    The headline as `skill`.
    """
    models = {row["name"]: row["metrics"] for row in report.get("models") or []}
    strategies = {row["name"]: row["performance"] for row in report.get("strategies") or []}
    headline = report.get("skill") or (headline_skill(models["primary"]) if "primary" in models else {})
    parts = {"skill": headline, "models": models, "strategies": strategies}
    source = report["provenance"]
    tags = {
        "verdict": report["verdict"]["kind"],
        "code_sha": source["code_sha"],
        "data_digest": str(source["data"].get("digest", "")),
    }
    files = [folder / name for name in RUN_FILES if (folder / name).exists()]
    return Record(folder.name, metrics=dict(flat_metrics(parts)), tags=tags, files=files)


def study_records(report: Mapping[str, Any]) -> tuple[Record, list[Record]]:
    """A sweep's report as records: the study, and each finished trial.

    Trials with parameters and bound.
    """
    folder = Path(report["folder"])
    rows = {row["place"]: row for row in report["trials"]}
    children = [
        Record(
            f"trial {place}",
            config={**row["params"], "place": place},
            metrics=dict(flat_metrics(_trial_metrics(row))),
            curve=[(int(step), float(value)) for step, value in row["curve"] if math.isfinite(value)],
            tags={"state": row["state"]},
            key=str(place),
        )
        for place, row in sorted(rows.items())
        if row["state"] not in ("running", "waiting")
    ]
    best = rows.get(report["best"])
    parts = {"n_trials": len(children), "machine_hours": report["machine_hours"]}
    parts |= {f"best_{name}": value for name, value in (_trial_metrics(best) if best else {}).items()}
    tags = {"code_sha": report["code_sha"], "data_digest": report["identity"]["data_digest"]}
    files = [folder / name for name in ("report.html", "report.json", "config.yaml") if (folder / name).exists()]
    return Record(report["study"], metrics=dict(flat_metrics(parts)), tags=tags, files=files), children


def _trial_metrics(row: Mapping[str, Any]) -> Json:
    """A trial's figures; `skill_low` is the one-sided lower bound by which the winner is picked."""
    named = {"mean_skill": "skill", "lower_bound": "skill_low"}
    return {named.get(k, k): v for k, v in row.items() if k not in ("place", "number", "params", "values", "curve")}


def comparison_record(table: Mapping[str, Any]) -> Record:
    """A comparison's report as one record: skills and differences.

    Each variant has both, with intervals.
    """
    folder = Path(table["folder"])
    variants = {row["name"]: {k: v for k, v in row.items() if k != "name"} for row in table["variants"]}
    source = table["provenance"]
    tags = {"code_sha": source["code_sha"], "data_digest": str(source["data"].get("digest", ""))}
    files = [folder / name for name in ("report.html", "table.json", "table.md") if (folder / name).exists()]
    return Record(folder.name, metrics=dict(flat_metrics(variants)), tags=tags, files=files)
