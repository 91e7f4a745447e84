"""Feature values between runs: read again when nothing changed, computed anew when anything did."""

import multiprocessing
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.features.feature_set import FeatureSet
from tradsys.features.price import LogReturn
from tradsys.features.volatility import Volatility
from tradsys.market.bars import mark_gaps
from tradsys.research.pipeline import dataset_cache
from tradsys.research.pipeline.dataset_cache import DatasetCache, FeatureStore


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return mark_gaps(walk_bars(300, ("AAA", "BBB")), None)


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "features", 1.0)


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
    assert small.load("a", values.shape) is not None
    small.save("c", values)
    assert sorted(path.stem for path in small.folder.iterdir()) == ["a", "c"]
    small.save("d", np.zeros((1000, 1000), dtype=np.float32))
    assert small.load("d", (1000, 1000)) is None
    assert FeatureStore.of({"cache": "x", "cache_gb": 0}) is None
    assert FeatureStore.of({}) is None


def test_a_folder_that_cannot_be_written_costs_a_warning(monkeypatch, tmp_path, bars, caplog):
    (tmp_path / "file").write_text("")
    n, _ = computed(monkeypatch, FeatureStore(tmp_path / "file", 1.0), bars, features())
    assert n == 1
    assert "paths.cache_gb=0" in caplog.text


def _save_often(store: FeatureStore) -> None:
    for k in range(30):
        store.save("same", np.full((200, 50), k, dtype=np.float32))


def test_two_processes_never_leave_a_torn_entry(store):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_save_often, args=(store,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        values = store.load("same", (200, 50))
        assert values is None or (values == values[0, 0]).all()
    assert store.load("same", (200, 50)) is not None
    assert [path.name for path in store.folder.iterdir()] == ["same.values"]


def test_a_feature_of_another_package_is_never_read_from_disk(monkeypatch, store, bars):
    monkeypatch.setattr(LogReturn, "__module__", "elsewhere.features")
    for _ in range(2):
        assert computed(monkeypatch, store, bars, features())[0] == 1
