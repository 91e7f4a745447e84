import numpy as np
import pytest

from tradsys.core.tables import FeatureTable
from tradsys.research.diagnosis.compression import compressed_rows, compression_section

DRAWN = {"min_block": 1.0, "confidence": 0.95}


def table(values, names=("a", "b")):
    n = len(values)
    return FeatureTable(
        symbol=np.zeros(n, dtype=np.int32),
        time=np.datetime64("2021-01-01", "us") + np.arange(n) * np.timedelta64(1, "D"),
        segment=np.zeros(n, dtype=np.int32),
        values=np.asarray(values, dtype=np.float32),
        names=names,
        symbols=("S",),
    )


def test_compressed_is_the_lowest_share_of_each_column():
    values = np.column_stack([np.arange(100), np.arange(100)[::-1]])
    found = compressed_rows(table(values), np.arange(100), ("a", "b"), 0.2)
    assert found.low_NK.sum(axis=0).tolist() == [20, 20]
    assert np.flatnonzero(found.low_NK[:, 0]).tolist() == list(range(20))
    assert found.all_of_them.sum() == 0


def test_levels_come_from_the_rows_asked_alone():
    values = np.column_stack([np.arange(100.0), np.arange(100.0)])
    rows = np.arange(50)
    found = compressed_rows(table(values), rows, ("a",), 0.2)
    changed = values.copy()
    changed[50:] = -1e6  # what lies in the test span
    again = compressed_rows(table(changed), rows, ("a",), 0.2)
    assert np.array_equal(found.levels_K, again.levels_K)
    assert found.all_of_them.sum() == 10


def test_rows_that_lack_a_column_are_neither_compressed_nor_counted():
    values = np.column_stack([np.arange(100.0), np.arange(100.0)])
    values[:10, 1] = np.nan
    found = compressed_rows(table(values), np.arange(100), ("a", "b"), 0.2)
    assert not found.all_of_them[:10].any()
    section = compression_section(found, np.arange(100) % 9 == 0, np.arange(100), np.zeros(100), DRAWN)
    assert section["n"] == 90


def test_columns_that_are_absent_are_left_out():
    values = np.column_stack([np.arange(100.0), np.arange(100.0)])
    assert compressed_rows(table(values), np.arange(100), ("a", "nowhere"), 0.2).names == ("a",)
    assert compressed_rows(table(values), np.arange(100), ("nowhere",), 0.2) is None
    assert compression_section(None, np.zeros(3, dtype=bool), np.arange(3), np.zeros(3), DRAWN) is None


def test_rates_by_fifth_are_counts():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1000, 2)).astype(np.float32)
    event = rng.random(1000) < np.where(values[:, 0] < -0.8, 0.3, 0.05)
    found = compressed_rows(table(values), np.arange(1000), ("a", "b"), 0.2)
    section = compression_section(found, event, np.arange(1000), np.zeros(1000), DRAWN)
    order = np.argsort(values[:, 0])
    for k, fifth in enumerate(section["fifths"]["a"]):
        own = order[200 * k : 200 * (k + 1)]
        assert (fifth["fifth"], fifth["n"]) == (k + 1, 200)
        assert fifth["value"] == pytest.approx(event[own].mean())
    assert [row["name"] for row in section["lifts"]] == ["all of them", "a", "b"]
    assert section["lifts"][1]["lift"]["low"] > 1
    assert section["lifts"][2]["lift"]["low"] < 1 < section["lifts"][2]["lift"]["high"]
    assert section["lifts"][1]["rate"] == pytest.approx(event[values[:, 0] <= section["levels"]["a"]].mean())
