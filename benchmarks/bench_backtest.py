"""Backtests of a threshold sweep: one call for all configurations against a call for each.

Fair baseline: the very same `simulate_many`, one configuration at a time. Beside it: vectorbt as a tutorial has it
(`from_signals` on the bar grid, per configuration; it knows no timeout and no gap) and the reference simulator.
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
from tradsys.portfolio.ledger import Ledger
from tradsys.portfolio.simulator import simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many

N_BARS = 60_000
N_THRESHOLDS = 50
PROFILES = {
    "tight": (0.5, 0.5, 8),
    "even": (1.0, 1.0, 24),
    "wide": (3.0, 3.0, 72),
    "lopsided": (3.0, 1.0, 48),
}
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


def sweep(bars: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Targets of 4 profiles x 50 thresholds on one random score; the widest signals on half of all bars."""
    score = np.random.default_rng(1).random(len(bars))
    atr = 0.006 * bars["close"]
    targets = {}
    for name, (take, stop, horizon) in PROFILES.items():
        for threshold in np.linspace(0.5, 0.99, N_THRESHOLDS):
            wanted = bars.select(
                "symbol",
                "time",
                side=pl.lit(1, dtype=pl.Int8),
                size=pl.lit(1.0),
                take_profit=take * atr,
                stop_loss=stop * atr,
                horizon_bars=pl.lit(horizon, dtype=pl.Int64),
            )
            targets[f"{name}_{threshold:.2f}"] = wanted.filter(pl.Series(score >= threshold))
    return targets


def measure() -> list[dict[str, Any]]:
    """Ratios measured side by side in this process."""
    bars = random_bars(N_BARS)
    targets = sweep(bars)
    first = dict(list(targets.items())[:1])
    simulate_many(bars, first, COSTS)  # compiles
    _tutorial(bars, first)
    fast_s, many = _timed(lambda: simulate_many(bars, targets, COSTS))
    loop_s, _ = _timed(lambda: [simulate_many(bars, {name: t}, COSTS) for name, t in targets.items()])
    tutorial_s, _ = _timed(lambda: _tutorial(bars, targets))
    few = dict(list(targets.items())[::67])
    plain_s, plain = _timed(lambda: {name: simulate(bars, t, COSTS) for name, t in few.items()})
    gap = max(abs(plain[name].final_equity - many[name].final_equity) for name in few)
    n_trades = sum(len(ledger.trades) for ledger in many.values())
    note = f"{len(targets)} configurations x {N_BARS} bars, {n_trades} trades, peak {_peak_mib(bars, targets):.0f} MiB"
    return [
        _row("backtest sweep: one call vs one call each", fast_s, loop_s, note),
        _row(
            "backtest sweep: one call vs vectorbt from_signals each",
            fast_s,
            tutorial_s,
            "no timeouts, same engine",
        ),
        _row(
            "backtest sweep: one call vs reference simulator each",
            fast_s,
            plain_s * len(targets) / len(few),
            f"scaled up from {len(few)} configurations; largest difference of final equity {gap:.1e}",
        ),
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


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _peak_mib(bars: pl.DataFrame, targets: Mapping[str, pl.DataFrame]) -> float:
    """Peak of what numpy and Python allocate (polars' own buffers are not traced)."""
    tracemalloc.start()
    ledgers: dict[str, Ledger] = simulate_many(bars, targets, COSTS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ledgers) == len(targets)
    return peak / 2**20


def _row(name: str, fast_s: float, slow_s: float, note: str) -> dict[str, Any]:
    return {
        "name": name,
        "fast_s": fast_s,
        "slow_s": slow_s,
        "ratio": slow_s / fast_s,
        "note": note,
        "target": 10.0,
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
