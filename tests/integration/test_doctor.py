"""The doctor's command, and the check that train begins with, in processes that are really limited."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch

from tests import forks
from tests.integration.conftest import SHRUNK
from tradsys.ops.machine.cgroups import THREAD_VARIABLES, read_container

CANARY = "sk-canary-5f1d"
CGROUPS = Path("/sys/fs/cgroup")


def run(command, *arguments, cwd, before=None, **environ):
    kept = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    return subprocess.run(
        [sys.executable, "-m", f"tradsys.{command}", *arguments],
        cwd=cwd,
        env=kept | environ,
        preexec_fn=before,
        capture_output=True,
        text=True,
        check=False,
    )


def forked(command, *arguments, cwd, **environ):
    """The same where nothing limits the process and it is not asked how it loads."""
    kept = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    return forks.run("-m", f"tradsys.{command}", *arguments, cwd=cwd, env=kept | environ)


def address_space(n_bytes):
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """One whole look with its device, as JSON; some ten seconds, most of them imports."""
    folder = tmp_path_factory.mktemp("doctor")
    keys = {"WANDB_API_KEY": CANARY, "TRADSYS_LEDGER": f"postgresql://u:{CANARY}@h/db"}
    done = forked("doctor", "doctor.json=true", *SHRUNK, cwd=folder, OMP_NUM_THREADS="1", **keys)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [], "it looks and leaves nothing"
    return done


def test_json_for_scripts(reported):
    found = json.loads(reported.stdout)
    here = read_container()
    assert found["machine"]["container"]["memory"]["value"] == here.memory.value
    assert found["machine"]["container"]["host_cpus"] == here.host_cpus
    assert found["machine"]["threads_set"]["OMP_NUM_THREADS"] == "1"
    assert {fact["name"] for fact in found["facts"]} >= {"data", "memory", "CPUs", "GPU", "clock", "keys", "torch"}
    names = {choice["name"] for choice in found["choices"]}
    assert names >= {"threads", "tune workers", "loader", "trainer", "precision", "batch size"}
    assert all(choice["reason"] for choice in found["choices"])
    assert found["overrides"] == [choice["override"] for choice in found["choices"] if choice["override"]]


def test_keys_are_named_and_never_shown(reported):
    assert {"WANDB_API_KEY", "TRADSYS_LEDGER"} <= set(json.loads(reported.stdout)["machine"]["keys"])
    assert CANARY not in reported.stdout + reported.stderr


def test_a_process_limited_by_ulimit_is_refused_before_torch_is_loaded(tmp_path):
    done = run("doctor", cwd=tmp_path, before=address_space(512_000_000))
    assert done.returncode == 2
    assert "488 MB" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: address space: RLIMIT_AS (ulimit -v) allows 488 MB")
    assert "this data needs 4.0 GB" in line


def test_train_is_refused_before_it_loads_what_does_not_fit(tmp_path):
    done = run("train", cwd=tmp_path, before=address_space(512_000_000))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: memory: RLIMIT_AS (ulimit -v) allows 488 MB of address space")
    assert list(tmp_path.iterdir()) == []


def test_train_is_refused_where_libraries_fit_but_the_data_does_not(tmp_path):
    """4 GB of address space load everything; 100,000 bars of three symbols need more."""
    limit = 4 * 2**30
    done = run("train", "data.n_bars=100000", cwd=tmp_path, before=address_space(limit), OMP_NUM_THREADS="1")
    assert done.returncode == 2, done.stderr
    assert "allows 4.0 GB of address space; this data needs 4.4 GB" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "refused before a run folder is opened"


def test_too_many_bars_for_this_machine(tmp_path):
    done = run("doctor", "doctor.quick=true", "data.n_bars=2000000000", cwd=tmp_path)
    assert done.returncode == 2
    assert "memory: the container may use" in done.stderr
    assert "load fewer bars" in done.stderr


def test_the_health_check_is_silent(tmp_path):
    done = run("doctor", "doctor.quick=true", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_missing_data_are_reported_with_the_command_that_brings_them(tmp_path):
    done = forked("doctor", "data=btc_hourly", cwd=tmp_path)
    assert done.returncode == 2
    assert "python -m tradsys.fetch" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, so asking for one is no mistake")
def test_a_run_that_asks_for_a_gpu_that_is_not_there(tmp_path):
    done = forked("doctor", "trainer=gpu", *SHRUNK, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: GPU: ")
    assert "trainer=cpu" in done.stderr
    assert "trainer=cpu" in done.stdout, "it proposes the way out"


def test_a_folder_that_cannot_be_written(tmp_path):
    done = run("doctor", "doctor.quick=true", "paths.runs=/proc/self/runs", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


THREADS = f"import tradsys.config.compose, os, json; print(json.dumps([os.environ.get(k) for k in {THREAD_VARIABLES}]))"


def threads_of(before, **environ):
    kept = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", THREADS],
        env=kept | environ,
        preexec_fn=before,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(THREAD_VARIABLES, json.loads(done.stdout), strict=True))


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs to take one away"
)
def test_threads_follow_a_real_affinity():
    one = {min(os.sched_getaffinity(0))}
    assert set(threads_of(lambda: os.sched_setaffinity(0, one)).values()) == {"1"}
    assert threads_of(lambda: os.sched_setaffinity(0, one), OMP_NUM_THREADS="3")["OMP_NUM_THREADS"] == "3"


@contextlib.contextmanager
def half_a_cpu():
    """A CPU cgroup of this test's own, below the one it runs in, with a quota of half a CPU; v1 or v2."""
    own = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    v1 = next((name for name in own if "cpu" in name.split(",")), None)
    parent = CGROUPS / v1 / own[v1].lstrip("/") if v1 else CGROUPS / own.get("", "/").lstrip("/")
    group = parent / f"tradsys-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / ("cpu.cfs_quota_us" if v1 else "cpu.max")).write_text("50000" if v1 else "50000 100000")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no CPU cgroup can be made here ({error})")
    try:
        yield group
    finally:
        group.rmdir()


def test_a_real_cgroup_with_half_a_cpu(tmp_path):
    if not Path("/proc/self/cgroup").exists():
        pytest.skip("no cgroups on this system")
    with half_a_cpu() as group:

        def join():
            (group / "cgroup.procs").write_text("0")

        assert set(threads_of(join).values()) == {"1"}
        done = run("doctor", "data=btc_hourly", cwd=tmp_path, before=join)
    reported = " ".join(done.stdout.split())  # wrapped at the width of the screen
    assert f"0.5 (cgroup v{1 if (CGROUPS / 'memory').is_dir() else 2}" in reported
    assert group.name in done.stdout.replace("\n", "")
    assert "every fit is throttled" in reported
