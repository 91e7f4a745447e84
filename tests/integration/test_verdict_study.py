"""The study of the verdict, reduced: null, planted edge, a broken rule, choices that never read the test span."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.integration.conftest import inside
from tradsys.audit import work
from tradsys.config.compose import as_dict, build, compose
from tradsys.evidence.verdict import Verdict
from tradsys.research.experiment import Experiment
from tradsys.research.pipeline import backtesting
from tradsys.research.pipeline.dataset import load_bars
from tradsys.research.power_study import simulated_research
from tradsys.research.power_study.markets import EVALUATIONS
from tradsys.research.power_study.simulated_research import run_market

REDUCED = [
    "data.n_bars=6000",
    "regime.lookback=48",
    "baselines.lightgbm.n_estimators=30",
    "auditor.n_estimators=15",
    "evaluation.n_draws=100",
    "study.n_jobs=0",
    "study.levels={sniper: [0.6, 0.85], audited: [0.5, 0.8], reckless: [0.6, 0.85], cost_aware: [-0.05, 0.0]}",
]


def command(*argv):
    with pytest.raises(SystemExit) as stopped:
        work([*REDUCED, *argv])
    return stopped.value.code


def summary(folder, name):
    (path,) = folder.glob(f"runs/study/{name}_*/summary.json")
    return json.loads(path.read_text())


def test_null_keeps_the_promise_and_goes_on_where_it_was(tmp_path, capsys):
    with inside(tmp_path):
        assert command("study=null", "study.n_markets=1") == 0
        made = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/study/null_*/rows/*.json")}
        assert len(made) == 1
        assert command("study=null", "study.n_markets=2") == 0
    assert {p: p.stat().st_mtime_ns for p in made} == made
    reported = summary(tmp_path, "null")
    assert reported["false_edges"]["n_edge"] == 0
    assert reported["false_edges"]["n"] == 2
    looks = reported["by_edge"][0]["looks"]
    assert [look["look"] for look in looks] == list(EVALUATIONS)
    assert looks[0]["n_trials"] == 1
    assert looks[0]["n_trials"] < looks[1]["n_trials"] <= looks[2]["n_trials"] < looks[3]["n_trials"]
    assert "promise  kept" in capsys.readouterr().out


def test_a_large_edge_is_found_by_workers_too(tmp_path):
    with inside(tmp_path):
        assert (
            command("study=power", "data.n_bars=12000", "study.edges=[0.8]", "study.n_markets=2", "study.n_jobs=2") == 0
        )
    (reported,) = summary(tmp_path, "power")["by_edge"]
    assert reported["looks"][-1]["n_edge"] == reported["n"] == 2
    assert reported["sharpe"]["value"] > 1.5
    assert reported["skill"] > 0


def test_a_rule_that_always_says_edge_is_caught(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backtesting, "verdict_of_strategy", lambda *a, **k: Verdict("edge", ("always",)))
    with inside(tmp_path):
        assert command("study=null", "study.n_markets=1") == 1
    assert "BROKEN" in capsys.readouterr().out


@pytest.fixture(scope="module")
def composed():
    config = compose("audit", ["study=power", *REDUCED])
    parts = build(config)
    return Experiment.of(parts), parts["study"].levels, as_dict(config)


@pytest.fixture(scope="module")
def honest(composed):
    return run_market(*composed, 0.3, 2)


def test_the_same_market_gives_the_same_row(composed, honest):
    again = run_market(*composed, 0.3, 2)
    assert replace(again, seconds=0) == replace(honest, seconds=0)
    assert again.looks


def test_what_is_chosen_never_reads_the_test_span(composed, honest, monkeypatch):
    def other_future(e):
        """The same bars until the test span, another market from its second day on."""
        bars = load_bars(e)
        # train and validation take 60 % of the samples, labels end 24 bars later
        late = pl.int_range(len(bars)) > 0.66 * len(bars)
        factor = np.exp(np.random.default_rng(0).normal(0, 0.01, len(bars)).cumsum())
        factor = pl.Series(factor / factor[int(0.66 * len(bars))])
        prices = ("open", "high", "low", "close")
        return bars.with_columns(pl.when(late).then(pl.col(p) * factor).otherwise(pl.col(p)).alias(p) for p in prices)

    monkeypatch.setattr(simulated_research, "load_bars", other_future)
    fooled = run_market(*composed, 0.3, 2)
    assert (fooled.strategy, fooled.valid_sharpe) == (honest.strategy, honest.valid_sharpe)
    assert fooled.sharpe != honest.sharpe


def test_an_arm_whose_auditor_has_too_few_candidates_goes_on_without_one(composed):
    experiment, levels, config = composed
    few = replace(experiment, evaluation=replace(experiment.evaluation, candidate_quantile=0.999))
    row = run_market(few, levels, config, 0.0, 1)
    assert [look.n_strategies for look in row.looks] == [1, 3, 6, 6]  # four profiles at two levels, less the audited


def test_a_market_that_the_package_refuses_is_a_row_with_its_reason(composed):
    experiment, levels, config = composed
    short = replace(experiment, labels=replace(experiment.labels, upper=1e6, lower=1e6))  # timeouts only: one class
    row = run_market(short, levels, config, 0.0, 1)
    assert row.verdict == "refused"
    assert "class" in row.reason
    assert not row.found_by(EVALUATIONS[-1])
