"""Rows left out are counted by cause; a universe may leave symbols without a sample, a list of symbols may not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.research.panels_for_tests import bars_of, experiments_of
from tradsys.core.errors import DataError
from tradsys.market.universe import Members
from tradsys.research.pipeline.dataset import check_symbols, label_rows, labels_of, load_bars, prepare
from tradsys.samples.join import left_out
from tradsys.samples.splits import WalkForward


@pytest.fixture(scope="module")
def experiment():
    return experiments_of(5)["5d"]


@pytest.fixture(scope="module")
def bars(experiment):
    return bars_of(experiment)


def test_rows_left_out_and_samples_are_all_rows(experiment, bars):
    prepared = prepare(experiment, bars)
    mask = experiment.events.mask(bars)
    causes = left_out(prepared.table, labels_of(experiment, bars), experiment.lookback, mask)
    assert sum(causes.values()) + len(prepared.samples) == len(bars)
    assert causes["no event"] == (bars["symbol"] == "MKT").sum()
    ready = prepared.table.ready(experiment.lookback)
    labelled = prepared.resolved
    assert causes["unlabelled"] == int((ready & mask & ~labelled).sum())
    assert causes["not warmed up"] == int((~ready & mask).sum())


def test_a_symbol_too_young_is_a_warning_in_a_universe_and_an_error_without_one(experiment, bars, caplog):
    young = bars.filter((bars["symbol"] != "P0001") | (bars["time"] > bars["time"].unique().sort()[600]))
    prepared = prepare(experiment, young)
    assert "P0001 (" in caplog.text
    assert "gave no sample" in caplog.text
    mask = experiment.events.mask(young)
    with pytest.raises(DataError, match=r"P0001 .* gave no sample"):
        check_symbols(prepared.samples, None, mask)


def test_what_a_universe_excludes_is_neither_sample_nor_warning(experiment, bars, caplog):
    fewer = replace(experiment, events=Members(exclude=["MKT", "P0002"]))
    prepared = prepare(fewer, bars)
    assert "P0002" not in caplog.text.split("samples:", 1)[1]
    code = prepared.table.symbols.index("P0002")
    assert not (prepared.table.symbol[prepared.samples.rows] == code).any()


def test_labels_are_along_the_long_side(experiment, bars):
    labels = labels_of(experiment, bars)
    assert np.array_equal(labels.y[labels.end >= 0], (labels.ret[labels.end >= 0] > 0).astype(int))


def test_a_market_that_begins_late_is_named_where_the_split_has_too_little_time_and_before_it(bars, caplog):
    """883 bars of the others, of which the market leaves the last 250: the split alone would name neither."""
    experiment = experiments_of(5)["5d"]
    clock = bars["time"].unique().sort()
    late = bars.filter((bars["symbol"] != "MKT") | (bars["time"] >= clock[-250]))
    rows = label_rows(experiment, late)
    first, begins, last = (f"{moment:%Y-%m-%d}" for moment in (clock[0], clock[-250], clock[-1]))
    words = (
        rf"WalkForward needs .* but the decisions span \d+; .*the market symbol MKT has bars from {begins} to {last}, "
        rf"the others from {first} to {last}: {len(clock) - 250} of their {len(clock)} closes are cut"
    )
    with pytest.raises(DataError, match=words):
        rows.dataset(WalkForward(n_folds=3, valid_bars=60, test_bars=200))
    whole = label_rows(experiment, bars)
    with pytest.raises(DataError, match=r"use fewer or shorter parts: n_folds, valid_bars, test_bars$"):
        whole.dataset(WalkForward(n_folds=30, valid_bars=60, test_bars=200))
    source = SimpleNamespace(bars=lambda: late.drop("segment"), untraded=None, describe=dict)
    load_bars(replace(experiment, data={**experiment.data, "source": source}))
    assert f"data: the market symbol MKT has bars from {begins}" in caplog.text
