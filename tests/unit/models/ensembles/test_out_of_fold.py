from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from tradsys.core.errors import LeakageError, TrainingError
from tradsys.core.tables import FeatureTable, Fold, Samples
from tradsys.models.boosting import LightGbm
from tradsys.models.ensembles.out_of_fold import out_of_fold
from tradsys.models.transforms import with_fitted
from tradsys.samples.splits import PurgedKFold

SHOWN: list[tuple[np.ndarray, Path | None]] = []


@dataclass(frozen=True)
class Memory:
    """Knows by heart the rows it was fitted on and is at a loss elsewhere."""

    lookback: int = 1
    workdir: Path | None = None
    rows_: np.ndarray | None = field(init=False, default=None)
    y_: np.ndarray | None = field(init=False, default=None)

    def fit(self, train: Samples, valid: Samples) -> "Memory":
        assert self.rows_ is None, "a fold received a model that another fold had fitted"
        SHOWN.append((train.rows, self.workdir))
        return with_fitted(self, {"rows_": train.rows, "y_": train.y})

    def predict_proba(self, table: FeatureTable, rows: np.ndarray) -> np.ndarray:
        known = np.isin(rows, self.rows_)
        up = np.where(known, 1.0, 0.5)
        return np.stack([1 - up, up], axis=1)


@dataclass(frozen=True)
class Given:
    """Whatever folds it is configured to give."""

    folds: tuple[Fold, ...]

    def split(self, samples: Samples):
        yield from self.folds


@pytest.fixture
def parts() -> tuple[Samples, Samples]:
    SHOWN.clear()
    rng = np.random.default_rng(0)
    n = 600
    x = rng.normal(size=(n, 3)).astype(np.float32)
    codes, rows = np.zeros(n, dtype=np.int32), np.arange(n)
    time = np.datetime64("2020-01-01", "us") + rows * np.timedelta64(60, "m")
    table = FeatureTable(codes, time, codes, x, ("a", "b", "c"), ("AAA",))
    at = np.arange(5, n - 10)
    samples = Samples(table, at, rng.integers(0, 2, len(at)), np.ones(len(at)), at - 4, at + 8, np.zeros(len(at)))
    return samples.take(samples.end < 440), samples.take(samples.start >= 440)


def empty() -> np.ndarray:
    return np.empty(0, dtype=np.int64)


def test_no_sample_is_predicted_by_a_model_that_saw_it_or_a_neighbour_that_overlaps(parts, tmp_path):
    train, valid = parts
    out = out_of_fold(Memory(), train, PurgedKFold(n_folds=4, embargo_bars=3), valid, tmp_path)
    assert out.covered_N.all()
    np.testing.assert_array_equal(out.proba_NC, 0.5)
    assert len(SHOWN) == 4
    assert [folder for _, folder in SHOWN] == [tmp_path / f"fold_{k}" for k in range(4)]
    # positive control: fitted and asked on the same rows, Memory gives itself away
    known = Memory().fit(train, valid).predict_proba(train.table, train.rows)
    assert (known[:, 1] == 1).all()


def test_out_of_fold_scores_of_noise_are_honest_where_in_sample_ones_are_not(parts):
    train, valid = parts
    greedy = LightGbm(n_estimators=80, min_child_samples=2, max_depth=6, early_stopping_rounds=0, n_threads=1)
    out = out_of_fold(greedy, train, PurgedKFold(n_folds=4), valid)
    fitted = greedy.fit(train, valid).predict_proba(train.table, train.rows)
    assert (fitted.argmax(axis=1) == train.y).mean() > 0.8
    assert (out.proba_NC.argmax(axis=1) == train.y).mean() < 0.6


def test_samples_that_no_fold_tests_are_nan_and_not_covered(parts):
    train, valid = parts
    fold = Fold(train=np.arange(0, 100), valid=empty(), test=np.arange(200, 250))
    out = out_of_fold(Memory(), train, Given((fold,)), valid)
    np.testing.assert_array_equal(np.flatnonzero(out.covered_N), np.arange(200, 250))
    assert np.isnan(out.proba_NC[~out.covered_N]).all()
    assert np.isfinite(out.proba_NC[out.covered_N]).all()
    assert SHOWN[0][1] is None


def test_a_sample_tested_twice_keeps_the_mean(parts):
    train, valid = parts
    folds = tuple(Fold(train=np.arange(a, a + 80), valid=empty(), test=np.arange(200, 220)) for a in (0, 300))

    @dataclass(frozen=True)
    class FirstRow(Memory):
        def predict_proba(self, table, rows):
            up = np.full(len(rows), 0.2 if self.rows_.min() < 100 else 0.6)
            return np.stack([1 - up, up], axis=1)

    out = out_of_fold(FirstRow(), train, Given(folds), valid)
    np.testing.assert_allclose(out.proba_NC[200:220, 1], 0.4)


def test_a_fold_whose_training_spans_touch_its_test_spans_is_refused(parts):
    train, valid = parts
    # spans are [t-4, t+8]: 12 bars apart is the first gap that shares no bar
    leaky = Fold(train=np.arange(0, 100), valid=empty(), test=np.arange(111, 150))
    clean = Fold(train=np.arange(0, 100), valid=empty(), test=np.arange(112, 150))
    with pytest.raises(LeakageError, match="training"):
        out_of_fold(Memory(), train, Given((leaky,)), valid)
    assert out_of_fold(Memory(), train, Given((clean,)), valid).covered_N.sum() == 38


def test_training_labels_that_resolve_within_validation_are_refused(parts):
    train, valid = parts
    late = replace(train, end=np.where(train.rows == train.rows[-1], valid.rows[0], train.end))
    with pytest.raises(LeakageError, match="1 of"):
        out_of_fold(Memory(), late, PurgedKFold(n_folds=3), valid)


def test_a_fold_with_other_classes_is_refused(parts):
    train, valid = parts
    three = replace(valid, y=np.where(np.arange(len(valid)) == 0, 2, valid.y))
    with pytest.raises(TrainingError, match="2 classes of 3"):
        out_of_fold(Memory(), train, PurgedKFold(n_folds=3), three)
