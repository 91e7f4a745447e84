"""runpod/pull_and_train.sh on a bare repository of a tiny stand-in project, a real venv, real processes, no network."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "runpod" / "pull_and_train.sh"
CANARY = "hunter2-canary"
TRAIN = ["python", "-m", "tradsys.train", "+experiment=tiny"]

# Builds a wheel with the standard library alone, so that the real `pip install` needs no index.
BACKEND = """
import pathlib, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "tradsys-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.write("src/tradsys/__init__.py", "tradsys/__init__.py")
        wheel.writestr("tradsys-0.1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tradsys\\nVersion: 0.1.0\\n")
        tags = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("tradsys-0.1.0.dist-info/WHEEL", tags)
        wheel.writestr("tradsys-0.1.0.dist-info/RECORD", "")
    return name
"""
# Runs until the file `go` lies beside runs/; one checkpoint per start; Ctrl-C leaves one, like the real command.
COMMAND = """
import os, pathlib, sys, time
args = sys.argv[1:]
resumed = [a for a in args if a.startswith("resume=")]
if resumed:
    run = pathlib.Path(resumed[0].split("=", 1)[1])
else:
    run = pathlib.Path("runs/train") / f"{time.time_ns()}"
    run.mkdir(parents=True)
    (run / "overrides.txt").write_text("".join(a + "\\n" for a in args))
print("training", os.environ.get("WORKER", ""), "resumed" if resumed else "fresh", flush=True)
try:
    (run / f"step_{len(list(run.glob('step_*')))}.ckpt").write_text(str(os.getpid()))
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
except KeyboardInterrupt:
    (run / "interrupted.ckpt").write_text("left by Ctrl-C")
    sys.exit(130)
code = int(pathlib.Path("go").read_text() or 0)
if code == 0:
    (run / "report.json").write_text("{}")
sys.exit(code)
"""
DOCTOR = """
import os, sys
if os.environ.get("NO_GPU"):
    sys.exit("doctor: no GPU; rent another pod")
print("doctor: fine", *sys.argv[1:])
"""


def git(folder, *args):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *identity, *args], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A working copy of the stand-in project and its bare repository."""
    work = tmp_path_factory.mktemp("work")
    files = {
        "src/tradsys/__init__.py": "",
        "src/tradsys/train.py": COMMAND,
        "src/tradsys/doctor.py": DOCTOR,
        "backend.py": BACKEND,
        "constraints.txt": "",
        ".gitignore": "__pycache__/\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tradsys"\nversion = "0.1.0"\n',
    }
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    git(work, "init", "--quiet")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "first")
    bare = work.parent / f"{work.name}.git"
    git(work, "clone", "--quiet", "--bare", ".", str(bare))
    git(work, "remote", "add", "origin", str(bare))
    return work, bare


@pytest.fixture(scope="module")
def warm(origin, tmp_path_factory):
    """A volume whose environment is installed, as the first start left it, and what that start printed."""
    volume = tmp_path_factory.mktemp("volume")
    pod = Pod(volume, origin[1])
    (pod.base).mkdir()
    pod.go()
    first = pod.start()
    pod.ended()
    (pod.base / "go").unlink()
    for folder in ("jobs", "runs"):
        shutil.rmtree(pod.base / folder)
    return volume, first


@pytest.fixture
def pod(warm, origin):
    """A pod on the warm volume; its jobs are ended and wiped afterwards."""
    pod = Pod(warm[0], origin[1])
    yield pod
    for pid in pod.base.glob("jobs/*/pid"):
        pod.kill(pid)
    for folder in ("jobs", "runs", "code"):
        shutil.rmtree(pod.base / folder, ignore_errors=True)
    (pod.base / "go").unlink(missing_ok=True)


class Pod:
    def __init__(self, volume, repo):
        self.volume, self.repo, self.base = volume, repo, volume / "tradsys"

    def start(self, *command, ref="main", expect=0, **env):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GIT_", "COV"))}
        environment |= {"VOLUME": str(self.volume), "PYTHON": sys.executable, "EXTRAS": "", "HEARTBEAT_S": "1"}
        environment |= {"RUNPOD_POD_ID": "pod-a", "AWS_SECRET_ACCESS_KEY": CANARY, "NO_TMUX": "1"} | env
        done = subprocess.run(
            ["bash", str(SCRIPT), str(self.repo), ref, *(command or TRAIN)],
            env=environment, cwd="/", capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def go(self, code=0):
        (self.base / "go").write_text(str(code))

    def job(self):
        (job,) = (self.base / "jobs").iterdir()
        return job

    def log(self):
        return (self.job() / "log.txt").read_text()

    def ended(self):
        """Waits for the detached job and returns its exit code, read from the file it wrote."""
        until(lambda: (self.job() / "exit_code").exists() and not (self.job() / "pid").exists())
        return int((self.job() / "exit_code").read_text())

    def running(self):
        """Waits until the stand-in has written a checkpoint and returns its run folder."""
        until(lambda: list((self.base / "runs" / "train").glob("*/step_0.ckpt")))
        return next(iter((self.base / "runs" / "train").iterdir()))

    def kill(self, pid_file, sign=signal.SIGKILL):
        """Kills the attendant and, for SIGKILL, all that it started, as a vanishing pod does."""
        attendant = int(pid_file.read_text())
        below = []
        if sign == signal.SIGKILL:
            with contextlib.suppress(psutil.NoSuchProcess):
                below = psutil.Process(attendant).children(recursive=True)
        _kill(attendant, sign)
        for process in below:
            _kill(process.pid, sign)
        for checkpoint in self.base.glob("runs/train/*/step_*.ckpt") if sign == signal.SIGKILL else ():
            _kill(int(checkpoint.read_text()), sign)


def _kill(pid, sign):
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.05)


def test_a_fresh_volume_gets_the_commit_an_environment_and_a_finished_job(warm, origin):
    volume, said = warm
    commit = git(origin[0], "rev-parse", "HEAD")
    assert f"commit {commit}" in said
    assert "installed" in said
    assert "doctor: fine +experiment=tiny" in said
    python = next(p for p in (volume / "tradsys" / "env").iterdir() if p.is_symlink()) / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True)
    assert "tradsys" not in done.stdout  # the code comes from the checkout, never from a stale copy in the environment


def test_the_second_start_reuses_all_and_a_finished_job_is_left_alone(pod):
    said = pod.start()
    assert "reused" in said
    run = pod.running()
    again = pod.start()
    assert "running since" in again
    pod.go()
    assert pod.ended() == 0
    assert "finished before, exit code 0" in pod.start()
    assert pod.log().count("training") == 1
    assert [p.name for p in run.parent.iterdir()] == [run.name]
    pod.start(FORCE="1")
    pod.ended()
    assert pod.log().count("fresh") == 2  # the first had its report: nothing to resume


def test_an_edited_checkout_is_refused_by_name(pod, origin):
    pod.go()
    pod.start()
    pod.ended()
    commit = git(origin[0], "rev-parse", "HEAD")
    (pod.base / "code" / commit / "src" / "tradsys" / "train.py").write_text("print('patched on the pod')\n")
    (pod.base / "code" / commit / "stray.txt").write_text("")
    said = pod.start(expect=2)
    assert "src/tradsys/train.py" in said
    assert "stray.txt" in said


def test_an_unknown_ref_and_an_unknown_repository_are_refused(pod):
    said = pod.start(ref="no-such-branch", expect=2)
    assert "ref 'no-such-branch' is unknown" in said
    assert "main" in said.split("branches:")[1]
    pod.repo = f"https://token:{CANARY}@localhost:9/none.git"
    said = pod.start(expect=2)
    assert "cannot be fetched" in said
    assert CANARY not in said
    assert not list(pod.base.glob("jobs/*"))


def test_a_refusing_doctor_starts_nothing(pod):
    said = pod.start(NO_GPU="1", expect=2)
    assert "no GPU; rent another pod" in said
    assert not list(pod.base.glob("jobs/*/pid"))


def test_a_job_whose_pod_vanished_goes_on_in_its_own_run_folder_on_another_pod(pod):
    pod.start()
    run = pod.running()
    pod.kill(pod.job() / "pid")
    said = pod.start(RUNPOD_POD_ID="pod-b")
    assert "waiting 6 s to see whether it is gone" in said
    until((run / "step_1.ckpt").exists)
    pod.go()
    assert pod.ended() == 0
    assert (run / "report.json").exists()
    assert [p.name for p in run.parent.iterdir()] == [run.name]
    assert f"resume=runs/train/{run.name}" in pod.log()


def test_a_job_that_lives_on_another_pod_is_not_started_twice(pod):
    pod.start()
    pod.running()
    pod.kill(pod.job() / "pid")
    heartbeat, stop = pod.job() / "heartbeat", threading.Event()

    def beat():  # the other pod, seen from here: its lock is not visible through every network volume
        while not stop.wait(0.3):
            heartbeat.touch()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        said = pod.start(RUNPOD_POD_ID="pod-b", expect=2)
    finally:
        stop.set()
        thread.join()
    assert "the same command runs on pod pod-a" in said


def test_another_commit_does_not_resume_the_run_of_the_first(pod, origin):
    work, _ = origin
    pod.start()
    first = pod.running()
    pod.kill(pod.job() / "pid")
    before = git(work, "rev-parse", "HEAD")
    git(work, "commit", "--quiet", "--allow-empty", "-m", "second")
    git(work, "push", "--quiet", "origin", "HEAD:next")
    pod.start(ref="next")
    until(lambda: len(list(pod.base.glob("runs/train/*/step_0.ckpt"))) == 2)
    assert not (first / "step_1.ckpt").exists()
    git(work, "reset", "--quiet", "--hard", before)


def test_the_warning_before_preemption_reaches_training_as_ctrl_c(pod):
    pod.start()
    run = pod.running()
    pod.kill(pod.job() / "pid", signal.SIGTERM)
    assert pod.ended() == 130
    assert (run / "interrupted.ckpt").exists()


def test_a_failing_command_leaves_its_exit_code_and_is_tried_again(pod):
    pod.go(code=7)
    pod.start()
    assert pod.ended() == 7
    pod.go()
    said = pod.start(FOLLOW="1")
    assert "exit code 0" in said
    assert pod.ended() == 0


def test_two_starts_at_once_run_one_job(pod):
    starts = [subprocess.Popen(
        ["bash", str(SCRIPT), str(pod.repo), "main", *TRAIN],
        env=os.environ | {"VOLUME": str(pod.volume), "PYTHON": sys.executable, "EXTRAS": "", "RUNPOD_POD_ID": "pod-a"},
        stdout=subprocess.PIPE, text=True,
    ) for _ in range(2)]  # fmt: skip
    said = sorted(s.communicate(timeout=60)[0].splitlines()[-1].split()[1] for s in starts)
    assert said == ["running", "started,"]
    pod.running()
    pod.go()
    assert pod.ended() == 0
    assert pod.log().count("training") == 1


def test_workers_run_the_same_command_side_by_side(pod):
    pod.go()
    pod.start(WORKER="1")
    pod.start(WORKER="2", RUNPOD_POD_ID="pod-b")
    until(lambda: len(list(pod.base.glob("jobs/*/exit_code"))) == 2)
    codes = [path.read_text().strip() for path in pod.base.glob("jobs/*/exit_code")]
    logs = [path.read_text().count("training") for path in pod.base.glob("jobs/*/log.txt")]
    assert (codes, logs) == (["0", "0"], [1, 1])


def test_an_interrupted_install_is_not_reused(pod):
    name = next(p for p in (pod.base / "env").iterdir() if p.is_symlink())
    kept = name.readlink()
    name.unlink()
    half = pod.base / "env" / f".{name.name}.pod-x.1"
    half.mkdir()
    (pod.base / "env" / kept).rename(pod.base / "env" / "aside")
    try:
        said = pod.start(PYTHON="/nonexistent/python", expect=2)  # refused before anything is installed
        assert "set PYTHON" in said
        pod.go()
        said = pod.start()
        assert "installed" in said
        assert not half.exists()
        assert pod.ended() == 0
    finally:
        shutil.rmtree(pod.base / "env" / "aside")


def test_upload_and_stop_happen_at_the_end_and_no_key_is_written(pod, tmp_path):
    calls = tmp_path / "calls.txt"
    for tool, status in (("aws", 0), ("runpodctl", 0)):
        stub = tmp_path / tool
        stub.write_text(f'#!/bin/sh\necho "{tool} $*" >> {calls}\nexit {status}\n')
        stub.chmod(0o755)
    pod.go()
    path = f"{tmp_path}:{os.environ['PATH']}"
    pod.start(PATH=path, S3_URI="s3://bucket/x/", S3_ENDPOINT="https://s3.example", STOP_POD="1")
    pod.ended()
    job = pod.job()
    assert calls.read_text().splitlines() == [
        f"aws s3 sync --only-show-errors --endpoint-url https://s3.example {pod.base}/runs s3://bucket/x/runs",
        f"aws s3 cp --only-show-errors --endpoint-url https://s3.example {job}/log.txt s3://bucket/x/jobs/{job.name}.txt",
        "runpodctl pod stop pod-a",
    ]
    written = [p for p in pod.base.rglob("*") if p.is_file() and "env" not in p.relative_to(pod.base).parts[:1]]
    assert not [p for p in written if CANARY.encode() in p.read_bytes()]


def test_a_failing_upload_is_said_and_changes_no_exit_code(pod, tmp_path):
    stub = tmp_path / "aws"
    stub.write_text("#!/bin/sh\necho 'upload refused: 403'\nexit 1\n")
    stub.chmod(0o755)
    pod.go()
    pod.start(PATH=f"{tmp_path}:{os.environ['PATH']}", S3_URI="s3://bucket/x")
    assert pod.ended() == 0
    assert "upload to $S3_URI failed" in pod.log()
    assert "403" in pod.log()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed; nohup is tested above")
def test_under_tmux_the_job_sees_the_environment_of_its_start(pod):
    pod.start("bash", "-c", "echo seen $STUDY_STORAGE_TEST", NO_TMUX="", STUDY_STORAGE_TEST="of-this-start")
    assert pod.ended() == 0
    assert "seen of-this-start" in pod.log()


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; the extra dev brings it")
    done = subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
