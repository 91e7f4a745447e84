import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tradsys.labels.realised_range import realised_range


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


def test_it_knows_nothing_after_the_end_and_needs_both_prices():
    bars = pl.DataFrame({"high": [2.0, 3, 4, 9], "low": [1.0, 2, 1, 0.1]})
    end = np.array([2, 2, -1, -1])
    changed = bars.with_columns(high=pl.Series([2.0, 3, 4, 99]), low=pl.Series([1.0, 2, 1, 0.01]))
    np.testing.assert_array_equal(realised_range(bars, end), realised_range(changed, end))
    np.testing.assert_allclose(realised_range(bars, end)[:2], np.log([4, 4]))
    assert realised_range(bars.select("high"), end) is None
