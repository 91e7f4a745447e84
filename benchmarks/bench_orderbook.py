"""Book updates a minute on one core: clock, arrival order and every measure of the best prices, against a plain loop.

python benchmarks/bench_orderbook.py
"""

from time import perf_counter
from typing import Any

import numpy as np

from tradsys.market.orderbook.clocks import arrival_times
from tradsys.market.orderbook.measures import quote_measures

N, N_SLOW, SECOND = 20_000_000, 200_000, 1_000_000


def market(n):
    """A walk of best prices, ten updates a second, with a clock 1.27 s behind."""
    rng = np.random.default_rng(0)
    exchange = np.cumsum(rng.integers(1, 200_000, n))
    bid = 60_000 + 0.1 * rng.integers(-1, 2, n).cumsum()
    size = rng.integers(1, 100, (2, n)) * 0.01
    return (
        exchange,
        exchange - 1_270_000 + rng.integers(0, 5_000, n),
        np.column_stack([bid, size[0], bid + 0.1, size[1]]),
    )


def ours(exchange, local, quotes):
    arrived, _ = arrival_times(local, exchange)
    close = np.arange(arrived[0] + 60 * SECOND, arrived[-1], 60 * SECOND)
    return quote_measures(arrived, quotes, close - 60 * SECOND, close, 5 * SECOND)[0]


def plain_loop(quotes):
    """Order flow alone, as a first version would write it."""
    total, before = 0.0, quotes[0]
    for now in quotes[1:]:
        total += (now[0] >= before[0]) * now[1] - (now[0] <= before[0]) * before[1]
        total += (now[2] >= before[2]) * before[3] - (now[2] <= before[2]) * now[3]
        before = now
    return total


def measure() -> list[dict[str, Any]]:
    """Seconds of a million updates, ours and the loop's."""
    ours(*market(10_000))  # compiles
    data = market(N)
    began = perf_counter()
    ours(*data)
    fast = (perf_counter() - began) / N * 1e6
    began = perf_counter()
    plain_loop(data[2][:N_SLOW])
    slow = (perf_counter() - began) / N_SLOW * 1e6
    note = f"{60 / fast:,.0f} million updates a minute on one core; the loop measures order flow alone"
    name = "a million book updates, against a plain loop"
    return [{"name": name, "fast_s": fast, "slow_s": slow, "ratio": slow / fast, "note": note}]


def main() -> None:
    for row in measure():
        print(
            f"{row['name']}: {row['fast_s']:.3f} s against {row['slow_s']:.3f} s, {row['ratio']:.0f}x ({row['note']})"
        )


if __name__ == "__main__":
    main()
