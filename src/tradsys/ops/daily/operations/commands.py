"""The verbs for scheduled operation: schedule, preflight, health, clean."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tradsys.core.clock import utc_now
from tradsys.core.errors import GateError
from tradsys.ops.daily import publishing
from tradsys.ops.daily.day_data import DailyBars
from tradsys.ops.daily.lock import held
from tradsys.ops.daily.operations.health import as_rows, check_keys, health, preflight
from tradsys.ops.daily.operations.notices import newcomers
from tradsys.ops.daily.operations.retention import GIGABYTE, RetentionSettings, clean
from tradsys.ops.daily.operations.schedule import Due, ScheduleSettings, due_sessions, write_schedule
from tradsys.ops.daily.partitions import Partitions
from tradsys.ops.daily.stages import DailySettings
from tradsys.reports.terminal import prose


def schedule_settings(parts: Mapping[str, Any]) -> ScheduleSettings:
    """The `schedule` group of conf/daily.yaml."""
    plain = parts["schedule"]
    times = {key: str(plain[key]) for key in ("pre", "post") if plain[key] is not None}
    return ScheduleSettings(str(plain["form"]), times, Path(str(plain["into"])))


def write_units(settings: DailySettings, parts: Mapping[str, Any]) -> None:
    """Writes timers and services, or a crontab, and prints how to install them."""
    wanted, calendar = schedule_settings(parts), _calendar(settings, parts)
    own = ("schedule.", "date=", "until=", "when=")  # all other overrides go to the scheduled run as well
    kept = [override for override in parts["argv"] if not override.lstrip("+").startswith(own)]
    command = [sys.executable, "-m", "tradsys.daily", "run", *kept]
    written = write_schedule(wanted, settings.name, calendar, command)
    console = prose()
    for path in written:
        console.print(f"wrote    {path}")
    console.print("install  with these lines:")
    for line in install_lines(wanted.form, written):
        console.print(line, no_wrap=True, soft_wrap=True)  # lines for copying must not wrap


def install_lines(form: str, written: Sequence[Path]) -> list[str]:
    """Shell lines that install the files of `write_schedule`.

    They keep a crontab's other lines. A user's timers run only while the user is logged in, unless lingering is enabled
    (loginctl).
    """
    if form == "cron":
        return [f"(crontab -l 2>/dev/null; cat {shlex.quote(str(written[0].resolve()))}) | crontab -"]
    timers = shlex.join(path.name for path in written if path.suffix == ".timer")
    return [
        f"systemctl --user link {shlex.join(str(path.resolve()) for path in written)}",
        f"systemctl --user enable --now {timers}",
        "loginctl enable-linger",
    ]


def due(settings: DailySettings, parts: Mapping[str, Any]) -> Due:
    """The sessions that are due now by `when=`."""
    newest = publishing.latest(Partitions(settings.folder))
    return due_sessions(str(parts["when"]), _calendar(settings, parts), newest, utc_now())


def check_before(settings: DailySettings, parts: Mapping[str, Any]) -> None:
    """Prints every check of `preflight`; GateError, exit code 2, where one fails."""
    limits, data = parts["preflight"], DailyBars(settings.first)
    checks = preflight(
        Partitions(settings.folder),
        data.calendar,
        data.last_bar(),
        check_keys(settings.config, limits["keys"] or ()),
        least_free_gb=limits["free_gb"],
        most_model_age=limits["model_age"],
        now=utc_now(),
    )
    console = prose()
    if limits["json"]:
        console.out(json.dumps(as_rows(checks), indent=2), highlight=False)
    else:
        for check in checks:
            console.print(f"{'ok' if check.ok else 'FAILS':<9}{check.name}: {check.found}")
    if bad := [check.name for check in checks if not check.ok]:
        raise GateError(f"daily: preflight: {', '.join(bad)} would stop the run; see above")


def report_health(settings: DailySettings, parts: Mapping[str, Any]) -> None:
    """Prints one JSON object for monitors; exit code 1 where there is a problem."""
    found = health(
        Partitions(settings.folder), _calendar(settings, parts), schedule_settings(parts),
        int(parts["health"]["most_behind"]), utc_now(),
    )  # fmt: skip
    prose().out(json.dumps(found, indent=2, default=str), highlight=False)
    if not found["ok"]:
        sys.exit(1)


def clean_up(settings: DailySettings, parts: Mapping[str, Any]) -> None:
    """Removes the partitions beyond retention; with `clean.dry_run` only lists them."""
    plain = parts["clean"]
    retention = RetentionSettings(plain["sessions"], plain["gigabytes"], bool(plain["dry_run"]))
    with held(settings.folder):
        gone = clean(Partitions(settings.folder), retention)
    console = prose()
    for one in gone:
        console.print(f"{'would be removed' if retention.dry_run else 'removed '} {one.path}  ({one.rule})")
    total = sum(one.n_bytes for one in gone) / GIGABYTE
    again = "; nothing was removed, clean.dry_run=false does it" if retention.dry_run and gone else ""
    console.print(f"{len(gone)} partitions, {total:.3f} GB{again}")


def new_names(store: Partitions, day: date) -> list[str]:
    """Symbols of the plan of `day` that the previous report did not hold."""
    earlier = [other for other in store.dates("report") if other < day]
    before = store.document("report", earlier[-1], "report") if earlier else None
    return newcomers(before, store.document("report", day, "report"))


def _calendar(settings: DailySettings, parts: Mapping[str, Any]) -> str:
    return str(parts["schedule"]["calendar"] or settings.first.data["calendar"])
