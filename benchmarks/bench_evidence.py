"""Sharpe statistics of 1,000 strategies over 5,000 bars and PBO over 12,870 splits, against the plain loops."""

import math
import time
import tracemalloc
from collections.abc import Callable
from itertools import combinations, islice

import numpy as np
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from scipy import stats

from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import automatic_block_lengths, bootstrap_indices
from tradsys.evidence.classification import evaluate
from tradsys.evidence.controls.placebo import DailyRecord, paired_differences, precision_lift
from tradsys.evidence.cosines import mean_interval, sharpe_intervals
from tradsys.evidence.joint_test import Batch, joint_test
from tradsys.evidence.overfitting import pbo
from tradsys.evidence.performance import performance
from tradsys.evidence.sharpe import deflated_sharpe_ratio, expected_max_sharpe, probabilistic_sharpe_ratio

N_BARS, N_STRATEGIES, N_DRAWS = 5_000, 1_000, 1_000
N_TRIALS, VARIANCE = 1_000, 2e-4
BLOCKS, PBO_SHAPE = 16, (1_000, 100)
SHOWN_LOOPS, SHOWN_SPLITS = 4, 400


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Best wall time of `repeats` calls."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU time of one call, so that a busy machine does not count."""
    start = time.process_time()
    run()
    return time.process_time() - start


def plain_psr(returns: list[float], benchmark: float) -> float:
    """The frozen slow copy: moments by a walk over the bars of one strategy."""
    n = len(returns)
    mean = sum(returns) / n
    second, third, fourth = (sum((r - mean) ** k for r in returns) / n for k in (2, 3, 4))
    sharpe = mean / math.sqrt(second * n / (n - 1))
    skew, kurtosis = third / second**1.5, fourth / second**2
    spread = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    return float(stats.norm.cdf((sharpe - benchmark) * math.sqrt(n - 1) / math.sqrt(spread)))


def plain_interval(returns: Array, block_length: float) -> tuple[float, float]:
    """The usual alternative: resample one strategy's bars by index, draw after draw."""
    draws = []
    for index in bootstrap_indices(len(returns), block_length, N_DRAWS, seed=1):
        drawn = returns[index]
        draws.append(drawn.mean() / drawn.std(ddof=1))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def plain_splits(returns: Array, n_splits: int) -> list[float]:
    """The usual alternative: join the blocks of each split, and rank; logits of the first `n_splits`."""
    blocks, logits = np.split(returns[len(returns) % BLOCKS :], BLOCKS), []
    for chosen in islice(combinations(range(BLOCKS), BLOCKS // 2), n_splits):
        inside = np.concatenate([blocks[b] for b in chosen])
        outside = np.concatenate([blocks[b] for b in range(BLOCKS) if b not in chosen])
        winner = int(np.argmax(inside.mean(axis=0) / inside.std(axis=0, ddof=1)))
        rank = stats.rankdata(outside.mean(axis=0) / outside.std(axis=0, ddof=1))[winner]
        share = rank / (returns.shape[1] + 1)
        logits.append(math.log(share / (1 - share)))
    return logits


def row(name: str, fast: float, slow: float, note: str, target: str) -> dict:
    return {"name": name, "fast_s": fast, "slow_s": slow, "ratio": slow / fast, "note": note, "target": target}


def sharpe_rows(returns: Array) -> list[dict]:
    some = [returns[:, k].tolist() for k in range(SHOWN_LOOPS)]
    size = f"{N_STRATEGIES:,} x {N_BARS:,}"
    out = []
    for name, fast, slow in (
        ("PSR", lambda: probabilistic_sharpe_ratio(returns), lambda: [plain_psr(r, 0.0) for r in some]),
        (
            "DSR",
            lambda: deflated_sharpe_ratio(returns, N_TRIALS, VARIANCE),
            lambda: [plain_psr(r, expected_max_sharpe(N_TRIALS, VARIANCE)) for r in some],
        ),
    ):
        taken, loop = seconds(fast), seconds(slow) / SHOWN_LOOPS * N_STRATEGIES
        gap = float(np.abs(fast()[:SHOWN_LOOPS] - slow()).max())
        note = f"loop over bars, {SHOWN_LOOPS} strategies scaled up; largest difference {gap:.0e}"
        out.append(row(f"{name} of {size}", taken, loop, note, "one vectorised call"))
    return out


def interval_row(returns: Array) -> list[dict]:
    block = float(automatic_block_lengths(returns).max())
    fast = seconds(lambda: sharpe_intervals(returns), 2)
    slow = seconds(lambda: [plain_interval(returns[:, k], block) for k in range(SHOWN_LOOPS)], 1)
    found = sharpe_intervals(returns)
    gap = max(
        abs(a - b)
        for k in range(SHOWN_LOOPS)
        for a, b in zip((found[k].low, found[k].high), plain_interval(returns[:, k], block), strict=True)
    )
    lengths = seconds(lambda: automatic_block_lengths(returns))
    one = returns[:, 0]
    single = seconds(lambda: mean_interval(one))
    drawn = seconds(lambda: arch_interval(one), 1)
    arch = seconds(lambda: optimal_block_length(returns[:, :SHOWN_LOOPS])) / SHOWN_LOOPS * N_STRATEGIES
    size = f"{N_STRATEGIES:,} x {N_BARS:,}"
    return [
        row(
            f"Sharpe intervals of {size}, cosines against {N_DRAWS:,} draws",
            fast,
            slow / SHOWN_LOOPS * N_STRATEGIES + arch,
            f"block length included; loop: {SHOWN_LOOPS} strategies scaled up; largest difference {gap:.0e}",
            "one vectorised call",
        ),
        row(f"interval of one mean, {N_BARS:,}", single, drawn, f"arch, its block length, {N_DRAWS:,} draws", ">= 1"),
        row(f"block lengths of {size}", lengths, arch, "against arch, column by column", ""),
    ]


def pbo_row(returns: Array) -> dict:
    fast = seconds(lambda: pbo(returns, BLOCKS))
    n_splits = math.comb(BLOCKS, BLOCKS // 2)
    slow = seconds(lambda: plain_splits(returns, SHOWN_SPLITS), 1) / SHOWN_SPLITS * n_splits
    same = np.allclose(pbo(returns, BLOCKS).logits[:SHOWN_SPLITS], plain_splits(returns, SHOWN_SPLITS))
    tracemalloc.start()
    pbo(returns, BLOCKS)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    whole = n_splits * returns.nbytes / 2**30
    note = f"peak {peak:.1f} MiB, all splits at once would be {whole:.1f} GiB; logits equal: {same}"
    name = f"PBO of {PBO_SHAPE[0]:,} x {PBO_SHAPE[1]}, {n_splits:,} splits"
    return row(name, fast, slow, note, "splits never all in memory")


def arch_interval(returns_T: Array) -> Array:
    """Percentile interval of a mean by arch, with its automatic block length."""
    block = max(1.0, float(optimal_block_length(returns_T)["stationary"].iloc[0]))
    return StationaryBootstrap(block, returns_T, seed=1).conf_int(np.mean, N_DRAWS, method="percentile")


def twenty_row(returns: Array) -> dict:
    """Twenty series of one record against arch, series by series."""
    some = returns[:, :20]
    fast = seconds(lambda: sharpe_intervals(some))
    one = some[:, 0]
    slow = 20 * seconds(lambda: arch_interval(one), 1)
    return row(
        f"intervals of 20 series, {N_BARS:,}",
        fast,
        slow,
        f"arch, its block length, {N_DRAWS:,} draws of means, scaled up",
        ">= 10",
    )


def report_parts() -> dict[str, Callable[[], object]]:
    """Every interval of a default report, at the demo's size: what is called, how often."""
    rng = np.random.default_rng(3)
    n, days, n_placebos = 10_000, 430, 1_000
    time_N, y = np.arange(n), rng.integers(0, 2, n)
    proba = np.clip(0.5 + rng.normal(0, 0.05, n), 0.01, 0.99)
    daily = rng.normal(0.0005, 0.01, (days, 5))
    trades, exposure = rng.normal(0, 0.01, 300), np.abs(rng.normal(0, 0.3, days))
    record = rng.normal(0, 0.01, (days, 1 + n_placebos))
    placebos = DailyRecord(record, record, np.ones_like(record))
    score, paid, kept = rng.normal(size=1500), rng.random(1500) < 0.5, rng.random(1500) < 0.4
    return {
        "forecasts of 4 models and an auditor": lambda: [
            evaluate(proba, y, 0.5, time_N=time_N, min_block=24, n_draws=1000, seed=k) for k in range(5)
        ],
        "5 records: Sharpe, ratios, tails": lambda: [
            performance(r, periods_per_year=365, trade_returns=trades, exposure_T=exposure) for r in daily.T
        ],
        "joint test of 4 strategies": lambda: joint_test([Batch(1, daily[:, :4])], seed=0),
        "1,000 placebos of 2 strategies": lambda: [
            paired_differences(placebos.columns(slice(0, 1)), placebos.columns(slice(1, None)), periods_per_year=365)
            for _ in range(2)
        ],
        "precision lift of 2 strategies": lambda: [
            precision_lift(paid, kept, score, np.arange(1500), min_block=24) for _ in range(2)
        ],
    }


def report_row() -> dict:
    """One core's time of all intervals of one default report; the slow column is the budget of three seconds."""
    parts = report_parts()
    for part in parts.values():
        part()  # compiles what numba compiles
    taken = {name: cpu_seconds(part) for name, part in parts.items()}
    note = ", ".join(f"{name} {value:.2f} s" for name, value in taken.items())
    return row("all intervals of one default report, against 3 s", sum(taken.values()), 3.0, note, ">= 1")


def measure() -> list[dict]:
    """A row per statistic; the loops run on a part and are scaled up to the whole."""
    rng = np.random.default_rng(0)
    returns = rng.normal(0.0004, 0.01, size=(N_BARS, N_STRATEGIES))
    rows = [*sharpe_rows(returns), *interval_row(returns), twenty_row(returns)]
    return [*rows, pbo_row(rng.normal(size=PBO_SHAPE)), report_row()]


def main() -> None:
    for found in measure():
        print(f"{found['name']}: {found['fast_s']:.3f} s vs {found['slow_s']:.2f} s = {found['ratio']:.0f}x")
        print(f"  {found['note']}  (target: {found['target'] or 'none'})")


if __name__ == "__main__":
    main()
