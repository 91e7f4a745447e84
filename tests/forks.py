"""Python processes forked from one that has the libraries loaded: a command begins at once and can be killed.

Loading torch, Lightning, polars and the rest costs a new Python 5 to 10 s of CPU. Where a test asks what a process
does, and not how it loads, it forks: own pid, session, folder, environment and files, and Python's own way out.
The one that is forked starts no thread of its own: nothing here may use polars before a fork.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

REPO = Path(__file__).parents[1]
LIMIT_SECONDS = 300.0
LOADED = (
    "alembic.command", "arch.bootstrap", "hmmlearn.hmm", "lightgbm", "onnx.reference", "onnxruntime", "optuna",
    "plotly.graph_objects", "pytorch_lightning", "sqlalchemy.dialects.sqlite", "vectorbt", "xgboost",
    "tradsys.portfolio.vectorbt_adapter", "tradsys.research.bundle_backtest", "tradsys.research.experiment",
    "tradsys.research.comparisons.comparison", "tradsys.research.sweeps.commands",
)  # fmt: skip


class Forked:
    """A forked process, as subprocess.Popen has it; `files` keep what it says."""

    def __init__(self, pid: int, files: Path) -> None:
        self.pid, self.returncode, self._files = pid, None, files

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(FileNotFoundError):
                self.returncode = int((self._files / "status").read_text())
        return self.returncode

    def wait(self, timeout: float = LIMIT_SECONDS) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = LIMIT_SECONDS) -> tuple[str, str]:
        """Standard output and standard error, once it has ended."""
        self.wait(timeout)
        out, err = ((self._files / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        return out, err


class Forks:
    """The process that is forked; `start` as often as wanted, several at once."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tradsys-forks-")
        self._n = 0
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO,
            env=os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip

    def start(self, words: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Forked:
        """`python words...` in that folder and environment."""
        self._n += 1
        files = Path(self._folder.name) / str(self._n)
        files.mkdir()
        for name in ("out", "err"):
            (files / name).touch()
        order = {"words": list(map(str, words)), "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ)}
        self._server.stdin.write(json.dumps(order | {"files": str(files)}) + "\n")
        self._server.stdin.flush()
        return Forked(int(self._server.stdout.readline()), files)

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()
        self._folder.cleanup()


@functools.cache
def forks() -> Forks:
    """The one of this process, ended with it."""
    one = Forks()
    atexit.register(one.close)
    return one


def run(*words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
    """`python words...` to its end, as subprocess.run has it."""
    process = forks().start(words, cwd, env)
    out, err = process.communicate()
    return subprocess.CompletedProcess(list(words), process.returncode, out, err)


def _next_order() -> dict | None:
    """Forks for every line of JSON and answers with the pid; returns the order in the fork, None at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever waits for a fork ends by itself
    for line in sys.stdin:
        order = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            pid = os.fork()
            if pid == 0:
                return order
            os.write(1, f"{pid}\n".encode())
            _, status = os.waitpid(pid, 0)
            draft = Path(order["files"]) / "draft"
            draft.write_text(str(os.waitstatus_to_exitcode(status)))
            draft.rename(draft.with_name("status"))
            os._exit(0)
    return None


def _become(order: dict) -> None:
    """Goes on as the Python of these words."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever began all this ignores it
    os.setsid()
    for number, name in enumerate(("out", "err"), start=1):
        os.dup2(os.open(Path(order["files"]) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.path[:0] = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    importlib.invalidate_caches()
    first, *rest = order["words"]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")


def _ended(order: dict) -> None:
    """Runs the order and leaves with its exit code; never returns.

    What Python does at an exit is done by hand: libraries' own exits wait for threads that no fork has.
    """
    code = 1
    try:
        _become(order)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


if __name__ == "__main__":
    for module in LOADED:
        importlib.import_module(module)
    # not by tradsys.config.compose, which settles threads when a command imports it
    composed = importlib.import_module("tradsys.config.composition").composed
    for _ in range(2):  # what is parsed is kept from the second time on
        for command in ("train", "tune"):
            composed(REPO / "conf", command, [])
    importlib.import_module("tradsys.config.packages").conf_packages.cache_clear()  # a fork has packages of its own
    asked = _next_order()
    if asked is not None:
        _ended(asked)
