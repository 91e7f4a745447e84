from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from tradsys.core.errors import TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.baseline import BaseRate
from tradsys.models.boosting import LightGbm
from tradsys.models.calibrators import Identity, Isotonic, Temperature
from tradsys.models.ensembles.compose import Average, Calibrated, Scaled, SeedAverage
from tradsys.models.ensembles.nested_copies import in_workdir
from tradsys.models.linear import LogisticRegression, Ridge
from tradsys.models.transforms import RobustScaler, with_fitted


@dataclass(frozen=True)
class Fixed:
    """Answers from the first feature; remembers what it was shown."""

    lookback: int = 1
    workdir: Path | None = None
    seen_: tuple[Samples, Samples] | None = field(init=False, default=None)

    def fit(self, train: Samples, valid: Samples) -> "Fixed":
        return with_fitted(self, {"seen_": (train, valid)})

    def predict_proba(self, table: FeatureTable, rows: np.ndarray) -> np.ndarray:
        up = 1 / (1 + np.exp(-table.values[rows, 0].astype(np.float64)))
        return np.stack([1 - up, up], axis=1)


@pytest.fixture
def parts() -> tuple[Samples, Samples]:
    rng = np.random.default_rng(0)
    n = 400
    x = rng.normal([3, -1], [2, 0.1], size=(n, 2)).astype(np.float32)
    y = (x[:, 0] + rng.normal(0, 2, n) > 3).astype(np.int64)
    codes, rows = np.zeros(n, dtype=np.int32), np.arange(n)
    time = np.datetime64("2020-01-01", "us") + rows * np.timedelta64(60, "m")
    table = FeatureTable(codes, time, codes, x, ("a", "b"), ("AAA",))
    samples = Samples(table, rows, y, rng.uniform(0.5, 1, n), rows, rows, np.zeros(n))
    return samples.take(rows < 250), samples.take(rows >= 250)


def test_scaled_fits_its_scaler_on_training_rows_and_shows_the_model_scaled_tables(parts):
    train, valid = parts
    done = Scaled(RobustScaler(), Fixed(lookback=4)).fit(train, valid)
    alone = RobustScaler().fit(train.table, train.rows)
    everything = RobustScaler().fit(train.table, np.arange(len(train.table)))
    np.testing.assert_array_equal(done.scaler_.center_, alone.center_)
    assert not np.array_equal(done.scaler_.center_, everything.center_)
    seen_train, seen_valid = done.model_.seen_
    assert seen_train.table is seen_valid.table
    np.testing.assert_array_equal(seen_train.table.values, alone.apply(train.table).values)
    np.testing.assert_array_equal(seen_valid.rows, valid.rows)
    expected = Fixed().predict_proba(alone.apply(train.table), valid.rows)
    np.testing.assert_array_equal(done.predict_proba(train.table, valid.rows), expected)
    assert done.lookback == 4
    assert isinstance(done, Model)


@dataclass(frozen=True, eq=False)
class Counting(RobustScaler):
    """A scaler that notes how many rows each table had that it transformed."""

    by_row = True
    rows: list[int] = field(default_factory=list)

    def apply(self, table: FeatureTable) -> FeatureTable:
        self.rows.append(len(table))
        return super().apply(table)


class OfWholeTables(Counting):
    """The same scaler without the promise that a row's values depend on that row alone, which none inherits."""


@pytest.mark.parametrize("model", [LogisticRegression(C=0.1), Ridge()])
def test_a_model_of_single_rows_sees_the_same_scaled_rows_without_a_scaled_table(parts, model, monkeypatch):
    monkeypatch.setattr("tradsys.models.ensembles.compose.ROWS_AT_ONCE", 64)
    train, valid = parts
    once, whole = (Scaled(scaler, model).fit(train, valid) for scaler in (Counting(), OfWholeTables()))
    assert max(once.scaler.rows) == 64
    assert min(whole.scaler.rows) == len(train.table) == 400
    for rows in (valid.rows, train.rows[::-1], valid.rows[:0], valid.rows[[3, 3]]):
        got, want = (fitted.predict_proba(train.table, rows) for fitted in (once, whole))
        assert got.shape == (len(rows), 2)
        np.testing.assert_array_equal(got, want)
    assert max(once.scaler.rows) == 64


def test_scaled_handles_a_validation_table_of_its_own(parts):
    train, valid = parts
    own = valid.on(replace(valid.table, values=valid.table.values + 1))
    seen = Scaled(RobustScaler(), Fixed()).fit(train, own).model_.seen_[1]
    scaler = RobustScaler().fit(train.table, train.rows)
    np.testing.assert_array_equal(seen.table.values, scaler.apply(own.table).values)


def test_calibrator_learns_from_validation_rows_and_never_from_training_rows(parts):
    train, valid = parts
    done = Calibrated(Fixed(), Temperature()).fit(train, valid)
    scores = Fixed().predict_proba(valid.table, valid.rows)
    alone = Temperature().fit(scores, valid.y, valid.weight)
    assert done.calibrator_.temperature_ == alone.temperature_
    # Fixed ignores its training labels, so whatever they are the calibrator must come out the same
    flipped = Calibrated(Fixed(), Temperature()).fit(replace(train, y=1 - train.y), valid)
    assert flipped.calibrator_.temperature_ == alone.temperature_
    np.testing.assert_array_equal(flipped.calibrator_.bias_, alone.bias_)
    moved = Calibrated(Fixed(), Temperature()).fit(train, valid.take(np.arange(100)))
    assert moved.calibrator_.temperature_ != alone.temperature_


def test_an_overfitted_model_is_only_unmasked_by_validation_rows(parts):
    train, valid = parts
    rng = np.random.default_rng(1)
    noise, held = (replace(s, y=rng.integers(0, 2, len(s))) for s in (train, valid))
    greedy = LightGbm(n_estimators=200, min_child_samples=2, max_depth=8, num_leaves=64, early_stopping_rounds=0)
    done = Calibrated(greedy, Temperature()).fit(noise, held)
    raw, calibrated = (f(held.table, held.rows)[:, 1] for f in (done.score, done.predict_proba))
    cheat = Temperature().fit(done.score(noise.table, noise.rows), noise.y, noise.weight)
    assert np.std(raw) > 0.2
    assert np.std(calibrated) < 0.1
    assert np.std(cheat.apply(done.score(held.table, held.rows))[:, 1]) > 0.2


def test_score_is_uncalibrated_and_predict_proba_is_not(parts):
    train, valid = parts
    done = Calibrated(Scaled(RobustScaler(), LogisticRegression()), Isotonic()).fit(train, valid)
    raw = done.score(valid.table, valid.rows)
    np.testing.assert_array_equal(raw, done.model_.predict_proba(valid.table, valid.rows))
    np.testing.assert_array_equal(done.predict_proba(valid.table, valid.rows), done.calibrator_.apply(raw))
    assert np.abs(done.predict_proba(valid.table, valid.rows) - raw).max() > 0.01
    with pytest.raises(TrainingError, match="no validation rows"):
        Calibrated(Fixed(), Identity()).fit(train, valid.take(np.arange(0)))


def test_an_average_is_the_mean_of_its_members_each_behind_its_own_scaler(parts):
    train, valid = parts
    members = {"line": Fixed(lookback=3), "rate": BaseRate(lookback=8)}
    done = Average(members, RobustScaler()).fit(train, valid)
    each = [
        Scaled(RobustScaler(), members["line"]).fit(train, valid).predict_proba(valid.table, valid.rows),
        members["rate"].fit(train, valid).predict_proba(valid.table, valid.rows),
    ]
    np.testing.assert_allclose(done.predict_proba(valid.table, valid.rows), (each[0] + each[1]) / 2, rtol=1e-12)
    assert done.lookback == 8
    assert isinstance(done.members_["line"], Scaled)
    assert not isinstance(done.members_["rate"], Scaled)
    raw = Average(members).fit(train, valid).members_["line"].seen_[0].table
    assert raw is train.table


def test_a_weighted_average_leans_as_configured_whatever_the_order_of_its_weights(parts):
    train, valid = parts
    members = {"line": LogisticRegression(), "trees": LightGbm(n_estimators=5, n_threads=1), "rate": BaseRate()}
    each = [m.fit(train, valid).predict_proba(valid.table, valid.rows) for m in members.values()]
    expected = 0.2 * each[0] + 0.7 * each[1] + 0.1 * each[2]
    for weights in ({"line": 0.2, "trees": 0.7, "rate": 0.1}, {"rate": 0.1, "trees": None, "line": 0.2}):
        done = Average(members, weights=weights).fit(train, valid)
        np.testing.assert_allclose(done.predict_proba(valid.table, valid.rows), expected, rtol=1e-12)
        assert done.weight_of == pytest.approx({"line": 0.2, "trees": 0.7, "rate": 0.1})
    assert np.abs(expected - np.mean(each, axis=0)).max() > 1e-3


@pytest.mark.parametrize(
    "weights",
    [
        {"a": 0.2},
        {"a": 0.2, "b": 0.8, "c": 0.0},
        {"a": 0.2, "c": 0.8},
        {"a": 0.2, "b": 0.7},
        {"a": -0.2, "b": 1.2},
        {"a": 1.2, "b": None},
        {"a": None, "b": None},
        {"a": float("nan"), "b": 1.0},
    ],
)
def test_weights_that_do_not_weigh_the_members_are_refused_with_their_values(weights):
    with pytest.raises(TrainingError, match=r"average: weights \{.*'a'.*they sum to one; set model.weights"):
        Average({"a": Fixed(), "b": Fixed()}, weights=weights)


def test_a_seed_average_fits_distinct_copies_and_two_averages_share_none(parts, tmp_path):
    train, valid = parts
    trees = LightGbm(n_estimators=5, subsample=0.5, n_threads=1)
    done = SeedAverage(trees, 3, seed=7).fit(train, valid)
    seeds = [model.seed for model in done.members_.values()]
    others = [model.seed for model in SeedAverage(trees, 3, seed=8).fit(train, valid).members_.values()]
    assert len({*seeds, *others}) == 6
    each = [replace(trees, seed=s).fit(train, valid).predict_proba(valid.table, valid.rows) for s in seeds]
    assert not np.array_equal(each[0], each[1])
    np.testing.assert_allclose(done.predict_proba(valid.table, valid.rows), np.mean(each, axis=0), rtol=1e-12)
    moved = in_workdir(SeedAverage(Fixed(), 2), tmp_path).fit(train, valid)
    assert [m.workdir for m in moved.members_.values()] == [tmp_path / "0", tmp_path / "1"]
    assert SeedAverage(trees, 2).reads_raw
    assert not SeedAverage(Fixed(), 2).reads_raw


def test_too_few_members_or_names_that_are_no_file_are_refused():
    with pytest.raises(TrainingError, match="at least two fits"):
        SeedAverage(Fixed(), 1)
    with pytest.raises(TrainingError, match=r"members \['a'\]; an ensemble has at least two"):
        Average({"a": Fixed()})
    with pytest.raises(TrainingError, match=r"\['../b'\] are no names"):
        Average({"a": Fixed(), "../b": Fixed()})


def test_unfitted_parts_refuse_to_predict(parts):
    train, _ = parts
    for model in (Scaled(RobustScaler(), Fixed()), Calibrated(Fixed(), Identity()), SeedAverage(Fixed(), 2)):
        with pytest.raises(TrainingError, match="not fitted"):
            model.predict_proba(train.table, train.rows)


def test_parts_fitted_elsewhere_compose_to_the_same_answers(parts):
    train, valid = parts
    done = Calibrated(Scaled(RobustScaler(), LogisticRegression()), Temperature()).fit(train, valid)
    scaler = RobustScaler.from_json(done.model_.scaler_.to_json())
    linear = LogisticRegression.from_json(done.model_.model_.to_json())
    calibrator = Temperature.from_json(done.calibrator_.to_json())
    again = Calibrated.of(Scaled.of(scaler, linear), calibrator)
    np.testing.assert_array_equal(
        again.predict_proba(valid.table, valid.rows), done.predict_proba(valid.table, valid.rows)
    )


def test_in_workdir_reaches_every_nested_part_and_leaves_the_rest(tmp_path):
    model = Calibrated(
        Average({"first": Scaled(RobustScaler(clip=2.0), Fixed(3)), "second": Fixed(5), "third": BaseRate()}),
        Temperature(bias=False),
    )
    moved = in_workdir(model, tmp_path)
    first, second, third = moved.model.members.values()
    assert first.model == Fixed(3, tmp_path / "first")
    assert second == Fixed(5, tmp_path / "second")
    assert third.lookback == 1
    assert first.scaler.clip == 2.0
    assert moved.calibrator.bias is False
    assert model.model.members["second"].workdir is None
    assert in_workdir(Fixed(), tmp_path).workdir == tmp_path
    assert in_workdir(Scaled(RobustScaler(), Fixed()), tmp_path).model.workdir == tmp_path
