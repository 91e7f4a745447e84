import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import log_loss, roc_auc_score

from tests.calibration_scores import brier_skill, ece
from tradsys.core.errors import DataError
from tradsys.evidence.classification import auc, evaluate
from tradsys.evidence.cosines import spread, within_unit
from tradsys.evidence.skill import log_losses

METRICS = (
    *("log_loss", "base_log_loss", "skill_beyond_level", "skill_over_base_rate"),
    *("auc", "brier", "brier_skill", "ece", "ece_equal_mass", "calibration_slope", "calibration_intercept"),
)


def planted(n, strength, seed, n_classes=2):
    """Forecasts that know `strength` of the truth, and outcomes drawn from them."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(n, n_classes)) * strength
    proba = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    y = (rng.uniform(size=n)[:, None] > proba.cumsum(axis=1)).sum(axis=1)
    return proba, np.minimum(y, n_classes - 1)


def test_values_are_the_plain_metrics():
    proba, y = planted(400, 0.8, 0)
    found = evaluate(proba, y, [0.4, 0.6], time_N=np.arange(400), n_draws=20)
    base = log_loss(y, np.tile([0.4, 0.6], (400, 1)))
    assert found["log_loss"]["value"] == pytest.approx(log_loss(y, proba), rel=1e-12)
    assert found["skill_over_base_rate"]["value"] == pytest.approx(1 - log_loss(y, proba) / base, rel=1e-12)
    assert found["brier_skill"]["value"] == pytest.approx(brier_skill(proba, y, 0.6), rel=1e-12)
    # the noise of the bins is taken off
    assert 0 <= found["ece"]["value"] < ece(proba, y)
    assert 0 <= found["ece_equal_mass"]["value"] < ece(proba, y, mass="equal")
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(y, proba[:, 1]), rel=1e-12)
    assert found["base_rate"] == [0.4, 0.6]
    assert found["observed_rate"] == pytest.approx([1 - y.mean(), y.mean()])
    assert (found["n"], found["n_times"]) == (400, 400)


def test_several_classes():
    proba, y = planted(600, 0.8, 1, n_classes=3)
    found = evaluate(proba, y, np.ones(3) / 3, time_N=np.arange(600), n_draws=50)
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(y, proba, multi_class="ovr"), rel=1e-12)
    assert found["log_loss"]["value"] == pytest.approx(log_loss(y, proba), rel=1e-12)
    assert 0 <= found["ece"]["low"] <= found["ece"]["value"] < ece(proba, y)


def test_planted_skill_is_found_and_noise_is_not():
    proba, y = planted(2000, 0.7, 2)
    assert evaluate(proba, y, [0.5, 0.5], time_N=np.arange(2000), n_draws=200)["skill_over_base_rate"]["low"] > 0
    other = np.random.default_rng(3).permutation(y)
    noise = evaluate(proba, other, [0.5, 0.5], time_N=np.arange(2000), n_draws=200)
    assert noise["skill_over_base_rate"]["high"] < 0
    assert noise["auc"]["low"] < 0.5 < noise["auc"]["high"]


def test_skill_of_a_forecast_without_skill_rarely_lies_above_zero():
    # overlapping labels: each outcome is the sign of the sum of 8 coming draws, unknown to the forecast
    rng = np.random.default_rng(4)
    above = 0
    for _ in range(60):
        flips = rng.normal(size=607)
        y = (np.convolve(flips, np.ones(8), mode="valid") > 0).astype(int)
        drift = np.convolve(rng.normal(size=607), np.ones(8), mode="valid") / 40
        found = evaluate(0.5 + np.clip(drift, -0.4, 0.4), y, 0.5, time_N=np.arange(600), min_block=16, n_draws=100)
        above += found["skill_over_base_rate"]["low"] > 0
    assert stats.binomtest(above, 60, 0.05, alternative="greater").pvalue > 0.01


def test_overlap_widens_the_interval():
    proba, y = planted(1500, 0.5, 5)
    single = evaluate(proba, y, 0.5, time_N=np.arange(1500), n_draws=200)
    repeated = evaluate(
        np.repeat(proba[:150], 10, axis=0), np.repeat(y[:150], 10), 0.5, time_N=np.arange(1500), min_block=20
    )
    width = [e["skill_over_base_rate"]["high"] - e["skill_over_base_rate"]["low"] for e in (single, repeated)]
    assert width[1] > 2 * width[0]
    assert repeated["block_length"] >= 20


def test_time_stamps_serve_as_codes():
    proba, y = planted(300, 0.5, 6)
    stamps = np.datetime64("2020-01-01", "us") + np.repeat(np.arange(150), 2) * np.timedelta64(1, "h")
    codes = np.repeat(np.arange(150), 2)
    by_stamp = evaluate(proba, y, 0.5, time_N=stamps, n_draws=30)
    assert by_stamp == evaluate(proba, y, 0.5, time_N=codes, n_draws=30)
    assert by_stamp["n_times"] == 150


def test_zero_weight_is_as_good_as_absent():
    proba, y = planted(200, 0.5, 7)
    half = np.arange(200) < 100
    weighted = evaluate(proba, y, 0.5, time_N=np.arange(200), weight_N=half.astype(float), n_draws=10)
    cut = evaluate(proba[half], y[half], 0.5, time_N=np.arange(100), n_draws=10)
    for name in set(METRICS) - {"ece", "ece_equal_mass"}:
        assert weighted[name]["value"] == pytest.approx(cut[name]["value"], rel=1e-12), name


def test_one_class_leaves_auc_undefined_but_the_rest_stands():
    found = evaluate(np.full(100, 0.7), np.ones(100, dtype=int), 0.6, time_N=np.arange(100), n_draws=10)
    assert found["auc"] == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "not defined on these samples",
    }
    assert found["skill_over_base_rate"]["value"] > 0
    assert auc(np.full(4, 0.7), np.ones(4, dtype=int)) is None
    json.dumps(found, allow_nan=False)


def test_a_base_rate_that_is_never_wrong_leaves_brier_skill_undefined():
    found = evaluate(np.full(100, 0.7), np.ones(100, dtype=int), 1.0, time_N=np.arange(100), n_draws=10)
    assert found["brier_skill"]["value"] is None
    json.dumps(found, allow_nan=False)


def test_too_short_a_record_has_values_but_no_intervals():
    proba, y = planted(90, 0.5, 8)
    found = evaluate(proba, y, 0.5, time_N=np.arange(90), min_block=10)
    for name in METRICS:
        assert found[name]["value"] is not None
        assert found[name]["low"] is None
        assert "90 periods hold 9.0 independent blocks" in found[name]["reason"]


def test_a_certain_forecast_that_fails_costs_much_but_not_infinity():
    assert log_losses(np.array([0.0, 1.0]), np.array([1, 1])).tolist() == pytest.approx([36.04, 0], abs=0.01)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight_N": np.zeros(40)}, "not all zero"),
        ({"weight_N": np.ones(3)}, "weights of shape"),
        ({"time_N": np.arange(39)}, "one time per sample"),
        ({"base_rate_C": [0.2, 0.2]}, "base rate"),
    ],
)
def test_refuses(changes, said):
    proba, y = planted(40, 0.5, 9)
    given = {"base_rate_C": [0.5, 0.5], "time_N": np.arange(40)} | changes
    with pytest.raises(DataError, match=said):
        evaluate(proba, y, given.pop("base_rate_C"), **given)


def test_order_can_be_measured_on_other_scores_than_probabilities():
    rng = np.random.default_rng(4)
    raw = rng.normal(size=600)
    y = (raw + rng.normal(size=600) > 0).astype(np.int64)
    said = np.round(1 / (1 + np.exp(-raw)), 1)  # calibrated in steps, so that many are tied
    plain = evaluate(said, y, 0.5, time_N=np.arange(600), n_draws=100)
    both = evaluate(said, y, 0.5, time_N=np.arange(600), n_draws=100, score_N=raw)
    assert both["auc"]["value"] == pytest.approx(roc_auc_score(y, raw), abs=1e-12)
    assert both["auc"]["value"] > plain["auc"]["value"]
    assert {k: v for k, v in both.items() if k != "auc"} == {k: v for k, v in plain.items() if k != "auc"}
    with pytest.raises(DataError, match="needs one finite score"):
        evaluate(said, y, 0.5, time_N=np.arange(600), n_draws=100, score_N=raw[:5])


def test_folds_bring_base_rates_of_their_own():
    rng = np.random.default_rng(5)
    y = np.concatenate([rng.uniform(size=300) < 0.3, rng.uniform(size=300) < 0.7]).astype(np.int64)
    rate = np.repeat([0.3, 0.7], 300)
    said = np.clip(rate + 0.05 * (2 * y - 1), 0, 1)
    found = evaluate(said, y, np.column_stack([1 - rate, rate]), time_N=np.arange(600), n_draws=100)
    assert found["base_log_loss"]["value"] == pytest.approx(log_loss(y, rate))
    assert found["skill_over_base_rate"]["value"] == pytest.approx(1 - log_loss(y, said) / log_loss(y, rate))
    assert found["base_rate"] == pytest.approx([0.5, 0.5])
    same = evaluate(said, y, np.full((600, 2), 0.5), time_N=np.arange(600), n_draws=100)
    assert (
        same["skill_over_base_rate"]
        == evaluate(said, y, 0.5, time_N=np.arange(600), n_draws=100)["skill_over_base_rate"]
    )


@pytest.mark.parametrize(("n_classes", "n_times"), [(2, 400), (2, 1600), (3, 400)])
def test_intervals_are_those_of_metrics_weighted_again_along_each_cosine(n_classes, n_times):
    """Each metric by its definition under shifted weights of time, by finite differences."""
    rng = np.random.default_rng(6)
    time = np.sort(rng.integers(0, n_times, 1600))
    proba = np.round(rng.dirichlet(np.full(n_classes, 3.0), 1600), 1)  # many ties, zeros among them
    proba = np.clip(proba, 0.01, None) / np.clip(proba, 0.01, None).sum(axis=1, keepdims=True)
    y, weight = rng.integers(0, n_classes, 1600), rng.uniform(0.5, 2, 1600)
    rate = np.full(n_classes, 1 / n_classes)
    found = evaluate(proba, y, rate, time_N=time, weight_N=weight, min_block=2)
    code = np.unique(time, return_inverse=True)[1]

    def metrics(weight_dT: np.ndarray) -> np.ndarray:
        rows = []
        for weight_T in weight_dT:
            drawn = weight_T[code] * weight
            loss, base = (
                np.average(log_losses(p, y), weights=drawn) for p in (proba, np.broadcast_to(rate, proba.shape))
            )
            rows.append([loss, 1 - loss / base, auc(proba, y, drawn)])
        return np.array(rows)

    loss_T = np.bincount(code, log_losses(proba, y)) / np.bincount(code)
    slow = spread(metrics, len(loss_T), loss_T, min_block=2)
    estimates = dict(zip(("log_loss", "skill_over_base_rate", "auc"), slow.estimates(), strict=True))
    estimates["auc"] = within_unit(estimates["auc"])
    assert slow.degrees > 10
    for name, one in estimates.items():
        assert [found[name][k] for k in ("value", "low", "high")] == pytest.approx(
            [one.value, one.low, one.high], rel=1e-6
        )
