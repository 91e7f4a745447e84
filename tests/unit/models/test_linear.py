import json
import warnings

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression as SklearnLogistic
from sklearn.linear_model import RidgeClassifier
from sklearn.utils.class_weight import compute_class_weight

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.baseline import class_weighted, class_weights_seen
from tradsys.models.linear import LogisticRegression, Ridge


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


def rare(seed: int = 3) -> Samples:
    """Even weights and about 6 % positives."""
    samples = make_samples(2000, seed=seed)
    x = samples.table.values.astype(np.float64)
    y = (x @ [1.0, -0.5, 0.2, 0.0] + np.random.default_rng(seed).logistic(size=2000) > 3.4).astype(np.int64)
    assert 0.03 < y.mean() < 0.1
    return Samples(**{**vars(samples), "y": y, "weight": np.ones(2000)})


def z_scores(samples: Samples) -> np.ndarray:
    x = samples.table.values[samples.rows].astype(np.float64)
    return (x - x.mean(axis=0)) / x.std(axis=0)


def test_balanced_classes_are_scikit_learns():
    samples = rare()
    model = LogisticRegression(C=0.3, class_weight="balanced").fit(samples, samples.take(np.arange(0)))
    oracle = SklearnLogistic(C=0.3, class_weight="balanced", tol=1e-10, max_iter=5000).fit(z_scores(samples), samples.y)
    got = model.predict_proba(samples.table, samples.rows)
    # ours stops where the mean gradient is below 1e-4
    np.testing.assert_allclose(got, oracle.predict_proba(z_scores(samples)), atol=2e-4)
    plain = LogisticRegression(C=0.3).fit(samples, samples.take(np.arange(0)))
    assert got[:, 1].mean() > 3 * plain.predict_proba(samples.table, samples.rows)[:, 1].mean()
    assert LogisticRegression.from_json(json.loads(json.dumps(model.to_json()))).class_weight == "balanced"
    before = {k: v for k, v in plain.to_json().items() if k != "class_weight"}  # as older files were written
    np.testing.assert_array_equal(LogisticRegression.from_json(before).coef_, plain.coef_)


def test_balanced_weights_count_weights_and_not_rows():
    """Both classes carry half of the weight, the total stays, and within a class proportions stay."""
    samples = make_samples()
    mass = class_weights_seen("test", samples, samples)
    train, valid = class_weighted(samples, samples.take(np.arange(100)), mass, "balanced")
    got = np.bincount(train.y, weights=train.weight)
    np.testing.assert_allclose(got, np.full(2, samples.weight.sum() / 2))
    np.testing.assert_array_equal(valid.weight, train.weight[:100])
    even = Samples(**{**vars(samples), "weight": np.ones(len(samples))})
    factor = compute_class_weight("balanced", classes=np.array([0, 1]), y=even.y)
    own = class_weighted(even, even, class_weights_seen("test", even, even), "balanced")[0]
    np.testing.assert_allclose(own.weight, factor[even.y])


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 300.0])
def test_ridge_ranks_as_scikit_learns_ridge_classifier(alpha, class_weight):
    samples = rare()
    model = Ridge(alpha, class_weight=class_weight).fit(samples, samples.take(np.arange(0)))
    oracle = RidgeClassifier(alpha=alpha, class_weight=class_weight).fit(z_scores(samples), samples.y)
    score = oracle.decision_function(z_scores(samples))
    log_odds = np.log(model.predict_proba(samples.table, samples.rows)[:, 1])
    log_odds -= np.log(model.predict_proba(samples.table, samples.rows)[:, 0])
    slope, offset = np.polyfit(score, log_odds, 1)
    np.testing.assert_allclose(log_odds, slope * score + offset, atol=1e-6)
    assert slope > 0
    # the curve is the one-dimensional logistic fit: its score equations, weights of mean one, are zero
    weight = np.ones(len(samples))
    if class_weight:
        weight = compute_class_weight("balanced", classes=np.array([0, 1]), y=samples.y)[samples.y]
    gap = weight * (expit(slope * score + offset) - samples.y)
    assert abs(gap.mean()) < 1e-5
    assert abs((gap * (score - score.mean()) / score.std()).mean()) < 1e-4
    assert isinstance(model, Model)


def test_ridge_weighs_rows_and_shrinks_with_alpha():
    samples = make_samples()
    none = samples.take(np.arange(0))
    twice = samples.take(np.concatenate([np.arange(600), np.arange(300)]))
    first = np.where(samples.rows < 300, 2.0, 1.0)
    doubled = Ridge(5.0 * 900 / 600).fit(Samples(**{**vars(twice), "weight": np.ones(900)}), none)
    weighted = Ridge(5.0).fit(Samples(**{**vars(samples), "weight": first}), none)
    # other rows shift centre and spread a little, the penalised optimum with them
    np.testing.assert_allclose(weighted.line_.coef_, doubled.line_.coef_, rtol=0.05)
    flat = Ridge(1e12).fit(samples, none).predict_proba(samples.table, samples.rows)
    assert np.isfinite(flat).all()


def test_ridge_of_columns_that_tell_nothing_is_the_base_rate():
    samples = rare()
    still = samples.on(samples.table.with_values(np.ones_like(samples.table.values)))
    proba = Ridge().fit(still, samples.take(np.arange(0))).predict_proba(still.table, still.rows)
    np.testing.assert_allclose(proba[:, 1], samples.y.mean(), rtol=1e-9)


def test_ridge_of_classes_that_a_line_parts_still_ends():
    samples = make_samples()
    parted = Samples(**{**vars(samples), "y": (samples.table.values[:, 0] > 0).astype(np.int64)})
    proba = Ridge(0.0).fit(parted, samples.take(np.arange(0))).predict_proba(samples.table, samples.rows)
    assert ((proba[:, 1] > 0.5) == parted.y).mean() > 0.9


def test_ridge_json_is_exact_and_refusals_name_the_cause():
    samples = make_samples()
    model = Ridge(0.5, lookback=4, class_weight="balanced").fit(samples, samples.take(np.arange(0)))
    again = Ridge.from_json(json.loads(json.dumps(model.to_json())))
    assert (again.alpha, again.lookback, again.class_weight) == (0.5, 4, "balanced")
    np.testing.assert_array_equal(
        again.predict_proba(samples.table, samples.rows), model.predict_proba(samples.table, samples.rows)
    )
    with pytest.raises(TrainingError, match="3 classes"):
        Ridge().fit(make_samples(n_classes=3), samples.take(np.arange(0)))
    for wrong in (
        lambda: Ridge(-1.0),
        lambda: Ridge(class_weight="even"),
        lambda: LogisticRegression(class_weight="x"),
    ):
        with pytest.raises(TrainingError, match=r"set model\."):
            wrong()
