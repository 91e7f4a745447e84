"""Commands as processes that can be killed: a new Python, or a fork of one that has the libraries loaded.

The one that is forked starts no thread of its own: nothing here may use polars before a fork.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tradsys.config.compose import run_command

MARK = "TRADSYS_KILLS"  # in the environment of a killed command and of whatever it started
LIMIT_SECONDS = 300.0
LOADED = (
    "arch.bootstrap", "lightgbm", "onnxruntime", "optuna", "plotly.graph_objects", "pytorch_lightning", "xgboost",
    "tradsys.portfolio.vectorbt_adapter", "tradsys.research.bundle_backtest", "tradsys.research.experiment",
    "tradsys.research.comparisons.comparison", "tradsys.research.sweeps.commands",
)  # fmt: skip


class Started:
    """A command in a session of its own: a new Python, or a fork of one that has the libraries loaded."""

    def __init__(self, argv: list[str], project: Path, zygote: subprocess.Popen | None) -> None:
        self.mark, self._zygote, self._code = uuid.uuid4().hex, zygote, None
        self._files = [project.with_name(f"{project.name}.{self.mark}.{name}") for name in ("out", "err")]
        environment = os.environ | {MARK: self.mark}
        if zygote is None:
            out, err = (path.open("w") for path in self._files)
            with out, err:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", f"tradsys.{argv[0]}", *argv[1:]], cwd=project, env=environment,
                    stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            self.pid = self._process.pid
        else:
            order = {"argv": argv, "project": str(project), "files": list(map(str, self._files)), "mark": self.mark}
            zygote.stdin.write(json.dumps(order) + "\n")
            zygote.stdin.flush()
            self.pid = int(zygote.stdout.readline())

    def finish(self) -> tuple[int, str, str]:
        """Exit code as a shell counts it, stdout and stderr."""
        if self._zygote is None:
            code = self._process.wait(timeout=LIMIT_SECONDS)
        else:
            code = int(self._zygote.stdout.readline())
        said, errors = (path.read_text(errors="replace") for path in self._files)
        for path in self._files:
            path.unlink()
        return (code if code >= 0 else 128 - code), said, errors


def serve_forks() -> None:
    """Forks a command per line of JSON; writes its pid, then its exit status."""
    for name in LOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            forked(order)
        print(pid, flush=True)  # noqa: T201 - the answer
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def forked(order: dict) -> None:
    """One command in a fork; never returns."""
    os.setsid()
    for number, path in enumerate(order["files"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(order["project"])
    os.environ[MARK] = order["mark"]
    code: Any = 70
    try:
        name, *rest = order["argv"]
        run_command(name, importlib.import_module(f"tradsys.{name}").work, rest)
        code = 0
    except SystemExit as ended:
        code = 0 if ended.code is None else ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def zygote() -> Iterator[subprocess.Popen]:
    """A Python that has everything imported."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kills.forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()


if __name__ == "__main__":
    serve_forks()
