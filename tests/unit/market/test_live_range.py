"""What a live step computes bar by bar has the bits of the whole: ATR, trailing mean, and the check of one bar."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.core.errors import DataError
from tradsys.market.bars import SCHEMA, check_bars, sound_rows
from tradsys.market.true_range import LiveAtr, LiveMean, atr, segment_starts, trailing_mean


@pytest.fixture(scope="module")
def bars():
    """Two symbols whose segments end at different times, one of them with a bar of unknown prices."""
    rng = np.random.default_rng(0)
    low = 100 + rng.normal(0, 1, 120).cumsum()
    frame = pl.DataFrame({"high": low + rng.exponential(1, 120), "low": low, "close": low + 0.2})
    frame = frame.with_columns(high=pl.when(pl.int_range(120) == 90).then(None).otherwise("high"))
    symbol = ["A"] * 60 + ["B"] * 60
    return frame.with_columns(symbol=pl.Series(symbol), segment=pl.Series([0] * 25 + [1] * 35 + [2] * 60))


def test_atr_and_mean_bar_by_bar_have_the_bits_of_the_whole(bars):
    live_atr, live_mean, starts = LiveAtr(7), LiveMean(5), segment_starts(bars)
    hlc = bars.select("high", "low", "close").to_numpy()
    got_atr, got_mean = np.full(120, np.nan), np.full(120, np.nan)
    for k in range(60):
        rows = np.array([k, 60 + k])
        got_atr[rows] = live_atr.push(np.array([0, 1]), hlc[rows], starts[rows])
        got_mean[rows] = live_mean.push(np.array([0, 1]), hlc[rows, 2], starts[rows])
    np.testing.assert_array_equal(got_atr, atr(bars, 7))
    np.testing.assert_array_equal(got_mean, trailing_mean(bars, 5))


numbers = st.sampled_from([1.0, 1.5, 2.0, 0.0, -1.0, float("nan"), float("inf")])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(*[numbers] * 5), min_size=1, max_size=3))
def test_the_quick_check_of_a_moment_is_that_of_frames(rows):
    moment = pl.Series(["2024-01-01"] * len(rows)).str.to_datetime(time_unit="us", time_zone="UTC")
    values = dict(zip(list(SCHEMA)[2:], map(list, zip(*rows, strict=True)), strict=True))
    frame = pl.DataFrame({"symbol": [f"S{k}" for k in range(len(rows))], "time": moment, **values})
    try:
        check_bars(frame)
        passes = True
    except DataError:
        passes = False
    assert sound_rows(frame.select(list(SCHEMA)[2:]).to_numpy()) == passes
