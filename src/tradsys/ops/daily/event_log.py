"""Append-only log of daily runs, one JSON object a line."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradsys.core.clock import utc_now
from tradsys.core.errors import TradsysError
from tradsys.core.masking import masked
from tradsys.core.plain_data import Json
from tradsys.core.received import parse_json, plain_texts

FILE = "log.jsonl"
MOST_BYTES = 10_000_000  # beyond it the file becomes log.jsonl.1, which replaces an older one


@dataclass(frozen=True)
class RunLog:
    """Appends to `folder/log.jsonl`; every line has `at` (UTC) and `event`."""

    folder: Path

    @property
    def path(self) -> Path:
        """The current log file."""
        return self.folder / FILE

    @property
    def rotated(self) -> Path:
        """The lines before the last rotation."""
        return self.folder / f"{FILE}.1"

    def write(self, event: str, **facts: Any) -> None:
        """Adds one line in a single write.

        So a crash truncates at most the last line.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"at": utc_now().isoformat(timespec="milliseconds"), "event": event, **masked(facts)}
        text = json.dumps(line, default=str, allow_nan=False) + "\n"
        if self.path.exists() and self.path.stat().st_size > MOST_BYTES:
            os.replace(self.path, self.rotated)
        if self._torn():
            text = "\n" + text  # keeps a truncated line on its own
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    def lines(self, **wanted: Any) -> list[Json]:
        """All lines whose facts equal those wanted, oldest first.

        A line truncated by a crash is left out.
        """
        files = [path for path in (self.rotated, self.path) if path.exists()]
        read = (_read_event(text) for path in files for text in path.read_text("utf-8", "replace").splitlines())
        return [line for line in read if line and all(line.get(key) == value for key, value in wanted.items())]

    def _torn(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def _read_event(text: str) -> Json | None:
    try:
        line: Json = plain_texts(parse_json(text, FILE, "it is left out"))
    except TradsysError:
        return None
    return line
