import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tradsys.config.compose import run_command
from tradsys.core.endings.stops import PARENT, Terminated, held_back, stoppable
from tradsys.market.downloads.progress import InterruptedDownload


@pytest.mark.parametrize(
    ("number", "kind", "code"), [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, Terminated, 143)]
)
def test_a_signal_stops_a_command_with_its_own_code_and_a_line(number, kind, code, capsys):
    def work(argv):
        signal.raise_signal(number)
        raise AssertionError("it went on")

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        run_command("export", work, [])
    assert ended.value.code == code
    assert capsys.readouterr().err.strip() in ("interrupted", "terminated")
    assert signal.getsignal(number) is before


def test_an_interrupt_inside_a_callback_of_c_code_is_not_lost():
    calls = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def compare(_a, _b):
        calls.append(1)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)  # Python drops what a callback raises
        return 0

    values = (ctypes.c_int * 8)(*range(8))
    with pytest.raises(KeyboardInterrupt), stoppable():  # noqa: PT012 - the interrupt comes at any step
        ctypes.CDLL(None).qsort(values, 8, ctypes.sizeof(ctypes.c_int), compare)
        time.sleep(60)
    assert calls


def test_an_interrupt_that_a_library_swallowed_is_no_success(capsys):
    def work(argv):
        with contextlib.suppress(BaseException):  # what a library may do
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        run_command("export", work, [])
    assert ended.value.code == 143


def test_sigterm_that_is_raised_anew_as_another_interrupt_keeps_its_code(capsys):
    def work(argv):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:  # as a download does, to hand on what it has
            raise InterruptedDownload([]) from error

    with pytest.raises(SystemExit) as ended:
        run_command("fetch", work, [])
    assert (ended.value.code, capsys.readouterr().err.strip()) == (143, "terminated")


WAITS = """
import os, subprocess, threading
from tradsys.config.compose import run_command
lock = threading.Lock()
lock.acquire()
child = subprocess.Popen(["sleep", "600"])
def work(argv):
    import polars
    print("ready", flush=True)
    {wait}
try:
    run_command("export", work, [])
finally:
    print("alive" if child.poll() is None else "ended", flush=True)
    child.kill()
"""


@pytest.mark.parametrize("wait", ["child.wait()", "lock.acquire()", "os.read(os.pipe()[0], 1)"])
def test_an_interrupt_of_the_process_alone_ends_its_wait(wait):
    """A terminal interrupts children too, so that a wait for one ends; `kill -INT` does not."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS.format(wait=wait)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.3)  # until it waits; before, the interrupt would be raised in any case
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30)[0] == "alive\n"
            assert process.returncode == 130
        finally:
            process.kill()


CHILD = """
import sys, time
from tradsys.core.endings.stops import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(600)
"""
MIDDLE = f"""
import os, subprocess, sys, time
from tradsys.core.endings.stops import environment_of_child
env = os.environ | environment_of_child()
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env=env, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="death signals are Linux's")
def test_a_child_ends_with_a_parent_that_was_killed():
    parent = subprocess.Popen([sys.executable, "-c", MIDDLE], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    watch = os.pidfd_open(child)
    parent.kill()
    parent.wait()

    assert select.select([watch], [], [], 60)[0], "the child lives on"
    os.close(watch)
    parent.stdout.close()


POOL = """
import os, time
import joblib
from tradsys.core.endings.stops import EndingWithCaller
def work(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    os.replace(path, path + ".pid")
    time.sleep(600)
joblib.Parallel(2)(joblib.delayed(EndingWithCaller(work))(f"{folder}/{k}") for k in range(2))
"""
LOADING = """
import os, time
import joblib
from tradsys.core.endings.stops import end_with_caller
class Work:
    def __setstate__(self, state):
        path = f"{folder}/{os.getpid()}"
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        os.replace(path, path + ".pid")
        time.sleep(600)
    def __getstate__(self):
        return {"a": 1}
    def __call__(self):
        pass
watched = {"initializer": end_with_caller, "initargs": (os.getpid(),)}
joblib.Parallel(2, batch_size=1, **watched)(joblib.delayed(Work())() for _ in range(2))
"""


@pytest.mark.parametrize("code", [POOL, LOADING], ids=["at work", "loading its first work"])
def test_workers_of_a_pool_end_with_a_caller_that_was_killed(code, tmp_path):
    caller = subprocess.Popen([sys.executable, "-c", f"folder = {str(tmp_path)!r}\n{code}"])
    while len(started := list(tmp_path.glob("*.pid"))) < 2:
        assert caller.poll() is None
        time.sleep(0.05)
    workers = [psutil.Process(int(path.read_text())) for path in started]
    caller.kill()
    caller.wait()
    assert psutil.wait_procs(workers, timeout=60)[1] == []


def test_a_child_whose_parent_is_gone_already_does_not_begin():
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=os.environ | {PARENT: "1" if os.getpid() != 1 else "2"}, capture_output=True,
        check=False,
    )  # fmt: skip
    assert b"ready" not in done.stdout
    assert done.returncode != 0


AT_IMPORT = """
import os, signal, sys
class First:
    def find_spec(self, name, path=None, target=None):
        if name == "hydra":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, First())
"""
AT_FIRST = AT_IMPORT.replace("hydra", "tradsys.runs")
AT_EXIT = """
import atexit, os, signal, sys
class Last:
    def find_spec(self, name, path=None, target=None):
        if name == "hydra":
            sys.meta_path.remove(self)
            atexit.register(lambda: os.kill(os.getpid(), signal.{name}))
sys.meta_path.insert(0, Last())
"""
AFTER_ALL = """
import os, signal, sys
class Out:
    def __getattr__(self, name):
        return getattr(sys.__stdout__, name)
    def flush(self, real=sys.stdout):
        real.flush()
        if sys.is_finalizing():
            os.kill(os.getpid(), signal.{name})
sys.stdout = Out()
"""


@pytest.mark.parametrize("moment", [AT_FIRST, AT_IMPORT, AT_EXIT], ids=["first import", "imports", "end"])
@pytest.mark.parametrize(("name", "word", "code"), [("SIGINT", "interrupted", 130), ("SIGTERM", "terminated", 143)])
def test_a_signal_before_the_command_begins_or_after_it_ended_has_its_word_and_code(moment, name, word, code, tmp_path):
    done = _signalled(moment.format(name=name), tmp_path)
    assert (done.returncode, done.stderr.split()[-1:]) == (code, [word]), done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_while_python_takes_itself_apart_changes_nothing(tmp_path):
    done = _signalled(AFTER_ALL.format(name="SIGINT"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def _signalled(customise, folder):
    """A command that sends itself a signal as this sitecustomize says."""
    (folder / "sitecustomize.py").write_text(customise)
    (folder / "runs").mkdir()
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "tradsys.runs"], cwd=folder, env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [("", 0), ("--help", 0), ("colour=red", 2)])
def test_a_command_whose_streams_are_closed_ends_with_its_code(closed, words, code, tmp_path):
    (tmp_path / "runs").mkdir()
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m tradsys.runs {words} {closed}"], cwd=tmp_path, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr


def test_a_process_that_begins_gets_signals_once_it_can_answer_them():
    script = (
        "import sys; sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "from tradsys.core.endings.early import leave_when_stopped; leave_when_stopped(); sys.stdin.readline()"
    )
    with held_back():
        begun = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
    assert begun.stdout.readline() == "up\n"
    begun.send_signal(signal.SIGINT)
    begun.stdin.write("\n")
    _, errors = begun.communicate(timeout=60)
    assert (begun.returncode, errors) == (130, "interrupted\n")
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
