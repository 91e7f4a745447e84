import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.core.tables import FeatureTable
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.market.bars import mark_gaps
from tradsys.market.true_range import atr
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.research.pipeline.settings import Evaluation
from tradsys.research.sections.meta_label_value import audit_value, without_auditor
from tradsys.research.sections.test_span import EvaluatedSpan
from tradsys.samples.join import make_samples
from tradsys.serving.strategy import AuditMask, Profile, RegimeMask, ThresholdRule

LABEL = {"upper": 1.5, "lower": 1.5, "horizon_bars": 8, "atr_bars": 14}
PROFILES = {
    "reckless": Profile(ThresholdRule(0.6, "score")),
    "audited": Profile(ThresholdRule(0.6, "score"), [RegimeMask(["calm"]), AuditMask(0.5)]),
}


@pytest.fixture(scope="module")
def market():
    """Three random walks, their samples, and predictions without an auditor; scores and regimes know nothing."""
    bars = mark_gaps(walk_bars(2400, ("A", "B", "C")), None)
    labels = TripleBarrier(**LABEL).label(bars)
    table = FeatureTable(
        symbol=np.repeat(np.arange(3, dtype=np.int32), 2400),
        time=bars["time"].dt.replace_time_zone(None).to_numpy(),
        segment=bars["segment"].cast(pl.Int32).to_numpy(),
        values=np.zeros((len(bars), 0), dtype=np.float32),
        names=(),
        symbols=("A", "B", "C"),
    )
    samples = make_samples(table, labels, lookback=1)
    rng = np.random.default_rng(0)
    predictions = bars.select("symbol", "time", "close").with_columns(
        atr=pl.Series(atr(bars, 14)),
        score=pl.Series(rng.random(len(bars))),
        probability=pl.Series(rng.random(len(bars))),
        regime=pl.Series(np.where(np.arange(len(bars)) // 60 % 3 == 0, "calm", "wild")),
    )
    return bars, samples, predictions


def span_of(market, audit, **judged):
    bars, _, predictions = market
    bundle = SimpleNamespace(card={"label": LABEL}, valid_scores=np.linspace(0, 1, 1001))
    known = predictions.with_columns(audit=pl.Series(audit))
    return EvaluatedSpan(bundle, bars, known, Costs(1, 1), Evaluation(n_draws=200, n_placebos=120, **judged), seed=0)


def answers(market, knows):
    """An auditor whose answers clump over a day and know so much of what a trade will return."""
    bars, samples, _ = market
    rng = np.random.default_rng(1)
    ret = np.zeros(len(bars))
    ret[samples.rows] = samples.ret
    slow = np.repeat(rng.normal(size=len(bars) // 24), 24)
    said = knows * ret / samples.ret.std() + slow + 0.3 * rng.normal(size=len(bars))
    return 1 / (1 + np.exp(-said))


@pytest.fixture(scope="module")
def useful(market):
    return audit_value(span_of(market, answers(market, 2.0)), PROFILES, market[1])["rows"][0]


@pytest.fixture(scope="module")
def useless(market):
    return audit_value(span_of(market, answers(market, 0.0)), PROFILES, market[1])["rows"][0]


def test_a_planted_useful_auditor_is_called_useful(useful):
    assert useful["verdict"]["kind"] == "yes"
    assert useful["verdict"]["caution"] is None
    assert useful["placebos"]["sharpe"]["p_value"] == pytest.approx(1 / 121)
    assert all(useful["versus"][side]["sharpe"]["low"] > 0 for side in ("placebos", "unaudited", "reckless"))
    assert useful["versus"]["unaudited"]["p_value"] < 0.01
    assert useful["precision"]["lift"]["low"] > 0.1


def test_a_planted_useless_one_is_not(useless):
    assert useless["verdict"]["kind"] == "no"
    assert useless["placebos"]["sharpe"]["p_value"] > 0.05
    lift = useless["precision"]["lift"]
    assert lift["low"] < 0.02
    assert abs(lift["value"]) < 0.06


def test_coverage_is_matched_and_sides_are_the_strategies_of_the_backtest(market, useful):
    span = span_of(market, answers(market, 2.0))
    twin = span.targets(without_auditor(PROFILES["audited"]))
    own = span.targets(PROFILES["audited"])
    assert useful["coverage"] == {"n": len(twin), "n_kept": len(own)}
    ledger = simulate(span.bars, own, span.costs)
    assert useful["sides"]["audited"]["n_trades"] == len(ledger.trades)
    assert useful["sides"]["audited"]["per_trade"] == pytest.approx(ledger.trades["net_return"].mean())
    reckless = simulate(span.bars, span.targets(PROFILES["reckless"]), span.costs)
    assert useful["sides"]["reckless"]["n_trades"] == len(reckless.trades)
    assert useful["placebos"]["sharpe"]["n"] == len(useful["placebos"]["draws"]["sharpe"]) == 120


def test_days_are_the_ledgers_own(market):
    span = span_of(market, answers(market, 0.0))
    targets = {name: span.targets(profile) for name, profile in PROFILES.items()}
    record, n_trades = span.record(targets)
    for k, target in enumerate(targets.values()):
        ledger = simulate(span.bars, target, span.costs)
        days, returns = ledger.daily_returns()
        np.testing.assert_array_equal(days, span.days())
        np.testing.assert_allclose(record.returns[:, k], returns, atol=1e-9)
        assert n_trades[k] == len(ledger.trades)
        assert record.gains[:, k].sum() == pytest.approx(ledger.trades["net_return"].sum())
        first = ledger.trades["signal_time"].min()
        assert record.trades[:, k].nonzero()[0][0] == (days < np.datetime64(first.date())).sum()


def test_many_strategies_go_through_in_parts(market, monkeypatch):
    span = span_of(market, answers(market, 0.0))
    targets = {f"{name} {k}": span.targets(p) for k in range(3) for name, p in PROFILES.items()}
    whole, _ = span.record(targets)
    monkeypatch.setattr("tradsys.research.sections.test_span.COLUMNS", 4)
    parts, _ = span.record(targets)
    np.testing.assert_array_equal(parts.returns, whole.returns)


@pytest.mark.parametrize(("audit", "said"), [(0.9, "every one"), (0.1, "none")])
def test_an_auditor_that_stops_all_or_none_cannot_be_judged(market, audit, said):
    row = audit_value(span_of(market, np.full(7200, audit)), PROFILES, market[1])["rows"][0]
    assert row["verdict"]["kind"] == "cannot be determined"
    assert said in row["verdict"]["reasons"][0]


def test_too_few_trades_tell_nothing(market):
    row = audit_value(span_of(market, answers(market, 2.0), min_trades=10**6), PROFILES, market[1])["rows"][0]
    assert row["verdict"]["kind"] == "cannot be determined"
    assert row["placebos"]["sharpe"]["n"] == 120


def test_a_lucky_yes_that_a_threshold_would_have_given_carries_a_caution(market):
    bars, samples, predictions = market
    answered = answers(market, 2.0)
    # the score is as good as the auditor: what passes is what a higher threshold would have kept
    wise = (bars, samples, predictions.with_columns(score=pl.Series(0.6 + 0.4 * answered)))
    row = audit_value(span_of(wise, answered), PROFILES, samples)["rows"][0]
    assert row["verdict"]["kind"] == "yes"
    assert "higher threshold" in row["verdict"]["caution"]


def test_without_reckless_without_auditor_and_without_a_side(market):
    span = span_of(market, answers(market, 2.0))
    alone = audit_value(span, {"audited": PROFILES["audited"]}, market[1])["rows"][0]
    assert set(alone["sides"]) == {"audited", "unaudited", "placebos"}
    assert audit_value(span, {"reckless": PROFILES["reckless"]}, market[1]) is None
    blind = replace(span, predictions=span.predictions.drop("audit"))
    assert audit_value(blind, PROFILES, market[1]) is None


def test_the_section_is_json(useful, useless):
    assert json.loads(json.dumps([useful, useless], allow_nan=False)) == [useful, useless]
