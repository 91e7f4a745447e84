"""Metrics of a panel's forecasts against trusted libraries and loops; raw and calibrated never mixed."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from tradsys.core.errors import DataError
from tradsys.portfolio.costs import Costs
from tradsys.research.panel.metrics import panel_metrics
from tradsys.research.pipeline.settings import Evaluation

START = datetime(2020, 1, 6, 21, tzinfo=UTC)
JUDGED = Evaluation(n_draws=200)
COSTS = Costs(fee_bps=10.0, slippage_bps=5.0)


def forecasts(n_days=80, n_names=40, n_folds=1, signal=0.5, seed=0):
    rng = np.random.default_rng(seed)
    day, name = np.divmod(np.arange(n_days * n_names), n_names)
    known = rng.normal(size=len(day))
    ret = 0.01 * (signal * known + rng.normal(size=len(day)))
    fold = day * n_folds // n_days
    return pl.DataFrame(
        {
            "symbol": [f"N{k:03d}" for k in name],
            "time": [START + timedelta(days=int(d)) for d in day],
            "fold": fold.astype(np.int32),
            "score": 1 / (1 + np.exp(-known - fold)),
            "probability": np.round(0.5 + 0.1 * np.tanh(known), 1),
            "base_rate": 0.5 + 0.02 * fold,
            "y": (ret > 0).astype(np.int64),
            "ret": ret,
        },
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )


def reported(frame, horizon_bars=1, **more):
    return panel_metrics(frame, horizon_bars=horizon_bars, costs=COSTS, evaluation=JUDGED, **more)


def test_order_is_measured_on_raw_scores_and_probability_on_calibrated_ones():
    frame = forecasts()
    found = reported(frame)
    y, p = frame["y"].to_numpy(), frame["probability"].to_numpy()
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(y, frame["score"].to_numpy()), abs=1e-12)
    assert found["auc"]["value"] > roc_auc_score(y, p) + 0.001  # the calibrated ones are tied
    assert found["log_loss"]["value"] == pytest.approx(log_loss(y, p))
    assert found["brier"]["value"] == pytest.approx(brier_score_loss(y, p))
    assert found["skill_over_base_rate"]["value"] == pytest.approx(
        1 - log_loss(y, p) / log_loss(y, np.full(len(y), 0.5))
    )
    assert found["hit_rate"]["value"] == pytest.approx(((p > 0.5) == y).mean())
    assert found["hit_rate_base"]["value"] == pytest.approx((y == 0).mean())


def test_swapping_the_two_changes_both():
    frame = forecasts()
    swapped = reported(frame.rename({"score": "probability", "probability": "score"}))
    for name in ("auc", "brier", "rank_ic"):
        assert swapped[name]["value"] != pytest.approx(reported(frame)[name]["value"], abs=1e-6)


def test_rank_ic_is_the_mean_of_days_spearman():
    frame = forecasts(n_days=30)
    by_day = [spearmanr(d["score"], d["ret"]).statistic for d in frame.partition_by("time")]
    found = reported(frame)
    assert found["rank_ic"]["value"] == pytest.approx(np.mean(by_day))
    np.testing.assert_allclose(found["rank_ic_by_day"]["value"], by_day)
    assert found["rank_ic_by_day"]["time"][0] == "2020-01-06"


def test_folds_have_base_rates_and_scales_of_their_own():
    """A level that a fit gives to all its scores is no knowledge; each fold's base rate is what it must beat."""
    frame = forecasts(n_folds=2)
    found = reported(frame)
    single = [roc_auc_score(part["y"], part["score"]) for part in frame.partition_by("fold")]
    assert [f["auc"]["value"] for f in found["by_fold"]] == pytest.approx(single)
    assert found["auc"]["value"] == pytest.approx(np.mean(single), abs=0.01)
    shifted = reported(frame.with_columns(score=pl.col("score") / (1 + 9 * pl.col("fold"))))
    assert shifted["auc"] == found["auc"]
    y, p, base = (frame[name].to_numpy() for name in ("y", "probability", "base_rate"))
    assert found["skill_over_base_rate"]["value"] == pytest.approx(1 - log_loss(y, p) / log_loss(y, base))


def test_a_base_rate_that_moved_is_skill_but_none_beyond_the_level():
    frame = forecasts(signal=0.0).with_columns(y=(pl.col("ret") > -0.008).cast(pl.Int64))
    level = float(frame["y"].mean())
    flat = frame.with_columns(probability=pl.lit(level), base_rate=pl.lit(0.5))
    found = reported(flat)
    assert found["skill_over_base_rate"]["low"] > 0.1
    assert found["skill_beyond_level"]["value"] == pytest.approx(0.0, abs=1e-12)


def decile_loop(frame, horizon):
    """Spread and renewal by day, name by name."""
    gross, renewed, before = [], [], []
    for day in frame.partition_by("time", maintain_order=True):
        ordered = day.sort("score")
        tenth = len(day) // 10
        bottom, top = ordered.head(tenth), ordered.tail(tenth)
        gross.append(np.expm1(top["ret"].to_numpy()).mean() - np.expm1(bottom["ret"].to_numpy()).mean())
        held = (set(top["symbol"]), set(bottom["symbol"]))
        old = before[-horizon] if len(before) >= horizon else (set(), set())
        renewed.append(sum(1 - len(new & was) / tenth for new, was in zip(held, old, strict=True)))
        before.append(held)
    return np.array(gross), np.array(renewed)


@pytest.mark.parametrize("horizon", [1, 5])
def test_decile_spread_pays_for_what_it_renews(horizon):
    frame = forecasts(n_days=60)
    # scores that stay for some days, so that part of each decile does too
    frame = frame.with_columns(score=pl.col("score").rolling_mean(7, min_samples=1).over("symbol"))
    gross, renewed = decile_loop(frame, horizon)
    found = reported(frame, horizon_bars=horizon)["deciles"]
    assert found["gross"]["value"] == pytest.approx(gross.mean())
    assert found["turnover"]["value"] == pytest.approx(renewed.mean() / 2)
    assert 0.1 < found["turnover"]["value"] < 0.95
    assert found["net"]["value"] == pytest.approx((gross - COSTS.round_trip * renewed).mean())
    assert len(found["by_decile"]) == 10


def test_rows_without_an_outcome_are_counted_and_change_nothing():
    frame = forecasts(n_days=40)
    unknown = frame.tail(7).with_columns(
        time=pl.col("time") + timedelta(days=9), y=pl.lit(None, pl.Int64), ret=pl.lit(None, pl.Float64)
    )
    more = reported(pl.concat([frame, unknown]))
    assert more.pop("n_unknown") == 7
    plain = reported(frame)
    assert plain.pop("n_unknown") == 0
    assert more == plain


def test_order_of_rows_does_not_matter():
    frame = forecasts(n_days=40)
    assert reported(frame.sample(fraction=1.0, shuffle=True, seed=3)) == reported(frame)


def test_too_few_names_for_deciles_is_a_reason_and_no_number():
    found = reported(forecasts(n_names=6))["deciles"]
    assert found["net"]["value"] is None
    assert "no day has 10 names" in found["net"]["reason"]


def test_what_cannot_be_judged_is_refused():
    frame = forecasts(n_days=20)
    with pytest.raises(DataError, match="none of 800 predictions has a resolved label"):
        reported(frame.with_columns(y=pl.lit(None, pl.Int64)))
    with pytest.raises(DataError, match=r"\['score'\] are missing"):
        reported(frame.drop("score"))
    two = pl.concat([frame.with_columns(horizon=pl.lit(h)) for h in ("1d", "5d")])
    with pytest.raises(DataError, match="one horizon"):
        reported(two)
