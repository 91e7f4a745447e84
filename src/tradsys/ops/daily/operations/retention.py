"""Removes old partitions of the daily folder, but none that the newest report needs."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tradsys.core.errors import TradsysError
from tradsys.ops.daily import publishing
from tradsys.ops.daily.partitions import Partitions

CLEANED = ("prices", "quality", "features", "labels", "gates", "report")  # `models` holds the champions and stays
GIGABYTE = 1e9


@dataclass(frozen=True)
class RetentionSettings:
    """Retention rules by stage.

    sessions: number of kept partitions, None for all. gigabytes: the same as a size. dry_run: only lists what would be
    removed. Raises TradsysError for a stage that is not cleaned or a count below 1.
    """

    sessions: Mapping[str, int | None]
    gigabytes: Mapping[str, float | None]
    dry_run: bool = True

    def __post_init__(self) -> None:
        for name, kept in (("sessions", self.sessions), ("gigabytes", self.gigabytes)):
            if strange := sorted(set(kept) - set(CLEANED)):
                raise TradsysError(
                    f"daily: clean.{name} names {strange}; stages that are cleaned are {', '.join(CLEANED)} "
                    "(models hold the champions and stay); leave the others out"
                )
            if low := {stage: n for stage, n in kept.items() if n is not None and not n > 0}:
                raise TradsysError(f"daily: clean.{name} has {low}; it must be above zero, or null to keep all")


@dataclass(frozen=True)
class Leaving:
    """A partition to remove: its folder, its size in bytes and the rule."""

    path: Path
    n_bytes: int
    rule: str


def leaving(store: Partitions, settings: RetentionSettings) -> list[Leaving]:
    """Partitions beyond the retention of their stage, oldest first.

    None of the newest report's session.
    """
    safe = publishing.latest(store)
    found = []
    for stage in CLEANED:
        days = sorted(_stored_days(store, stage), reverse=True)
        most, room = settings.sessions.get(stage), settings.gigabytes.get(stage)
        n_kept, held = 0, 0.0
        for day in days:
            size = _size(store.folder(stage, day))
            full = most is not None and n_kept >= most
            big = room is not None and (held + size) / GIGABYTE > room
            if day == safe or not (full or big):
                n_kept, held = n_kept + 1, held + size
                continue
            rule = f"{stage} keeps {most} sessions" if full else f"{stage} keeps {room:g} GB"
            found.append(Leaving(store.folder(stage, day), size, rule))
    return sorted(found, key=lambda one: one.path.name)


def clean(store: Partitions, settings: RetentionSettings) -> list[Leaving]:
    """Removes the partitions of `leaving`, unless it is a dry run.

    Returns them. Needs the lock.
    """
    gone = leaving(store, settings)
    if not settings.dry_run:
        for one in gone:
            shutil.rmtree(one.path)
    return gone


def _stored_days(store: Partitions, stage: str) -> list[date]:
    return [date.fromisoformat(p.name.partition("=")[2]) for p in (store.root / stage).glob("date=*")]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
