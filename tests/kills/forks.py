"""Commands as processes that can be killed: a new Python, or a fork of one that has the libraries loaded."""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.forks import LIMIT_SECONDS, Forked, Forks

MARK = "TRADSYS_KILLS"  # in the environment of a killed command and of whatever it started
UNFORKED = ("compare",)  # workers of its pool wait for ever where their caller was forked


class Started:
    """A command in a session of its own: a new Python, or a fork of one that has the libraries loaded."""

    def __init__(self, argv: list[str], project: Path, zygote: Forks | None) -> None:
        self.mark = uuid.uuid4().hex
        self._files = [project.with_name(f"{project.name}.{self.mark}.{name}") for name in ("out", "err")]
        words = ["-m", f"tradsys.{argv[0]}", *argv[1:]]
        environment = os.environ | {MARK: self.mark, "COLUMNS": "200"}
        self._process: subprocess.Popen | Forked
        if zygote is None or argv[0] in UNFORKED:
            out, err = (path.open("w") for path in self._files)
            with out, err:
                self._process = subprocess.Popen(
                    [sys.executable, *words], cwd=project, env=environment,
                    stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
        else:
            self._process = zygote.start(words, project, environment)
        self.pid = self._process.pid

    def finish(self) -> tuple[int, str, str]:
        """Exit code as a shell counts it, stdout and stderr."""
        code = self._process.wait(timeout=LIMIT_SECONDS)
        if isinstance(self._process, Forked):
            said, errors = self._process.communicate()
        else:
            said, errors = (path.read_text(errors="replace") for path in self._files)
            for path in self._files:
                path.unlink()
        return (code if code >= 0 else 128 - code), said, errors


@contextlib.contextmanager
def zygote() -> Iterator[Forks]:
    """A Python that has everything imported."""
    forks = Forks()
    try:
        yield forks
    finally:
        forks.close()
