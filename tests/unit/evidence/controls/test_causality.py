from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.core.errors import DataError
from tradsys.core.tables import FeatureTable
from tradsys.evidence.classification import auc
from tradsys.evidence.controls.causality import (
    WAYS,
    changed_bars,
    changed_table,
    covered,
    first_difference,
    frame_difference,
    lifted_bars,
    null_auc_error,
    touching,
)
from tradsys.market.true_range import atr

NUMBERS = ["open", "high", "low", "close", "volume"]


@pytest.fixture
def bars(make_walk_bars):
    return make_walk_bars(60, ("AAA", "BBB"))


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    time = np.tile(np.datetime64("2020-01-01", "us") + np.arange(20) * np.timedelta64(1, "h"), 2)
    code = np.repeat([0, 1], 20).astype(np.int32)
    values = rng.normal(size=(40, 3)).astype(np.float32)
    return FeatureTable(code, time, code, values, ("a", "b", "c"), ("AAA", "BBB"))


def test_the_past_stays_and_the_future_does_not(bars):
    t = bars["time"].unique().sort()[40]
    for how in WAYS:
        changed = changed_bars(bars, t, how, np.random.default_rng(0))
        assert changed.filter(pl.col("time") <= t).equals(bars.filter(pl.col("time") <= t)), how
        assert not changed.filter(pl.col("time") > t).equals(bars.filter(pl.col("time") > t)), how
    assert changed_bars(bars, t, "cut", np.random.default_rng(0))["time"].max() == t


def test_each_way_does_what_it_says(bars):
    t = bars["time"].unique().sort()[40]
    rng = np.random.default_rng(0)
    later, keys = pl.col("time") > t, ["symbol", "time"]
    truth = bars.filter(later)
    scaled = changed_bars(bars, t, "scale", rng).filter(later)
    np.testing.assert_allclose(scaled.select(NUMBERS).to_numpy(), 1.7 * truth.select(NUMBERS).to_numpy())
    poisoned = changed_bars(bars, t, "nan", rng).filter(later)
    assert np.isnan(poisoned.select(NUMBERS).to_numpy()).all()
    dealt = changed_bars(bars, t, "shuffle", rng).filter(later)
    assert dealt.select(keys).equals(truth.select(keys))
    assert dealt.select(NUMBERS).sort("open").equals(truth.select(NUMBERS).sort("open"))  # whole bars, none lost


def test_joined_columns_have_a_future_too(bars):
    t = bars["time"].unique().sort()[40]
    joined = bars.with_columns(pe=pl.col("close") * 2, segment=pl.col("symbol").rank("dense"))
    for how in ("scale", "nan", "shuffle"):
        changed = changed_bars(joined, t, how, np.random.default_rng(0))
        same = (changed["pe"] == joined["pe"]).to_numpy()
        np.testing.assert_array_equal(same, (joined["time"] <= t).to_numpy() if how != "shuffle" else same)
        assert not same[(joined["time"] > t).to_numpy()].all(), how
        assert changed["segment"].equals(joined["segment"])
    dealt = changed_bars(joined, t, "shuffle", np.random.default_rng(0))
    np.testing.assert_array_equal(dealt["pe"].to_numpy(), dealt["close"].to_numpy() * 2)  # dealt with its own bar


def test_unknown_ways_are_refused(bars, table):
    t = datetime(2020, 1, 2, tzinfo=UTC)
    with pytest.raises(DataError, match="unknown way 'melt'"):
        changed_bars(bars, t, "melt", np.random.default_rng(0))
    with pytest.raises(DataError, match="unknown way 'melt'"):
        changed_table(table, np.datetime64("2020-01-01T05", "us"), "melt", np.random.default_rng(0))


@pytest.mark.parametrize("how", WAYS)
def test_table_rows_find_their_new_place(table, how):
    t = np.datetime64("2020-01-01T12", "us")
    changed, place = changed_table(table, t, how, np.random.default_rng(0))
    past = table.time <= t
    np.testing.assert_array_equal(changed.values[place[past]], table.values[past])
    np.testing.assert_array_equal(changed.time[place[past]], table.time[past])
    np.testing.assert_array_equal(changed.symbol[place[past]], table.symbol[past])
    if how == "cut":
        assert len(changed) == past.sum()
        assert (place[~past] == -1).all()
    else:
        np.testing.assert_array_equal(place, np.arange(len(table)))
        assert not np.array_equal(changed.values[~past], table.values[~past], equal_nan=True)


def test_rows_of_keeps_every_column_together(table):
    rows = np.array([3, 25, 7])
    part = table.take(rows)
    for name in ("symbol", "time", "segment", "values"):
        np.testing.assert_array_equal(getattr(part, name), getattr(table, name)[rows])


def test_a_lift_leaves_the_atr_of_its_bar_and_no_later_one(bars):
    t = bars["time"].unique().sort()[40]
    lifted = lifted_bars(bars, t, 50.0)
    at = (bars["time"] <= t).to_numpy()
    np.testing.assert_allclose(atr(lifted, 14)[at], atr(bars, 14)[at], rtol=1e-9)
    after = (bars["time"] == bars["time"].unique().sort()[41]).to_numpy()
    assert (atr(lifted, 14)[after] > 1.5 * atr(bars, 14)[after]).all()


def test_the_first_column_and_row_are_named():
    before = {"a": np.array([1.0, 2.0, np.nan]), "b": np.array([1.0, 2.0, 3.0])}
    assert first_difference(before, {n: v.copy() for n, v in before.items()}) is None
    after = {"a": before["a"], "b": np.array([1.0, 2.5, 9.0])}
    found = first_difference(before, after)
    assert (found.column, found.row, found.size) == ("b", 1, 0.5)


def test_tolerance_is_relative_above_one_and_absolute_below():
    def differs(a, b):
        return first_difference({"x": np.array([a])}, {"x": np.array([b])}, 1e-6) is not None

    assert not differs(1000.0, 1000.0009)
    assert differs(1000.0, 1000.002)
    assert not differs(np.nan, np.nan)
    assert not differs(np.inf, np.inf)
    assert not differs(0.0, 0.9e-6)
    assert differs(0.0, 1.1e-6)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, 2.0])),
        (np.array(["up", "down"]), np.array(["up", "up"])),
        (np.array([1.0, 2.0]), np.array([1.0])),
        (np.array([1.0, np.inf]), np.array([1.0, -np.inf])),
    ],
    ids=["NaN", "words", "length", "infinities"],
)
def test_what_is_no_number_differs_without_measure(a, b):
    found = first_difference({"x": a}, {"x": b}, 1e-6)
    assert (found.row, found.size) == (1, np.inf)


def test_a_column_that_only_one_side_has_differs():
    one = {"a": np.zeros(2)}
    assert first_difference(one, {}).column == "a"
    assert first_difference({}, one).column == "a"


def test_frames_are_matched_by_key_not_by_order():
    frame = pl.DataFrame({"symbol": ["A", "A", "B"], "row": [1, 2, 1], "x": [0.1, 0.2, 0.3]})
    assert frame_difference(frame, frame.reverse(), ["symbol", "row"]) is None
    changed = frame.with_columns(x=pl.Series([0.1, 0.2, 0.4]))
    found, where = frame_difference(frame, changed, ["symbol", "row"])
    assert (found.column, where) == ("x", "B 1")
    assert found.size == pytest.approx(0.1)


def test_a_row_that_only_one_side_has_is_a_difference():
    frame = pl.DataFrame({"symbol": ["A", "A", "B"], "row": [1, 2, 1], "x": [0.1, 0.2, 0.3]})
    for pair in ((frame, frame[:2]), (frame[:2], frame)):
        found, where = frame_difference(*pair, ["symbol", "row"])
        assert (found.column, where, found.size) == ("row", "B 1", np.inf)


spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), min_size=1, max_size=8)


@given(spans, spans, st.integers(0, 4), st.integers(0, 4))
def test_touching_agrees_with_sets_of_bars(ours, theirs, before, after):
    (start, length), (other, other_length) = (np.array(s).T for s in (ours, theirs))
    taken = covered(other, other + other_length, 60)
    bars_taken = {b for s, n in theirs for b in range(s, s + n + 1)}
    assert set(np.flatnonzero(taken)) == bars_taken
    expected = [bool(bars_taken & set(range(s - before, s + n + after + 1))) for s, n in ours]
    assert touching(start, start + length, taken, before, after).tolist() == expected


def test_null_error_is_the_spread_of_aucs_that_know_nothing():
    rng = np.random.default_rng(0)
    y = (rng.random(300) < 0.3).astype(np.int64)
    draws = []
    for _ in range(400):
        up = rng.random(300)
        draws.append(auc(np.stack([1 - up, up], axis=1), y))
    assert null_auc_error(y) == pytest.approx(np.std(draws), rel=0.1)
    assert np.isnan(null_auc_error(np.zeros(5)))
