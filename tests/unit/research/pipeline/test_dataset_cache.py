"""Feature values and labels between runs: read again when nothing changed, computed anew when anything did."""

import multiprocessing
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.features.feature_set import FeatureSet
from tradsys.features.price import LogReturn
from tradsys.features.volatility import Volatility
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.market.bars import mark_gaps
from tradsys.research.pipeline import dataset_cache
from tradsys.research.pipeline.dataset_cache import DatasetCache, ValueStore


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return mark_gaps(walk_bars(300, ("AAA", "BBB")), None)


@pytest.fixture
def store(tmp_path) -> ValueStore:
    return ValueStore(tmp_path / "features", 1.0)


def features(window: int = 12) -> FeatureSet:
    return FeatureSet([LogReturn(1), Volatility(window)], max_gap_minutes=None)


def computed(monkeypatch, store, bars, wanted) -> tuple[int, np.ndarray]:
    """How often the values were computed, and the table's values."""
    calls = []
    plain = FeatureSet._values

    def counted(self, marked):
        calls.append(1)
        return plain(self, marked)

    monkeypatch.setattr(FeatureSet, "_values", counted)
    values = DatasetCache(bars, store).table(wanted).values
    monkeypatch.setattr(FeatureSet, "_values", plain)
    return len(calls), values


def test_only_the_same_code_features_and_bars_are_read_again(monkeypatch, store, bars):
    n, first = computed(monkeypatch, store, bars, features())
    assert n == 1
    n, again = computed(monkeypatch, store, bars, features())
    assert n == 0
    np.testing.assert_array_equal(again, first)
    later = pl.when(pl.int_range(pl.len()) == 250).then(pl.col("close") * 1.0001).otherwise(pl.col("close"))
    changed = {
        "a parameter": (bars, features(13)),
        "one bar": (bars.with_columns(close=later, high=pl.max_horizontal("high", later)), features()),
        "a segment": (mark_gaps(bars.filter(pl.int_range(pl.len()) != 100), None), features()),
        "fewer bars": (bars.head(500), features()),
        "a gap": (bars, FeatureSet(features().features, max_gap_minutes=61)),
    }
    for what, (other, wanted) in changed.items():
        n, values = computed(monkeypatch, store, other, wanted)
        assert n == 1, what
        np.testing.assert_array_equal(values, wanted.table(other).values, err_msg=what)
    monkeypatch.setattr(dataset_cache, "code_digest", lambda: "other code")
    assert computed(monkeypatch, store, bars, features())[0] == 1


@pytest.mark.parametrize("damage", ["one byte", "half", "empty", "pickle"])
def test_a_damaged_entry_is_computed_anew_and_replaced(monkeypatch, store, bars, damage):
    _, first = computed(monkeypatch, store, bars, features())
    (entry,) = store.folder.iterdir()
    content = bytearray(entry.read_bytes())
    if damage == "one byte":
        content[-5] ^= 1
    elif damage == "half":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    else:
        with entry.open("wb") as file:
            file.write(bytes(32))
            np.save(file, np.array([{}], dtype=object), allow_pickle=True)
        content = bytearray(entry.read_bytes())
    entry.write_bytes(content)
    for expected in (1, 0):
        n, values = computed(monkeypatch, store, bars, features())
        assert n == expected
        np.testing.assert_array_equal(values, first)


def test_the_least_recently_used_go_first_and_a_table_beyond_the_limit_is_not_kept(store):
    small = replace(store, max_gb=0.0025)
    values = np.zeros((1000, 250), dtype=np.float32)  # one megabyte
    small.save("a", values)
    small.save("b", values)
    assert small.load("a", 1) is not None
    small.save("c", values)
    assert sorted(path.stem for path in small.folder.iterdir()) == ["a", "c"]
    small.save("d", np.zeros((1000, 1000), dtype=np.float32))
    assert small.load("d", 1) is None
    assert ValueStore.of({"cache": "x", "cache_gb": 0}) is None
    assert ValueStore.of({}) is None


def test_a_folder_that_cannot_be_written_costs_a_warning(monkeypatch, tmp_path, bars, caplog):
    (tmp_path / "file").write_text("")
    n, _ = computed(monkeypatch, ValueStore(tmp_path / "file", 1.0), bars, features())
    assert n == 1
    assert "paths.cache_gb=0" in caplog.text


def _save_often(store: ValueStore) -> None:
    for k in range(30):
        store.save("same", np.full((200, 50), k, dtype=np.float32))


def test_two_processes_never_leave_a_torn_entry(store):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_save_often, args=(store,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        values = store.load("same", 1)
        assert values is None or (values[0] == values[0][0, 0]).all()
    assert store.load("same", 1) is not None
    assert [path.name for path in store.folder.iterdir()] == ["same.values"]


def test_a_feature_of_another_package_is_never_read_from_disk(monkeypatch, store, bars):
    monkeypatch.setattr(LogReturn, "__module__", "elsewhere.features")
    for _ in range(2):
        assert computed(monkeypatch, store, bars, features())[0] == 1


@pytest.mark.parametrize("stored", [True, False])
def test_labels_are_read_again_only_for_the_same_rule_side_settings_and_bars(store, bars, stored):
    kept = store if stored else None

    def ask(bars, label, side=None, borrow=0.0):
        calls = []

        def compute():
            calls.append(1)
            return label.label(bars, side)

        cache = DatasetCache(bars, kept)
        found = cache.labels(label, {"borrow": borrow}, side, compute)
        cache.keep()
        return found, calls

    label = TripleBarrier(upper=1.0, lower=1.0, horizon_bars=6, atr_bars=14)
    longs = np.ones(len(bars), dtype=np.int8)
    asked = {
        "first": (bars, label, None, 0.0),
        "another rule": (bars, replace(label, horizon_bars=7), None, 0.0),
        "another side": (bars, label, -longs, 0.0),
        "another fee": (bars, label, None, 0.01),
        "other bars": (bars.head(400), label, None, 0.0),
    }
    for what, (rows, rule, side, borrow) in asked.items():
        found, calls = ask(rows, rule, side, borrow)
        assert calls == [1], what
        again, calls = ask(rows, rule, side, borrow)
        assert calls == ([] if stored else [1]), what
        for name in ("y", "end", "ret", "weight", "step", "left", "realised_range"):
            one, other = getattr(found, name), getattr(again, name)
            assert (one is None) == (other is None), (what, name)
            if one is not None:
                assert one.dtype == other.dtype, (what, name)
                np.testing.assert_array_equal(one, other, err_msg=f"{what}: {name}")


def test_a_damaged_entry_of_labels_is_computed_anew(store, bars):
    label = TripleBarrier(upper=1.0, lower=1.0, horizon_bars=6, atr_bars=14)
    cache = DatasetCache(bars, store)
    found = cache.labels(label, {}, None, lambda: label.label(bars, None))
    assert not store.folder.exists(), "nothing is kept before a dataset is made of it"
    cache.keep()
    (entry,) = store.folder.iterdir()
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)
    again = DatasetCache(bars, store).labels(label, {}, None, lambda: label.label(bars, None))
    np.testing.assert_array_equal(found.ret, again.ret)


def test_a_label_of_another_package_is_computed_each_time(store, bars):
    calls = []

    class Foreign(TripleBarrier):
        pass

    Foreign.__module__ = "somebody.labels"
    label = Foreign(upper=1.0, lower=1.0, horizon_bars=6, atr_bars=14)
    for _ in range(2):
        DatasetCache(bars, store).labels(label, {}, None, lambda: calls.append(1) or label.label(bars, None))
    assert len(calls) == 2
