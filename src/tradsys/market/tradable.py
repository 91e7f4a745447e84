"""Which printed prices could be traded: bars in which nothing traded, prints that no neighbour confirms."""

import numpy as np
import polars as pl

from tradsys.core.tables import Array

# an open or extreme a factor of e^0.66 = 1.93 from the close before is not believed; see `sources.jumps.MAX_OPEN_GAP`
MAX_PRINT_FACTOR = float(np.exp(0.66))


def traded_volume(bars: pl.DataFrame) -> Array:
    """Volume float64 [R]; infinite where it was not recorded, so that only a recorded 0 forbids a fill.

    Not recorded: no column `volume`, a null or NaN, or a symbol without any volume at all, as indices come.
    """
    if "volume" not in bars.columns:
        return np.full(bars.height, np.inf)
    volume = pl.col("volume").cast(pl.Float64).fill_nan(None)
    recorded = (volume > 0).any().over("symbol") if "symbol" in bars.columns else (volume > 0).any()
    found = bars.select(volume=pl.when(recorded).then(volume).fill_null(float("inf")))["volume"].to_numpy()
    return np.ascontiguousarray(found)


def close_before(bars: pl.DataFrame) -> Array:
    """Close of the same symbol's bar before, float64 [R]; NaN at its first."""
    step = pl.col("close").cast(pl.Float64).shift(1)
    before = step.over("symbol") if "symbol" in bars.columns else step
    return np.ascontiguousarray(bars.select(before=before.fill_null(float("nan")))["before"].to_numpy())


def fillable_opens(bars: pl.DataFrame) -> Array:
    """True [R] where an order could fill at the open: something traded, at a price that the close before confirms."""
    opened, before = bars["open"].cast(pl.Float64).to_numpy(), close_before(bars)
    far = (opened > before * MAX_PRINT_FACTOR) | (opened * MAX_PRINT_FACTOR < before)
    return np.asarray((traded_volume(bars) > 0) & ~far)


def last_of_the_dead(bars: pl.DataFrame, dead_after_bars: int) -> Array:
    """True [R] at the last bar of each instrument that more than so many distinct times of the panel follow."""
    if not bars.height:
        return np.zeros(0, dtype=np.bool_)
    clock = bars["time"].unique().sort()
    after = len(clock) - 1 - clock.search_sorted(bars["time"]).to_numpy()
    symbol = bars["symbol"]
    is_last = np.append((symbol.slice(1) != symbol.slice(0, bars.height - 1)).to_numpy(), True)
    return is_last & (after > dead_after_bars)
