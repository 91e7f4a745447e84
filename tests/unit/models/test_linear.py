import json
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as SklearnLogistic

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.linear import LogisticRegression


def make_samples(n: int = 600, n_classes: int = 2, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    logits = x @ rng.normal(size=(4, n_classes)) + rng.gumbel(size=(n, n_classes))
    codes, rows = np.zeros(n, dtype=np.int32), np.arange(n)
    time = np.datetime64("2020-01-01", "us") + rows * np.timedelta64(60, "m")
    table = FeatureTable(codes, time, codes, x, ("a", "b", "c", "d"), ("AAA",))
    return Samples(table, rows, logits.argmax(axis=1), rng.uniform(0.2, 1, n), rows, rows, np.zeros(n))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_agrees_with_scikit_learn_on_weighted_rows(n_classes):
    samples = make_samples(n_classes=n_classes)
    model = LogisticRegression(C=0.3).fit(samples, samples.take(np.arange(0)))
    x = samples.table.values.astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    oracle = SklearnLogistic(C=0.3, tol=1e-10, max_iter=5000)
    oracle.fit(x, samples.y, sample_weight=samples.weight / samples.weight.mean())
    np.testing.assert_allclose(model.predict_proba(samples.table, samples.rows), oracle.predict_proba(x), atol=1e-5)
    assert isinstance(model, Model)


def test_the_unit_of_the_weights_does_not_matter_but_the_weights_do():
    samples = make_samples()
    none = samples.take(np.arange(0))
    plain = LogisticRegression(C=0.01).fit(samples, none)
    halved = Samples(**{**vars(samples), "weight": samples.weight * 1e-3})
    even = Samples(**{**vars(samples), "weight": np.ones(len(samples))})
    np.testing.assert_allclose(LogisticRegression(C=0.01).fit(halved, none).coef_, plain.coef_, rtol=1e-8)
    assert np.abs(LogisticRegression(C=0.01).fit(even, none).coef_ - plain.coef_).max() > 1e-4


def test_units_and_offsets_of_the_features_change_nothing():
    samples = make_samples()
    none = samples.take(np.arange(0))
    unit = np.array([1e4, 1e-4, 1, 8], dtype=np.float32)
    table = samples.table.with_values(samples.table.values * unit + 4 * unit)
    plain = LogisticRegression(C=0.01).fit(samples, none).predict_proba(samples.table, samples.rows)
    moved = LogisticRegression(C=0.01).fit(samples.on(table), none).predict_proba(table, samples.rows)
    np.testing.assert_allclose(moved, plain, atol=1e-5)


def test_constant_and_twin_columns_are_no_trouble_nor_a_warning():
    samples = make_samples()
    values = np.hstack([samples.table.values[:, [0, 0, 1]], np.full((len(samples), 1), 3, dtype=np.float32)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LogisticRegression(C=1e9).fit(samples.on(samples.table.with_values(values)), samples.take(np.arange(0)))
    assert np.isfinite(model.coef_).all()
    assert model.coef_[0, 0] == pytest.approx(model.coef_[0, 1], rel=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_one_row_alone_gives_the_bits_of_the_batch(n_classes):
    samples = make_samples(n_classes=n_classes)
    model = LogisticRegression().fit(samples, samples.take(np.arange(0)))
    batch = model.predict_proba(samples.table, samples.rows)
    alone = np.vstack([model.predict_proba(samples.table, samples.rows[[i]]) for i in range(50)])
    np.testing.assert_array_equal(batch[:50], alone)
    np.testing.assert_allclose(batch.sum(axis=1), 1)


def test_columns_are_found_by_name_and_a_missing_one_is_refused():
    samples = make_samples()
    model = LogisticRegression().fit(samples, samples.take(np.arange(0)))
    shuffled = samples.table.select(["d", "b", "a", "c"])
    np.testing.assert_array_equal(
        model.predict_proba(shuffled, samples.rows), model.predict_proba(samples.table, samples.rows)
    )
    with pytest.raises(DataError, match="'c'"):
        model.predict_proba(samples.table.select(["a", "b", "d"]), samples.rows)


def test_json_round_trip_is_exact():
    samples = make_samples(n_classes=3)
    model = LogisticRegression(C=0.5, max_iter=77, lookback=9).fit(samples, samples.take(np.arange(0)))
    again = LogisticRegression.from_json(json.loads(json.dumps(model.to_json())))
    assert (again.C, again.max_iter, again.lookback) == (0.5, 77, 9)
    np.testing.assert_array_equal(
        again.predict_proba(samples.table, samples.rows), model.predict_proba(samples.table, samples.rows)
    )


def test_refusals_name_the_cause():
    samples = make_samples()
    none = samples.take(np.arange(0))
    with pytest.raises(TrainingError, match="no convergence within 1 steps"):
        LogisticRegression(C=1e6, max_iter=1).fit(samples, none)
    with pytest.raises(TrainingError, match="absent"):
        LogisticRegression().fit(samples.take(samples.y == 1), none)
    values = samples.table.values.copy()
    values[5, 2] = np.nan
    with pytest.raises(DataError, match="'c'"):
        LogisticRegression().fit(samples.on(samples.table.with_values(values)), none)
    with pytest.raises(TrainingError, match="not fitted"):
        LogisticRegression().predict_proba(samples.table, samples.rows)
