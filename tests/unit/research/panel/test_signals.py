"""The signals table speaks of a close from what was known by then; folds judge both models, with their spread."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.research.panels_for_tests import bars_of, experiments_of
from tradsys.config.compose import build, compose
from tradsys.core.errors import DataError
from tradsys.features.point_in_time import Known
from tradsys.models.boosting import LightGbm, LightGbmRegressor
from tradsys.research.panel import signals
from tradsys.research.panel.signals import (
    COLUMNS,
    SignalSettings,
    evaluate_signals,
    newly_above,
    signals_at,
    write_signals,
)
from tradsys.research.pipeline.cross_validation import fitted_on
from tradsys.research.pipeline.dataset import build_dataset
from tradsys.samples.splits import PurgedKFold

SETTINGS = SignalSettings(
    split=PurgedKFold(n_folds=4, embargo_bars=5, valid_fraction=0.2),
    regressor=LightGbmRegressor(n_estimators=15, n_threads=1),
    valid_bars=60,
    sources={"fundamentals": ["pe"]},
)


@pytest.fixture(scope="module")
def experiment():
    made = experiments_of(5)["5d"]
    return replace(made, model=LightGbm(n_estimators=15, n_threads=1))


@pytest.fixture(scope="module")
def bars(experiment):
    return bars_of(experiment)


@pytest.fixture(scope="module")
def table(experiment, bars):
    return signals_at(experiment, SETTINGS, bars)


def test_every_member_alive_at_the_close_has_one_ranked_row(table, bars, tmp_path):
    last = bars["time"].max()
    alive = set(bars.filter(pl.col("time") == last)["symbol"]) - {"MKT"}
    assert tuple(table.columns) == COLUMNS
    assert set(table["symbol"]) <= alive
    assert len(table) > 20
    assert table["rank"].to_list() == list(range(1, len(table) + 1))
    assert table["probability"].is_sorted(descending=True)
    assert table["date"].unique().to_list() == [last.date()]
    write_signals(table, tmp_path / "signals.parquet")
    assert pl.read_parquet(tmp_path / "signals.parquet").equals(table)


def test_a_close_is_spoken_of_as_it_would_have_been_then(experiment, bars):
    clock = bars["time"].unique().sort()
    at = clock[550]
    whole = signals_at(experiment, SETTINGS, bars, at)
    then = signals_at(experiment, SETTINGS, bars.filter(pl.col("time") <= at))
    assert whole.equals(then)
    assert not whole.drop("date").equals(signals_at(experiment, SETTINGS, bars, clock[551]).drop("date"))


def test_folds_are_scored_as_trusted_libraries_do(experiment, bars):
    found = evaluate_signals(experiment, SETTINGS, bars)
    assert len(found["folds"]) == 4
    panel = build_dataset(experiment, bars, SETTINGS.split)
    train, valid, test = (panel.part(2, part) for part in ("train", "valid", "test"))
    score = fitted_on(experiment, train, valid).score(test.table, test.rows)[:, 1]
    expected = SETTINGS.regressor.fit(train, valid).predict(test.table, test.rows)
    fold = found["folds"][2]
    assert fold["auc"] == pytest.approx(roc_auc_score(test.y, score), abs=1e-12)
    assert fold["rmse"] == pytest.approx(np.sqrt(((test.ret - expected) ** 2).mean()))
    assert fold["rmse_base"] == pytest.approx(np.sqrt(((test.ret - np.mean(train.ret)) ** 2).mean()))
    aucs = [f["auc"] for f in found["folds"]]
    assert found["auc"] == pytest.approx(
        {"mean": np.mean(aucs), "sd": np.std(aucs, ddof=1), "low": min(aucs), "high": max(aucs)}
    )
    assert found["importance"]["by_source"]["fundamentals"] == 0.0
    assert sum(found["importance"]["by_source"].values()) == pytest.approx(1.0)


def test_a_source_that_tells_has_its_share_of_the_importance(experiment, bars):
    rng = np.random.default_rng(0)
    ahead = bars.with_columns(later=pl.col("close").shift(-5).over("symbol"))  # on purpose: it must be noticed
    known = (ahead["later"] / ahead["close"]).log().fill_null(0.0) + rng.normal(0, 0.01, len(bars))
    joined = bars.with_columns(pe=known, noise=rng.normal(size=len(bars)))
    columns = [*experiment.features.features, Known("pe"), Known("noise")]
    wide = replace(experiment, features=experiment.features.like(columns))
    share = evaluate_signals(wide, SETTINGS, joined)["importance"]["by_source"]
    assert share["fundamentals"] > 0.5
    assert share["noise"] < 0.2  # a source that nobody named stands under its own column


def test_a_close_without_members_is_refused(experiment, bars):
    last = bars["time"].max()
    alone = bars.filter((pl.col("time") < last) | (pl.col("symbol") == "MKT"))
    with pytest.raises(DataError, match=r"of 1 bars at .* none is a member's with a full window"):
        signals_at(experiment, SETTINGS, alone)


def test_the_configured_settings_are_twelve_purged_folds():
    made = build(compose("train", ["+experiment=panel"]))["signals"]
    assert isinstance(made.split, PurgedKFold)
    assert made.split.n_folds == 12
    assert made.split.embargo_bars == 21


def test_only_names_that_newly_reach_the_bar_are_new():
    before = pl.DataFrame({"symbol": ["a", "b", "c"], "probability": [0.7, 0.59, 0.2], "rank": [1, 2, 3]})
    now = pl.DataFrame({"symbol": ["d", "b", "a", "c"], "probability": [0.8, 0.6, 0.65, 0.3], "rank": [1, 3, 2, 4]})
    assert newly_above(0.6, before, now) == ["d", "b"]
    assert newly_above(0.6, None, now) == []
    assert newly_above(None, before, now) == []


def test_a_fold_of_one_class_is_left_out_of_the_mean_of_auc():
    assert signals._spread_of_folds([0.5, None, 0.7])["mean"] == pytest.approx(0.6)
    assert set(signals._spread_of_folds([None, None]).values()) == {None}
