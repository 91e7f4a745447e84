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
SNAPSHOT = [p.stem for p in (conf_folder() / "data").glob("*snapshot*.yaml")]
# groups do not depend on one another: the k-th composition takes the k-th choice of each
CHOICES = {g: [p.stem for p in sorted((conf_folder() / g).glob("*.yaml")) if p.stem not in SNAPSHOT] for g in GROUPS}
TOGETHER = [
    {g: choices[k] for g, choices in CHOICES.items() if k < len(choices)}
    for k in range(max(map(len, CHOICES.values())))
]
CHEAP = [
    "model=lightgbm",
    "evaluation.n_draws=200",
    "evaluation.n_permutations=1",
    "regime.lookback=48",
    "regime.n_seeds=2",
]


@pytest.mark.parametrize("chosen", TOGETHER, ids=lambda chosen: "-".join(chosen.values()))
def test_every_choice_builds_its_object(chosen):
    config = compose("train", [f"{g}=[{c}]" if g == "strategy" else f"{g}={c}" for g, c in chosen.items()])
    built = build(config)
    for group, choice in chosen.items():
        assert (built[group] is None) == (choice == "none" and group in ("auditor", "events", "regime")), group


@pytest.mark.parametrize("choice", SNAPSHOT)
def test_values_without_history_are_refused_until_the_user_says_that_he_knows(choice):
    with pytest.raises(DataError, match="allow_snapshot: true"):
        build(compose("train", [f"data={choice}"]))


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
