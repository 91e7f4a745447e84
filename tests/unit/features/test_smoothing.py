import math

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tradsys.features.smoothing import window_mean

NUMBERS = st.one_of(
    st.sampled_from([None, math.nan, math.inf, -math.inf, 0.0, 1e-8, 0.1]), st.floats(-1e9, 1e9), st.floats(0, 1)
)


def means(values, bars):
    return (
        pl.DataFrame({"x": pl.Series(values, dtype=pl.Float64)}).select(window_mean(pl.col("x"), bars))["x"].to_numpy()
    )


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.integers(1, 12))
def test_a_mean_is_that_of_its_window_alone(values, bars):
    want = []
    for t in range(len(values)):
        window = values[max(t + 1 - bars, 0) : t + 1]
        known = len(window) == bars and all(v is not None and math.isfinite(v) for v in window)
        want.append(math.fsum(window) / bars if known else math.nan)
    np.testing.assert_allclose(means(values, bars), want, rtol=1e-14, atol=1e-22)


def test_nothing_of_a_large_symbol_is_left_in_a_small_one_after_it():
    rng = np.random.default_rng(0)
    levels = 10.0 ** rng.uniform(-9, 12, 60)
    symbols = [level * rng.lognormal(0, 1, 300) for level in levels]
    panel = np.concatenate([np.append(np.nan, values) for values in symbols])
    for bars in (2, 5, 200):
        got = means(panel, bars)
        alone = np.concatenate([np.append(np.nan, means(values, bars)) for values in symbols])
        np.testing.assert_array_equal(got, alone)
        # what the library's own does, and why it is not used
        theirs = pl.DataFrame({"x": panel}).select(pl.col("x").rolling_mean(bars)).to_series().to_numpy()
        worst = np.nanmax(np.abs(theirs / alone - 1))
        assert worst > 1e-6 or bars == 200


def test_a_spike_leaves_nothing_behind():
    x = np.full(50, 0.1)
    x[10] = 1e15
    got = means(x, 5)
    np.testing.assert_allclose(got[15:], 0.1, rtol=1e-15)
    np.testing.assert_allclose(got[4:10], 0.1, rtol=1e-15)
