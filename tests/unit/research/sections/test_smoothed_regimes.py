import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hmmlearn.hmm import GaussianHMM

from tradsys.core.tables import FeatureTable, Samples
from tradsys.market.bars import mark_gaps
from tradsys.models.regime import HmmRegime, stationary
from tradsys.models.transforms import with_fitted
from tradsys.portfolio.costs import Costs
from tradsys.research.pipeline.settings import Evaluation
from tradsys.research.sections.regime_views import agreement, refit_alignment, regime_views_section
from tradsys.research.sections.smoothed_regimes import smoothed_posterior, viterbi_path
from tradsys.research.sections.test_span import EvaluatedSpan
from tradsys.serving.strategy import Profile, RegimeMask, ThresholdRule

TRANSMAT = np.array([[0.93, 0.07], [0.07, 0.93]])
DRIFT, SIGMA = np.array([-0.004, 0.004]), 0.008
N_BARS = 6000


def planted(covariance="full"):
    """The very chain that `chain` draws from: down and up drift, distinguished only slowly by their returns."""
    state = {
        "center_": np.zeros(1), "scale_": np.ones(1), "startprob_": stationary(TRANSMAT), "transmat_": TRANSMAT,
        "means_": DRIFT[:, None], "covars_": np.full((2, 1, 1), SIGMA**2), "loglik_": 0.0, "n_rows_": N_BARS,
    }  # fmt: skip
    model = HmmRegime(
        ("ret",), 2, lookback=60, names=("down", "up"), n_seeds=2, max_iter=20, order_by="mean", covariance=covariance
    )
    return with_fitted(model, state)


def chain(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    state = (np.cumsum(rng.random(n) < TRANSMAT[0, 1])) % 2
    return state, rng.normal(DRIFT[state], SIGMA)


def table_of(ret: np.ndarray, segment: np.ndarray | None = None) -> FeatureTable:
    codes = np.zeros(len(ret), dtype=np.int32)
    time = np.datetime64("2021-01-01T01", "us") + np.arange(len(ret)) * np.timedelta64(1, "h")
    values = np.column_stack([ret, np.full(len(ret), np.nan)]).astype(np.float32)
    return FeatureTable(codes, time, codes if segment is None else segment, values, ("ret", "other"), ("AAA",))


def as_hmmlearn(model: HmmRegime) -> GaussianHMM:
    hmm = GaussianHMM(n_components=model.n_states, covariance_type="full")
    hmm.startprob_, hmm.transmat_ = model.startprob_, model.transmat_
    hmm.means_, hmm.covars_ = model.means_, model.covars_
    return hmm


@pytest.fixture(scope="module")
def market():
    state, ret = chain(N_BARS)
    return state, table_of(ret)


@pytest.fixture(scope="module")
def fitted_model():
    """A fitted model of two columns, scaled inside and with full covariances, and a table it never saw."""
    rng = np.random.default_rng(1)
    sigma = np.array([0.001, 0.003, 0.01])[(np.arange(3000) // 70) % 3]
    x = np.stack([rng.normal(0, sigma), np.log(sigma) + rng.normal(0, 0.5, 3000)], axis=1).astype(np.float32)
    codes = np.zeros(3000, dtype=np.int32)
    time = np.datetime64("2021-01-01", "us") + np.arange(3000) * np.timedelta64(1, "h")
    table = FeatureTable(codes, time, codes, x, ("ret", "vol"), ("AAA",))
    rows, zeros = np.arange(29, 2000), np.zeros(1971)
    samples = Samples(table, rows, zeros.astype(int), zeros + 1, rows - 29, rows, zeros)
    return HmmRegime(("ret", "vol"), lookback=30, n_seeds=1, max_iter=15).fit(samples, samples), table


def test_both_equal_hmmlearn(market, fitted_model):
    for model, table in ((planted(), market[1]), fitted_model):
        x = table.select(model.columns).values.astype(np.float64)
        z = (x - model.center_) / model.scale_
        oracle = as_hmmlearn(model)
        np.testing.assert_allclose(smoothed_posterior(model, table), oracle.predict_proba(z), atol=1e-9)
        np.testing.assert_array_equal(viterbi_path(model, table), oracle.decode(z)[1])


def test_runs_are_whole_segments_and_gaps_are_unknown(market):
    ret = market[1].values[:300, 0].copy()
    ret[120] = np.nan
    table = table_of(ret, np.repeat([0, 1], [200, 100]).astype(np.int32))
    smoothed, path = smoothed_posterior(planted(), table), viterbi_path(planted(), table)
    oracle = as_hmmlearn(planted())
    assert np.isnan(smoothed[120]).all()
    assert path[120] == -1
    for a, b in ((0, 120), (121, 200), (200, 300)):
        x = ret[a:b, None].astype(np.float64)
        np.testing.assert_allclose(smoothed[a:b], oracle.predict_proba(x), atol=1e-9)
        np.testing.assert_array_equal(path[a:b], oracle.decode(x)[1])


def test_far_outliers_leave_probabilities(market):
    ret = market[1].values[:100, 0].copy()
    ret[50] = 5.0
    smoothed = smoothed_posterior(planted(), table_of(ret))
    np.testing.assert_allclose(smoothed.sum(axis=1), 1)
    assert smoothed[50].argmax() == 1


def test_the_future_changes_regime_views_and_never_the_filter(market):
    ret = market[1].values[:1000, 0]
    other = ret.copy()
    other[700:] = -ret[700:] * 3
    rows = np.arange(60, 700)
    one, two = table_of(ret), table_of(other)
    np.testing.assert_array_equal(planted().predict_proba(one, rows), planted().predict_proba(two, rows))
    assert (smoothed_posterior(planted(), one)[rows] != smoothed_posterior(planted(), two)[rows]).any()
    assert (viterbi_path(planted(), one)[rows] != viterbi_path(planted(), two)[rows]).any()


def span_of(table: FeatureTable, since: int = 3000) -> tuple[EvaluatedSpan, pl.DataFrame]:
    """Bars that move by the table's returns; a strategy that is long whenever its regime mask allows."""
    ret = table.values[:, 0].astype(np.float64)
    close = 100 * np.exp(np.cumsum(ret))
    opens = np.concatenate([[100.0], close[:-1]])
    bars = mark_gaps(
        pl.DataFrame(
            {
                "symbol": ["AAA"] * len(ret), "time": pl.Series(table.time).dt.replace_time_zone("UTC"),
                "open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close), "close": close,
                "volume": np.ones(len(ret)),
            }
        ),
        None,
    )  # fmt: skip
    rows = np.arange(since, len(ret))
    filtered = planted().predict_proba(table, rows).argmax(axis=1)
    predictions = bars.select("symbol", "time", "close")[rows].with_columns(
        atr=pl.col("close") * 0.5,
        score=pl.lit(0.9),
        probability=pl.lit(0.9),
        regime=pl.Series(np.array(["down", "up"])[filtered]),
    )
    label = {"upper": 1.5, "lower": 1.5, "horizon_bars": 1, "atr_bars": 14}
    bundle = SimpleNamespace(card={"label": label}, valid_scores=np.linspace(0, 1, 1001))
    evaluation = Evaluation(n_draws=200)
    return EvaluatedSpan(bundle, bars[rows], predictions, Costs(0, 0), evaluation, seed=0), bars


PROFILES = {
    "everything": Profile(ThresholdRule(0.5, "score")),
    "up only": Profile(ThresholdRule(0.5, "score"), [RegimeMask(["down"])]),
}


def parts_of(table: FeatureTable) -> dict[str, Samples]:
    spans = {"train": (100, 2000), "valid": (2000, 3000), "test": (3000, N_BARS - 10)}
    out = {}
    for name, (a, b) in spans.items():
        rows, zeros = np.arange(a, b), np.zeros(b - a)
        out[name] = Samples(table, rows, zeros.astype(int), zeros + 1, rows - 59, rows + 1, zeros)
    return out


@pytest.fixture(scope="module")
def section(market):
    table = market[1]
    span, _ = span_of(table)
    ledgers = span.simulate({name: span.targets(p) for name, p in PROFILES.items()})
    trades = pl.concat([one.trades.select(pl.lit(n).alias("strategy"), pl.all()) for n, one in ledgers.items()])
    return regime_views_section(span, planted(), table, parts_of(table), PROFILES, trades), trades


def test_a_planted_regime_views_gap_is_large_and_labelled(section):
    reported, _ = section
    (row,) = reported["strategies"]
    assert row["name"] == "up only"
    known, hind = row["views"]["filtered"], [row["views"][v] for v in ("smoothed", "viterbi")]
    assert known["sharpe"] > row["views"]["none"]["sharpe"]
    assert all(view["sharpe"] > known["sharpe"] + 3 for view in hind)
    assert all(row["gap"][view]["sharpe"]["low"] > 1 for view in ("smoothed", "viterbi"))
    labels = {v["view"]: (v["known"], v["says"]) for v in reported["views"]}
    assert [labels[v][0] for v in ("none", "filtered", "smoothed", "viterbi")] == [True, True, False, False]
    assert all("NOT be known" in labels[v][1] for v in ("smoothed", "viterbi"))


def test_the_filtered_view_is_the_strategy_as_it_was_judged(section):
    reported, trades = section
    own = trades.filter(pl.col("strategy") == "up only")
    assert reported["strategies"][0]["views"]["filtered"]["n_trades"] == len(own)
    curve = reported["curves"]
    assert curve["strategy"] == "up only"
    whole = reported["strategies"][0]["views"]["filtered"]["total_return"]
    assert curve["curves"]["filtered"][-1] == pytest.approx(1 + whole, rel=1e-5)


def test_persistence_and_occupancy(section, market):
    reported, _ = section
    for k, state in enumerate(reported["states"]):
        assert state["stay_bars"] == pytest.approx(1 / 0.07)
        # a filter flickers; hindsight smooths over short stays
        assert state["seen_bars"]["filtered"] < state["seen_bars"]["smoothed"] < state["seen_bars"]["viterbi"]
        said = planted().predict_proba(market[1], np.arange(3000, N_BARS - 10)).argmax(axis=1)
        assert state["occupancy"]["test"] == pytest.approx((said == k).mean())
        assert state["confirmed"]["filtered"] == 1
    assert sum(state["occupancy"]["train"] for state in reported["states"]) == pytest.approx(1)
    assert 0.6 < reported["agreement"]["viterbi"] < reported["agreement"]["smoothed"] < 0.95


def test_contributions_add_up_to_the_closed_trades(section, market):
    reported, trades = section
    by_name = {row["name"]: row for row in reported["contribution"]}
    for name in PROFILES:
        own = trades.filter(pl.col("strategy") == name)
        assert sum(r["earned"] for r in by_name[name]["regimes"]) == pytest.approx(own["net_pnl"].sum())
        assert sum(r["n"] for r in by_name[name]["regimes"]) == len(own)
    down, up = by_name["up only"]["regimes"]
    assert (down["n"], down["per_trade"]["reason"]) == (0, "no trade")
    assert up["per_trade"]["low"] < up["per_trade"]["value"] < up["per_trade"]["high"]
    # both regimes together are the market's whole move over the span
    ret = market[1].values[3001:, 0].astype(np.float64)
    assert sum(r["earned"] for r in by_name["the market"]["regimes"]) == pytest.approx(ret.sum())
    assert by_name["the market"]["regimes"][0]["earned"] < 0 < by_name["the market"]["regimes"][1]["earned"]


def test_without_masked_strategies_the_states_are_still_reported(market):
    table = market[1]
    span, _ = span_of(table)
    own = {"everything": PROFILES["everything"]}
    trades = span.simulate({"everything": span.targets(own["everything"])})["everything"].trades
    reported = regime_views_section(
        span, planted(), table, parts_of(table), own, trades.with_columns(strategy=pl.lit("everything"))[:0]
    )
    assert (reported["strategies"], reported["curves"]) == ([], None)
    assert [row["name"] for row in reported["contribution"]] == ["the market"]
    assert len(reported["states"]) == 2


def test_a_strategy_that_never_traded_has_no_sharpe_ratio_under_any_view(market):
    table = market[1]
    span, _ = span_of(table)
    never = {"never": Profile(ThresholdRule(0.95, "score"), [RegimeMask(["down"])])}
    trades = span.simulate({"never": span.targets(never["never"])})["never"].trades
    reported = regime_views_section(
        span, planted(), table, parts_of(table), never, trades.with_columns(strategy=pl.lit("never"))
    )
    (row,) = reported["strategies"]
    assert [(view["n_trades"], view["sharpe"]) for view in row["views"].values()] == [(0, None)] * 4
    assert set(row["gap"].values()) == {None}


def test_a_refit_that_keeps_its_names_agrees_and_one_that_swaps_them_does_not(market):
    table = market[1]
    parts = parts_of(table)
    same = refit_alignment(planted(), parts["train"], parts["valid"])
    assert same["reason"] is None
    assert same["n"] == 1000
    rng = np.random.default_rng(0)
    one = rng.integers(0, 3, 500)
    swapped = agreement(one, (one + 1) % 3, 3)
    assert (swapped["agreement"], swapped["renamed"]) == (0.0, 1.0)
    assert swapped["by_chance"] == pytest.approx(1 / 3, abs=0.02)
    assert np.trace(swapped["confusion"]) == 0


def test_a_half_that_cannot_be_fitted_says_why(market):
    parts = parts_of(market[1])
    few = refit_alignment(planted(), parts["train"].take(np.arange(20)), parts["valid"])
    assert few["agreement"] is None
    assert "training rows" in few["reason"]


def test_states_that_changed_halfway_do_not_align(fitted_model):
    model, table = fitted_model
    x = table.values.copy()
    x[1000:2000] = np.random.default_rng(3).normal(size=(1000, 2)) * [0.05, 0.1] + [0, 3]
    rows = np.arange(29, 2000)
    zeros = np.zeros(len(rows))
    train = Samples(table.with_values(x), rows, zeros.astype(int), zeros + 1, rows - 29, rows, zeros)
    valid = replace(train, table=table).take(np.arange(0, 900))
    stable = Samples(table, rows, zeros.astype(int), zeros + 1, rows - 29, rows, zeros)
    assert refit_alignment(model, stable, valid)["agreement"] > 0.9
    assert refit_alignment(model, train, valid)["agreement"] < 0.7


def test_the_section_is_json(section):
    assert json.loads(json.dumps(section[0], allow_nan=False)) == section[0]
