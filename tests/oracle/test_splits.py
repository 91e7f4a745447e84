"""Purged folds against a double loop over pairs of spans; every splitter on panels with ragged times."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.core.errors import DataError, LeakageError
from tradsys.core.tables import FeatureTable, Fold, Samples
from tradsys.samples.splits import (
    CombinatorialPurged,
    Holdout,
    PurgedKFold,
    WalkForward,
    check_fold,
    purge,
    span_bars,
    time_groups,
)

HOUR = np.timedelta64(1, "h")
EPOCH = np.datetime64("2020-01-01T00:00:00", "us")


def slow_purge(train, blocks, start, end, *, embargo=0, gap=0):
    """blocks: lists of test positions, each purged by itself."""
    kept = []
    for i in train:
        bad = False
        for block in blocks:
            for j in block:
                if start[i] <= end[j] and start[j] <= end[i]:
                    bad = True
            last_end, first_start = max(end[j] for j in block), min(start[j] for j in block)
            bad |= last_end < start[i] <= last_end + embargo
            bad |= first_start - gap <= end[i] < first_start
        if not bad:
            kept.append(i)
    return np.array(kept, dtype=np.int64)


def blocks_of(group, chosen):
    """Runs of adjacent chosen groups, as lists of positions."""
    runs, last = [], None
    for g in chosen:
        if last is not None and g == last + 1:
            runs[-1].append(g)
        else:
            runs.append([g])
        last = g
    return [np.flatnonzero(np.isin(group, run)) for run in runs]


def panel(seed=0, *, n_symbols=3, n_bars=120, lookback=5, horizon=8, keep=0.8, event=0.7):
    """Symbols with missing bars, random label ends, and events at random rows."""
    rng = np.random.default_rng(seed)
    symbol, time = [], []
    for s in range(n_symbols):
        bars = np.flatnonzero(rng.random(n_bars) < keep)
        symbol.append(np.full(len(bars), s, dtype=np.int32))
        time.append(EPOCH + bars * HOUR)
    symbol, time = np.concatenate(symbol), np.concatenate(time)
    values = np.zeros((len(time), 1), dtype=np.float32)
    table = FeatureTable(symbol, time, symbol, values, ("x",), tuple(f"S{s}" for s in range(n_symbols)))
    last = np.array([np.flatnonzero(symbol == s).max() for s in symbol])
    rows = np.arange(len(time))
    end = rows + rng.integers(1, horizon + 1, len(rows))
    in_symbol = rows - np.array([np.flatnonzero(symbol == s).min() for s in symbol])
    rows = np.flatnonzero((in_symbol >= lookback - 1) & (end <= last) & (rng.random(len(rows)) < event))
    n = len(rows)
    ones = np.ones(n)
    return Samples(table, rows, np.arange(n) % 2, ones, rows - lookback + 1, end[rows], ones)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), min_size=2, max_size=40),
    st.integers(0, 6),
    st.integers(0, 6),
    st.randoms(use_true_random=False),
)
def test_purge_equals_the_double_loop_for_any_single_block(spans, embargo, gap, random):
    start = np.array([s for s, _ in spans])
    end = start + np.array([n for _, n in spans])
    anchor = random.randrange(61)
    test = np.flatnonzero((start <= anchor) & (end >= anchor))  # all hold one bar: a block without holes
    train = np.setdiff1d(np.arange(len(spans)), test)
    got = purge(train, test, start, end, embargo, gap_bars=gap)
    expected = slow_purge(train, [test] if len(test) else [], start, end, embargo=embargo, gap=gap)
    np.testing.assert_array_equal(got, expected)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9), st.booleans()), min_size=1, max_size=40))
def test_without_embargo_purge_is_pairwise_for_any_test_set(spans):
    start = np.array([s for s, _, _ in spans])
    end = start + np.array([n for _, n, _ in spans])
    is_test = np.array([t for _, _, t in spans])
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    np.testing.assert_array_equal(purge(train, test, start, end), slow_purge(train, [[j] for j in test], start, end))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12))
def test_kfold_on_a_ragged_panel_equals_the_double_loop(seed, embargo):
    samples = panel(seed)
    start, _, end = span_bars(samples)
    group = time_groups(samples, 4)
    for k, fold in enumerate(PurgedKFold(4, embargo).split(samples)):
        test = np.flatnonzero(group == k)
        np.testing.assert_array_equal(fold.test, test)
        rest = np.flatnonzero(group != k)
        np.testing.assert_array_equal(fold.train, slow_purge(rest, [test], start, end, embargo=embargo))
        check_fold(samples, fold, embargo)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 6))
def test_combinatorial_purges_each_run_of_groups_by_itself(seed, embargo):
    samples = panel(seed, n_bars=200)
    start, _, end = span_bars(samples)
    splitter = CombinatorialPurged(n_groups=5, n_test_groups=2, embargo_bars=embargo)
    group = splitter.groups(samples)
    for chosen, fold in zip(splitter.test_groups, splitter.split(samples), strict=True):
        blocks = blocks_of(group, chosen)
        rest = np.flatnonzero(~np.isin(group, chosen))
        np.testing.assert_array_equal(fold.test, np.flatnonzero(np.isin(group, chosen)))
        np.testing.assert_array_equal(fold.train, slow_purge(rest, blocks, start, end, embargo=embargo))
        check_fold(samples, fold, embargo)


def test_training_between_two_test_groups_survives():
    samples = panel(n_bars=400)
    fold = next(f for f, c in zip(_cpcv().split(samples), _cpcv().test_groups, strict=True) if tuple(c) == (0, 2))
    assert np.isin(1, time_groups(samples, 6)[fold.train]), "group 1 lies between the test groups 0 and 2"


def _cpcv():
    return CombinatorialPurged(6, 2)


@pytest.mark.parametrize(("n", "k"), [(6, 2), (5, 3), (4, 1)])
def test_paths_use_every_tested_group_once(n, k):
    splitter = CombinatorialPurged(n, k)
    paths = splitter.paths()
    assert paths.shape == (comb(n - 1, k - 1), n)
    assert len(splitter.test_groups) == comb(n, k)
    used = {(int(fold), g) for path in paths for g, fold in enumerate(path)}
    assert used == {(fold, int(g)) for fold, chosen in enumerate(splitter.test_groups) for g in chosen}
    assert len(used) == paths.size


def test_paths_of_six_groups_as_in_the_book():
    # Lopez de Prado 2018, figure 12.1: 15 splits of 6 groups, 2 tested, make 5 paths; path 1 begins with S1
    paths = CombinatorialPurged(6, 2).paths()
    np.testing.assert_array_equal(paths[0], [0, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(paths[1], [1, 5, 5, 6, 7, 8])
    np.testing.assert_array_equal(paths[:, 0], [0, 1, 2, 3, 4])


def test_touching_at_one_bar_counts_and_one_bar_apart_does_not():
    start, end = np.array([0, 5, 9, 10, 16, 17]), np.array([4, 9, 12, 15, 20, 20])
    test = np.array([3])  # 10..15
    np.testing.assert_array_equal(purge(np.array([0, 1, 2, 4, 5]), test, start, end), [0, 1, 4, 5])
    np.testing.assert_array_equal(purge(np.array([0, 1, 2, 4, 5]), test, start, end, 1), [0, 1, 5])
    np.testing.assert_array_equal(purge(np.array([0, 1, 2, 4, 5]), test, start, end, 2), [0, 1])
    np.testing.assert_array_equal(purge(np.array([0, 1, 2, 4, 5]), test, start, end, gap_bars=1), [0, 4, 5])
    assert len(purge(np.array([2]), np.array([1]), start, end)) == 0  # 9 is in both 5..9 and 9..12


def test_embargo_counts_from_the_blocks_last_label_end_not_from_its_last_sample():
    start, end = np.array([10, 11, 31, 34]), np.array([30, 12, 40, 40])  # the first test sample ends last
    np.testing.assert_array_equal(purge(np.array([2, 3]), np.array([0, 1]), start, end, 3), [3])


def _all_splitters():
    return [
        PurgedKFold(4, 2),
        PurgedKFold(4, 2, valid_fraction=0.2),
        CombinatorialPurged(5, 2, 2),
        WalkForward(3, embargo_bars=2),
        WalkForward(3, train_bars=150, valid_bars=60, test_bars=50),
        Holdout(),
        Holdout("2020-01-10", "2020-01-13T12:00:00+02:00", "2020-01-16"),
    ]


@pytest.mark.parametrize("splitter", _all_splitters(), ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_no_splitter_leaks_on_a_panel(splitter, seed):
    samples = panel(seed, n_bars=400)
    start, decision, end = span_bars(samples)
    folds = list(splitter.split(samples))
    assert folds
    for fold in folds:
        check_fold(samples, fold, splitter.embargo_bars)
        parts = [p for p in (fold.train, fold.valid, fold.test) if len(p)]
        for a, early in enumerate(parts):
            for late in parts[a + 1 :]:
                touch = (start[early][:, None] <= end[late]) & (start[late] <= end[early][:, None])
                assert not touch.any()
        if len(fold.valid):
            assert decision[fold.train].max() < decision[fold.valid].min()
        # all symbols are cut at the same moments: no moment is in two parts
        moments = [set(samples.time[p].tolist()) for p in parts]
        assert sum(map(len, moments)) == len(set().union(*moments))


@pytest.mark.parametrize("seed", range(3))
def test_check_fold_catches_a_purge_of_label_ends_only(seed):
    samples = panel(seed, lookback=12, horizon=2, event=1.0)
    start, decision, end = span_bars(samples)
    group = time_groups(samples, 4)
    test, rest = np.flatnonzero(group == 1), np.flatnonzero(group != 1)
    # forgets that the windows of the rows after the test read its bars
    ends_only = rest[~((decision[rest] < decision[test].min()) & (end[rest] >= start[test].min()))]
    with pytest.raises(LeakageError, match="training spans touch a test span"):
        check_fold(samples, Fold(ends_only, np.empty(0, dtype=int), test))


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4), st.booleans()), min_size=2, max_size=8),
    st.integers(0, 4),
)
def test_check_fold_raises_if_and_only_if_a_pair_is_too_close(spans, embargo):
    start = np.array([s for s, _, _ in spans])
    end = start + np.array([n for _, n, _ in spans])
    is_test = np.array([t for _, _, t in spans])
    zero = np.zeros(50, dtype=np.int32)
    table = FeatureTable(zero, EPOCH + np.arange(50) * HOUR, zero, np.zeros((50, 1), np.float32), ("x",), ("A",))
    samples = Samples(table, start, is_test.astype(int), np.ones(len(start)), start, end, np.ones(len(start)))
    fold = Fold(np.flatnonzero(~is_test), np.empty(0, dtype=int), np.flatnonzero(is_test))
    pairs = [(i, j) for i in fold.train for j in fold.test]
    bad = any(start[i] <= end[j] and start[j] <= end[i] for i, j in pairs)
    bad |= any(end[j] < start[i] <= end[j] + embargo for i, j in pairs)
    if bad:
        with pytest.raises(LeakageError):
            check_fold(samples, fold, embargo)
    else:
        check_fold(samples, fold, embargo)


def test_check_fold_names_labels_that_resolve_in_the_test_span():
    samples = panel(0, n_symbols=1, lookback=1, horizon=10)
    half = len(samples) // 2
    fold = Fold(np.arange(half), np.empty(0, dtype=int), np.arange(half, len(samples)))
    with pytest.raises(LeakageError, match=r"training labels resolve on or after test start 2020-01-0\d; purge them"):
        check_fold(samples, fold)


def test_check_fold_catches_a_broken_embargo():
    samples = panel(0, n_bars=300)
    fold = list(PurgedKFold(4, 0).split(samples))[1]
    check_fold(samples, fold, 0)
    with pytest.raises(LeakageError, match="start within 30 bars after a test label ends"):
        check_fold(samples, fold, 30)


def test_check_fold_wants_validation_after_training():
    samples = panel(0, n_bars=400)
    fold = next(Holdout().split(samples))
    with pytest.raises(LeakageError, match="before training ends"):
        check_fold(samples, Fold(train=fold.valid, valid=fold.train, test=fold.test))


def test_walk_forward_lays_its_parts_out_on_the_common_clock():
    samples = panel(0, n_bars=400, keep=1.0, event=1.0)
    decision = span_bars(samples)[1]
    stop = decision.max() + 1
    rolling = list(WalkForward(3, train_bars=100, valid_bars=40, test_bars=50).split(samples))
    expanding = list(WalkForward(3, valid_bars=40, test_bars=50).split(samples))
    for k, (fold, grown) in enumerate(zip(rolling, expanding, strict=True)):
        test_from = stop - (3 - k) * 50
        assert (decision[fold.test].min(), decision[fold.test].max()) == (test_from, test_from + 49)
        assert decision[fold.valid].min() == test_from - 40
        assert decision[fold.train].min() == test_from - 140
        assert decision[grown.train].min() == decision.min()
        np.testing.assert_array_equal(fold.test, grown.test)
    assert len(np.unique(np.concatenate([f.test for f in rolling]))) == sum(len(f.test) for f in rolling)


def test_embargo_leaves_bars_free_between_parts_in_order():
    samples = panel(1, n_bars=400, event=1.0)
    start, _, end = span_bars(samples)
    for splitter in (WalkForward(2, embargo_bars=20), Holdout(embargo_bars=20)):
        for fold in splitter.split(samples):
            assert start[fold.valid].min() - end[fold.train].max() > 20
            assert start[fold.test].min() - end[fold.valid].max() > 20


def test_holdout_dates_are_inclusive_closes_and_utc():
    samples = panel(0, n_symbols=2, n_bars=500, keep=1.0, event=1.0, lookback=1, horizon=1)
    fold = next(Holdout("2020-01-08", "2020-01-12", "2020-01-16").split(samples))
    assert samples.time[fold.valid].min() == np.datetime64("2020-01-08T01:00")
    assert samples.time[fold.test].min() == np.datetime64("2020-01-12T01:00")
    assert samples.time[fold.test].max() == np.datetime64("2020-01-16T00:00")
    zoned = next(Holdout("2020-01-08T02:00:00+02:00", "2020-01-12", "2020-01-16").split(samples))
    np.testing.assert_array_equal(zoned.train, fold.train)


def test_holdout_fractions_share_the_clock_not_the_samples():
    samples = panel(0, n_bars=500, event=1.0)
    late = samples.take(samples.time >= EPOCH + 0 * HOUR)
    decision = span_bars(late)[1]
    fold = next(Holdout(train_fraction=0.5, valid_fraction=0.25).split(late))
    n = decision.max() - decision.min() + 1
    assert decision[fold.valid].min() == decision.min() + round(0.5 * n)
    assert abs(int(decision[fold.test].min()) - int(decision.min()) - round(0.5 * n) - round(0.25 * n)) <= 1


def test_a_part_emptied_by_the_purge_is_an_error_with_numbers():
    samples = panel(0, n_bars=60, lookback=30, horizon=20, n_symbols=1, keep=1.0)
    with pytest.raises(DataError, match=r"PurgedKFold fold \d has no training samples.*longest span is \d+ bars"):
        list(PurgedKFold(5).split(samples))


def test_too_few_bars_are_an_error_with_numbers():
    samples = panel(0, n_bars=100)
    with pytest.raises(
        DataError, match=r"500 training \+ 10 validation \+ 2 x 10 test = 530 bars but the decisions span"
    ):
        list(WalkForward(2, train_bars=500, valid_bars=10, test_bars=10).split(samples))
    with pytest.raises(DataError, match="distinct times for 500 groups"):
        list(PurgedKFold(500).split(samples))
    with pytest.raises(DataError, match="no test samples"):
        list(Holdout("2020-01-02", "2021-01-01").split(samples))


@pytest.mark.parametrize(
    "build",
    [
        lambda: PurgedKFold(1),
        lambda: PurgedKFold(5, -1),
        lambda: CombinatorialPurged(4, 4),
        lambda: WalkForward(0),
        lambda: WalkForward(2, valid_bars=10),
        lambda: WalkForward(2, train_bars=0),
        lambda: Holdout(train_until="2020-01-01"),
        lambda: Holdout("2020-02-01", "2020-01-01"),
        lambda: Holdout(train_fraction=0.8, valid_fraction=0.2),
    ],
)
def test_impossible_settings_are_refused_when_built(build):
    with pytest.raises(ValueError, match="split:"):
        build()
