import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.core.errors import BundleError, DataError, TrainingError
from tradsys.core.protocols import Calibrator
from tradsys.models.calibrators import Identity, Isotonic, Temperature, calibrator_from_json

ALL = pytest.mark.parametrize("calibrator", [Identity(), Temperature(), Temperature(bias=False), Isotonic()])


def scores(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.01, 0.99, n)
    y = (rng.uniform(size=n) < p**2).astype(np.int64)
    return np.stack([1 - p, p], axis=1), y, rng.uniform(0.5, 1, n)


@ALL
def test_rows_sum_to_one_and_json_round_trips_to_the_bit(calibrator):
    proba, y, weight = scores()
    done = calibrator.fit(proba, y, weight)
    out = done.apply(proba.astype(np.float32))
    assert out.dtype == np.float64
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-6)
    again = calibrator_from_json(json.loads(json.dumps(done.to_json(), allow_nan=False)))
    assert type(again) is type(calibrator)
    np.testing.assert_array_equal(again.apply(proba), done.apply(proba))
    assert isinstance(done, Calibrator)


@ALL
def test_nan_in_nan_out(calibrator):
    proba, y, weight = scores()
    done = calibrator.fit(proba, y, weight)
    out = done.apply(np.array([[np.nan, np.nan], [0.4, 0.6]]))
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()


@ALL
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_higher_score_never_becomes_a_lower_probability(calibrator, seed):
    proba, y, weight = scores(80, seed)
    y[:2] = 0, 1
    grid = np.linspace(0, 1, 101)
    up = calibrator.fit(proba, y, weight).apply(np.stack([1 - grid, grid], axis=1))[:, 1]
    assert (np.diff(up) >= -1e-15).all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("level", [0.5, 0.3, 1.0])
def test_temperature_of_equal_scores_stays_finite(bias, level):
    proba = np.tile([1 - level, level], (50, 1))
    y = np.array([0, 0, 0, 0, 1] * 10)
    done = Temperature(bias=bias).fit(proba, y, np.ones(50))
    assert np.isfinite(done.temperature_)
    assert 0.05 <= done.temperature_ <= 100
    assert np.isfinite(done.bias_).all()
    if bias:
        expected = (10 * 11 / 12 + 40 / 42) / 50  # the mean of Platt's targets
        np.testing.assert_allclose(done.apply(proba)[:, 1], expected, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_temperature_of_perfectly_separating_and_reversed_scores_stays_in_its_bounds(bias):
    proba = np.repeat([[0.9, 0.1], [0.1, 0.9]], 20, axis=0)
    y = np.repeat([0, 1], 20)
    sure = Temperature(bias=bias).fit(proba, y, np.ones(40))
    reversed_ = Temperature(bias=bias).fit(proba, 1 - y, np.ones(40))
    assert 0.05 <= sure.temperature_ < 1
    assert reversed_.temperature_ == pytest.approx(100)
    np.testing.assert_allclose(reversed_.apply(proba), 0.5, atol=0.02)


def test_temperature_bias_sums_to_zero_and_may_be_off():
    proba, y, weight = scores()
    assert Temperature().fit(proba, y, weight).bias_.sum() == pytest.approx(0, abs=1e-12)
    np.testing.assert_array_equal(Temperature(bias=False).fit(proba, y, weight).bias_, [0, 0])


def test_temperature_takes_exact_zeros_and_ones():
    proba, y, weight = scores()
    proba[0], proba[1] = [1, 0], [0, 1]
    y[:2] = 1, 0
    out = Temperature().fit(proba, y, weight).apply(proba)
    assert np.isfinite(out).all()
    assert ((out > 0) & (out < 1)).all()


def test_isotonic_clips_outside_its_range_and_is_never_certain():
    score = np.linspace(0.3, 0.7, 20)
    proba, y = np.stack([1 - score, score], axis=1), np.repeat([0, 1], 10)
    done = Isotonic().fit(proba, y, np.ones(20))
    out = done.apply(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))[:, 1]
    np.testing.assert_allclose(out, [1 / 22, 21 / 22, 0.5])
    assert done.x_.dtype == done.y_.dtype == np.float64


def test_isotonic_interpolates_between_knots_and_survives_one_distinct_score():
    proba = np.repeat([[0.8, 0.2], [0.4, 0.6]], 50, axis=0)
    y = np.concatenate([np.repeat([0, 1], [40, 10]), np.repeat([0, 1], [10, 40])])
    done = Isotonic().fit(proba, y, np.ones(100))
    np.testing.assert_allclose(done.apply(np.array([[0.6, 0.4]]))[0, 1], 0.5)
    flat = Isotonic().fit(proba[:50], y[:50], np.ones(50))
    np.testing.assert_allclose(flat.apply(proba)[:, 1], 0.2)


def test_rows_without_weight_do_not_count():
    proba, y, weight = scores()
    weight[:100] = 0
    for calibrator in (Temperature(), Isotonic()):
        whole = calibrator.fit(proba, y, weight).apply(proba)
        part = calibrator.fit(proba[100:], y[100:], weight[100:]).apply(proba)
        np.testing.assert_allclose(whole, part, atol=1e-9)


def test_refusals_name_the_cause():
    proba, y, weight = scores()
    for calibrator in (Temperature(), Isotonic()):
        with pytest.raises(TrainingError, match="each class must occur"):
            calibrator.fit(proba, np.zeros_like(y), weight)
        with pytest.raises(DataError, match="same rows"):
            calibrator.fit(proba, y[1:], weight)
        with pytest.raises(DataError, match="NaN"):
            calibrator.fit(np.full_like(proba, np.nan), y, weight)
        with pytest.raises(TrainingError, match="not fitted"):
            calibrator.apply(proba)
    with pytest.raises(DataError, match="two classes"):
        Isotonic().fit(np.full((3, 3), 1 / 3), np.arange(3), np.ones(3))
    with pytest.raises(BundleError, match="beta"):
        calibrator_from_json({"kind": "beta"})


@pytest.mark.parametrize("calibrator", [Temperature(), Temperature(bias=False), Isotonic(), Isotonic(least_share=0.1)])
@given(
    n=st.integers(2, 400),
    seed=st.integers(0, 10**6),
    margin=st.sampled_from([0.0, 0.1, 0.49, 0.5]),
    rare=st.sampled_from([1, 2, 5, 200]),
    uneven=st.booleans(),
)
@settings(max_examples=60)
def test_n_held_out_rows_never_tell_certainty(calibrator, n, seed, margin, rare, uneven):
    rng = np.random.default_rng(seed)
    y = (np.arange(n) >= max(1, n - rare)).astype(np.int64)
    score = np.where(y == 1, 0.5 + margin, 0.5 - margin)  # scores that happen to separate the rows
    weight = rng.uniform(0.01, 1, n) if uneven else np.ones(n)
    n_rows = weight.sum() ** 2 / (weight**2).sum()
    asked = np.array([0.0, 1e-9, 0.2, 0.5, 0.8, 1 - 1e-9, 1.0])
    done = calibrator.fit(np.stack([1 - score, score], axis=1), y, weight)
    for one in (done, calibrator_from_json(json.loads(json.dumps(done.to_json())))):
        out = one.apply(np.stack([1 - asked, asked], axis=1))
        assert out.max() <= (n_rows + 1) / (n_rows + 2) + 1e-12
        assert out.min() >= 1 / (n_rows + 2) - 1e-12
        np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-12)


@given(n=st.integers(1, 50), n_classes=st.integers(3, 5))
@settings(max_examples=30)
def test_several_classes_are_never_certain_either(n, n_classes):
    y = np.tile(np.arange(n_classes), n)
    done = Temperature().fit(np.eye(n_classes)[y] * 0.98 + 0.02 / n_classes, y, np.ones(len(y)))
    out = done.apply(np.eye(n_classes))
    assert out.max() <= (len(y) + 1) / (len(y) + 2)
    assert (out > 0).all()


@pytest.mark.parametrize("calibrator", [Temperature(), Isotonic()])
def test_too_few_held_out_rows_are_said(calibrator, caplog):
    proba, y, weight = scores(300)
    calibrator.fit(proba, y, weight)
    assert not caplog.messages
    calibrator.fit(proba[:40], y[:40], np.ones(40))
    assert "40 held-out rows" in caplog.text
    assert "stay within 0.0238 and 0.976" in caplog.text


def test_a_temperature_of_an_earlier_version_keeps_its_answers():
    old = {"kind": "temperature", "bias": True, "temperature_": 0.05, "bias_": [0.0, 0.0]}
    assert calibrator_from_json(old).apply(np.array([[0.1, 0.9]]))[0, 1] == pytest.approx(1, abs=1e-12)
