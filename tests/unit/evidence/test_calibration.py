import json

import numpy as np
import pytest

from tests.calibration_scores import brier_decomposition, brier_score, brier_skill, ece
from tradsys.core.errors import DataError
from tradsys.evidence.calibration import calibration_line, reliability

PROBA, Y = np.array([0.2, 0.8, 0.6, 0.4]), np.array([0, 1, 1, 0])


def test_one_column_and_two_columns_are_one_forecast():
    two = np.column_stack([1 - PROBA, PROBA])
    assert ece(PROBA, Y) == ece(two, Y)
    assert brier_skill(PROBA, Y, 0.5) == brier_skill(two, Y, np.array([0.5, 0.5]))


def test_float32_probabilities_are_taken():
    logits = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert 0 <= ece(proba, np.arange(100) % 3) <= 1


def test_several_classes_are_judged_by_the_top_one():
    proba = np.array([[0.6, 0.3, 0.1], [0.1, 0.6, 0.3]])
    # said 0.6 twice, right once: |0.6 - 0.5|
    assert ece(proba, np.array([0, 2])) == pytest.approx(0.1)


def test_saying_the_base_rate_has_no_skill():
    assert brier_skill(np.full(4, 0.3), Y, 0.3) == pytest.approx(0)
    assert brier_skill(Y.astype(float), Y, 0.3) == 1


def test_bins_of_equal_mass_hold_equal_counts():
    proba = np.random.default_rng(0).uniform(size=1000) ** 3
    bins = reliability(proba, np.arange(1000) % 2, mass="equal")
    assert [b["n"] for b in bins] == [100] * 10


def test_equal_forecasts_share_one_bin_of_equal_mass():
    bins = reliability(np.full(10, 0.4), np.arange(10) % 2, mass="equal")
    assert len(bins) == 1
    assert bins[0]["observed"] == 0.5


def test_overlapping_outcomes_widen_the_bars():
    proba, y = np.full(100, 0.5), np.arange(100) % 2
    (alone,) = reliability(proba, y)
    (shared,) = reliability(proba, y, min_block=25)  # 4 blocks: neighbours are taken to be wholly alike
    assert shared["observed_high"] - shared["observed_low"] > 2 * (alone["observed_high"] - alone["observed_low"])


def test_labels_that_never_share_a_bin_are_counted_in_full():
    rng = np.random.default_rng(4)
    proba = np.tile([0.3, 0.7], 300)  # neighbours in turn: within two bars no label shares its bin
    y = (rng.uniform(size=600) < proba).astype(int)
    assert reliability(proba, y, min_block=2) == reliability(proba, y)


def test_names_that_move_as_one_count_as_one():
    rng = np.random.default_rng(5)
    y = (rng.uniform(size=200) < 0.5).astype(int)
    (one,) = reliability(np.full(200, 0.5), y)
    (twenty,) = reliability(np.full(4000, 0.5), np.repeat(y, 20), time_N=np.repeat(np.arange(200), 20))
    widths = [b["observed_high"] - b["observed_low"] for b in (one, twenty)]
    assert widths[1] > 0.7 * widths[0]  # 0.22 where all 4,000 counted


def test_all_is_json():
    plain = [reliability(PROBA, Y), brier_decomposition(PROBA, Y)]
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ece(np.array([0.5, np.nan]), np.array([0, 1])), "row 1"),
        (lambda: ece(np.array([0.5, 1.2]), np.array([0, 1])), "row 1"),
        (lambda: ece(np.array([[0.5, 0.4]]), np.array([0])), "sum to 1"),
        (lambda: ece(PROBA, np.array([0, 1, 2, 0])), "2 classes"),
        (lambda: ece(PROBA, np.array([0, 1, -1, 0])), "drop unlabelled rows"),
        (lambda: ece(PROBA, Y[:2]), "for labels"),
        (lambda: ece(np.array([]), np.array([])), "N >= 1"),
        (lambda: ece(PROBA, Y, n_bins=0), "n_bins 0"),
        (lambda: ece(PROBA, Y, mass="both"), "mass 'both'"),
        (lambda: brier_skill(PROBA, Y, 1.5), "base rate"),
        (lambda: brier_skill(PROBA, Y, [0.5, 0.6]), "base rate"),
        (lambda: brier_skill(PROBA, np.ones(4, dtype=int), 1.0), "never wrong"),
        (lambda: brier_score(np.zeros((2, 1)), np.zeros(2, dtype=int)), "for labels"),
        (lambda: reliability(PROBA, Y, min_block=0.5), "min_block 0.5"),
        (lambda: reliability(PROBA, Y, time_N=np.arange(3)), "times"),
    ],
)
def test_refuses(call, said):
    with pytest.raises(DataError, match=said):
        call()


def test_slope_and_intercept_are_those_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    logit = rng.normal(0.3, 1.2, 900)
    y = (rng.random(900) < 1 / (1 + np.exp(-(0.4 + 0.6 * logit)))).astype(float)
    weight = rng.uniform(0.2, 2, 900)
    found = calibration_line(1 / (1 + np.exp(-logit)), y, weight)
    family = sm.families.Binomial()
    line = sm.GLM(y, sm.add_constant(logit), family=family, freq_weights=weight).fit()
    large = sm.GLM(y, np.ones(900), family=family, offset=logit, freq_weights=weight).fit()
    assert found.value_M == pytest.approx([line.params[1], large.params[0]], rel=1e-6)
    np.testing.assert_allclose(found.influence_NM.sum(axis=0), 0, atol=1e-9)
    # influences of independent samples add up to the sandwich variance
    plain = calibration_line(1 / (1 + np.exp(-logit)), y, np.ones(900)).influence_NM
    sandwich = sm.GLM(y, sm.add_constant(logit), family=family).fit(cov_type="HC0").bse[1]
    assert np.sqrt((plain[:, 0] ** 2).sum()) == pytest.approx(sandwich, rel=1e-6)


@pytest.mark.parametrize(
    ("score", "hit", "slope", "why"),
    [
        ([0.2, 0.4, 0.6], [1, 1, 1], False, "one class"),
        ([0.3, 0.3, 0.3, 0.3], [0, 1, 1, 0], False, "all forecasts are equal"),
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], False, "part the classes"),
        ([0.0, 0.4, 0.6, 1.0], [1, 0, 1, 0], True, None),
    ],
)
def test_where_there_is_no_slope_there_is_a_reason(score, hit, slope, why):
    found = calibration_line(np.array(score), np.array(hit, dtype=float), np.ones(len(hit)))
    assert np.isfinite(found.value_M[0]) == slope
    assert (found.reason is None) == (why is None)
    assert why is None or why in found.reason
