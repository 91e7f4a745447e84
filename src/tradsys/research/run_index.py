"""Index of all runs in a folder: read, filtered, sorted, ranked, and cleaned up.

A run folder is received data: it may be unfinished, damaged or written by somebody else. An unreadable one becomes a
row with a note.
"""

import contextlib
import math
import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict

from tradsys.core.clock import utc_now
from tradsys.core.drafts import is_held
from tradsys.core.errors import TradsysError
from tradsys.core.headline import Interval, headline_skill
from tradsys.core.plain_data import Json
from tradsys.core.received import one_line, plain_texts, read_json
from tradsys.core.runs import digest_file, write_json, write_text
from tradsys.research.pipeline.trial_ledger import TrialLedger, check_ledger

STAMP = re.compile(r"(\d{8}T\d{6})Z_[0-9a-f]{6}")
CACHE = ".runs.json"
FORMAT = 2
N_POINTS = 160  # of an equity curve on the page
STUDIES = ("tune", "compare", "study")


def _unknown() -> Interval:
    return {"value": None, "low": None, "high": None}


class ModelRow(TypedDict):
    """A model of a run. kind: `baseline` or the class of the primary model."""

    name: str
    kind: str
    skill: Interval


class Curve(TypedDict, total=False):
    """Days and equity of the best strategy; without keys where there is none."""

    time: list[str]
    equity: list[float]


class Entry(TypedDict):
    """A line of a leaderboard.

    rank: one more than the number of entries whose interval lies completely above.
    """

    name: str
    folder: str
    skill: Interval
    is_baseline: bool
    rank: int | None


class Leaderboard(TypedDict):
    """Runs that can be compared: the same data and test span."""

    data: str
    span: str
    synthetic: bool
    rows: list[Entry]


@dataclass(frozen=True)
class RunRow:
    """One row of the index.

    folder: below the root. state: done, half-done or damaged, with a note that explains it. skill, auc, sharpe: value,
    low, high, each None where unknown, bounds of the stated confidence; sharpe and dsr of the strategy `best`. group:
    of runs that can be compared, by data, test span and confidence. models: name, kind and skill of each. curve: days
    and equity.
    """

    folder: str
    task: str
    when: str
    state: str
    note: str = ""
    experiment: str = ""
    data: str = ""
    model: str = ""
    verdict: str = ""
    best: str = ""
    code: str = ""
    synthetic: bool = False
    minutes: float | None = None
    dsr: float | None = None
    confidence: float | None = None
    skill: Interval = field(default_factory=_unknown)
    auc: Interval = field(default_factory=_unknown)
    sharpe: Interval = field(default_factory=_unknown)
    group: str = ""
    span: str = ""
    models: list[ModelRow] = field(default_factory=list)
    curve: Curve = field(default_factory=Curve)
    page: bool = False


def read_runs(root: Path) -> list[RunRow]:
    """Every run below `root`, the newest first; unchanged ones come from a cache."""
    known = _cache(root)
    rows, fresh = [], {}
    for folder in run_folders(root):
        name, mark = folder.relative_to(root).as_posix(), _mark(folder)
        kept = known.get(name)
        row = _of_cache(kept, mark) or read_run(root, folder)
        rows.append(row)
        fresh[name] = {"mark": mark, "row": asdict(row)}
    if fresh != known and root.is_dir():
        with contextlib.suppress(TradsysError, OSError):  # a read-only folder is read again each time
            write_json(root / CACHE, {"format": FORMAT, "runs": fresh})
    return sorted(rows, key=lambda r: r.when, reverse=True)


def run_folders(root: Path) -> list[Path]:
    """Folders below `root/<task>/` with names of runs; links are not followed."""
    return [p for p in sorted(root.glob("*/*")) if STAMP.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]


def read_run(root: Path, folder: Path) -> RunRow:
    """The index row of one run; never raises, whatever the folder holds."""
    stamp = datetime.strptime(STAMP.fullmatch(folder.name)[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)  # type: ignore[index]
    bare = RunRow(folder.relative_to(root).as_posix(), folder.parent.name, stamp.isoformat(), "half-done")
    path = folder / "report.json"
    if path.is_symlink() or not path.is_file():
        return _with(bare, note="it has no report.json: stopped, or still running")
    try:
        return _with(bare, **plain_texts(_report_fields(read_json(path, "run it again"), folder)))
    except (TradsysError, KeyError, TypeError, ValueError, AttributeError, IndexError, OSError) as error:
        return _with(bare, state="damaged", note=f"report.json: {type(error).__name__}: {one_line(error, 100)}")


def selected(rows: Sequence[RunRow], wanted: Mapping[str, Any]) -> list[RunRow]:
    """Rows whose column holds each wanted value: equal, or containing it in any case."""
    kept = list(rows)
    for key, value in wanted.items():
        if value is not None:
            kept = [r for r in kept if str(value).lower() in str(getattr(r, key)).lower()]
            if key in ("verdict", "state", "task"):
                kept = [r for r in kept if str(getattr(r, key)).lower() == str(value).lower()]
    return kept


def ordered(rows: Sequence[RunRow], by: str) -> list[RunRow]:
    """Rows by a column, `-` before it for descending; without a value last."""
    key, down = by.lstrip("-"), by.startswith("-")
    if key not in SORTABLE:
        raise TradsysError(f"runs: sort={by}; columns that sort are {', '.join(SORTABLE)}; '-' before one reverses it")
    values = [(_value(row, key), row) for row in rows]
    known = sorted(((v, r) for v, r in values if v is not None), key=lambda pair: pair[0], reverse=down)
    return [r for _, r in known] + [r for v, r in values if v is None]


SORTABLE = ("when", "task", "experiment", "data", "model", "verdict", "skill", "auc", "sharpe", "dsr", "minutes")


def leaderboards(rows: Sequence[RunRow]) -> list[Leaderboard]:
    """One leaderboard per data and test span, with the mandatory baselines.

    An entry that cannot be distinguished from any other has no rank.
    """
    groups: dict[str, list[RunRow]] = {}
    for row in rows:
        if row.group and row.models:
            groups.setdefault(row.group, []).append(row)
    return [_leaderboard(sorted(group, key=lambda r: r.when, reverse=True)) for group in groups.values()]


def _leaderboard(group: Sequence[RunRow]) -> Leaderboard:
    named = [(", ".join(filter(None, (row.model, row.experiment))), row.folder, row.skill, False) for row in group]
    baselines = [model for model in group[0].models if model["kind"] == "baseline"]
    named += [(model["name"], group[0].folder, model["skill"], True) for model in baselines]
    entries: list[Entry] = [
        {"name": name, "folder": folder, "skill": skill, "is_baseline": is_baseline, "rank": None}
        for name, folder, skill, is_baseline in named
    ]
    for entry in entries:
        own = _low_and_high(entry["skill"])
        others = [bounds for e in entries if e is not entry and (bounds := _low_and_high(e["skill"])) is not None]
        if own is not None:
            above, below = sum(o[0] > own[1] for o in others), sum(o[1] < own[0] for o in others)
            entry["rank"] = 1 + above if above + below else None
    entries.sort(key=lambda e: (e["skill"]["value"] is None, -(e["skill"]["value"] or 0.0)))
    return {"data": group[0].data, "span": group[0].span, "synthetic": group[0].synthetic, "rows": entries}


def _low_and_high(found: Interval) -> tuple[float, float] | None:
    low, high = found["low"], found["high"]
    return None if low is None or high is None else (low, high)


def removable(
    root: Path, rows: Sequence[RunRow], *, days: float, referred: Mapping[str, str]
) -> tuple[list[RunRow], list[tuple[RunRow, str]]]:
    """Runs older than `days` without a reference, and those that stay with the reason."""
    until = utc_now() - timedelta(days=days)
    gone, kept = [], []
    for row in rows:
        why = referred.get(row.folder) or ("marked with keep" if (root / row.folder / "KEEP").exists() else "")
        if not why and datetime.fromisoformat(row.when) > until:
            why = f"younger than {days:g} days"
        (kept.append((row, why)) if why else gone.append(row))
    return gone, kept


def keep(root: Path, name: str | None) -> Path:
    """Marks a run so that it is never removed; returns its folder."""
    known = {p.relative_to(root).as_posix(): p for p in run_folders(root)}
    found = [path for folder, path in known.items() if name in (folder, path.name)]
    if len(found) != 1:
        raise TradsysError(f"runs: run={name} names no single run below {root}; give it as task/stamp_id")
    write_text(found[0] / "KEEP", "kept by `tradsys runs keep`; delete this file to let it go\n")
    return found[0]


def _ledger_runs(place: str) -> list[str]:
    """Folders of all runs in the ledger; none where there is no ledger."""
    is_there = "://" in place or Path(place).is_file()
    return [str(entry["run"]) for entry in TrialLedger(place).entries()] if is_there else []


def _named_in_databases(root: Path) -> set[str]:
    """Names of run folders in any text of the SQLite files of studies; TradsysError for one that cannot be read."""
    found: set[str] = set()
    for path in sorted(p for study in STUDIES for p in (root / study).glob("**/*.db") if p.is_file()):
        try:
            with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
                tables = base.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                for (table,) in tables:
                    quoted = table.replace('"', '""')
                    for row in base.execute(f'SELECT * FROM "{quoted}"'):
                        texts = (value for value in row if isinstance(value, str))
                        found |= {match[0] for text in texts for match in STAMP.finditer(text)}
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite may quote bytes that are no text
            raise TradsysError(
                f"runs: the study database {path.relative_to(root)} cannot be read ({one_line(str(error), 80)}); "
                "restore it from a copy, or move it away if its studies are over"
            ) from error
    return found


def ledger_problem(place: str, root: Path) -> str:
    """Why no deflated figure can be shown; empty where the record is intact."""
    try:
        check_ledger(place, root)
    except (TradsysError, OSError) as error:
        return str(error)
    return ""


def references(root: Path, models: Path, ledger: str) -> dict[str, str]:
    """Run folder -> what needs it: its process, the ledger, a model or a study.

    Where the ledger or a study's database cannot be read, or is gone, it may refer to any run: every run stays.
    """
    try:
        check_ledger(ledger, root)
        named = {name.partition("#")[0].rsplit("/", 1)[-1] for name in _ledger_runs(ledger)}
        stored = _named_in_databases(root)
    except (TradsysError, OSError) as error:
        why = f"kept, as no run can be shown to be unused: {one_line(str(error), 240)}"
        return {folder.relative_to(root).as_posix(): why for folder in run_folders(root)}
    found = {}
    cards = {digest_file(card): card.parent for card in models.glob("*/*/card.json")}
    texts = [p.read_text("utf-8", "replace") for s in STUDIES for p in (root / s).glob("*/*.json") if p.is_file()]
    for folder in run_folders(root):
        name, card = folder.relative_to(root).as_posix(), folder / "bundle" / "card.json"
        if is_held(folder / "log.txt"):
            found[name] = "still running"
        elif folder.name in named or (folder / "ledger.json").exists():
            found[name] = "in the trial ledger"
        elif card.is_file() and digest_file(card) in cards:
            found[name] = f"promoted as {cards[digest_file(card)].relative_to(models)}"
        elif folder.name in stored or any(folder.name in text for text in texts):
            found[name] = "used by a study"
    return found


def remove(root: Path, rows: Sequence[RunRow]) -> None:
    """Deletes these run folders; links are left alone."""
    known = {p.relative_to(root).as_posix(): p for p in run_folders(root)}
    for row in rows:
        if row.folder in known:
            shutil.rmtree(known[row.folder])


def _with(row: RunRow, **changes: Any) -> RunRow:
    return RunRow(**{**asdict(row), **changes})


def _report_fields(report: Mapping[str, Any], folder: Path) -> Json:
    """The fields of a finished run's report; raises for a file that no run writes."""
    provenance = report["provenance"]
    data, seconds = provenance["data"], list((report.get("timings") or {}).values())
    models = [_model_row(m) for m in report.get("models") or []]
    primary = (report.get("models") or [None])[0]
    traded = [s for s in report.get("strategies") or [] if s["performance"]["sharpe"]["value"] is not None]
    best = max(traded, key=lambda s: float(s["performance"]["sharpe"]["value"]), default=None)
    span = " to ".join(str(t)[:10] for t in (provenance.get("bundle") or {}).get("test") or [])
    level = _number(((provenance.get("config") or {}).get("evaluation") or {}).get("confidence"))
    return {
        "state": "done",
        "confidence": level,
        "experiment": _experiment(folder),
        "data": str(data.get("name") or data.get("kind") or ""),
        "model": models[0]["kind"] if models else "",
        "verdict": str((report.get("verdict") or {}).get("kind") or ""),
        "best": "" if best is None else str(best["name"]),
        "code": str(provenance.get("code_sha") or "")[:12],
        "synthetic": bool(report.get("synthetic") or data.get("synthetic")),
        "minutes": round(math.fsum(map(float, seconds)) / 60, 2) if seconds else None,
        "skill": models[0]["skill"] if models else _unknown(),
        "auc": _estimate(primary["metrics"]["auc"]) if primary else _unknown(),
        "sharpe": _estimate(best["performance"]["sharpe"]) if best else _unknown(),
        "dsr": _number(best["performance"].get("dsr")) if best else None,
        "group": f"{data.get('digest')} {span} {level}" if data.get("digest") and span else "",
        "span": span,
        "models": models,
        "curve": _curve(report, best),
        "page": (folder / "report.html").is_file(),
    }


def _model_row(model: Mapping[str, Any]) -> ModelRow:
    return {
        "name": str(model["name"]),
        "kind": str(model["kind"]),
        "skill": _estimate(headline_skill(model["metrics"])),
    }


def _experiment(folder: Path) -> str:
    """The experiment or study named on the command line."""
    path = folder / "overrides.txt"
    text = path.read_text("utf-8", "replace")[:20_000] if path.is_file() and not path.is_symlink() else ""
    found = re.search(r"^\+?(?:experiment|study)=([\w./-]{1,60})\s*$", text, re.MULTILINE)
    return found[1] if found else ""


def _curve(report: Mapping[str, Any], best: Mapping[str, Any] | None) -> Curve:
    """Days and equity of the best strategy, thinned evenly; empty where there is none."""
    equity = report.get("equity") or {}
    if best is None or best["name"] not in (equity.get("curves") or {}):
        return {}
    days, values = equity["time"], equity["curves"][best["name"]]
    step = max(1, math.ceil(len(days) / N_POINTS))
    at = [*range(0, len(days) - 1, step), len(days) - 1]
    return {"time": [str(days[i])[:10] for i in at], "equity": [float(f"{float(values[i]):.5g}") for i in at]}


def _estimate(found: Mapping[str, Any]) -> Interval:
    return {"value": _number(found.get("value")), "low": _number(found.get("low")), "high": _number(found.get("high"))}


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _value(row: RunRow, key: str) -> Any:
    value = found["value"] if isinstance(found := getattr(row, key), dict) else found
    return None if value == "" else value


def _mark(folder: Path) -> list[int]:
    """Fingerprint of a run's files: time and size of its report and page."""
    marks = []
    for name in ("report.json", "report.html"):
        try:
            at = (folder / name).lstat()
            marks += [at.st_mtime_ns, at.st_size]
        except OSError:
            marks += [0, 0]
    return marks


def _cache(root: Path) -> Mapping[str, Any]:
    try:
        found = read_json(root / CACHE, "delete it") if (root / CACHE).is_file() else {}
    except TradsysError:
        return {}
    runs = found.get("runs")
    return runs if found.get("format") == FORMAT and isinstance(runs, dict) else {}


def _of_cache(kept: Any, mark: list[int]) -> RunRow | None:
    try:
        return RunRow(**kept["row"]) if kept["mark"] == mark else None
    except (KeyError, TypeError):
        return None
