"""Health of the daily pipeline for monitors: one JSON object with a reason for every problem."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypedDict

from tradsys.core.errors import TradsysError
from tradsys.core.masking import ENVIRONMENT_NAME
from tradsys.core.plain_data import Json
from tradsys.core.plurals import counted
from tradsys.market import sessions
from tradsys.ops.daily import publishing
from tradsys.ops.daily.event_log import RunLog
from tradsys.ops.daily.lock import Holder, holder
from tradsys.ops.daily.operations.schedule import ScheduleSettings, next_run
from tradsys.ops.daily.partitions import Partitions
from tradsys.ops.notify import Notifier

GIGABYTE = 1e9


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it passed, and the finding with the next step."""

    name: str
    ok: bool
    found: str


class Health(TypedDict):
    """Health of the daily run.

    gates: outcomes of the last report. running: the process that holds the folder.
    """

    ok: bool
    problems: list[str]
    last_session: str | None
    behind: int | None
    gates: dict[str, str]
    running: Holder | None
    next_run: str | None


def health(store: Partitions, calendar: str, schedule: ScheduleSettings, most_behind: int, now: datetime) -> Health:
    """Health of the daily run: whether it is ok, problems, the last session.

    Also behind (closed sessions since), gates of the last report, running, next_run. most_behind: allowed number of
    closed sessions after the newest report. Reads only the folder and the calendar.
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
        "last_session": None if shown is None else shown.isoformat(),
        "behind": behind,
        "gates": {check["gate"]: check["outcome"] for check in checks},
        "running": holder(store.root) or None,
        "next_run": None if upcoming is None else upcoming.isoformat(),
    }


def sessions_behind(shown: date | None, calendar: str, now: datetime) -> int | None:
    """Closed sessions after the published one; None where none is published."""
    last = sessions.last_closed(calendar, now)
    if shown is None:
        return None
    return 0 if shown >= last else len(sessions.closes(calendar, shown, last)) - 1


def preflight(
    store: Partitions,
    calendar: str,
    last_bar: date,
    keys: Check,
    *,
    least_free_gb: float,
    most_model_age: int,
    now: datetime,
) -> list[Check]:
    """Checks before a run: data, disk, keys, calendar, age of the model, lock.

    last_bar: session of the newest bar. keys: result of `check_keys`. most_model_age: allowed sessions since the
    champion was last fitted or challenged.
    """
    last = sessions.last_closed(calendar, now)
    fresh = last_bar >= last
    free = shutil.disk_usage(_existing(store.root)).free / GIGABYTE
    holding = holder(store.root)
    challenged = last_challenge(store)
    age = sessions_behind(challenged, calendar, now) if challenged else None
    failed = RunLog(store.root).lines(event="failed")[-1:]
    return [
        Check("data", fresh, f"bars end {last_bar}" + ("" if fresh else f", {last} has closed; fetch newer data")),
        Check("disk", free >= least_free_gb, f"{free:.1f} GB free, {least_free_gb:g} are required"),
        keys,
        Check("calendar", True, f"{calendar}: last closed session {last}"),
        Check("model", age is None or age <= most_model_age, _age(age, most_model_age)),
        Check("lock", not holding, f"held by process {holding['pid']} on {holding['host']}" if holding else "free"),
        Check("last failure", True, f"{failed[0]['date']}: {failed[0]['error']}" if failed else "none in the log"),
    ]


def check_keys(config: Mapping[str, Any], wanted: Sequence[str]) -> Check:
    """Checks that required environment variables are set.

    Also counts the notices' targets. config: of the run; where it names a variable (`key: FRED_API_KEY`) that key is
    needed. wanted: further names, such as those of an earlier download. Values are never shown.
    """
    needed = sorted({*_names_of_keys(config), *wanted})
    lacking = [name for name in needed if not os.environ.get(name, "").strip()]
    found = f"{', '.join(lacking)} not set in the environment or .env" if lacking else ", ".join(needed) or "none named"
    try:
        targets = Notifier.from_environment().n_targets
    except TradsysError as error:
        return Check("keys", False, f"{found}; {error}")
    return Check("keys", not lacking, f"{found}; notices go to {counted(targets, 'target')}")


def last_challenge(store: Partitions) -> date | None:
    """The session on which the champions were last fitted or challenged.

    None before the first.
    """
    days = store.dates("models")
    if not days:
        return None
    champions = store.document("models", days[-1], "champions")
    return min(date.fromisoformat(one["challenged"]) for one in champions.values())


def _names_of_keys(part: Any) -> Iterator[str]:
    """Names of environment variables at the keys `key` and `secret`."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in ("key", "secret") and isinstance(value, str) and ENVIRONMENT_NAME.fullmatch(value):
                yield value
            yield from _names_of_keys(value)
    elif isinstance(part, (list, tuple)):
        for one in part:
            yield from _names_of_keys(one)


def as_rows(checks: list[Check]) -> list[Json]:
    """The checks as dicts, ready for JSON."""
    return [asdict(check) for check in checks]


def _age(age: int | None, most: int) -> str:
    return "none yet; the first run fits one" if age is None else f"{age} sessions old, at most {most}"


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent) if path != path.parent else Path.cwd()
