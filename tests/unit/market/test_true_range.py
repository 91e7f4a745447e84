import numpy as np
import polars as pl
import pytest
import talib

from tradsys.market.true_range import atr, price_matrix, segment_starts, wilder_atr


@pytest.mark.parametrize("atr_bars", [1, 2, 14, 50])
def test_atr_is_talib_symbol_by_symbol(make_walk_bars, atr_bars):
    bars = make_walk_bars(200, ("AAA", "BBB"))
    alone = [
        talib.ATR(*(part[name].to_numpy() for name in ("high", "low", "close")), timeperiod=atr_bars)
        for part in bars.partition_by("symbol")
    ]
    np.testing.assert_allclose(atr(bars, atr_bars), np.concatenate(alone), rtol=1e-12)


def test_segments_start_where_symbol_or_segment_changes(make_walk_bars):
    bars = make_walk_bars(3, ("AAA", "BBB"))
    assert np.flatnonzero(segment_starts(bars)).tolist() == [0, 3]
    cut = bars.with_columns(segment=pl.Series([0, 0, 1, 2, 2, 2], dtype=pl.UInt32))
    assert np.flatnonzero(segment_starts(cut)).tolist() == [0, 2, 3]
    assert segment_starts(bars.head(1)).tolist() == [True]
    assert segment_starts(bars.head(0)).tolist() == []


def test_atr_starts_anew_after_a_nan_and_a_segment(make_walk_bars):
    bars = make_walk_bars(60).with_columns(segment=pl.Series([0] * 30 + [1] * 30, dtype=pl.UInt32))
    high = bars["high"].to_numpy().copy()
    high[10] = np.nan
    got = atr(bars.with_columns(high=pl.Series(high)), 5)
    known = np.zeros(60, dtype=bool)
    known[5:10] = known[16:30] = known[35:60] = True
    np.testing.assert_array_equal(np.isfinite(got), known)
    np.testing.assert_array_equal(got[11:30], atr(bars[11:30], 5))


def test_null_prices_are_nan():
    bars = pl.DataFrame({"open": [1, None], "close": [1.5, 2.0]})
    np.testing.assert_array_equal(price_matrix(bars, ("close", "open")), [[1.5, 1.0], [2.0, np.nan]])


def test_refuses_no_period(make_walk_bars):
    with pytest.raises(ValueError, match="it must be at least 1"):
        wilder_atr(np.ones(3), np.ones(3), np.ones(3), np.array([True, False, False]), 0)
