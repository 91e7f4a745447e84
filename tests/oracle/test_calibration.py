"""ECE, Brier and reliability against loops, scikit-learn and Murphy's identity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from tests.calibration_scores import brier_decomposition, brier_score, brier_skill, ece
from tradsys.evidence.calibration import reliability


def ece_by_loop(proba, y, n_bins):
    """Guo et al. 2017, eq. 3: bins ((m-1)/M, m/M], zero with the first."""
    total = 0.0
    for m in range(n_bins):
        low, high = m / n_bins, (m + 1) / n_bins
        inside = [k for k in range(len(y)) if low < proba[k] <= high or (m == 0 and proba[k] == 0)]
        if inside:
            gap = np.mean([y[k] for k in inside]) - np.mean([proba[k] for k in inside])
            total += len(inside) / len(y) * abs(gap)
    return total


forecasts = st.lists(
    st.tuples(st.one_of(st.integers(0, 10).map(lambda k: k / 10), st.floats(0, 1)), st.integers(0, 1)),
    min_size=1,
    max_size=40,
)


@given(forecasts)
def test_ece_equals_the_loop_also_on_the_edges(rows):
    proba, y = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    assert ece(proba, y) == pytest.approx(ece_by_loop(proba, y, 10), abs=1e-12)


@given(forecasts, st.sampled_from(["width", "equal"]))
def test_brier_decomposes_exactly(rows, mass):
    # Murphy 1973, eq. 4, for the forecast that is constant in each bin
    proba, y = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    parts = brier_decomposition(proba, y, mass=mass)
    edges = np.arange(1, 10) / 10 if mass == "width" else np.quantile(proba, np.arange(1, 10) / 10)
    code = np.searchsorted(edges, proba, side="left")
    binned = np.array([proba[code == c].mean() for c in code])
    assert parts["brier_binned"] == pytest.approx(np.mean((binned - y) ** 2), abs=1e-12)
    assert parts["brier"] == pytest.approx(brier_score(proba, y), abs=1e-12)


def test_brier_as_published():
    # Brier 1950, table 1: ten forecasts of rain, P = 0.19 summed over both classes, so half of it for rain alone
    rain = np.array([0.7, 0.9, 0.8, 0.4, 0.2, 0, 0, 0, 0, 0.1])
    fell = np.array([0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    assert 2 * brier_score(rain, fell) == pytest.approx(0.19, abs=1e-12)
    parts = brier_decomposition(rain, fell, n_bins=1000)
    assert parts["reliability"] - parts["resolution"] + parts["uncertainty"] == pytest.approx(0.095, abs=1e-12)


def test_ece_as_published():
    # documentation of torchmetrics, binary_calibration_error with two bins and the l1 norm: 0.2900
    proba, y = np.array([0.25, 0.25, 0.55, 0.75, 0.75]), np.array([0, 0, 1, 1, 1])
    assert ece(proba, y, n_bins=2) == pytest.approx(0.29, abs=1e-12)


def test_brier_equals_sklearn():
    rng = np.random.default_rng(0)
    proba, y = rng.uniform(size=500), rng.integers(0, 2, 500)
    assert brier_score(proba, y) == pytest.approx(brier_score_loss(y, proba), rel=1e-12)
    several, code = rng.dirichlet(np.ones(3), 500), rng.integers(0, 3, 500)
    expected = brier_score_loss(code, several, labels=[0, 1, 2], scale_by_half=False)
    assert brier_score(several, code) == pytest.approx(expected, rel=1e-12)


def test_brier_skill_by_hand():
    # errors 0.01 and 0.16 against a base rate of 0.5 that errs 0.25 twice: 1 - 0.085 / 0.25
    assert brier_skill(np.array([0.9, 0.4]), np.array([1, 0]), 0.5) == pytest.approx(0.66, rel=1e-12)
    two_columns = np.array([[0.1, 0.9], [0.6, 0.4]])
    assert brier_skill(two_columns, np.array([1, 0]), [0.5, 0.5]) == pytest.approx(0.66, rel=1e-12)


@pytest.mark.parametrize(("mass", "strategy"), [("width", "uniform"), ("equal", "quantile")])
def test_reliability_equals_sklearn(mass, strategy):
    rng = np.random.default_rng(1)
    proba = rng.beta(2, 3, 2000)
    y = (rng.uniform(size=2000) < proba).astype(int)
    observed, predicted = calibration_curve(y, proba, n_bins=10, strategy=strategy)
    bins = reliability(proba, y, mass=mass)
    np.testing.assert_allclose([b["observed"] for b in bins], observed, rtol=1e-12)
    np.testing.assert_allclose([b["mean_predicted"] for b in bins], predicted, rtol=1e-12)


def test_ece_of_calibrated_and_of_overconfident_forecasts():
    rng = np.random.default_rng(2)
    true = rng.uniform(0.3, 0.7, 100_000)
    y = (rng.uniform(size=len(true)) < true).astype(int)
    assert ece(true, y) < 0.01
    wild = np.clip(0.5 + 2 * (true - 0.5), 0, 1)
    # E|p_wild - p_true| = E|p_true - 0.5| = 0.1 for a uniform on [0.3, 0.7]
    assert ece(wild, y) == pytest.approx(0.1, abs=0.01)
    assert ece(wild, y, mass="equal") == pytest.approx(0.1, abs=0.01)
