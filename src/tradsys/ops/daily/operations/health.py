"""Is the daily pipeline well? For monitors: one JSON object, and a reason for every thing that is not."""

import shutil
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from tradsys.market import sessions
from tradsys.ops.daily import publishing
from tradsys.ops.daily.event_log import RunLog
from tradsys.ops.daily.lock import holder
from tradsys.ops.daily.operations.schedule import ScheduleSettings, next_run
from tradsys.ops.daily.partitions import Partitions

GIGABYTE = 1e9


@dataclass(frozen=True)
class Check:
    """One thing that has to hold: its name, whether it does, and what was found with the next step."""

    name: str
    ok: bool
    found: str


def health(
    store: Partitions, calendar: str, schedule: ScheduleSettings, most_behind: int, now: datetime
) -> dict[str, Any]:
    """ok, problems, last_session, behind (closed sessions since), gates of the last report, running, next_run.

    most_behind: closed sessions that the newest report may lag. Nothing is read but the folder and the calendar.
    """
    shown = publishing.latest(store)
    behind = sessions_behind(shown, calendar, now)
    problems = []
    if shown is None:
        problems.append("no session was ever published; run python -m tradsys.daily run")
    elif behind is not None and behind > most_behind:
        problems.append(f"the newest report is of {shown}, {behind} closed sessions ago; at most {most_behind}")
    if shown is not None and (old := publishing.old(store, shown)):
        problems.append(f"{old['failed']} could not be published: {old['because']}")
    upcoming = next_run(schedule, calendar, now)
    checks = store.document("report", shown, "report")["gates"] if shown else []
    return {
        "ok": not problems,
        "problems": problems,
        "last_session": shown and shown.isoformat(),
        "behind": behind,
        "gates": {check["gate"]: check["outcome"] for check in checks},
        "running": holder(store.root) or None,
        "next_run": upcoming and upcoming.isoformat(),
    }


def sessions_behind(shown: date | None, calendar: str, now: datetime) -> int | None:
    """Closed sessions after the one that is shown; None where none is."""
    last = sessions.last_closed(calendar, now)
    if shown is None:
        return None
    return 0 if shown >= last else len(sessions.closes(calendar, shown, last)) - 1


def preflight(
    store: Partitions, calendar: str, last_bar: date, least_free_gb: float, most_model_age: int, now: datetime
) -> list[Check]:
    """What a run needs, checked before it: data, disk, calendar, age of the model, lock.

    last_bar: session of the newest bar. most_model_age: sessions since the model was last fitted or challenged.
    """
    last = sessions.last_closed(calendar, now)
    fresh = last_bar >= last
    free = shutil.disk_usage(_existing(store.root)).free / GIGABYTE
    holding = holder(store.root)
    trained = store.dates("models")
    age = sessions_behind(max(trained), calendar, now) if trained else None
    failed = RunLog(store.root).lines(event="failed")[-1:]
    return [
        Check("data", fresh, f"bars end {last_bar}" + ("" if fresh else f", {last} has closed; fetch newer data")),
        Check("disk", free >= least_free_gb, f"{free:.1f} GB free, {least_free_gb:g} are asked for"),
        Check("calendar", True, f"{calendar}: last closed session {last}"),
        Check("model", age is None or age <= most_model_age, _age(age, most_model_age)),
        Check("lock", not holding, f"held by process {holding['pid']} on {holding['host']}" if holding else "free"),
        Check("last failure", True, f"{failed[0]['date']}: {failed[0]['error']}" if failed else "none in the log"),
    ]


def as_rows(checks: list[Check]) -> list[dict[str, Any]]:
    """Ready for JSON."""
    return [asdict(check) for check in checks]


def _age(age: int | None, most: int) -> str:
    return "none yet; the first run fits one" if age is None else f"{age} sessions old, at most {most}"


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent) if path != path.parent else Path.cwd()
