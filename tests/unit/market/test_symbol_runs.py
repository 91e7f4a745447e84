"""Volumes and closes before by symbol: bars that lie together by symbol, and bars in order of time."""

import numpy as np
import polars as pl

from tradsys.market.tradable import close_before, symbol_runs, traded_volume

TIMES = [1, 2, 3]
BARS = pl.DataFrame(
    {
        "symbol": ["A"] * 3 + ["B"] * 3 + ["C"] * 3,
        "time": TIMES * 3,
        "close": [1.0, 2, 3, 4, None, 6, 7, 8, 9],
        "volume": [5.0, 0, None, 0, 0, 0, float("nan"), 1, 2],
    }
)
BEFORE = [np.nan, 1, 2, np.nan, 4, np.nan, np.nan, 7, 8]
VOLUME = [5, 0, np.inf, np.inf, np.inf, np.inf, np.inf, 1, 2]


def test_runs_of_symbols_begin_at_their_first_bars():
    assert symbol_runs(BARS).tolist() == [0, 3, 6]
    assert symbol_runs(BARS.drop("symbol")).tolist() == [0]
    assert symbol_runs(BARS.head(0)).tolist() == []
    assert symbol_runs(BARS.sort("time", "symbol")) is None


def test_bars_in_either_order_have_the_same_values():
    mixed = BARS.with_row_index("row").sort("time", "symbol")
    back = np.argsort(mixed["row"].to_numpy())
    for found, want in ((close_before, BEFORE), (traded_volume, VOLUME)):
        np.testing.assert_array_equal(found(BARS), want)
        np.testing.assert_array_equal(found(mixed)[back], want)


def test_recorded_volumes_are_read_in_place():
    bars = BARS.head(2)
    assert np.shares_memory(traded_volume(bars), bars["volume"].to_numpy())


def test_no_bars_have_no_volume():
    assert len(traded_volume(BARS.head(0))) == 0
    assert len(close_before(BARS.head(0))) == 0
