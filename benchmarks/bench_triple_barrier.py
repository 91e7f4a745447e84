"""Triple barrier labels, the numba pass against a pandas slice per row and a walk over plain Python lists."""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl

from tradsys.core.tables import Array, Labels
from tradsys.labels.triple_barrier import triple_barrier
from tradsys.market.true_range import atr

N_FAST, N_SYMBOLS, REPEATS = 1_000_000, 5, 5
RULE = {"upper": 1.5, "lower": 1.5, "horizon_bars": 24, "atr_bars": 14}


def walk_frame(n_bars: int, n_symbols: int, seed: int = 0) -> pl.DataFrame:
    """A random walk of `n_bars` bars in all."""
    each = n_bars // n_symbols
    rng = np.random.default_rng(seed)
    path = np.exp(rng.normal(0, 0.002, size=(n_symbols, each * 6)).cumsum(axis=1)).reshape(n_bars, 6)
    time_ = np.datetime64("2020-01-01T01", "us") + np.arange(each) * np.timedelta64(60, "m")
    return pl.DataFrame(
        {
            "symbol": np.repeat([f"S{k}" for k in range(n_symbols)], each),
            "time": pl.Series(np.tile(time_, n_symbols)).dt.replace_time_zone("UTC"),
            "open": path[:, 0],
            "high": path.max(axis=1),
            "low": path.min(axis=1),
            "close": path[:, -1],
            "volume": np.ones(n_bars),
        }
    )


def plain_walk(bars: pl.DataFrame, atr_R: Array, upper: float, lower: float, horizon: int) -> Labels:
    """The frozen slow copy: one bar at a time over Python lists; the ATR is given, which favours it."""
    symbol = bars["symbol"].to_list()
    open_, high, low, close = (bars[name].to_list() for name in ("open", "high", "low", "close"))
    size, n = atr_R.tolist(), bars.height
    y, end, ret = [-1] * n, [-1] * n, [math.nan] * n
    for t in range(n - 1):
        if math.isnan(size[t]) or symbol[t + 1] != symbol[t]:
            continue
        entry = open_[t + 1]
        target, stop = entry + upper * size[t], entry - lower * size[t]
        for j in range(t + 1, min(t + horizon + 1, n)):
            if symbol[j] != symbol[t] or math.isnan(open_[j] + high[j] + low[j] + close[j]):
                break
            if open_[j] <= stop or open_[j] >= target:
                fill, won = open_[j], int(open_[j] >= target)
            elif low[j] <= stop:
                fill, won = stop, 0
            elif high[j] >= target:
                fill, won = target, 1
            elif j == t + horizon:
                fill, won = close[j], 0
            else:
                continue
            y[t], end[t], ret[t] = won, j, math.log(fill / entry)
            break
    y_R = np.array(y)
    return Labels(y=y_R, end=np.array(end), ret=np.array(ret), weight=(y_R >= 0).astype(float))


def pandas_walk(bars: pl.DataFrame, atr_R: Array, upper: float, lower: float, horizon: int) -> Labels:
    """The usual alternative: per row, slice the path out of a DataFrame and look for the first touch."""
    frame, n = bars.to_pandas(), bars.height
    y, end, ret = [-1] * n, [-1] * n, [math.nan] * n
    for t in range(n - 1):
        path = frame.iloc[t + 1 : t + 1 + horizon]
        path = path[path["symbol"] == frame["symbol"].iat[t]]
        if math.isnan(atr_R[t]) or path.empty:
            continue
        entry = path["open"].iat[0]
        target, stop = entry + upper * atr_R[t], entry - lower * atr_R[t]
        hits = path.index[(path["high"] >= target) | (path["low"] <= stop)]
        if hits.empty and len(path) < horizon:
            continue
        last = path.loc[hits[0] if len(hits) else path.index[-1]]
        if last["open"] <= stop or last["open"] >= target:
            fill, won = last["open"], int(last["open"] >= target)
        elif last["low"] <= stop:
            fill, won = stop, 0
        else:
            fill, won = (target, 1) if len(hits) else (last["close"], 0)
        y[t], end[t], ret[t] = won, last.name, math.log(fill / entry)
    y_R = np.array(y)
    return Labels(y=y_R, end=np.array(end), ret=np.array(ret), weight=(y_R >= 0).astype(float))


def equal(a: Labels, b: Labels) -> bool:
    same = np.array_equal(a.y, b.y) and np.array_equal(a.end, b.end) and np.array_equal(a.weight, b.weight)
    return same and np.allclose(a.ret, b.ret, rtol=1e-12, atol=1e-15, equal_nan=True)


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of `repeats` calls."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure() -> list[dict]:
    """A row per alternative; times are for a million bars, the slow ones scaled up from shorter frames."""
    large = walk_frame(N_FAST, N_SYMBOLS)
    triple_barrier(large.head(1000), **RULE)  # compiles
    fast = seconds(lambda: triple_barrier(large, **RULE), REPEATS)
    rows = []
    for name, walk, n_bars, repeats in (
        ("pandas slice per row", pandas_walk, 2_000, 1),
        ("plain Python lists", plain_walk, 20_000, REPEATS),
    ):
        bars = walk_frame(n_bars, N_SYMBOLS)
        rule = (bars, atr(bars, RULE["atr_bars"]), RULE["upper"], RULE["lower"], RULE["horizon_bars"])
        same = equal(triple_barrier(bars, **RULE), walk(*rule))
        slow = seconds(partial(walk, *rule), repeats) / n_bars * N_FAST
        rows.append(
            {
                "name": f"triple barrier: numba pass vs {name} (1M bars)",
                "fast_s": fast,
                "slow_s": slow,
                "ratio": slow / fast,
                "note": f"{N_FAST / fast / 1e6:.1f} M bars/s, ATR included; labels equal: {same}",
                "target": ">= 10 M bars/s; equal labels",
            }
        )
    return rows


def main() -> None:
    for row in measure():
        print(f"{row['name']}: {row['fast_s']:.4f} s vs {row['slow_s']:.2f} s = {row['ratio']:.0f}x")
        print(f"  {row['note']}  (target {row['target']})")


if __name__ == "__main__":
    main()
