"""Every choice of every group builds, every experiment runs shrunk, nulls and planted edges end right."""

import json
from pathlib import Path

import pytest

from tests.integration.conftest import inside, shrunk
from tradsys.config.compose import build, compose, conf_folder
from tradsys.core.errors import DataError
from tradsys.train import work

EXPERIMENTS = sorted(p.stem for p in (conf_folder() / "experiment").glob("*.yaml"))
GROUPS = (
    "auditor",
    "calibration",
    "data",
    "events",
    "labels",
    "model",
    "regime",
    "split",
    "strategy",
    "trainer",
    "transforms",
)
CHOICES = [(g, p.stem) for g in GROUPS for p in sorted((conf_folder() / g).glob("*.yaml"))]
CHEAP = [
    "model=lightgbm",
    "evaluation.n_draws=200",
    "evaluation.n_permutations=1",
    "regime.lookback=48",
    "regime.n_seeds=2",
]


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda v: v)
def test_every_choice_builds_its_object(group, choice):
    override = f"{group}=[{choice}]" if group == "strategy" else f"{group}={choice}"
    config = compose("train", [override])
    if group == "trainer" and choice == "gpu":  # the device is looked for when the experiment is built
        assert build(config)["trainer"].accelerator == "gpu"
        return
    if "snapshot" in choice:  # values without history are refused until the user says that he knows
        with pytest.raises(DataError, match="allow_snapshot: true"):
            build(config)
        return
    assert (build(config)[group] is None) == (choice == "none" and group in ("auditor", "events", "regime"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_states_command_question_minutes_and_range(name):
    header = [
        line
        for line in (conf_folder() / "experiment" / f"{name}.yaml").read_text().splitlines()
        if line.startswith("#")
    ]
    text = "\n".join(header)
    for word in ("command:", "question:", "minutes:", "expect:"):
        assert word in text, word


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_shrunk(name, tmp_path, capsys):
    with inside(tmp_path):
        work([f"+experiment={name}", *shrunk(name)])
    printed = capsys.readouterr().out
    assert "verdict" in printed
    report = tmp_path / "runs" / "train" / "latest" / "report.html"
    assert report.stat().st_size > 1_000_000
    assert "planted edge" in report.read_text()


def verdict_of(folder: Path, overrides: list[str]) -> dict:
    with inside(folder):
        work([*CHEAP, "auditor=none", "strategy=[cost_aware,top_decile]", *overrides])
    return json.loads((folder / "runs/train/latest/metrics.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_without_an_edge_the_verdict_is_no_edge(seed, tmp_path):
    metrics = verdict_of(tmp_path, ["data.edge=0", f"data.seed={seed}", "data.n_bars=8000"])
    assert metrics["verdict"]["kind"] == "no edge"
    assert metrics["models"]["primary"]["auc"]["value"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_a_large_planted_edge_is_found(tmp_path):
    metrics = verdict_of(tmp_path, ["data.edge=0.6", "data.seed=3", "data.n_bars=14000", "split.train_fraction=0.45"])
    assert metrics["verdict"]["kind"] == "edge"
    assert metrics["models"]["primary"]["skill_beyond_level"]["low"] > 0
