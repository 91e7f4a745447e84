"""A bundle backtested on other data is judged by the skill measured there, and reads levels as its run did."""

import json
import logging
import shutil
from dataclasses import replace
from datetime import datetime

import pytest
from omegaconf import OmegaConf

import tradsys.backtest
from tests.integration.conftest import inside
from tradsys.config.compose import build, compose
from tradsys.core.clock import utc
from tradsys.core.errors import BundleError
from tradsys.core.headline import headline_skill
from tradsys.evidence.joint_test import JointTest, error_budget
from tradsys.evidence.verdict import verdict_of_strategy
from tradsys.market.synthetic import SyntheticMarket
from tradsys.research.bundle_backtest import skill_on
from tradsys.serving.bundle import Bundle, seal

README_PROFILES = "strategy=[sniper,audited,reckless]"
FEW_DRAWS = "evaluation.n_draws=50"


@pytest.fixture(scope="module")
def bundle(run_folder):
    return Bundle.load(run_folder / "bundle")


@pytest.fixture(scope="module")
def home(bundle):
    """The bars the bundle was trained on."""
    return build(OmegaConf.create({"data": bundle.data_config()}))["data"]["source"].bars()


@pytest.fixture(scope="module")
def evaluation():
    return build(compose("backtest", [FEW_DRAWS, "levels=score"]))["evaluation"]


def resealed(bundle, folder, **changes):
    """A copy of the bundle whose card has these entries; None takes one away."""
    shutil.copytree(bundle.folder, folder)
    card = {key: value for key, value in {**bundle.card, **changes}.items() if value is not None}
    seal(folder, card)
    return folder


def backtested(run_folder, *overrides):
    with inside(run_folder.parents[2]):
        tradsys.backtest.work([FEW_DRAWS, *overrides])
    return json.loads((run_folder.parents[1] / "backtest/latest/report.json").read_text())


def test_skill_measured_from_the_card_is_the_runs_own_on_its_test_span(bundle, home, evaluation):
    start, end = (datetime.fromisoformat(moment) for moment in bundle.card["span"]["test"])
    measured, stored = skill_on(bundle, home, (start, end), evaluation), headline_skill(bundle.card["metrics"])
    assert measured["n"] == bundle.card["metrics"]["n"]
    assert measured["value"] == pytest.approx(stored["value"], abs=1e-5)


def test_buy_and_hold_of_one_span_is_the_same_in_train_and_backtest(run_folder, tmp_path):
    trained = json.loads((run_folder / "report.json").read_text())
    used = trained["provenance"]["config"]["evaluation"]
    same = [f"evaluation.{key}={used[key]}" for key in ("n_draws", "confidence")]
    ledger = shutil.copy(run_folder.parents[2] / "ledger_of_run.db", tmp_path / "ledger.db")
    report = backtested(run_folder, *same, "strategy=[reckless]", "levels=score", f"paths.ledger={ledger}")
    assert report["benchmark"]["performance"] == trained["benchmark"]["performance"]


def test_other_data_are_judged_by_the_skill_measured_on_them(run_folder, bundle, monkeypatch):
    other = SyntheticMarket(n_bars=2400, seed=99, edge=0.0)
    monkeypatch.setattr(tradsys.backtest, "named_source", lambda *_: other)
    report = backtested(run_folder, "data=synthetic", "span=later", "strategy=[reckless]")
    assert report["skill"]["n"] > 0
    assert report["skill"]["value"] != headline_skill(bundle.card["metrics"])["value"]
    assert "skill beyond the level on these data" in report["verdict"]["reasons"][-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": {"kind": "own", "atr_bars": 14}}, "kind 'own' is not known"),
        ({"label": {"kind": "forward_return", "atr_bars": 14}}, "lacks horizon_bars"),
        ({"metrics": {}}, "no class rates"),
    ],
)
def test_a_skill_that_cannot_be_measured_has_a_reason_and_the_returns_decide(bundle, home, evaluation, change, words):
    opened = replace(bundle, card={**bundle.card, **change})
    first, last = utc(home["time"][800]), utc(home["time"].max())
    found = skill_on(opened, home, (first, last), evaluation)
    assert words in found["reason"]
    measured = {"n_trades": 500, "sharpe": {"value": 3.0, "reason": None}, "n_periods": 400, "years": 1.1}
    passed = JointTest(1, 1, error_budget(1), statistic=3.0, p_value=0.001)
    verdict = verdict_of_strategy(measured, passed, skill_low=found["low"])
    assert verdict.kind == "edge"
    assert "skill has no interval" in verdict.reasons[1]
    unclear = JointTest(1, 1, error_budget(1), statistic=0.5, p_value=0.3)
    assert verdict_of_strategy(measured, unclear, skill_low=found["low"]).kind == "not enough evidence"


def test_too_few_outcomes_are_a_reason(bundle, home, evaluation):
    last = utc(home["time"].max())
    assert "resolved label" in skill_on(bundle, home, (last, last), evaluation)["reason"]


def test_a_bundle_of_quantile_levels_trades_by_the_readmes_command(run_folder, bundle, tmp_path):
    folder = resealed(bundle, tmp_path / "quantile", levels="quantile")
    as_quantiles = backtested(run_folder, f"bundle={folder}", README_PROFILES)
    assert sum(row["performance"]["n_trades"] for row in as_quantiles["strategies"]) > 0


def test_a_card_without_levels_is_read_as_score_with_one_warning(bundle, tmp_path, caplog):
    old = Bundle.load(resealed(bundle, tmp_path / "old", levels=None))
    with caplog.at_level(logging.WARNING):
        assert old.levels == "score"
    (line,) = caplog.messages
    assert "read as raw scores; pass levels=quantile" in line


def test_levels_of_a_received_card_are_one_of_three_words(bundle, tmp_path):
    received = Bundle.load(resealed(bundle, tmp_path / "received", levels="${oc.env:HOME}"))
    with pytest.raises(BundleError, match="one of score, probability, quantile"):
        _ = received.levels


def test_one_series_has_one_interval_in_train_and_backtest(run_folder):
    trained = json.loads((run_folder / "report.json").read_text())["benchmark"]["performance"]["sharpe"]
    again = backtested(run_folder, "strategy=[reckless]")["benchmark"]["performance"]["sharpe"]
    assert again == trained


def test_without_strategies_a_bundle_is_judged_by_its_forecasts_alone(run_folder):
    report = backtested(run_folder, "strategy=[]")
    assert report["strategies"] == []
    assert report["verdict"]["kind"] != "edge"
    assert report["skill"]["low"] == headline_skill(Bundle.load(run_folder / "bundle").card["metrics"])["low"]
