import json

import lightgbm
import numpy as np
import pytest
import xgboost

from tradsys.core.errors import BundleError, DataError, TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.boosting import LightGbm, LightGbmRegressor, Xgboost

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


def with_holes(samples: Samples, share: float = 0.2) -> Samples:
    """The samples on a table where some numbers are unknown, and some are 0."""
    values, rng = samples.table.values.copy(), np.random.default_rng(3)
    values[rng.random(values.shape) < share] = np.nan
    values[rng.random(values.shape) < share] = 0
    return samples.on(samples.table.with_values(values))


@MODELS
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("trained_on_holes", [True, False])
def test_a_file_is_walked_without_its_library_and_the_same_to_the_bit(model, n_classes, trained_on_holes, tmp_path):
    train, valid = make_samples(n_classes=n_classes)
    train, valid = (with_holes(train) if trained_on_holes else train), with_holes(valid)
    done = model.fit(train, valid)
    done.save(tmp_path / "model.txt")
    again = type(model).load(tmp_path / "model.txt")
    np.testing.assert_array_equal(
        done.predict_proba(valid.table, valid.rows), again.predict_proba(valid.table, valid.rows)
    )
    assert again.booster_ is None
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


@pytest.mark.parametrize("n_classes", [2, 3])
def test_binned_rows_give_the_trees_of_rows_held_as_numbers(n_classes, monkeypatch):
    train, valid = make_samples(n_classes=n_classes)
    train = with_holes(train)
    binned = SMALL[1].fit(train, valid).booster().get_dump(with_stats=True)
    monkeypatch.setattr(xgboost, "QuantileDMatrix", xgboost.DMatrix)
    assert SMALL[1].fit(train, valid).booster().get_dump(with_stats=True) == binned
    assert len(binned) > 10


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


def test_balanced_classes_are_lightgbms_own_in_training_and_in_what_stops_it():
    train, valid = make_samples()
    rng = np.random.default_rng(0)
    rare = (train.table.values[:, 0] + rng.normal(0, 0.5, len(train.table)) > 1.6).astype(np.int64)
    train, valid = (Samples(**{**vars(s), "y": rare[s.rows], "weight": np.ones(len(s))}) for s in (train, valid))
    done = LightGbm(n_estimators=80, n_threads=1, early_stopping_rounds=5, class_weight="balanced").fit(train, valid)
    proba = done.predict_proba(valid.table, valid.rows)[:, 1]
    factor = len(train) / (2 * np.bincount(train.y))
    weighted = [Samples(**{**vars(s), "weight": factor[s.y]}) for s in (train, valid)]
    by_hand = LightGbm(n_estimators=80, n_threads=1, early_stopping_rounds=5).fit(*weighted)
    np.testing.assert_array_equal(proba, by_hand.predict_proba(valid.table, valid.rows)[:, 1])
    own = lightgbm.LGBMClassifier(
        n_estimators=done.booster_.num_trees(), class_weight="balanced", learning_rate=0.05, max_depth=4, num_leaves=15,
        min_child_samples=50, subsample=0.8, subsample_freq=1, colsample_bytree=0.8, reg_lambda=1.0, random_state=0,
        n_jobs=1, deterministic=True, force_row_wise=True, verbosity=-1,
    ).fit(train.table.values[train.rows], train.y)  # fmt: skip
    oracle = own.booster_.predict(valid.table.values[valid.rows])
    assert np.corrcoef(proba, oracle)[0, 1] > 0.99
    assert abs(proba.mean() - oracle.mean()) < 0.02
    assert done.booster_.num_trees() > 10  # unweighted, the validation loss would be least after the first trees
    with pytest.raises(TrainingError, match=r"set model\.class_weight"):
        LightGbm(class_weight="even")


def returns_of(samples: Samples) -> Samples:
    x = samples.table.values[samples.rows].astype(np.float64)
    noise = np.random.default_rng(2).normal(0, 0.3, len(samples.table))[samples.rows]
    return Samples(**{**vars(samples), "ret": x[:, 0] * x[:, 1] + noise})


def test_the_regressor_is_lightgbms_own_and_reads_the_return():
    train, valid = (returns_of(s) for s in make_samples())
    done = LightGbmRegressor(n_estimators=40, subsample=1.0, colsample=1.0, early_stopping_rounds=0, n_threads=1).fit(
        train, valid
    )
    got = done.predict(valid.table, valid.rows)
    own = lightgbm.LGBMRegressor(
        n_estimators=40, learning_rate=0.05, max_depth=4, num_leaves=15, min_child_samples=50, reg_lambda=1.0,
        n_jobs=1, deterministic=True, force_row_wise=True, verbosity=-1,
    ).fit(train.table.values[train.rows], train.ret, sample_weight=train.weight)  # fmt: skip
    np.testing.assert_allclose(got, own.booster_.predict(valid.table.values[valid.rows]), rtol=1e-9)
    assert np.corrcoef(got, valid.ret)[0, 1] > 0.7
    assert got.dtype == np.float64


def test_the_regressor_stops_early_and_its_file_is_exact(tmp_path):
    train, valid = (returns_of(s) for s in make_samples())
    noise = Samples(**{**vars(train), "ret": np.random.default_rng(1).normal(size=len(train))})
    model = LightGbmRegressor(n_estimators=60, n_threads=1, early_stopping_rounds=5)
    assert model.fit(noise, valid).booster_.num_trees() < 30
    done = model.fit(train, valid)
    done.save(tmp_path / "moves.txt")
    again = LightGbmRegressor.load(tmp_path / "moves.txt")
    np.testing.assert_array_equal(again.predict(valid.table, valid.rows), done.predict(valid.table, valid.rows))
    assert (again.n_estimators, again.names_, again.importance_gain()) == (60, ODD, done.importance_gain())
    single = np.array([done.predict(valid.table, valid.rows[[i]])[0] for i in range(10)])
    np.testing.assert_array_equal(single, done.predict(valid.table, valid.rows[:10]))
    assert done.predict(valid.table, valid.rows[:0]).shape == (0,)
    with pytest.raises(BundleError, match="holds a regressor"):
        LightGbm.load(tmp_path / "moves.txt")
    SMALL[0].fit(train, valid).save(tmp_path / "light.txt")
    with pytest.raises(BundleError, match="holds a classifier"):
        LightGbmRegressor.load(tmp_path / "light.txt")


def test_the_regressor_refuses_returns_that_are_not_there():
    train, valid = make_samples()
    bad = Samples(**{**vars(train), "ret": np.where(np.arange(len(train)) < 3, np.nan, 0.1)})
    with pytest.raises(DataError, match="3 of 750 training returns and 0 of 750 validation returns are not finite"):
        LightGbmRegressor().fit(bad, valid)
    with pytest.raises(TrainingError, match="not fitted"):
        LightGbmRegressor().predict(train.table, train.rows)
