"""Python processes forked from one that has the libraries loaded: a command begins at once and can be killed.

Loading torch, Lightning, polars and the rest costs a new Python 5 to 10 s of CPU. Where a test asks what a process
does, and not how it loads, it forks: own pid, session, folder, environment and files, and Python's own way out.
The one that is forked starts no thread of its own: nothing here may use polars before a fork. All workers of one run
of the tests share it: the first that needs it starts it, and it ends after the last of them.
"""

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
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
    "plotly.graph_objects", "pytorch_lightning", "sqlalchemy.dialects.sqlite", "xgboost",
    "tradsys.research.bundle_backtest", "tradsys.research.experiment", "tradsys.research.comparisons.comparison",
    "tradsys.research.sweeps.commands",
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
    """The process that is forked; `start` as often as wanted, several at once.

    run: tests of the same run share the process; None has one of its own.
    """

    def __init__(self, run: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tradsys-forks-")
        self._n = 0
        self._own: subprocess.Popen | None = None
        if run is None:
            self._connection = self._begun(Path(self._folder.name) / "socket")
        else:
            address = Path(tempfile.gettempdir()) / f"tradsys-forks-{run}"
            with address.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._connection = _connected(address) or self._begun(address)
        self._answers = self._connection.makefile()
        assert self._answers.readline() == "ready\n", "the process that is forked could not load what it holds"

    def _begun(self, address: Path) -> socket.socket:
        """A connection to a new process, which listens at the address."""
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen()
            self._own = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", str(listener.fileno())], stdin=subprocess.DEVNULL, cwd=REPO,
                env=os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}, start_new_session=True,
                pass_fds=[listener.fileno()],
            )  # fmt: skip
            found = _connected(address)
        assert found is not None
        return found

    def start(self, words: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Forked:
        """`python words...` in that folder and environment."""
        self._n += 1
        files = Path(self._folder.name) / str(self._n)
        files.mkdir()
        for name in ("out", "err"):
            (files / name).touch()
        order = {"words": list(map(str, words)), "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ)}
        self._connection.sendall(json.dumps(order | {"files": str(files)}).encode() + b"\n")
        return Forked(int(self._answers.readline()), files)

    def close(self) -> None:
        """Leaves the process, which ends once nobody needs it."""
        self._answers.close()
        self._connection.close()
        if self._own is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # another worker of the tests goes on with it
                self._own.wait(timeout=0.5)
        self._folder.cleanup()


def _connected(address: Path) -> socket.socket | None:
    """A connection to the process that listens there; None where none does."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        return None
    return connection


@functools.cache
def forks() -> Forks:
    """The one of this run of the tests."""
    one = Forks(os.environ.get("PYTEST_XDIST_TESTRUNUID"))
    atexit.register(one.close)
    return one


def run(*words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
    """`python words...` to its end, as subprocess.run has it."""
    process = forks().start(words, cwd, env)
    out, err = process.communicate()
    return subprocess.CompletedProcess(list(words), process.returncode, out, err)


def _next_order(listener: socket.socket) -> dict | None:
    """Forks for every line of JSON and answers with the pid; returns the order in the fork, None at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever waits for a fork ends by itself
    served = selectors.DefaultSelector()
    served.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in served.select():
            if key.fileobj is listener:
                client = listener.accept()[0]
                served.register(client, selectors.EVENT_READ)
                client.sendall(b"ready\n")
            elif line := _line_of(key.fileobj):
                order = json.loads(line)
                if os.fork() == 0:
                    return _forked_again(order, key.fileobj, served)
            else:
                served.unregister(key.fileobj)
                key.fileobj.close()
        if len(served.get_map()) == 1:
            address = Path(listener.getsockname())
            for path in (address, address.with_suffix(".lock")):
                path.unlink(missing_ok=True)
            if not select.select([listener], [], [], 0)[0]:  # nobody came before the address was gone
                return None


def _line_of(client: socket.socket) -> bytes:
    """The next line of a client, which waits for the answer before another; empty once it left."""
    line = b""
    while not line.endswith(b"\n"):
        part = client.recv(2**16)
        if not part:
            return b""
        line += part
    return line


def _forked_again(order: dict, client: socket.socket, served: selectors.BaseSelector) -> dict:
    """In a fork: the order, in a fork of its own, which this one answers for and waits for."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        for key in list(served.get_map().values()):
            key.fileobj.close()
        served.close()
        return order
    client.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    draft = Path(order["files"]) / "draft"
    draft.write_text(str(os.waitstatus_to_exitcode(status)))
    draft.rename(draft.with_name("status"))
    os._exit(0)


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


def _loaded() -> None:
    """Loads what forks find loaded; no module may reach for the network while it is imported."""
    connect = socket.socket.connect
    socket.socket.connect = _refused
    for module in LOADED:
        importlib.import_module(module)
    sys.modules["tradsys.portfolio.vectorbt_adapter"].loaded_vectorbt()
    socket.socket.connect = connect
    # not by tradsys.config.compose, which settles threads when a command imports it
    composed = importlib.import_module("tradsys.config.composition").composed
    for _ in range(2):  # what is parsed is kept from the second time on
        for command in ("train", "tune"):
            composed(REPO / "conf", command, [])
    importlib.import_module("tradsys.config.packages").conf_packages.cache_clear()  # a fork has packages of its own
    gc.freeze()  # a collection in a fork would visit, and so copy, all that is loaded


def _refused(*_args: object) -> None:
    raise OSError("no network at import")


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    _loaded()
    asked = _next_order(listening)
    if asked is not None:
        _ended(asked)
