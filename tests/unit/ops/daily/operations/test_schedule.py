"""Timers and what they find due: units that systemd accepts, a rehearsed week, clock changes, holidays, downtime."""

import shutil
import subprocess
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tradsys.core.errors import DataError, TradsysError
from tradsys.market import sessions
from tradsys.ops.daily.operations.commands import install_lines
from tradsys.ops.daily.operations.schedule import ScheduleSettings, due_sessions, next_run, write_schedule

NEW_YORK = ZoneInfo("America/New_York")
TIMES = {"pre": "08:15", "post": "16:45"}


def settings(tmp_path, form="systemd", times=TIMES):
    return ScheduleSettings(form, times, tmp_path)


def in_new_york(*parts):
    return datetime(*parts, tzinfo=NEW_YORK)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units_and_reads_the_times_as_meant(tmp_path):
    written = write_schedule(settings(tmp_path), "foundry", "XNYS", ["/bin/true", "name=a b%c"])
    assert [p.suffix for p in written] == [".service", ".timer", ".service", ".timer"]
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, written)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "tradsys" in line]
    assert (done.returncode, ours) == (0, [])
    (timer,) = [p.read_text() for p in written if p.name.endswith("post.timer")]
    spec = timer.split("OnCalendar=")[1].splitlines()[0]
    read = subprocess.run(["systemd-analyze", "calendar", spec], capture_output=True, text=True, check=True).stdout
    assert "16:45:00" in read


def test_a_crontab_names_the_zone_and_escapes_percent(tmp_path):
    (path,) = write_schedule(settings(tmp_path, "cron"), "foundry", "XNYS", ["python", "x=%"])
    text = path.read_text()
    assert "CRON_TZ=America/New_York" in text
    assert "15 8 * * 1,2,3,4,5 cd " in text
    assert "45 16 * * 1,2,3,4,5 cd " in text
    assert r"\%" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_timer_of_riyadh_stands_on_its_own_weekdays(tmp_path):
    written = write_schedule(settings(tmp_path), "saudi", "XSAU", ["/bin/true"])
    spec = written[1].read_text().split("OnCalendar=")[1].splitlines()[0]
    read = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=7", "--base-time=2022-12-01", spec],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    days = {line.split()[-4] for line in read.splitlines() if "Asia/Riyadh" in line or "+03" in line or "UTC" in line}
    assert days & {"Fri", "Sat"} == set()
    assert "Sun" in days
    (cron,) = write_schedule(settings(tmp_path, "cron"), "saudi", "XSAU", ["/bin/true"])
    assert "15 8 * * 1,2,3,4,0 cd " in cron.read_text()


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("data.source.root=${paths.data}/a", "data.source.root=$${paths.data}/a"),  # $ begins a variable
        ("name=a%b", "name=a%%b"),
        ("question=what now?", '"question=what now?"'),
        ('question=say "no" \\ more', '"question=say \\"no\\" \\\\ more"'),
    ],
)
def test_a_unit_gives_the_command_each_word_as_it_was_typed(tmp_path, word, written):
    service = write_schedule(settings(tmp_path), "foundry", "XNYS", ["/bin/true", word])[0]
    (line,) = [each for each in service.read_text().splitlines() if each.startswith("ExecStart=")]
    assert line == f"ExecStart=/bin/true {written} when=pre"


def test_the_lines_that_install_a_crontab_keep_the_lines_that_are_there(tmp_path):
    written = write_schedule(settings(tmp_path / "a b", "cron"), "foundry", "XNYS", ["/bin/true"])
    (line,) = install_lines("cron", written)
    fake = tmp_path / "crontab"  # crontab -l prints the file "old", crontab - replaces it
    fake.write_text(f'#!/bin/sh\n[ "$1" = -l ] && exec cat {tmp_path}/old\ncat > {tmp_path}/new\n')
    fake.chmod(0o755)
    (tmp_path / "old").write_text("0 3 * * * backup\n")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", line], check=True, env=env)
    assert (tmp_path / "new").read_text() == "0 3 * * * backup\n" + written[0].read_text()


def test_markets_that_never_close_run_every_day_in_utc(tmp_path):
    (path,) = write_schedule(settings(tmp_path, "cron"), "coins", "24/7", ["python"])
    assert "CRON_TZ=UTC" in path.read_text()
    assert "15 8 * * * cd " in path.read_text()


def test_a_week_with_thanksgiving_and_a_half_day_is_rehearsed_timer_by_timer():
    done, ran = date(2022, 11, 18), []
    for day in range(21, 28):  # Thanksgiving is Thursday 24, Friday 25 closes at 13:00
        for clock in TIMES.values():
            hour, minute = map(int, clock.split(":"))
            due = due_sessions("post", "XNYS", done, in_new_york(2022, 11, day, hour, minute))
            if due.first is not None:
                ran.append((day, clock, due.first.day, due.last.day))
                done = due.last
    assert ran == [
        (21, "16:45", 21, 21), (22, "16:45", 22, 22), (23, "16:45", 23, 23), (25, "16:45", 25, 25),
    ]  # fmt: skip
    holiday = due_sessions("post", "XNYS", done, in_new_york(2022, 11, 24, 16, 45))
    assert "2022-11-24 is no session of XNYS, the next is 2022-11-25; nothing to do" in holiday.reason


@pytest.mark.parametrize("monday", [date(2022, 3, 14), date(2022, 11, 7)])  # the first after the clocks changed
def test_the_run_after_the_close_finds_its_session_on_both_sides_of_a_clock_change(monday):
    friday = monday - timedelta(days=3)
    for day in (friday, monday):
        now = in_new_york(day.year, day.month, day.day, 16, 45)
        before = sessions.last_closed("XNYS", now - timedelta(hours=2))
        assert due_sessions("post", "XNYS", before, now).last == day
        early = in_new_york(day.year, day.month, day.day, 15, 59)
        assert due_sessions("post", "XNYS", before, early).first is None


def test_downtime_is_caught_up_from_the_session_after_the_newest_report():
    due = due_sessions("pre", "XNYS", date(2022, 12, 21), in_new_york(2022, 12, 28, 8, 15))
    assert (due.first, due.last) == (date(2022, 12, 22), date(2022, 12, 27))
    assert "3 sessions since the report of 2022-12-21" in due.reason


def test_the_first_run_does_the_last_closed_session_alone():
    due = due_sessions("pre", "XNYS", None, in_new_york(2022, 12, 28, 8, 15))
    assert due.first == due.last == date(2022, 12, 27)


def test_the_next_run_skips_the_weekend(tmp_path):
    friday_evening = datetime(2022, 12, 2, 23, 0, tzinfo=UTC)
    assert next_run(settings(tmp_path), "XNYS", friday_evening) == in_new_york(2022, 12, 5, 8, 15)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"form": "launchd"}, "schedule.form=launchd; it is one of systemd, cron"),
        ({"times": {"pre": "8h15"}}, "schedule.pre='8h15'; a time of day is HH:MM"),
        ({"times": {"noon": "12:00"}}, r"the keys are pre, post"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(tmp_path, change, words):
    with pytest.raises(TradsysError, match=words):
        settings(tmp_path, **change)


def test_an_unknown_calendar_or_moment_of_day_is_refused(tmp_path):
    with pytest.raises(DataError, match="XMARS"):
        write_schedule(settings(tmp_path), "foundry", "XMARS", ["python"])
    with pytest.raises(TradsysError, match="when=noon; it is one of pre, post"):
        due_sessions("noon", "XNYS", None, in_new_york(2022, 12, 28, 8, 15))
