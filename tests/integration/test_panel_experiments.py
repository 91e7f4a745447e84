"""Daily panels through the package's own commands: no strategy is no edge, and every page says so."""

import json

import numpy as np
import polars as pl
import pytest

from tests.integration.conftest import inside, shrunk
from tradsys.config.compose import build, compose
from tradsys.reports.run.console import print_run
from tradsys.research.pipeline.dataset import load_bars
from tradsys.research.pipeline.settings import Experiment
from tradsys.serving.bundle import Bundle
from tradsys.train import work


@pytest.fixture(scope="module")
def certain(tmp_path_factory):
    """A run on a panel whose planted edge no model can miss."""
    folder = tmp_path_factory.mktemp("certain")
    strong = ["data.edge=1.0", "data.n_symbols=40", "labels.horizon_bars=1"]
    with inside(folder):
        work(["+experiment=foundry", *shrunk("foundry"), *strong])
    return folder / "runs/train/latest"


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_skill_that_nobody_doubts_is_no_edge_without_a_strategy(certain):
    report = report_of(certain)
    assert report["models"][0]["metrics"]["skill_beyond_level"]["low"] > 0
    assert report["verdict"]["kind"] == "not enough evidence"
    assert "skill alone is no edge" in report["verdict"]["reasons"][0]
    assert report["strategies"] == []
    assert "regime" not in report
    assert "hindsight" not in report


def test_the_page_and_the_terminal_say_that_no_strategy_was_run(certain, capsys):
    page = (certain / "report.html").read_text()
    assert "No strategy was run" in page
    for absent in ('id="strategies"', 'id="regime"', 'id="hindsight"', 'id="strategy-table"'):
        assert absent not in page
    print_run(report_of(certain), certain)
    printed = capsys.readouterr().out
    assert "Strategies after" not in printed
    assert "not enough evidence" in printed


def test_the_benchmark_is_the_market_held_and_no_member(certain):
    report = report_of(certain)
    assert report["benchmark"]["name"] == "buy and hold MKT"
    assert list(report["equity"]["curves"]) == ["buy and hold MKT"]
    assert report["ledger"]["list"] == []
    trades = certain / "trades.parquet"
    assert trades.stat().st_size > 0


def test_the_bundle_holds_no_regime_and_answers_as_the_run_did(certain):
    assert not (certain / "bundle" / "regime.json").exists()
    bundle = Bundle.load(certain / "bundle")
    assert bundle.regime is None
    overrides = (certain / "overrides.txt").read_text().splitlines()
    bars = load_bars(Experiment.of(build(compose("train", overrides))))
    said = bundle.predict(bars)
    known = pl.read_parquet(certain / "predictions.parquet")
    both = known.join(said, on=["symbol", "time"])
    assert len(both) == len(known)
    np.testing.assert_allclose(both["primary"], both["probability"], atol=1e-12)


def test_an_auditor_needs_no_regime(tmp_path):
    """What the regime was to the auditor is simply not there."""
    with inside(tmp_path):
        work(
            [
                "+experiment=foundry",
                *shrunk("foundry"),
                "auditor=xgboost",
                "auditor.n_estimators=10",
                "evaluation.n_oof_folds=2",
                "strategy=[top_audited]",
            ]
        )
    report = report_of(tmp_path / "runs/train/latest")
    assert report["auditor"]["n"] > 0
    assert [row["name"] for row in report["strategies"]] == ["top_audited"]
    assert report["benchmark"]["name"] == "buy and hold"
