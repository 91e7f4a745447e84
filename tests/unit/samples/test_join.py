import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.core.tables import FeatureTable, Labels
from tradsys.samples.join import make_samples
from tradsys.samples.weights import average_uniqueness


def make_table(sizes=(30, 20), warmup=4, segments=None):
    symbol = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    time = np.concatenate([np.arange(n) for n in sizes]) * np.timedelta64(1, "h") + np.datetime64("2020-01-01", "us")
    values = np.ones((len(symbol), 2), dtype=np.float32)
    for s in range(len(sizes)):
        values[np.flatnonzero(symbol == s)[:warmup], 1] = np.nan
    segment = symbol if segments is None else segments
    return FeatureTable(symbol, time, segment, values, ("ret_1", "vol_5"), tuple("AB"[: len(sizes)]))


def make_labels(table, horizon=3):
    rows = np.arange(len(table))
    last = np.array([np.flatnonzero(table.symbol == s).max() for s in table.symbol])
    end = np.where(rows + horizon <= last, rows + horizon, -1)
    y = np.where(end >= 0, rows % 2, -1)
    return Labels(y, end, np.where(end >= 0, 0.01, np.nan), np.ones(len(table)))


def test_rows_are_warmed_up_labelled_and_inside_one_symbol():
    table = make_table()
    samples = make_samples(table, make_labels(table), lookback=5)
    # 4 rows of warm-up, 5 of window; the last 3 rows of a symbol have no outcome
    np.testing.assert_array_equal(samples.rows, [*range(8, 27), *range(38, 47)])
    np.testing.assert_array_equal(samples.start, samples.rows - 4)
    np.testing.assert_array_equal(samples.end, samples.rows + 3)
    np.testing.assert_array_equal(samples.y, samples.rows % 2)
    assert (table.symbol[samples.start] == table.symbol[samples.end]).all()
    assert np.isfinite(samples.ret).all()


def test_events_choose_among_them():
    table = make_table()
    events = np.zeros(len(table), dtype=bool)
    events[[0, 10, 15, 29, 40]] = True
    assert make_samples(table, make_labels(table), lookback=5, events=events).rows.tolist() == [10, 15, 40]


def test_weights_are_label_weight_times_uniqueness_and_not_rescaled():
    table = make_table()
    labels = make_labels(table)
    labels.weight[:] = np.arange(len(table))
    samples = make_samples(table, labels, lookback=5)
    expected = samples.rows * average_uniqueness(samples.rows + 1, samples.end)
    np.testing.assert_allclose(samples.weight, expected)
    plain = make_samples(table, labels, lookback=5, weighting="none").weight
    np.testing.assert_allclose(plain, samples.rows)


def test_labels_of_different_symbols_do_not_share_bars():
    # the same moments in two symbols: each label is unique in its own
    table = make_table(sizes=(20, 20), warmup=0)
    events = np.zeros(40, dtype=bool)
    events[[5, 9, 25, 28]] = True
    weight = make_samples(table, make_labels(table), lookback=1, events=events).weight
    np.testing.assert_allclose(weight, 1.0)


def test_windows_do_not_cross_a_gap():
    table = make_table(sizes=(30,), warmup=0, segments=np.repeat(np.arange(2, dtype=np.int32), 15))
    rows = make_samples(table, make_labels(table), lookback=6).rows
    assert rows.tolist() == [*range(5, 15), *range(20, 27)]


def test_none_left_is_counted_by_cause():
    table = make_table(sizes=(40,), warmup=0, segments=np.repeat(np.arange(2, dtype=np.int32), 20))
    labels = make_labels(table)
    labels.end[:30] = -1
    with pytest.raises(
        DataError,
        match=r"none of 40 rows is left \(not warmed up 9, window spans a gap 9, unlabelled 15, no event 7\)",
    ):
        make_samples(table, labels, lookback=10, events=np.zeros(40, dtype=bool))


def test_short_history_names_the_feature_and_the_bars():
    table = make_table(sizes=(30, 20), warmup=12)
    with pytest.raises(
        DataError, match=r"lookback of 25 after 12 bars of warm-up of 'vol_5' needs 37 bars but A.* has 30"
    ):
        make_samples(table, make_labels(table), lookback=25)
    with pytest.raises(DataError, match="'vol_5' is never finite in the 30 bars of A"):
        make_samples(make_table(warmup=30), make_labels(table), lookback=2)
    with pytest.raises(DataError, match="lookback of 31 needs 31 bars but A"):
        make_samples(make_table(warmup=0), make_labels(table), lookback=31)


def test_history_broken_by_gaps_says_so():
    table = make_table(sizes=(30,), warmup=0, segments=np.repeat(np.arange(6, dtype=np.int32), 5))
    with pytest.raises(DataError, match="needs as many finite bars in a row but the longest run has 5"):
        make_samples(table, make_labels(table), lookback=8)


def test_one_class_only():
    table = make_table()
    labels = make_labels(table)
    labels.y[labels.y >= 0] = 1
    with pytest.raises(DataError, match="all 28 labels are class 1"):
        make_samples(table, labels, lookback=5)


def test_labels_that_do_not_fit_are_refused():
    table = make_table()
    labels = make_labels(table)
    with pytest.raises(DataError, match="20 labels for 50 table rows"):
        make_samples(table, make_labels(make_table((20,))), lookback=5)
    with pytest.raises(DataError, match="events are int64"):
        make_samples(table, labels, lookback=5, events=np.zeros(50, dtype=np.int64))
    labels.weight[:] = 0
    with pytest.raises(DataError, match="not all 0"):
        make_samples(table, labels, lookback=5)
    early = make_labels(table)
    early.end[10] = 10
    with pytest.raises(DataError, match="first row 10 with end 10"):
        make_samples(table, early, lookback=5)


@pytest.mark.parametrize("bad", [{"lookback": 0}, {"lookback": 5, "weighting": "unique"}])
def test_bad_settings(bad):
    table = make_table()
    with pytest.raises(ValueError, match="samples: lookback"):
        make_samples(table, make_labels(table), **bad)
