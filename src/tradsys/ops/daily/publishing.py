"""Publishes a report's pages, links the newest one, and marks an outdated one with a banner."""

from datetime import date
from pathlib import Path
from typing import TypedDict

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError, TradsysError
from tradsys.core.received import plain_texts, read_json
from tradsys.core.runs import link_latest, write_json
from tradsys.ops.daily.partitions import Partitions, day_of
from tradsys.reports.daily.page import write_daily

OLD = "old.json"  # exists where a published report is not of the newest session; holds the reason


def latest(store: Partitions) -> date | None:
    """The session of the newest published report; None without one."""
    link = store.root / "report" / "latest"
    return day_of(link.resolve()) if link.exists() else None


def publish(store: Partitions, day: date) -> bool:
    """Writes a report's pages and links `report/latest` to the newest.

    Returns whether anything changed.
    """
    folder, newest = store.folder("report", day), max(store.dates("report"))
    pages = all((folder / name).is_file() for name in ("report.html", "report.md"))
    if pages and latest(store) == newest and not (folder / OLD).exists():
        return False
    before = latest(store)
    (folder / OLD).unlink(missing_ok=True)  # the session was run again, so its report is not outdated any more
    _draw_page(store, day)
    link_latest(store.folder("report", newest))
    if before is not None and before != newest and (store.folder("report", before) / OLD).exists():
        (store.folder("report", before) / OLD).unlink()
        _draw_page(store, before)
    return True


def mark_old(store: Partitions, day: date, because: str) -> None:
    """Marks the newest report as outdated, with the reason.

    A later session could not be published.
    """
    shown = latest(store)
    if shown is None or shown >= day:
        return
    reported = {"of": shown.isoformat(), "failed": day.isoformat(), "because": because}
    folder = store.folder("report", shown)
    write_json(folder / OLD, reported | {"at": utc_now().isoformat(timespec="seconds")})
    _draw_page(store, shown)


class Outdated(TypedDict):
    """A published report that a later session should have replaced.

    of, failed: sessions. at: UTC.
    """

    of: str
    failed: str
    because: str
    at: str


def old(store: Partitions, day: date) -> Outdated | None:
    """Why a published report is outdated: of, failed, because, at.

    None where it is not.
    """
    path = store.folder("report", day) / OLD
    if not path.exists():
        return None
    reported: Outdated = plain_texts(read_json(path, "delete it; the next run writes it again", DataError))
    if lacking := {"of", "failed", "because", "at"} - reported.keys():
        raise DataError(f"{path}: it lacks {', '.join(sorted(lacking))}; delete it; the next run writes it again")
    return reported


def redraw(store: Partitions, day: date) -> Path:
    """Writes a report's pages again from its partition and returns the HTML's path.

    Raises TradsysError, with the existing dates, for a session that was never run or not published.
    """
    dates = store.dates("report")
    if day not in dates:
        there = f"there are {_listed(dates)}" if dates else "no session was ever published"
        raise TradsysError(
            f"daily: no report of {day} in {store.root}; {there}; run it first: python -m tradsys.daily run date={day}"
        )
    return _draw_page(store, day)


def _draw_page(store: Partitions, day: date) -> Path:
    folder = store.folder("report", day)
    write_daily({**store.document("report", day, "report"), "old": old(store, day)}, folder)
    return folder / "report.html"


def _listed(dates: list[date], most: int = 5) -> str:
    """`2022-12-28, 2022-12-29`; for many dates the first, the last and their number."""
    if len(dates) <= most:
        return ", ".join(str(day) for day in dates)
    return f"{len(dates)} from {dates[0]} to {dates[-1]}, the last ones {', '.join(str(day) for day in dates[-3:])}"
