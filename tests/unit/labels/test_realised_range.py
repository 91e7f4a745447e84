import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tradsys.labels.realised_range import MEAN_BARS, mean_met, realised_range


@given(st.integers(0, 10_000), st.integers(2, 40))
def test_it_is_the_loop_over_the_bars_from_entry_to_the_labels_end(seed, n):
    rng = np.random.default_rng(seed)
    low = rng.uniform(1, 2, n)
    bars = pl.DataFrame({"high": low + rng.uniform(0, 1, n), "low": low})
    end = np.minimum(np.arange(n) + rng.integers(1, 20, n), n - 1)
    end[rng.random(n) < 0.3] = -1
    found = realised_range(bars, end)
    for row in range(n):
        run = bars[row + 1 : end[row] + 1]
        expected = np.log(run["high"].max() / run["low"].min()) if len(run) else np.nan
        np.testing.assert_allclose(found[row], expected, rtol=1e-12)


@given(st.integers(0, 10_000), st.integers(MEAN_BARS, 60))
def test_the_mean_is_met_where_a_bar_of_the_path_spans_it_or_two_lie_on_both_sides(seed, n):
    rng = np.random.default_rng(seed)
    close = np.exp(rng.normal(0, 0.05, n).cumsum())
    high, low = close * np.exp(rng.uniform(0, 0.05, n)), close * np.exp(-rng.uniform(0, 0.05, n))
    bars = pl.DataFrame({"symbol": "AAA", "segment": 0, "high": high, "low": low, "close": close})
    end = np.minimum(np.arange(n) + rng.integers(1, 8, n), n - 1)
    found = mean_met(bars, end)
    for row in range(n):
        mean = close[row - MEAN_BARS + 1 : row + 1].mean() if row >= MEAN_BARS - 1 else np.nan
        path = slice(row + 1, end[row] + 1)
        met = float(high[path].max() >= mean >= low[path].min()) if len(close[path]) else np.nan
        np.testing.assert_equal(found[row], np.nan if np.isnan(mean) else met)
    beyond = bars.with_columns(high=pl.col("high") * pl.when(pl.int_range(n) > end[n // 2]).then(9.0).otherwise(1.0))
    np.testing.assert_array_equal(found[n // 2], mean_met(beyond, end)[n // 2])
    assert mean_met(bars.select("symbol", "segment", "close"), end) is None


def test_it_knows_nothing_after_the_end_and_needs_both_prices():
    bars = pl.DataFrame({"high": [2.0, 3, 4, 9], "low": [1.0, 2, 1, 0.1]})
    end = np.array([2, 2, -1, -1])
    changed = bars.with_columns(high=pl.Series([2.0, 3, 4, 99]), low=pl.Series([1.0, 2, 1, 0.01]))
    np.testing.assert_array_equal(realised_range(bars, end), realised_range(changed, end))
    np.testing.assert_allclose(realised_range(bars, end)[:2], np.log([4, 4]))
    assert realised_range(bars.select("high"), end) is None
