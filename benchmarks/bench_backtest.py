"""Backtests of a threshold sweep: one call for all configurations against one call for each.

Fair baseline: the very same `simulate_many`, one configuration at a time. Beside it vectorbt as a tutorial
has it (`from_signals` on the bar grid per configuration; it knows no timeout and no gap) and the reference
simulator. What one call saves is the fixed work of a call, so the ratio falls the more each column trades.
"""

import json
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import vectorbt as vbt

from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many

N_BARS, N_THRESHOLDS, REPEATS, TARGET = 60_000, 50, 3, 10.0
PROFILES = {
    "tight": (0.5, 0.5, 8),
    "even": (1.0, 1.0, 24),
    "wide": (3.0, 3.0, 72),
    "lopsided": (3.0, 1.0, 48),
}
SWEEPS = {"selective": (0.95, 0.999), "busy": (0.5, 0.99)}
COSTS = Costs()


def random_bars(n_bars: int, seed: int = 0) -> pl.DataFrame:
    """A Gaussian walk with eight steps a bar."""
    price = 100 * np.exp(np.random.default_rng(seed).normal(0, 0.002, n_bars * 8).cumsum().reshape(n_bars, 8))
    opens = np.concatenate([[100.0], price[:-1, -1]])
    time_ = np.datetime64("2018-01-01T01:00", "us") + np.arange(n_bars) * np.timedelta64(60, "m")
    return pl.DataFrame(
        {
            "symbol": ["AAA"] * n_bars,
            "time": pl.Series(time_).dt.replace_time_zone("UTC"),
            "open": opens,
            "high": np.maximum(price.max(axis=1), opens),
            "low": np.minimum(price.min(axis=1), opens),
            "close": price[:, -1],
        }
    )


def sweep(bars: pl.DataFrame, lowest: float, highest: float) -> dict[str, pl.DataFrame]:
    """Targets of 4 profiles x 50 thresholds on one uniform score: 0.95 signals on 5 % of bars."""
    score = np.random.default_rng(1).random(len(bars))
    atr = 0.006 * bars["close"]
    targets = {}
    for name, (take, stop, horizon) in PROFILES.items():
        for threshold in np.linspace(lowest, highest, N_THRESHOLDS):
            wanted = bars.select(
                "symbol",
                "time",
                side=pl.lit(1, dtype=pl.Int8),
                size=pl.lit(1.0),
                take_profit=take * atr,
                stop_loss=stop * atr,
                horizon_bars=pl.lit(horizon, dtype=pl.Int64),
            )
            targets[f"{name}_{threshold:.4f}"] = wanted.filter(pl.Series(score >= threshold))
    return targets


def measure() -> list[dict[str, Any]]:
    """Ratios measured side by side in this process, best of three each."""
    bars = random_bars(N_BARS)
    return [row for name, limits in SWEEPS.items() for row in _measure(bars, name, sweep(bars, *limits))]


def _measure(bars: pl.DataFrame, name: str, targets: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    simulate_many(bars, dict([*targets.items()][:1]), COSTS)  # compiles
    fast_s, many = _best(lambda: simulate_many(bars, targets, COSTS))
    loop_s, _ = _best(lambda: [simulate_many(bars, {key: t}, COSTS) for key, t in targets.items()])
    tutorial_s, _ = _best(lambda: _tutorial(bars, targets))
    few = dict([*targets.items()][::67])
    start = time.perf_counter()
    plain = {key: simulate(bars, wanted, COSTS) for key, wanted in few.items()}
    plain_s = (time.perf_counter() - start) * len(targets) / len(few)
    gap = max(abs(plain[key].final_equity - many[key].final_equity) for key in few)
    n_trades = sum(len(ledger.trades) for ledger in many.values())
    peak = _peak_mib(lambda: simulate_many(bars, targets, COSTS))
    size = f"{len(targets)} configurations x {N_BARS} bars, {n_trades} trades"
    rows = [
        (f"backtest {name}: one call / one call each", loop_s, f"{size}, peak {peak:.0f} MiB of numpy"),
        (f"backtest {name}: one call / vectorbt from_signals each", tutorial_s, "without timeouts and gaps"),
        (
            f"backtest {name}: one call / reference each",
            plain_s,
            f"scaled from {len(few)}; equity within {gap:.0e}",
        ),
    ]
    return [
        {"name": n, "fast_s": fast_s, "slow_s": s, "ratio": s / fast_s, "note": note, "target": TARGET}
        for n, s, note in rows
    ]


def _tutorial(bars: pl.DataFrame, targets: Mapping[str, pl.DataFrame]) -> None:
    index = pd.DatetimeIndex(bars["time"].to_numpy())
    prices = {c: pd.Series(bars[c].to_numpy(), index=index) for c in ("open", "high", "low", "close")}
    for wanted in targets.values():
        known = bars.select("time").join(wanted, on="time", how="left", maintain_order="left")
        entries = known["side"].is_not_null().shift(1, fill_value=False).to_numpy()
        distance = (known.select("take_profit", "stop_loss") / bars["close"]).shift(1).fill_null(float("nan"))
        portfolio = vbt.Portfolio.from_signals(
            prices["close"],
            entries=pd.Series(entries, index=index),
            exits=pd.Series(np.zeros(len(bars), dtype=bool), index=index),
            open=prices["open"],
            high=prices["high"],
            low=prices["low"],
            price=prices["open"],
            sl_stop=distance["stop_loss"].to_numpy(),
            tp_stop=distance["take_profit"].to_numpy(),
            fees=COSTS.fee,
            slippage=COSTS.slippage,
            engine="rust",
        )
        portfolio.value()
        assert len(portfolio.exit_trades.values)


def _best(work: Callable[[], Any]) -> tuple[float, Any]:
    best, result = float("inf"), None
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def _peak_mib(work: Callable[[], Any]) -> float:
    """Peak of what numpy and Python allocate; polars' own buffers are not traced."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
