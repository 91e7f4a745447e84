"""`tradsys new` writes a package whose tests are green at once and whose parts every command finds."""

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests import forks
from tests.integration.conftest import inside
from tradsys.config.packages import check_names
from tradsys.core.errors import TradsysError
from tradsys.new import work as new

SMALL = [
    *("data.source.n_bars=1600", "split=holdout", "size.lookback=8", "trainer.max_epochs=1"),
    "trainer.progress_bar=false",
    *("regime=none", "auditor=none", "evaluation.n_draws=50", "evaluation.n_permutations=1", "baselines=base_rate"),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A written package on the path as pip would leave it: its code and its metadata."""
    folder = tmp_path_factory.mktemp("own")
    with inside(folder):
        new(["my_alphas"])
    source = folder / "my_alphas" / "src"
    project = tomllib.loads((folder / "my_alphas" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = source / "my_alphas-0.1.0.dist-info"
    metadata.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}", ""]
    (metadata / "METADATA").write_text("\n".join(lines))
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return folder / "my_alphas"


def run(package: Path, *argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(package / "src"), "COLUMNS": "80"}
    folder = cwd or package
    return forks.run(*argv, cwd=folder, env=env)


def test_its_contracts_are_green_at_once(package):
    done = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert done.returncode == 0, done.stdout[-2000:]


def test_every_command_finds_its_parts_and_the_market_without_an_edge_has_none(package, tmp_path):
    done = run(package, "-m", "tradsys.train", "+experiment=my_alphas_first", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no edge" in done.stdout or "not enough evidence" in done.stdout
    bundle = tmp_path / "runs" / "train" / "latest" / "bundle"
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    assert card["foreign"] == {"CloseLocation": {"package": "my_alphas", "version": "0.1.0"}}
    assert card["made_with"].keys() == {"MeanNet", "BrierClassifier", "MarginRule", "RandomWalk", "CloseLocation"}
    again = run(package, "-m", "tradsys.backtest", f"bundle={bundle}", "strategy=[margin]", cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-2000:]
    without = run(tmp_path / "nowhere", "-m", "tradsys.backtest", f"bundle={bundle}", cwd=tmp_path)
    assert without.returncode == 2
    assert "my_alphas" in without.stderr


@pytest.mark.parametrize(
    ("name", "reported"),
    [("../x", "small letters"), ("My", "small letters"), ("class", "small letters"), ("numpy", "installed already")],
)
def test_a_name_that_is_no_package_is_refused_and_nothing_is_written(name, reported, tmp_path):
    with inside(tmp_path), pytest.raises(TradsysError, match=reported):
        new([f"name={name}"])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    with inside(tmp_path), pytest.raises(TradsysError, match="existing folders are not overwritten"):
        new(["mine"])


def test_two_packages_with_one_name_are_both_named(tmp_path):
    for package in ("a", "b"):
        (tmp_path / package / "labels").mkdir(parents=True)
        (tmp_path / package / "labels" / "same.yaml").write_text("x: 1\n")
    with pytest.raises(TradsysError, match=r"labels/same.yaml is in the packages a and b"):
        check_names(tmp_path / "none", {"a": tmp_path / "a", "b": tmp_path / "b"})
