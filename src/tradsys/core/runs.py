"""Run folders and files written atomically: a reader sees the old file or the new one, never half."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tradsys.core.clock import utc_stamp
from tradsys.core.drafts import draft_of, writing_in
from tradsys.core.errors import file_limit
from tradsys.core.masking import masked, without_remembered

PACKAGE = Path(__file__).parents[1]  # the folder of the installed package
ALMOST_NOTHING = 2**20  # with fewer free bytes, a library's failed write means a full disk
BUFFER = 2**16  # a library may fail so many bytes before a file reaches its limit
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of a disk, while a file is written
WORDS = {"no space left": errno.ENOSPC, "disk is full": errno.ENOSPC, "os error 28": errno.ENOSPC,
         "quota exceeded": errno.EDQUOT}  # fmt: skip


def digest_bytes(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to.

    Renamed to `path` on success, removed on failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    with writing_in(path.parent):
        try:
            yield draft
            if draft.is_dir() and path.exists():  # rename cannot replace a non-empty folder
                old = draft_of(path, "old")
                os.replace(path, old)
                os.replace(draft, path)
                shutil.rmtree(old)
            else:
                os.replace(draft, path)
        except Exception as error:
            if (number := _refusal(error, draft)) is not None:
                raise OSError(number, os.strerror(number), str(path)) from error
            raise
        finally:
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)


def _refusal(error: Exception, draft: Path) -> int | None:
    """The errno of a disk behind an error that names no file; numpy, torch, polars and SQLite word it differently."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.filename is None and error.errno in REFUSALS else None
    message = str(error).lower()
    if numbered := re.search(r"\(os error (\d+)\)", message):
        return int(numbered[1]) if int(numbered[1]) in REFUSALS else None
    if found := next((number for words, number in WORDS.items() if words in message), None):
        return found
    # torch, for example, only reports `unexpected pos 128 vs 0`
    if not (re.search(r"writ(e|ing|ten)", message) or type(error) is RuntimeError):
        return None
    if shutil.disk_usage(draft.parent).free < ALMOST_NOTHING:
        return errno.ENOSPC
    limit = file_limit()
    written = [path.stat().st_size for path in (draft, *draft.rglob("*")) if path.is_file()]
    return errno.EFBIG if limit is not None and max(written, default=0) >= limit - BUFFER else None


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, without any secret that was remembered."""
    with written_atomically(path) as draft:
        draft.write_text(without_remembered(text), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, indented, without secrets.

    NaN is refused (a missing number is null, never NaN).
    """
    write_text(path, json.dumps(masked(value), indent=2, allow_nan=False, default=str) + "\n")


def new_run(root: Path, task: str) -> Path:
    """Creates `root/task/<UTC stamp>_<id>/` and returns it."""
    folder = root / task / f"{utc_stamp()}_{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    return folder


def link_latest(run: Path) -> None:
    """Points `latest` beside a run at it, in one step."""
    draft = draft_of(run.parent / "latest")
    draft.symlink_to(run.name)
    os.replace(draft, run.parent / "latest")


@functools.cache
def code_sha() -> str:
    """Commit of the working tree, with `+dirty` unless git shows that it is the same.

    `unknown` outside a checkout. Read once: a process goes on with the code that it began with.
    """
    here = Path(__file__).parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *args], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    sha = git("rev-parse", "--short=12", "HEAD")
    if not sha:
        return "unknown"
    # without the index lock, which a killed command would leave behind in the checkout
    same = git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no") == ""
    return sha if same else f"{sha}+dirty"
