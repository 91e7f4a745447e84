"""Hourly features of a wide panel: one polars query against pandas, symbol by symbol.

`python benchmarks/bench_features.py` prints one line; `measure()` returns the numbers.
"""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import yaml

from tradsys.features.feature_set import FeatureSet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from slow_features import slow_features  # noqa: E402

N_SYMBOLS, N_DAYS = 2394, 490
D, TOL = 0.4, 1.5e-4


def wide_panel(n_symbols: int = N_SYMBOLS, n_days: int = N_DAYS, seed: int = 0) -> pl.DataFrame:
    """Random-walk bars; prices and volumes differ by many orders of magnitude between symbols."""
    rng = np.random.default_rng(seed)
    shape = (n_symbols, n_days)
    close = np.exp(rng.normal(0, 0.02, shape).cumsum(axis=1) + rng.normal(3, 3, (n_symbols, 1)))
    opens = close * np.exp(rng.normal(0, 0.01, shape))
    days = np.datetime64("2020-01-01", "us") + np.arange(n_days) * np.timedelta64(1, "D")
    frame = {
        "symbol": np.repeat([f"S{k:04d}" for k in range(n_symbols)], n_days),
        "time": pl.Series(np.tile(days, n_symbols)).dt.replace_time_zone("UTC"),
        "open": opens.ravel(),
        "high": (np.maximum(opens, close) * np.exp(np.abs(rng.normal(0, 0.005, shape)))).ravel(),
        "low": (np.minimum(opens, close) * np.exp(-np.abs(rng.normal(0, 0.005, shape)))).ravel(),
        "close": close.ravel(),
        "volume": (rng.lognormal(3, 0.5, shape) * np.exp(rng.normal(6, 4, (n_symbols, 1)))).ravel(),
    }
    return pl.DataFrame(frame)


def hourly(market_symbol: str) -> FeatureSet:
    """conf/features/hourly.yaml, with the order of fractional differencing given instead of fitted."""
    text = (HERE.parent / "conf" / "features" / "hourly.yaml").read_text(encoding="utf-8")
    spec = yaml.safe_load(text)
    features = []
    for entry in spec["features"]:
        module, name = entry.pop("_target_").rsplit(".", 1)
        if name == "FracDiff":
            entry.update(d=D, tol=TOL)
        features.append(getattr(importlib.import_module(module), name)(**entry))
    return FeatureSet(features, max_gap_minutes=None, market_symbol=market_symbol)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def largest_difference(features: FeatureSet, bars: pl.DataFrame, slow: pd.DataFrame) -> float:
    """Largest float64 difference on one symbol, against the size of its column, past both warm-ups."""
    one = bars.filter(pl.col("symbol") == "S0007")
    market = bars.filter(pl.col("symbol") == "S0000").select("time", market_close="close")
    exprs = [feature.expr().alias(feature.name) for feature in features.features]
    fast = one.join(market, on="time").select(exprs).to_numpy()
    mine = slow[list(features.names)].to_numpy()[(bars["symbol"] == "S0007").to_numpy()]
    size = np.maximum(np.nanstd(fast, axis=0), 1e-9)  # the hour of a daily bar does not vary
    return float(np.nanmax(np.abs(fast - mine) / size))


def measure(n_symbols: int = N_SYMBOLS) -> list[dict[str, Any]]:
    """One row: seconds of both on the same panel, warm, and their ratio."""
    bars = wide_panel(n_symbols)
    features = hourly("S0000")
    features.table(bars.head(3 * N_DAYS))  # numba compiles once
    fast = min(timed(lambda: features.table(bars))[0] for _ in range(3))
    frame = pd.DataFrame({name: bars[name].to_numpy() for name in bars.columns if name != "time"})
    frame["time"] = bars["time"].dt.replace_time_zone(None).to_numpy()
    slow, columns = timed(lambda: slow_features(frame, "S0000", D, TOL))
    error = largest_difference(features, bars, columns)
    note = f"{len(features.names)} features, {len(bars):,} rows; differ by {error:.0e} of a deviation"
    return [
        {
            "name": "features: one polars query vs pandas by symbol",
            "fast_s": fast,
            "slow_s": slow,
            "ratio": slow / fast,
            "note": note,
            "target": 10.0,
        }
    ]


if __name__ == "__main__":
    for row in measure():
        ratio = f"{row['fast_s']:.2f} s vs {row['slow_s']:.2f} s, {row['ratio']:.1f}x"
        print(f"{row['name']}: {ratio} ({row['note']})")
