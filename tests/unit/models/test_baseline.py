import json

import numpy as np
import pytest

from tradsys.core.errors import TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.baseline import BaseRate


def make_samples(y: list[int], weight: list[float] | None = None) -> Samples:
    n = len(y)
    codes, rows = np.zeros(n, dtype=np.int32), np.arange(n)
    time = np.datetime64("2020-01-01", "us") + rows * np.timedelta64(60, "m")
    table = FeatureTable(codes, time, codes, np.zeros((n, 1), dtype=np.float32), ("f",), ("AAA",))
    weights = np.ones(n) if weight is None else np.array(weight)
    return Samples(table, rows, np.array(y), weights, rows, rows, np.zeros(n))


def test_weighted_frequencies_of_the_training_rows():
    train = make_samples([0, 1, 1, 2], [1.0, 0.5, 0.5, 2.0])
    model = BaseRate().fit(train, make_samples([2, 2, 2]))
    np.testing.assert_allclose(model.predict_proba(train.table, np.arange(3)), [[0.25, 0.25, 0.5]] * 3)
    assert isinstance(model, Model)


def test_empty_rows_give_an_empty_answer_of_the_right_width():
    model = BaseRate().fit(make_samples([0, 1]), make_samples([]))
    assert model.predict_proba(make_samples([0]).table, np.arange(0)).shape == (0, 2)


def test_json_round_trip_is_exact():
    model = BaseRate(lookback=7).fit(make_samples([0, 1, 1]), make_samples([1]))
    again = BaseRate.from_json(json.loads(json.dumps(model.to_json())))
    assert again.lookback == 7
    np.testing.assert_array_equal(again.proba_, model.proba_)


@pytest.mark.parametrize(
    ("y", "weight", "valid"),
    [([1, 1], None, [0]), ([0, 0], None, [0]), ([0, 1], [1.0, 0.0], []), ([], None, [])],
)
def test_one_class_only_is_refused(y, weight, valid):
    with pytest.raises(TrainingError, match="absent"):
        BaseRate().fit(make_samples(y, weight), make_samples(valid))


def test_a_class_that_only_validation_holds_is_refused():
    with pytest.raises(TrainingError, match=r"\[2\] absent"):
        BaseRate().fit(make_samples([0, 1]), make_samples([2]))
