"""Triple barrier labels: the numba pass against finmlkit's, a pandas slice per row and a walk over plain Python lists.

finmlkit pins older versions of numpy and pandas than tradsys; its labels need neither: pip install --no-deps finmlkit.
"""

import importlib
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

N_FAST, N_LARGE, N_SYMBOLS, REPEATS = 1_000_000, 10_000_000, 5, 5
RULE = {"upper": 1.5, "lower": 1.5, "horizon_bars": 24, "atr_bars": 14}


def walk_frame(n_bars: int, n_symbols: int, seed: int = 0, minutes: int = 60) -> pl.DataFrame:
    """A random walk of `n_bars` bars in all, each of so many minutes."""
    each = n_bars // n_symbols
    rng = np.random.default_rng(seed)
    path = np.exp(rng.normal(0, 0.002, size=(n_symbols, each * 6)).cumsum(axis=1)).reshape(n_bars, 6)
    time_ = np.datetime64("2020-01-01T01", "us") + np.arange(each) * np.timedelta64(minutes, "m")
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


def seconds(run: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median time of `repeats` calls, wall time or another clock's."""
    taken = []
    for _ in range(repeats):
        start = clock()
        run()
        taken.append(clock() - start)
    return statistics.median(taken)


def measure() -> list[dict]:
    """A row per alternative; times are for a million bars, the slow ones scaled up from shorter frames."""
    large = walk_frame(N_FAST, N_SYMBOLS)
    triple_barrier(large.head(1000), **RULE)  # compiles
    fast = seconds(lambda: triple_barrier(large, **RULE), REPEATS)
    a_second = N_FAST / fast / 1e6
    rows = [{"name": "triple barrier: million bars a second (1M bars)", "ratio": a_second, "target": ">= 10"}]
    rows[0]["note"] = "wall time, ATR included"
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
                "note": f"ATR included; labels equal: {same}",
            }
        )
    return [*rows, *measure_large()]


def measure_large() -> list[dict]:
    """Ten million bars: against finmlkit on the same closes, and against a tenth of the bars; CPU seconds.

    finmlkit takes all cores for one pass, tradsys one core: wall time would count cores.
    """
    cpu = time.process_time
    large = walk_frame(N_LARGE, 1, minutes=1)  # 19 years: nanoseconds end in 2262
    small = large.head(N_FAST)
    triple_barrier(small.head(1000), **RULE)  # compiles
    ours, tenth, theirs = [], [], []
    rival = finmlkit_pass(large)
    for _ in range(3):  # in turns, so that a slow minute is everybody's
        ours.append(seconds(lambda: triple_barrier(large, **RULE), 1, cpu))
        tenth.append(seconds(lambda: triple_barrier(small, **RULE), 3, cpu))
        if rival is not None:
            theirs.append(seconds(rival, 1, cpu))
    fast = statistics.median(ours)
    exponent = math.log(fast / statistics.median(tenth)) / math.log(N_LARGE / N_FAST)
    versus = {"name": "triple barrier vs finmlkit (10M bars, CPU)", "fast_s": fast, "slow_s": None, "ratio": None}
    if rival is None:
        versus["note"] = "finmlkit is not installed: pip install --no-deps finmlkit"
    else:
        slow = statistics.median(theirs)
        versus |= {"slow_s": slow, "ratio": slow / fast}  # 1.43: three times the pass that finmlkit beat by 2.1
        versus["note"] = "ours by opens, highs and lows with gaps; finmlkit by closes alone; the same ATR in both"
    return [
        versus | {"target": ">= 1.43"},
        {"name": "triple barrier: growth exponent, 1M to 10M bars", "ratio": exponent, "target": "<= 1.05"},
    ]


def finmlkit_pass(bars: pl.DataFrame) -> Callable[[], object] | None:
    """finmlkit's pass over the closes of one symbol, compiled; None where it is not installed."""
    try:
        rule = importlib.import_module("finmlkit.label.tbm").triple_barrier
    except ModuleNotFoundError:
        return None
    close = bars["close"].to_numpy()
    stamps = bars["time"].dt.epoch("ns").to_numpy()
    # an event needs its whole horizon and a distance
    events = np.arange(RULE["atr_bars"], bars.height - RULE["horizon_bars"] - 1)
    arguments = ((RULE["lower"], RULE["upper"]), RULE["horizon_bars"] * 60.0, 0.0, None, 0.0)

    def labelled() -> object:
        distance = (atr(bars, RULE["atr_bars"]) / close)[events]
        return rule(stamps, close, events, distance, *arguments)

    rule(stamps, close, events[:1000], np.full(1000, 0.01), *arguments)  # compiles
    return labelled


def main() -> None:
    for row in measure():
        print(*(f"{key}: {value}" for key, value in row.items()), sep="; ")


if __name__ == "__main__":
    main()
