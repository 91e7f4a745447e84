"""The bot's step: from bars that closed to a journaled decision, and its memory over 10,000 bars.

A step books, predicts, decides and commits; the aims are p99 of 5 ms for 1 symbol, 10 ms for 7 and 30 ms for 50 on a
quiet core. Wall time stands beside the process's CPU time, which is what a step costs where other work shares the core.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tradsys.ops.trading.bot import Plan, engine_of, opened
from tradsys.ops.trading.risk import Risk
from tradsys.portfolio.costs import Costs
from tradsys.serving.bundle import Bundle
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.paper import PaperBroker
from tradsys.serving.strategy import Profile, Strategy, ThresholdRule

AIMS_MS = {1: 5.0, 7: 10.0, 50: 30.0}
N_STEPS = 200
OFF = Risk(*[None] * 8, model_band="off")


def random_bars(n_bars: int, n_symbols: int) -> pl.DataFrame:
    """Gaussian walks with eight steps a bar; the symbols are SYN0, SYN1, ... as the synthetic bundle reads them."""
    frames = []
    for k in range(n_symbols):
        price = 100 * np.exp(np.random.default_rng(k).normal(0, 0.002, n_bars * 8).cumsum().reshape(n_bars, 8))
        opens = np.concatenate([[100.0], price[:-1, -1]])
        stamp = np.datetime64("2023-01-01T01:00", "us") + np.arange(n_bars) * np.timedelta64(60, "m")
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [f"SYN{k}"] * n_bars,
                    "time": pl.Series(stamp).dt.replace_time_zone("UTC"),
                    "open": opens,
                    "high": np.maximum(price.max(axis=1), opens),
                    "low": np.minimum(price.min(axis=1), opens),
                    "close": price[:, -1],
                    "volume": np.ones(n_bars),
                }
            )
        )
    return pl.concat(frames).sort("symbol", "time")


def steps(bundle: Bundle, n_symbols: int, n_steps: int = N_STEPS) -> tuple[np.ndarray, np.ndarray, float]:
    """Wall and CPU seconds of each step [n_steps], and how many MiB the process grew over the second half of them."""
    bars = random_bars(bundle.history + n_steps + 1, n_symbols)
    since = bars["time"].unique().sort()[bundle.history]
    symbols = tuple(bars["symbol"].unique().sort())
    profile = Profile(ThresholdRule(0.3, "quantile"))
    costs = Costs()
    with tempfile.TemporaryDirectory() as folder:
        strategy = Strategy("bench", bundle, profile, costs.round_trip)
        plan = Plan("bench", "replay", Path(folder), strategy, symbols, 1.0, costs, OFF)
        feed = StoredFeed(bars, since, symbols)
        taken, busy, half = [], [], 0.0
        with opened(plan) as (journal, state):
            engine = engine_of(plan, feed, PaperBroker(costs), journal, state)
            for k, moment in enumerate(feed.moments(None)):
                begun, begun_cpu = time.perf_counter(), time.process_time()
                engine.step(moment)
                taken.append(time.perf_counter() - begun)
                busy.append(time.process_time() - begun_cpu)
                if k == n_steps // 2:
                    half = resident_mib()
    return np.array(taken[5:]), np.array(busy[5:]), resident_mib() - half


def resident_mib() -> float:
    """Resident memory now; the peak where the kernel does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure() -> list[dict[str, Any]]:
    """p99 of a step for 1, 7 and 50 symbols against the aim. Needs a bundle: BUNDLE in argv or runs/train/latest."""
    folder = Path(next((a for a in sys.argv[1:] if (Path(a) / "card.json").exists()), "runs/train/latest/bundle"))
    if not folder.exists():
        return []
    bundle, rows = Bundle.load(folder), []
    for n_symbols, aim in AIMS_MS.items():
        seconds, busy, _ = steps(bundle, n_symbols)
        p99, median = np.quantile(seconds, 0.99) * 1e3, np.median(seconds) * 1e3
        cpu = f"CPU median {np.median(busy) * 1e3:.1f}, p99 {np.quantile(busy, 0.99) * 1e3:.1f}"
        rows.append(
            {
                "name": f"step of the bot, {n_symbols} symbols, p99 ms (aim <= {aim:g}; median {median:.1f}; {cpu})",
                "ours": p99,
                "rival": aim,
                "ratio": aim / p99,
                "target": 1.0,
            }
        )
    return rows


if __name__ == "__main__":
    if "memory" not in sys.argv:
        for row in measure():
            print(row)
    else:
        loaded = Bundle.load(next(a for a in sys.argv[1:] if (Path(a) / "card.json").exists()))
        _, _, grown = steps(loaded, 1, 10_000)
        print(f"grown by {grown:.1f} MiB over the second 5,000 of 10,000 bars")
