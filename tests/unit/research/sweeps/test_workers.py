"""Worker processes load while their parent prepares the study, and touch nothing before it lets them begin."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tradsys.core.endings.stops import Terminated
from tradsys.research.sweeps.workers import run_workers, wait_for_study, waiting_workers

# a worker that tells when it waits and when it was let begin
CODE = """
import os, pathlib, sys
from tradsys.core.endings.early import leave_when_stopped
from tradsys.research.sweeps.workers import wait_for_study
leave_when_stopped()
folder = pathlib.Path(sys.argv[1])
(folder / f"waits_{os.getpid()}").touch()
wait_for_study()
(folder / f"began_{os.getpid()}").touch()
sys.exit("code=3" in sys.argv and 3)
"""
LIMIT_SECONDS = 60.0


def command(folder):
    return [sys.executable, "-c", CODE, str(folder)]


def found(folder, state):
    return {path.name.removeprefix(f"{state}_") for path in folder.glob(f"{state}_*")}


def wait_until(is_so):
    deadline = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def all_wait(folder, workers):
    wait_until(lambda: found(folder, "waits") == {str(worker.pid) for worker in workers})


def test_workers_load_while_the_study_is_prepared_and_begin_when_it_is(tmp_path):
    with waiting_workers(command(tmp_path), ["n_workers=2"], 2, "cpu") as workers:
        all_wait(tmp_path, workers)
        assert not found(tmp_path, "began")
        assert run_workers(workers) == 0
    assert found(tmp_path, "began") == {str(worker.pid) for worker in workers}


def test_a_study_of_one_worker_starts_no_process():
    with waiting_workers(["no such command"], [], 1, "cpu") as workers:
        assert not workers


def test_failed_workers_are_counted_and_so_is_one_that_died_while_it_waited(tmp_path):
    with waiting_workers(command(tmp_path), ["code=3"], 2, "cpu") as workers:
        all_wait(tmp_path, workers)
        workers[0].kill()
        workers[0].wait()
        assert run_workers(workers) == 2
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 3]


@pytest.mark.parametrize("error", [ValueError("the study is refused"), KeyboardInterrupt(), Terminated()])
def test_workers_of_a_study_that_is_not_prepared_never_begin(tmp_path, error):
    def refuse(workers):
        all_wait(tmp_path, workers)
        raise error

    with pytest.raises(type(error)), waiting_workers(command(tmp_path), [], 2, "cpu") as workers:
        refuse(workers)
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL] * 2
    assert not found(tmp_path, "began")


@pytest.mark.parametrize(("stopped", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_workers_at_work_get_the_signal_that_stopped_their_parent(tmp_path, stopped, code):
    words = [sys.executable, "-c", CODE.replace("sys.exit", "import time; time.sleep(60); sys.exit"), str(tmp_path)]

    def stop(workers):
        for worker in workers:
            worker.stdin.write(b"\n")
            worker.stdin.close()
        wait_until(lambda: found(tmp_path, "began") == {str(worker.pid) for worker in workers})
        raise stopped

    with pytest.raises(type(stopped)), waiting_workers(words, [], 2, "cpu") as workers:
        stop(workers)
    assert [worker.returncode for worker in workers] == [code] * 2


def test_a_worker_whose_parent_is_gone_does_not_begin(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    with pytest.raises(Terminated):
        wait_for_study()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    wait_for_study()


def test_a_parent_that_is_killed_leaves_no_waiting_worker(tmp_path):
    code = (
        "import sys, time\n"
        "from tradsys.research.sweeps.workers import waiting_workers\n"
        f"with waiting_workers([sys.executable, '-c', {CODE!r}, {str(tmp_path)!r}], [], 2, 'cpu') as workers:\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        wait_until(lambda: len(found(tmp_path, "waits")) == 2)
        parent.kill()
    assert not found(tmp_path, "began")
    wait_until(lambda: not any(_is_alive(int(pid)) for pid in found(tmp_path, "waits")))


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
