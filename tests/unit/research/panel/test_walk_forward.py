"""Horizons share one table; a walk forward speaks of every member, also of those whose outcome never comes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tests.unit.research.panels_for_tests import bars_of, experiments_of
from tradsys.core.errors import DataError
from tradsys.features.feature_set import FeatureSet
from tradsys.research.panel.walk_forward import predictions_with_outcomes, prepared_in_turn, walk_forward
from tradsys.research.pipeline.dataset import check_symbols, label_rows, prepare
from tradsys.samples.splits import WalkForward


@pytest.fixture(scope="module")
def experiments():
    return experiments_of(1, 5)


@pytest.fixture(scope="module")
def bars(experiments):
    return bars_of(experiments["5d"])


@pytest.fixture(scope="module")
def walked(experiments, bars):
    return walk_forward(experiments, bars)


def test_horizons_share_one_table_and_each_is_what_it_would_be_alone(experiments, bars, monkeypatch):
    made, masked = [], []
    real, mask = FeatureSet.table, type(experiments["1d"].events).mask
    monkeypatch.setattr(FeatureSet, "table", lambda self, b: made.append(1) or real(self, b))
    monkeypatch.setattr(type(experiments["1d"].events), "mask", lambda self, b: masked.append(1) or mask(self, b))
    together = dict(prepared_in_turn(experiments, bars))
    assert (len(made), len(masked)) == (1, 1)
    assert together["1d"].table is together["5d"].table
    for name, experiment in experiments.items():
        alone = prepare(experiment, bars)
        assert alone.data_digest == together[name].data_digest
        for part in ("train", "valid", "test"):
            np.testing.assert_array_equal(getattr(alone, part).rows, getattr(together[name], part).rows)
            np.testing.assert_array_equal(getattr(alone, part).weight, getattr(together[name], part).weight)


def test_a_label_without_an_end_has_no_outcome_whatever_its_class(experiments, bars):
    """`Labels.resolved` is the one rule: a class that a label's author left at a row without an end is none."""
    rows = label_rows(experiments["1d"], bars)
    decided = np.flatnonzero(rows.decidable)[-40:]
    assert rows.labels.resolved[decided].any()
    unended = replace(rows.labels, y=np.maximum(rows.labels.y, 0))
    model = SimpleNamespace(
        score=lambda _, at: np.full((len(at), 2), 0.5), calibrator_=SimpleNamespace(apply=lambda score: score)
    )
    found = predictions_with_outcomes(model, rows.table, decided, unended, 0.5)
    assert (found["y"].is_not_null().to_numpy() == rows.labels.resolved[decided]).all()
    assert found["y"].null_count() > 0


def test_another_feature_set_gets_a_table_of_its_own(experiments, bars):
    less = replace(experiments["1d"], features=experiments["1d"].features.like(experiments["1d"].features.features[:5]))
    found = dict(prepared_in_turn({"1d": experiments["1d"], "less": less}, bars))
    assert len(found["less"].table.names) < len(found["1d"].table.names)


def test_the_market_is_no_sample_and_no_error(experiments, bars):
    prepared = prepare(experiments["1d"], bars)
    market = prepared.table.symbols.index("MKT")
    assert not (prepared.table.symbol[prepared.samples.rows] == market).any()
    with pytest.raises(DataError, match=r"MKT .* gave no sample"):  # without a mask nobody left it out on purpose
        check_symbols(prepared.samples, prepared.fold)


def test_each_horizon_speaks_once_of_each_member_and_day(walked, bars):
    assert walked["horizon"].unique(maintain_order=True).to_list() == ["1d", "5d"]
    assert walked.n_unique(["horizon", "symbol", "time"]) == walked.height
    assert "MKT" not in walked["symbol"].unique().to_list()
    for name, days in walked.group_by("horizon").agg(pl.col("time").n_unique()).rows():
        assert days == 3 * 60, name
    again = walked.filter(pl.col("horizon") == "5d", pl.col("y").is_not_null())
    assert (again["y"] == (again["ret"] > 0).cast(pl.Int64)).all()
    assert walked.select(((pl.col("probability") > 0) & (pl.col("probability") < 1)).all()).item()


def test_training_ends_before_each_test_fold_begins(experiments, bars):
    """What is said of a fold stays when everything after its last test label is gone."""
    splitter = WalkForward(n_folds=1, valid_bars=60, test_bars=60)
    clock = bars["time"].unique().sort()
    whole = walk_forward({"1d": experiments["1d"]}, bars, WalkForward(n_folds=3, valid_bars=60, test_bars=60))
    last = whole.filter(pl.col("fold") == 1)["time"].max()
    end = clock[clock.search_sorted(last) + 1]  # the bar on which the last label of one day is known
    cut = walk_forward({"1d": experiments["1d"]}, bars.filter(pl.col("time") <= end), splitter)
    reported = whole.filter(pl.col("fold") == 1)
    joined = reported.join(cut, on=["symbol", "time"], suffix="_cut")
    assert len(joined) == len(reported) == len(cut)
    assert (joined["score"] == joined["score_cut"]).all()
    assert (joined["probability"] == joined["probability_cut"]).all()


def test_a_name_that_dies_is_spoken_of_until_it_does(experiments, bars):
    """Rows whose outcome never came are there, without an outcome; a book must not know who dies."""
    test = walk_forward({"5d": experiments["5d"]}, bars, WalkForward(n_folds=1, valid_bars=60, test_bars=60))
    middle = test["time"].unique().sort()[30]
    dying = test["symbol"][0]
    cut = bars.filter((pl.col("symbol") != dying) | (pl.col("time") <= middle))
    reported = walk_forward({"5d": experiments["5d"]}, cut, WalkForward(n_folds=1, valid_bars=60, test_bars=60))
    own = reported.filter(pl.col("symbol") == dying)
    assert own["time"].max() == middle
    assert own.tail(5)["y"].null_count() == 5
    assert own.tail(5)["score"].null_count() == 0
    assert own.head(own.height - 5)["y"].null_count() == 0


def test_a_planted_edge_is_found_and_a_horizon_beyond_the_history_is_refused(walked, experiments, bars):
    one = walked.filter(pl.col("horizon") == "1d")
    up, down = (one.filter(pl.col("y") == y)["score"].mean() for y in (1, 0))
    assert up > down
    far = experiments_of(5000)["5000d"]
    with pytest.raises(DataError, match="samples: none of"):
        walk_forward({"5000d": far}, bars)
