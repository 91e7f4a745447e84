import json

import lightgbm
import numpy as np
import pytest
import xgboost

from tradsys.core.errors import BundleError, DataError, TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.boosting import LightGbm, Xgboost

ODD = ("vol_24[h]", 'a "quoted", name', "x<y", "back\\slash: {1}\nline", "größe µ")
SMALL = [LightGbm(n_estimators=60, n_threads=1), Xgboost(n_estimators=60, n_threads=1)]
MODELS = pytest.mark.parametrize("model", SMALL, ids=["lightgbm", "xgboost"])


def make_samples(n: int = 1500, n_classes: int = 2, seed: int = 0) -> tuple[Samples, Samples]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    score = x[:, 0] * x[:, 1] + rng.normal(0, 0.3, n)
    y = np.digitize(score, [-0.3, 0.3] if n_classes == 3 else [0.0])
    codes, rows = np.zeros(n, dtype=np.int32), np.arange(n)
    time = np.datetime64("2020-01-01", "us") + rows * np.timedelta64(60, "m")
    table = FeatureTable(codes, time, codes, x, ODD, ("AAA",))
    samples = Samples(table, rows, y, rng.uniform(0.2, 1, n), rows, rows, np.zeros(n))
    return samples.take(rows < n // 2), samples.take(rows >= n // 2)


def log_loss(model: Model, samples: Samples) -> float:
    proba = model.predict_proba(samples.table, samples.rows)
    return float(-np.average(np.log(proba[np.arange(len(samples)), samples.y]), weights=samples.weight))


@MODELS
@pytest.mark.parametrize("n_classes", [2, 3])
def test_learns_an_interaction_and_returns_probabilities(model, n_classes):
    train, valid = make_samples(n_classes=n_classes)
    done = model.fit(train, valid)
    proba = done.predict_proba(valid.table, valid.rows)
    assert proba.shape == (len(valid), n_classes)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    assert (proba.argmax(axis=1) == valid.y).mean() > (0.75 if n_classes == 2 else 0.6)
    assert isinstance(done, Model)
    assert model.booster_ is None


@MODELS
@pytest.mark.parametrize("n_classes", [2, 3])
def test_saved_and_loaded_is_the_same_to_the_bit(model, n_classes, tmp_path):
    train, valid = make_samples(n_classes=n_classes)
    done = model.fit(train, valid)
    done.save(tmp_path / "model.txt")
    again = type(model).load(tmp_path / "model.txt")
    np.testing.assert_array_equal(
        done.predict_proba(valid.table, valid.rows), again.predict_proba(valid.table, valid.rows)
    )
    assert again.names_ == ODD
    assert (again.n_estimators, again.learning_rate) == (model.n_estimators, model.learning_rate)
    assert again.importance_gain() == done.importance_gain()


@MODELS
def test_stops_at_the_best_round_on_the_validation_rows(model):
    train, valid = make_samples()
    rng = np.random.default_rng(1)
    noise = Samples(**{**vars(train), "y": rng.integers(0, 2, len(train))})
    held = Samples(**{**vars(valid), "y": rng.integers(0, 2, len(valid))})
    stopped = model.fit(noise, held)
    whole = model.fit(noise, held.take(np.arange(0)))
    rounds = {
        name: m.booster_.num_trees() if isinstance(m, LightGbm) else m.booster_.num_boosted_rounds()
        for name, m in (("stopped", stopped), ("whole", whole))
    }
    assert rounds["whole"] == 60
    assert rounds["stopped"] < 30
    assert log_loss(stopped, held) < log_loss(whole, held)


@MODELS
def test_same_seed_same_numbers_and_another_seed_others(model):
    train, valid = make_samples()
    first, second = (model.fit(train, valid).predict_proba(valid.table, valid.rows) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = type(model)(n_estimators=60, n_threads=1, seed=5).fit(train, valid)
    assert np.abs(other.predict_proba(valid.table, valid.rows) - first).max() > 0


@MODELS
def test_weights_count(model):
    train, valid = make_samples()
    heavy = Samples(**{**vars(train), "weight": np.where(train.y == 1, 5.0, 1.0)})
    plain = Samples(**{**vars(train), "weight": np.ones(len(train))})
    none = valid.take(np.arange(0))
    up = [model.fit(s, none).predict_proba(valid.table, valid.rows)[:, 1].mean() for s in (plain, heavy)]
    assert up[1] > up[0] + 0.1


@MODELS
def test_gain_shares_sum_to_one_and_point_at_the_columns_that_matter(model):
    train, valid = make_samples()
    share = model.fit(train, valid).importance_gain()
    assert tuple(share) == ODD
    assert sum(share.values()) == pytest.approx(1)
    assert share[ODD[0]] + share[ODD[1]] > 0.7


@MODELS
def test_columns_are_found_by_name_and_single_rows_match_the_batch(model):
    train, valid = make_samples()
    done = model.fit(train, valid)
    batch = done.predict_proba(valid.table, valid.rows)
    np.testing.assert_array_equal(done.predict_proba(valid.table.select(ODD[::-1]), valid.rows), batch)
    alone = np.vstack([done.predict_proba(valid.table, valid.rows[[i]]) for i in range(20)])
    np.testing.assert_array_equal(alone, batch[:20])
    assert done.predict_proba(valid.table, valid.rows[:0]).shape == (0, 2)
    with pytest.raises(DataError, match="x<y"):
        done.predict_proba(valid.table.select(ODD[:2]), valid.rows)


@MODELS
def test_one_class_only_is_refused(model):
    train, valid = make_samples()
    with pytest.raises(TrainingError, match="absent"):
        model.fit(train.take(train.y == 1), valid)
    with pytest.raises(TrainingError, match="not fitted"):
        model.predict_proba(train.table, train.rows)


def test_files_are_the_libraries_own_text_formats(tmp_path):
    train, valid = make_samples()
    light, xgb = (m.fit(train, valid) for m in SMALL)
    light.save(tmp_path / "light.txt")
    xgb.save(tmp_path / "xgb.json")
    plain = lightgbm.Booster(model_file=tmp_path / "light.txt")
    x = np.ascontiguousarray(valid.table.values[valid.rows])
    np.testing.assert_array_equal(plain.predict(x), light.predict_proba(valid.table, valid.rows)[:, 1])
    assert json.loads((tmp_path / "xgb.json").read_text(encoding="utf-8"))["learner"]["attributes"]["tradsys"]
    booster = xgboost.Booster(model_file=tmp_path / "xgb.json")
    np.testing.assert_allclose(
        booster.predict(xgboost.DMatrix(x)), xgb.predict_proba(valid.table, valid.rows)[:, 1], atol=1e-7
    )


def test_files_without_our_note_are_refused(tmp_path):
    train, valid = make_samples()
    light, xgb = (m.fit(train, valid) for m in SMALL)
    light.booster_.save_model(tmp_path / "light.txt")
    xgb.booster_.save_model(tmp_path / "xgb.json")
    with pytest.raises(BundleError, match=r"light\.txt"):
        LightGbm.load(tmp_path / "light.txt")
    with pytest.raises(BundleError, match=r"xgb\.json"):
        Xgboost.load(tmp_path / "xgb.json")
