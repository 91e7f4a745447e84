"""Contributions against hand-computed coefficients, LightGBM's additivity and a pool's weights."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tradsys.core.errors import BundleError
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.calibrators import Identity
from tradsys.models.ensembles.compose import Scaled
from tradsys.models.linear import LogisticRegression
from tradsys.models.transforms import RobustScaler
from tradsys.serving.bundle import Boosted
from tradsys.serving.contributions import contributions
from tradsys.serving.ensemble import ServedEnsemble, ServedPool

N, NAMES = 600, ("a", "b", "c")
ROWS = np.array([3, 100, 599])


@pytest.fixture(scope="module")
def samples() -> Samples:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(N, 3)).astype(np.float32)
    y = (values[:, 0] - 0.5 * values[:, 1] + rng.normal(size=N) > 0).astype(np.int64)
    time = np.datetime64("2020-01-01", "us") + np.arange(N) * np.timedelta64(1, "D")
    zeros = np.zeros(N, dtype=np.int32)
    table = FeatureTable(zeros, time.astype("datetime64[us]"), zeros, values, NAMES, ("X",))
    rows = np.arange(N)
    return Samples(table, rows, y, np.ones(N), rows, rows, np.zeros(N))


@dataclass
class Held:
    primary: object
    lookback: int = 1
    folder: Path = Path("bundle")


@pytest.fixture(scope="module")
def linear(samples):
    model = LogisticRegression(C=5.0).fit(samples, samples)
    return model


@pytest.fixture(scope="module")
def trees(samples):
    return LightGbm(n_estimators=20, min_child_samples=20, n_threads=1).fit(samples, samples.take(np.arange(0)))


def pool(members, weights):
    return ServedEnsemble(ServedPool(members, np.array(weights), None, None, 1), Identity())


def test_a_logistic_regression_moves_by_coefficient_times_distance(samples, linear):
    reference = np.array([0.1, -0.2, 0.3])
    found = contributions(Held(pool({"line": linear}, [1.0])), samples.table, ROWS, reference)
    expected = linear.coef_[0] * (samples.table.values[ROWS] - reference.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_scaler_before_it_changes_nothing_inside_its_clip(samples, linear):
    scaler = RobustScaler(clip=50).fit(samples.table, samples.rows)
    whole = Scaled(RobustScaler(clip=50), LogisticRegression(C=5.0)).fit(samples, samples)
    found = contributions(Held(pool({"line": whole}, [1.0])), samples.table, ROWS, scaler.center_)
    coefficients = whole.model_.coef_[0] / scaler.scale_
    np.testing.assert_allclose(found, coefficients * (samples.table.values[ROWS] - scaler.center_), atol=1e-5)


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost"])
def test_trees_contributions_add_up_to_the_log_odds(samples, trees, kind):
    model = trees if kind == "lightgbm" else Xgboost(n_estimators=20, n_threads=1).fit(samples, samples.take([]))
    found = contributions(Held(Boosted(model, Identity())), samples.table, ROWS, np.zeros(3))
    p = model.predict_proba(samples.table, ROWS)[:, 1]
    base = np.log(p / (1 - p)) - found.sum(axis=1)
    np.testing.assert_allclose(base, base[0], atol=1e-4)  # one and the same expected value
    assert np.abs(found[:, 0]).max() > 0.1


def test_a_pool_sums_its_members_by_weight(samples, linear, trees):
    reference = np.zeros(3)
    line, grown = (
        contributions(Held(pool({"one": member}, [1.0])), samples.table, ROWS, reference) for member in (linear, trees)
    )
    both = contributions(Held(pool({"line": linear, "trees": trees}, [0.2, 0.8])), samples.table, ROWS, reference)
    np.testing.assert_allclose(both, 0.2 * line + 0.8 * grown)


def test_a_feature_that_a_model_does_not_read_moves_nothing(samples, trees):
    wider = samples.table.take(np.arange(len(samples.table)), {"d": np.ones(len(samples.table), dtype=np.float32)})
    found = contributions(Held(Boosted(trees, Identity())), wider, ROWS, np.zeros(4))
    assert (found[:, 3] == 0).all()
    assert found.shape == (3, 4)


def test_a_model_that_reads_windows_has_no_reasons_by_column(samples):
    with pytest.raises(BundleError, match="windows of 32 rows"):
        contributions(Held(SimpleNamespace(), lookback=32), samples.table, ROWS, np.zeros(3))
