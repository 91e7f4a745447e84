"""Compares a finished run with its reproduction: which numbers differ, and what else does."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from tradsys.core.database_url import database_url, shown_url
from tradsys.core.errors import TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.received import parse_yaml, plain_texts, read_json
from tradsys.core.runs import write_json
from tradsys.reports.terminal import screen
from tradsys.research.pipeline.ledger_anchors import performances
from tradsys.research.pipeline.ledger_database import LedgerRow
from tradsys.research.pipeline.provenance import config_digest
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger, check_ledger, run_identity

# what may differ
WATCHED = ("packages", "environment", "python", "code_digest", "machine", "processor", "threads", "variables")
NEEDED = ("config.yaml", "overrides.txt", "metrics.json", "report.json")


@dataclass(frozen=True)
class Record:
    """Files of a finished run."""

    folder: Path
    config_yaml: str
    overrides: Sequence[str]
    metrics: Mapping[str, Any]
    report: Mapping[str, Any]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Time, machine, code, packages, config and data of the run's numbers."""
        return self.report["provenance"]


@dataclass(frozen=True)
class Difference:
    """One value that differs in the reproduction."""

    name: str
    then: Any
    now: Any


@dataclass(frozen=True)
class Comparison:
    """Equal values are counted, differing ones listed.

    causes: one line each, the likeliest first.
    """

    n_equal: int
    differing: Sequence[Difference]
    causes: Sequence[str]
    tolerance: float


def read_record(folder: Path) -> Record:
    """The record of a finished training run.

    Raises TradsysError where there is none, or a damaged one.
    """
    if not folder.is_dir():
        raise TradsysError(f"reproduce: {folder} is no folder; give one that train made, such as runs/train/latest")
    folder = folder.resolve().relative_to(Path.cwd()) if folder.resolve().is_relative_to(Path.cwd()) else folder
    if lacking := [name for name in NEEDED if not (folder / name).is_file()]:
        unfinished = "config.yaml" not in lacking and "metrics.json" in lacking
        why = (
            "it did not finish; finish it with tradsys.train resume=..."
            if unfinished
            else "give a run of tradsys.train"
        )
        raise TradsysError(f"reproduce: {folder} lacks {', '.join(lacking)}; {why}")
    metrics, report = (_json(folder / name) for name in ("metrics.json", "report.json"))
    if "config" not in report.get("provenance", {}):
        raise TradsysError(f"reproduce: {folder / 'report.json'} is damaged: it lacks its provenance; restore it")
    if "models" not in metrics or "split" not in report["provenance"]["config"]:
        raise TradsysError(
            f"reproduce: {folder} is no training run; a backtest is a function of its bundle; reproduce the run that "
            "made the bundle, then start the backtest again with the lines of overrides.txt"
        )
    config_yaml, overrides = ((folder / name).read_text(encoding="utf-8") for name in NEEDED[:2])
    return Record(folder, config_yaml, overrides.splitlines(), metrics, report)


def ledger_of(record: Record, own: str) -> str:
    """The ledger that the run wrote to.

    Next to its folder, or the one configured for this command. A received run cannot name any other, because a
    reproduction's evaluations are written there.
    """
    beside = record.folder.resolve().parents[1] / "ledger.db"
    return own if "://" in own or not beside.is_file() else str(beside)


def known_ledger(record: Record, own: str, runs: str) -> str:
    """`ledger_of`, after checking that it holds the run's rows: see `check_known`.

    runs: the root of this machine's runs, which know rows of the configured ledger `own`.
    """
    place = ledger_of(record, own)
    check_known(record, place, runs if place == own else None)
    return place


def check_known(record: Record, place: str, runs: str | None = None) -> None:
    """Raises TradsysError where a ledger lacks a run that deflated this one.

    Its trials deflated the run's Sharpe ratios. With another ledger, or none, the same Sharpe ratios would be deflated
    by fewer trials. runs: see `check_ledger`.
    """
    is_kept = "://" in place or Path(place).is_file()
    if is_kept:
        check_ledger(place, runs, writes=True)
    deflated = performances(record.report, "dsr")
    if not deflated or (is_kept and _own_rows(record, TrialLedger(place).entries())):
        return
    shown = shown_url(database_url(place, "ledger")) if "://" in place else place
    why = "does not know this run" if is_kept else "is gone"
    raise TradsysError(
        f"reproduce: the trial ledger {shown} {why}; {deflated[0].get('n_trials')} trials deflated the Sharpe ratios "
        f"of {record.folder}, and without them these would come out too good; restore ledger.db beside the run's "
        "folder, or give paths.ledger=LEDGER"
    )


def _own_rows(record: Record, entries: Sequence[LedgerRow]) -> list[int]:
    return [row["id"] for row in entries if Path(row["run"]).name == record.folder.name]


def seed_ledger(record: Record, place: str, copy: Path) -> bool:
    """Copies the ledger as of the run's evaluation; False without one.

    A Sharpe ratio is then deflated by the same trials as in the run, among them those of the run itself before it was
    resumed with other settings. place: the run's ledger, path or URL. Where it is gone, the copy starts empty.
    """
    if "://" not in place and not Path(place).is_file():
        return False
    source, target = TrialLedger(place), TrialLedger(copy)
    entries = source.entries()
    own = _own_rows(record, entries)
    same = ("", record.provenance["config_digest"])  # a row may name no settings
    for row in entries:
        is_repeated = row["id"] in own and row["config_digest"] in same
        if row["id"] <= max(own, default=0) and not is_repeated:
            _append(target, row, source, noted=False)
    return bool(own)


def compare(record: Record, again: Path, tolerance: Mapping[str, float], ledger: str | None) -> Comparison:
    """Every value of metrics.json, then and now, and the differences of the two runs.

    Also writes comparison.json. again: the folder of the reproduction. tolerance: by device, `cpu` and `gpu`. ledger:
    where its evaluations of the test span are recorded like any others; equal series count once. None where that ledger
    is gone.
    """
    metrics, report = _json(again / "metrics.json"), _json(again / "report.json")
    if ledger is not None:
        _write_evaluations(again, ledger)
    trainer = record.provenance["config"].get("trainer") or {}
    allowed = float(tolerance["cpu" if trainer.get("accelerator", "cpu") == "cpu" else "gpu"])
    then, now = dict(_leaves(record.metrics)), dict(_leaves(metrics))
    names = list(then | now)
    differing = [
        Difference(name, then.get(name, "absent"), now.get(name, "absent"))
        for name in names
        if not _same(then.get(name, "absent"), now.get(name, "absent"), allowed)
    ]
    causes = list(_causes(record, report["provenance"], ledger is not None))
    if differing and not causes:
        causes.append(
            "chance: code, config, data, packages and machine are the same; a fit on this device does not repeat"
        )
    found = Comparison(len(names) - len(differing), differing, causes, allowed)
    lines = [{"name": d.name, "then": d.then, "now": d.now} for d in differing]
    write_json(again / "comparison.json", {"equal": found.n_equal, "differing": lines, "causes": causes})
    return found


def print_comparison(found: Comparison, then: Path, now: Path) -> None:
    """Prints the differing values, the number of equal ones, and other differences."""
    console = screen()
    if found.differing:
        table = Table("metric", "then", "now", "difference")
        for each in found.differing:
            gap = f"{each.now - each.then:+.3g}" if _is_number(each.then) and _is_number(each.now) else ""
            table.add_row(each.name, _ten_digits(each.then), _ten_digits(each.now), gap)
        console.print(table)
    within = f" within {found.tolerance:g}" if found.tolerance else ""
    console.print(f"{found.n_equal} values equal{within}, {len(found.differing)} differ")
    for cause in found.causes:
        console.print(f"differs  {cause}", markup=False, soft_wrap=True)
    console.print(f"then     {then}\nnow      {now}", markup=False, soft_wrap=True)


def _causes(record: Record, now: Mapping[str, Any], ledger_known: bool) -> Iterator[str]:
    then = record.provenance
    reported = {row["name"]: row["metrics"] for row in record.report["models"]}
    if reported != record.metrics["models"]:
        yield "record: metrics.json and report.json of the run disagree; one of them was changed after the run"
    if then["config_digest"] != config_digest(parse_yaml(record.config_yaml, "config.yaml", "restore it from a copy")):
        yield "config: config.yaml is not the one that the run was made with; it was changed after the run"
    if then["code_sha"] != now["code_sha"]:
        commit = then["code_sha"].removesuffix("+dirty")
        yield f"code: {then['code_sha']} then, {now['code_sha']} now; git checkout {commit}"
    if then["code_sha"].endswith("+dirty"):
        yield "code: the run was made with changes that no commit holds (+dirty); it cannot be checked out again"
    if then["data"]["digest"] != now["data"]["digest"]:
        yield f"data: bars of digest {then['data']['digest'][:12]} then, {now['data']['digest'][:12]} now"
    yield from _install_causes(then, now)
    yield from _machine_causes(then, now)
    if silent := [name for name in WATCHED if name not in then and name in now]:
        yield f"record: the run does not state its {', '.join(silent)}, so whether they are the same is unknown"
    if not ledger_known:
        yield "ledger: the run's ledger is gone, so the trials that deflated its Sharpe ratios are not known"


def _install_causes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Differences of two installations: tradsys' own files, Python, and every package."""
    same_name = then["code_sha"] == now["code_sha"]
    if same_name and then.get("code_digest", now["code_digest"]) != now["code_digest"]:
        yield (
            f"code: the installed files hash to {then['code_digest'][:12]} then, {now['code_digest'][:12]} now, though "
            f"both are called {now['code_sha']}; install the version of then"
        )
    if then.get("python", now["python"]) != now["python"]:
        yield f"packages: python {then['python']} then, {now['python']} now; use python {then['python']}"
    changed: dict[str, tuple[str, str]] = {}
    for part in ("packages", "environment"):
        before, after = then.get(part, now[part]), now[part]
        names = sorted({*before, *after} - {*changed})
        pairs = {name: (before.get(name, "absent"), after.get(name, "absent")) for name in names}
        changed |= {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    for name, (old, new) in changed.items():
        fix = f"pip uninstall {name}" if old == "absent" else f"pip install {name}=={old}"
        yield f"packages: {name} {old} then, {new} now; {fix}"


def _machine_causes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Differences of two machines, and of the number of threads of each library."""
    for key, name in (("machine", ""), ("processor", "processor ")):
        if then.get(key, now[key]) != now[key]:
            yield f"machine: {name}{then[key]} then, {now[key]} now"
    before, after = then.get("threads", now["threads"]), now["threads"]
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"threads: {name} {before.get(name)} then, {after.get(name)} now; sums in other parts round otherwise"
    before, after = then.get("variables", now["variables"]), now["variables"]
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            fix = f"set {name}={before[name]}" if before.get(name) is not None else f"unset {name}"
            yield f"environment: {name} {before.get(name)} then, {after.get(name)} now; {fix}"


def _write_evaluations(again: Path, place: str) -> None:
    """Copies the reproduction's evaluations of the test span from its own ledger into the package's."""
    source, target = TrialLedger(again / "ledger.db"), TrialLedger(place)
    for row in source.entries():
        if Path(row["run"]).name == again.name:
            _append(target, row, source)


def _append(target: TrialLedger, row: LedgerRow, source: TrialLedger, *, noted: bool = True) -> None:
    written: Mapping[str, Any] = row
    kept = {f.name: written[f.name] for f in fields(LedgerEntry)}
    kept["run"] = run_identity(row["run"], row["run_uuid"])
    kept |= {name: datetime.fromisoformat(written[name]) for name in ("when", "span_start", "span_end")}
    series = source.series(row["series_digest"]) if row["series_digest"] else None
    target.append(LedgerEntry(**kept), series, noted=noted)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf value, under its dotted name."""
    if isinstance(value, Mapping | list) and value:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _same(then: Any, now: Any, allowed: float) -> bool:
    if _is_number(then) and _is_number(now):
        return then == now or (math.isfinite(then) and abs(now - then) <= allowed * max(1.0, abs(then)))
    # sentences contain numbers that may differ in their last digits
    return then == now or (allowed > 0 and isinstance(then, str) and isinstance(now, str) and " " in then)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ten_digits(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _json(path: Path) -> Json:
    found: Json = plain_texts(read_json(path, "restore it from a copy", TradsysError))
    return found
