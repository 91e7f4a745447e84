"""The code version of a run, and the commit to check out if current code cannot read it."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tradsys import __version__
from tradsys.core.errors import TradsysError
from tradsys.core.received import inside, one_line, read_json
from tradsys.core.runs import code_sha, write_json

FILE = "code.json"
SHA = re.compile(r"[0-9a-f]{7,40}(?:\+dirty)?")
VERSION = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,40}")
FIX = "restore it from a copy"


def record_code(folder: Path) -> None:
    """Writes commit and version into a new run's folder."""
    write_json(folder / FILE, {"code_sha": code_sha(), "version": __version__})


def code_of(folder: Path) -> str | None:
    """The command that restores the code of a received run.

    None where the run has no record of it. Reads code.json, or the provenance of an older run's report.json. Only valid
    commits and versions are used, because users copy the line into a shell.
    """
    with contextlib.suppress(TradsysError, OSError):
        if (folder / FILE).is_file():
            return _command(read_json(inside(folder, FILE), FIX))
    with contextlib.suppress(TradsysError, OSError):
        report = read_json(inside(folder, "report.json"), FIX)
        provenance = report.get("provenance")
        if isinstance(provenance, dict):
            packages = provenance.get("environment")
            version = packages.get("tradsys") if isinstance(packages, dict) else None
            return _command({"code_sha": provenance.get("code_sha"), "version": version})
    return None


def _command(made: Mapping[str, Any]) -> str | None:
    """`git checkout SHA`, or `install version ...`; None for the current code or without a record."""
    sha, version = made.get("code_sha"), made.get("version")
    if isinstance(sha, str) and SHA.fullmatch(sha):
        same = sha.removesuffix("+dirty") == code_sha().removesuffix("+dirty")
        return None if same else f"git checkout {sha.removesuffix('+dirty')}"
    if isinstance(version, str) and VERSION.fullmatch(version) and version != __version__:
        return f"install version {version} of tradsys"
    return None


@contextlib.contextmanager
def names_its_code(where: str, folder: Path, error: type[TradsysError] = TradsysError) -> Iterator[None]:
    """Adds the command that restores the run's code to any error in the block.

    where: command and artefact. Errors of the disk, and errors of a run that is of the current code or has no record of
    its code, pass unchanged. The commit is read before anything is built.
    """
    command = code_of(folder)
    try:
        yield
    except OSError:
        raise
    except Exception as cause:
        if command is None:
            raise
        reason = one_line(cause, 400) if not isinstance(cause, TradsysError) else one_line(str(cause), 400)
        reason = reason.removeprefix(f"{where}: ")
        raise error(f"{where}: {reason}; the run was made with other code; to get it: {command}") from cause
