"""Stage outputs of daily runs on disk: one partition per session, valid only for its recorded inputs."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, TypedDict, cast

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError, TradsysError
from tradsys.core.plain_data import Config, Json
from tradsys.core.received import inside, read_json
from tradsys.core.runs import code_sha, digest_file, digest_json, write_json, written_atomically
from tradsys.market.parquet import read_parquet

FORMAT = 1
MANIFEST = "manifest.json"
STOPPED = "stopped"  # marks a partition that is kept for the record and does not count as done


@dataclass(frozen=True, eq=False)
class StageOutput:
    """The output of one stage for one session.

    frames: parquet files by name. documents: JSON files by name. facts: further entries of the manifest, such as
    reasons and times, which are not part of the digest. digest: of the content, if the stage has a better one than its
    files'.
    """

    frames: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None


@dataclass(frozen=True)
class Lineage:
    """Lineage of a partition: what determines its content.

    Digests of its inputs by name, and its part of the config (JSON).
    """

    inputs: Mapping[str, str]
    config: Mapping[str, Any]


class Manifest(TypedDict):
    """Manifest of a partition.

    files: digest by name. rows: by frame. inputs, config: its lineage. facts: the stage's further findings. digest: of
    the content. seconds: duration of the stage.
    """

    format: int
    stage: str
    date: str
    digest: str
    files: dict[str, str]
    rows: dict[str, int]
    inputs: dict[str, str]
    config: Config
    facts: Json
    seconds: float
    written: str
    code_sha: str


@dataclass(frozen=True)
class Partitions:
    """Stage outputs on disk, in `root/<stage>/date=YYYY-MM-DD/`.

    Files and a manifest with their SHA-256, lineage and duration. A partition is a folder that is renamed into place,
    so that a reader sees an old one, a new one or none.
    """

    root: Path

    def folder(self, stage: str, day: date) -> Path:
        """The folder of a session's partition."""
        return self.root / stage / f"date={day.isoformat()}"

    def dates(self, stage: str) -> list[date]:
        """The sessions that have a readable partition, ascending; without stopped ones."""
        found = filter(None, (day_of(path) for path in (self.root / stage).glob("date=*")))
        reported = ((day, self.manifest(stage, day)) for day in found)
        return sorted(day for day, manifest in reported if manifest and not manifest["facts"].get(STOPPED))

    def manifest(self, stage: str, day: date) -> Manifest | None:
        """The partition's manifest; None where it is missing or unreadable."""
        try:
            read: Json = read_json(self.folder(stage, day) / MANIFEST, "run that date again")
        except (OSError, TradsysError):
            return None
        sealed = read.pop("sha256", None)
        as_written = all(isinstance(read.get(key), dict) for key in ("inputs", "config", "facts", "files", "rows"))
        is_complete = as_written and sealed == digest_json(read) and read.get("format") == FORMAT
        return cast("Manifest", read) if is_complete else None

    def why_not(self, stage: str, day: date, lineage: Lineage) -> str | None:
        """Why the stage has to run, in words.

        None where its partition is complete and of this lineage.
        """
        if not self.folder(stage, day).is_dir():
            return "it was never done"
        manifest = self.manifest(stage, day)
        if manifest is None:
            return "its manifest is missing, altered or of another format"
        if manifest["facts"].get(STOPPED):
            return "it was stopped"
        if altered := self.altered(stage, day, manifest):
            return f"{', '.join(altered)} missing or altered"
        changed = sorted(
            name
            for name in {*manifest["inputs"], *lineage.inputs}
            if manifest["inputs"].get(name) != lineage.inputs.get(name)
        )
        reported = [f"{', '.join(changed)} changed"] if changed else []
        return "; ".join([*reported, *_config_changes(manifest["config"], _plain_json(lineage.config))]) or None

    def altered(self, stage: str, day: date, manifest: Manifest) -> list[str]:
        """Names of the partition's files that differ from their digest."""
        folder = self.folder(stage, day)
        return [
            name
            for name, digest in manifest["files"].items()
            if not (path := inside(folder, name, DataError)).is_file() or digest_file(path) != digest
        ]

    def write(self, stage: str, day: date, output: StageOutput, lineage: Lineage, seconds: float) -> Manifest:
        """Writes the partition atomically and returns its manifest."""
        with written_atomically(self.folder(stage, day)) as draft:
            draft.mkdir(parents=True)
            for name, frame in output.frames.items():
                frame.write_parquet(draft / f"{name}.parquet", compression="zstd")
            for name, document in output.documents.items():
                write_json(draft / f"{name}.json", document)
            files = {path.name: digest_file(path) for path in sorted(draft.iterdir())}
            manifest: Manifest = {
                "format": FORMAT,
                "stage": stage,
                "date": day.isoformat(),
                "digest": output.digest or digest_json(files),
                "files": files,
                "rows": {name: frame.height for name, frame in output.frames.items()},
                "inputs": dict(lineage.inputs),
                "config": _plain_json(lineage.config),
                "facts": _plain_json(output.facts),
                "seconds": round(seconds, 4),
                "written": utc_now().isoformat(timespec="seconds"),
                "code_sha": code_sha(),
            }
            write_json(draft / MANIFEST, {**manifest, "sha256": digest_json(manifest)})
        return manifest

    def frame(self, stage: str, day: date, name: str | None = None) -> pl.DataFrame:
        """A frame of a partition, by default the one of the stage's own name.

        Raises DataError where it is missing.
        """
        path = self._file(stage, day, f"{name or stage}.parquet")
        return read_parquet(path, "run that date again", lists=True)  # quality holds lists of examples

    def document(self, stage: str, day: date, name: str) -> Any:
        """A JSON document of a partition; DataError where it is missing."""
        return read_json(self._file(stage, day, f"{name}.json"), "run that date again", DataError, object)

    def sweep(self) -> list[str]:
        """Removes incomplete files of a crashed run and returns their paths.

        Needs the lock.
        """
        left = [path for path in _drafts(self.root) if path.exists()]
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return [str(path.relative_to(self.root)) for path in left]

    def _file(self, stage: str, day: date, name: str) -> Path:
        path = self.folder(stage, day) / name
        if not path.is_file():
            raise DataError(
                f"daily: the partition {stage}/date={day} lacks {name}; a stage reads the output of earlier ones; "
                f"run it again: python -m tradsys.daily run date={day}"
            )
        return path


def day_of(folder: Path) -> date | None:
    """The session in a partition's folder name; None without one."""
    try:
        return date.fromisoformat(folder.name.partition("=")[2])
    except ValueError:
        return None


def _drafts(root: Path) -> Iterator[Path]:
    """Temporary names of `written_atomically`, as `core.drafts` gives them."""
    for pattern in (".*.part", "*/.*.part", "*/*/.*.part", "*/.*.old", "*/*/.*.old"):
        yield from root.glob(pattern)


def _plain_json(value: Any) -> Any:
    """The value after a JSON round trip, so that a stored config compares equal to a new one."""
    return json.loads(json.dumps(value, default=str))


def _config_changes(old: Mapping[str, Any], new: Mapping[str, Any], most: int = 3) -> list[str]:
    """Changes such as `labels.horizon_bars 5 -> 10`, at most `most`, and the number of others."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    keys = sorted(key for key in {*before, *after} if before.get(key, "absent") != after.get(key, "absent"))
    reported = [f"config: {key} {before.get(key, 'absent')} -> {after.get(key, 'absent')}" for key in keys[:most]]
    return [*reported, f"and {len(keys) - most} more config keys"] if len(keys) > most else reported


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        yield path, value
        return
    for key, inner in items:
        yield from _leaves(inner, f"{path}.{key}" if path else str(key))
