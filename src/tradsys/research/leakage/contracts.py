"""Contracts of every feature, as checks that name the features that fail: for tests here and in other packages."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import polars as pl

from tradsys.features.feature_set import FeatureSet

PRICES = ("open", "high", "low", "close", "volume")


def looking_ahead(features: FeatureSet, bars: pl.DataFrame, columns: Sequence[str] = PRICES) -> set[str]:
    """Features whose rows up to t change when later bars are cut, moved or missing.

    features: fitted. bars: several symbols, 660 times at least. columns: numeric bar columns that features read.
    Compared bit for bit, at four moments.
    """
    times = bars["time"].unique().sort()
    full = features.table(bars)
    found = set()
    for t in (times[500], times[501], times[650], times[-2]):
        past = (bars["time"] <= t).to_numpy()
        known = pl.col("time") <= t
        moved = [pl.when(known).then(pl.col(c)).otherwise(pl.col(c) * 1.7) for c in columns]
        missing = [pl.when(known).then(pl.col(c)).otherwise(np.nan) for c in columns]
        empty = [pl.when(known).then(pl.col(c)).otherwise(None) for c in columns]
        found |= differing(features, full.values[past], features.table(bars.filter(past)).values)
        for change in (moved, missing, empty):
            found |= differing(features, full.values[past], features.table(bars.with_columns(change)).values[past])
    return found


def remembering(features: FeatureSet, bars: pl.DataFrame, symbol: str, market_symbol: str) -> set[str]:
    """Features that depend on what precedes their warm-up.

    They change by more than 1e-7 when all of that is cut. bars: 800 times at least. symbol: the one that is
    checked; market_symbol:
    of the market series.
    """
    found = set()
    one = bars.filter(pl.col("symbol") == symbol)
    one = one.join(bars.filter(pl.col("symbol") == market_symbol).select("time", market_close="close"), on="time")
    for feature in features.features:
        full = one.select(feature.expr()).to_series().to_numpy()
        scale = np.nanstd(full)
        for t in (500, 601, 799):
            short = one.slice(t - feature.warmup, feature.warmup + 1).select(feature.expr()).to_series()[-1]
            if short is None or not np.isfinite(short) or abs(short - full[t]) > 1e-7 * (abs(full[t]) + scale):
                found.add(feature.name)
    return found


def mixing_segments(features: FeatureSet, bars: pl.DataFrame) -> set[str]:
    """Features of a segment that depend on another segment or symbol.

    Checked are a symbol's second segment and other symbols.
    """
    hole = bars["time"].unique().sort()[390]
    later = bars.filter(pl.col("time") > hole).sort("symbol", "time")
    late = pl.when(pl.col("time") > hole).then(pl.col("time") + timedelta(days=3)).otherwise(pl.col("time"))
    after = (bars["time"] > hole).to_numpy()
    alone = features.table(later.with_columns(time=pl.col("time") + timedelta(days=3))).values
    both = features.table(bars.with_columns(time=late)).values[after]
    return {
        name
        for name, a, b in zip(features.names, alone.T, both.T, strict=True)
        if not np.allclose(a, b, rtol=1e-6, atol=1e-7, equal_nan=True)
    }


def forgotten_by_json(features: FeatureSet, bars: pl.DataFrame) -> set[str]:
    """Features that change in a round trip through a bundle's card.

    One bit counts.
    """
    again = FeatureSet.from_json(features.to_json())
    return differing(features, features.table(bars).values, again.table(bars).values)


def differing(features: FeatureSet, a_RF: np.ndarray, b_RF: np.ndarray) -> set[str]:
    """Names of columns that are not equal bit for bit; NaN equals NaN."""
    same = (a_RF == b_RF) | (np.isnan(a_RF) & np.isnan(b_RF))
    return {name for name, ok in zip(features.names, same.all(axis=0), strict=True) if not ok}
