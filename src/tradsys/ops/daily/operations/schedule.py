"""Timers of the daily pipeline, and the sessions that are due at a timer's run."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from tradsys.core.errors import TradsysError
from tradsys.core.runs import write_text
from tradsys.market import sessions

FORMS = ("systemd", "cron")
WHEN = ("pre", "post")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
PURPOSE = {"pre": "before the open", "post": "after the close"}


@dataclass(frozen=True)
class ScheduleSettings:
    """Settings of the scheduled runs.

    form: `systemd` (a timer and a service each) or `cron` (one crontab with CRON_TZ). times: HH:MM in the exchange's
    own zone by `pre` and `post`. into: folder of the files. Raises TradsysError for another form, time or name.
    """

    form: str
    times: Mapping[str, str]
    into: Path

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise TradsysError(f"daily: schedule.form={self.form}; it is one of {', '.join(FORMS)}; set schedule.form")
        if not self.times or set(self.times) - set(WHEN):
            raise TradsysError(f"daily: schedule has the times {list(self.times)}; the keys are {', '.join(WHEN)}")
        for when, text in self.times.items():
            try:
                datetime.strptime(str(text), "%H:%M")
            except ValueError as error:
                raise TradsysError(
                    f"daily: schedule.{when}={text!r}; a time of day is HH:MM, such as '08:15', in quotes"
                ) from error


def write_schedule(settings: ScheduleSettings, name: str, calendar: str, command: Sequence[str]) -> list[Path]:
    """Writes the unit files or the crontab and returns their paths.

    name: of the pipeline, part of the file names. calendar: gives the time zone and the weekdays with a
    timer (Riyadh's are Sunday to Thursday); markets that never close run every day, in UTC. command: what starts the
    pipeline; `when=pre` or `when=post` is added.
    """
    zone, weekdays = _zone(calendar).key, sessions.weekdays(calendar)
    files = _systemd if settings.form == "systemd" else _cron
    written = []
    for file, text in files(settings.times, name, zone, weekdays, list(command)).items():
        write_text(settings.into / file, text)
        written.append(settings.into / file)
    return written


def _systemd(
    times: Mapping[str, str], name: str, zone: str, weekdays: Sequence[int], command: list[str]
) -> dict[str, str]:
    files, place = {}, str(Path.cwd()).replace("%", "%%")  # % starts a specifier in a unit file
    line = " ".join(map(_unit_word, command))
    days = "" if len(weekdays) == len(WEEKDAYS) else f"{','.join(WEEKDAYS[day] for day in weekdays)} "
    for when, clock in times.items():
        unit = f"tradsys-daily-{name}-{when}"
        files[f"{unit}.service"] = (
            f"[Unit]\nDescription=tradsys daily {name}, {PURPOSE[when]}\n"
            "Wants=network-online.target\nAfter=network-online.target\n\n"
            f"[Service]\nType=oneshot\nWorkingDirectory={place}\nEnvironmentFile=-{place}/.env\n"
            f"ExecStart={line} when={when}\nTimeoutStartSec=4h\n"
        )
        files[f"{unit}.timer"] = (
            f"[Unit]\nDescription=tradsys daily {name}, {PURPOSE[when]} at {clock} {zone}\n\n"
            f"[Timer]\nOnCalendar={days}*-*-* {clock}:00 {zone}\nPersistent=true\nAccuracySec=30s\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
    return files


def _unit_word(word: str) -> str:
    """One word of ExecStart, escaped so that systemd reads it back unchanged."""
    plain = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./${}\[\]~^-]+", plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _cron(
    times: Mapping[str, str], name: str, zone: str, weekdays: Sequence[int], command: list[str]
) -> dict[str, str]:
    lines = [
        f"# tradsys daily {name}; times are in {zone}",
        "# a cron without CRON_TZ, such as Debian's, reads them in the machine's own zone: use form=systemd there",
        f"CRON_TZ={zone}",
    ]
    days = "*" if len(weekdays) == len(WEEKDAYS) else ",".join(str((day + 1) % 7) for day in weekdays)  # 0 is Sunday
    for when, clock in times.items():
        hour, minute = (int(part) for part in clock.split(":"))
        work = f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join([*command, f'when={when}'])}".replace("%", r"\%")
        lines.append(f"{minute} {hour} * * {days} {work}")
    return {f"tradsys-daily-{name}.crontab": "\n".join(lines) + "\n"}


@dataclass(frozen=True)
class Due:
    """The first and last due session, None for none; and the reason in one sentence."""

    first: date | None
    last: date | None
    reason: str


def due_sessions(when: str, calendar: str, done: date | None, now: datetime) -> Due:
    """The sessions due at `now` (aware): all closed ones after `done`.

    done: the newest published one. On a day without a session nothing is due, even if earlier sessions are missing: the
    next timer catches up. `done` None: the last closed session alone. Raises TradsysError for another `when`.
    """
    if when not in WHEN:
        raise TradsysError(f"daily: when={when}; it is one of {', '.join(WHEN)}; set when=post")
    today = now.astimezone(_zone(calendar)).date()
    around = sessions.closes(calendar, today - timedelta(days=31), today + timedelta(days=31))
    if around.filter(session=today).is_empty():
        upcoming = around["session"].filter(around["session"] > today)
        return Due(None, None, f"{today} is no session of {calendar}, the next is {upcoming[0]}; nothing to do")
    last = sessions.last_closed(calendar, now)
    if done is not None and done >= last:
        return Due(None, None, f"the report of {done} is the newest there can be; nothing to do")
    if done is None:
        return Due(last, last, f"no session was done yet; {last} is the last that closed")
    open_days = sessions.closes(calendar, done + timedelta(days=1), last)["session"]
    n = len(open_days)
    return Due(open_days[0], last, f"{n} session{'s' if n > 1 else ''} since the report of {done}")


def next_run(settings: ScheduleSettings, calendar: str, now: datetime) -> datetime | None:
    """The next timer on a day with a session, in the exchange's zone.

    None if none within a month.
    """
    zone = _zone(calendar)
    local = now.astimezone(zone)
    days = sessions.closes(calendar, local.date(), local.date() + timedelta(days=31))["session"]
    moments = [
        datetime.combine(day, time.fromisoformat(clock), zone) for day in days for clock in settings.times.values()
    ]
    return min((moment for moment in moments if moment > now), default=None)


def _zone(calendar: str) -> ZoneInfo:
    return ZoneInfo("UTC" if calendar == sessions.ROUND_THE_CLOCK else sessions.time_zone(calendar))
