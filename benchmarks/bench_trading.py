"""Serving: the bot's step from closed bars to a journaled decision, its start, batch scoring, and memory over bars.

A step books, predicts and decides, and the journal commits; the aims are p99 of 5 ms for 1 symbol, 10 ms for 7 and
30 ms for 50 from the closed bars to the decision, on a quiet core. The commit is the disk's answer that what was
decided lies on it, and stands apart. Wall time stands beside the process's CPU time, which is what a step costs where
other work shares the core.

python benchmarks/bench_trading.py           of a small bundle that it trains itself: 48 features, regime and auditor
python benchmarks/bench_trading.py BUNDLE    of that one
python benchmarks/bench_trading.py [BUNDLE] memory
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tradsys.ops.trading.bot import Plan, engine_of, opened
from tradsys.ops.trading.risk import Risk
from tradsys.portfolio.costs import Costs
from tradsys.samples.windows import gather
from tradsys.serving.bundle import Bundle
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.paper import PaperBroker
from tradsys.serving.strategy import Profile, Strategy, ThresholdRule

AIMS_MS = {1: 5.0, 7: 10.0, 50: 30.0}
N_STEPS = 200
START_S = 3.0
LOAD_S = 0.2
BATCH = 1024
LONG = 4  # times the history
SMALL = (
    "+experiment=demo", "data.n_bars=6000", "trainer.max_epochs=1", "baselines=base_rate", "strategy=[reckless]",
    "evaluation.n_permutations=1", "evaluation.n_placebos=5", "evaluation.n_draws=50", "evaluation.n_oof_folds=2",
)  # fmt: skip
READY = """
import sys
import tradsys.ops.trading.commands
import polars as pl
from tradsys.ops.trading.watch import ModelWatch
from tradsys.serving.bundle import Bundle
from tradsys.serving.session import Session
bundle = Bundle.load(sys.argv[1])
Session(bundle, pl.read_parquet(sys.argv[2]))
ModelWatch(bundle)
"""
LOADED = """
import sys, time
import onnx, onnxruntime, polars
import tradsys.models.boosting, tradsys.models.market_regime, tradsys.serving.ensemble
import tradsys.models.graphs.sizes
from tradsys.serving.bundle import Bundle
onnxruntime.InferenceSession  # imported where it is first named
begun = time.process_time()
Bundle.load(sys.argv[1])
print(time.process_time() - begun)
"""
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


@dataclass(frozen=True)
class Steps:
    """Seconds of each step [n]: wall, wall of the journal's commit in it, CPU; MiB grown over the second half."""

    wall: np.ndarray
    commit: np.ndarray
    cpu: np.ndarray
    grown_mib: float


def steps(bundle: Bundle, n_symbols: int, n_steps: int = N_STEPS) -> Steps:
    """Runs the bot's engine over random bars; the first five steps are not counted."""
    bars = random_bars(bundle.history + n_steps + 1, n_symbols)
    since = bars["time"].unique().sort()[bundle.history]
    symbols = tuple(bars["symbol"].unique().sort())
    profile = Profile(ThresholdRule(0.3, "quantile"))
    costs = Costs()
    with tempfile.TemporaryDirectory() as folder:
        strategy = Strategy("bench", bundle, profile, costs.round_trip)
        plan = Plan("bench", "replay", Path(folder), strategy, symbols, 1.0, costs, OFF)
        feed = StoredFeed(bars, since, symbols)
        taken, busy, commits, half = [], [], [], 0.0
        with opened(plan) as (journal, state):
            flush = journal.flush

            def timed_flush() -> None:
                begun = time.perf_counter()
                flush()
                commits[-1] += time.perf_counter() - begun

            commits.append(0.0)
            journal.flush = timed_flush  # type: ignore[method-assign]
            engine = engine_of(plan, feed, PaperBroker(costs), journal, state)
            for k, moment in enumerate(feed.moments(None)):
                commits.append(0.0)
                begun, begun_cpu = time.perf_counter(), time.process_time()
                engine.step(moment)
                taken.append(time.perf_counter() - begun)
                busy.append(time.process_time() - begun_cpu)
                if k == n_steps // 2:
                    half = resident_mib()
    return Steps(np.array(taken[5:]), np.array(commits[6:]), np.array(busy[5:]), resident_mib() - half)


def resident_mib() -> float:
    """Resident memory now; the peak where the kernel does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def some_bundle() -> Iterator[Bundle]:
    """The bundle of a folder in argv, else a small one trained in a temporary folder: half a minute."""
    named = next((one for one in sys.argv[1:] if (Path(one) / "card.json").exists()), None)
    if named is not None:
        yield Bundle.load(named)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tradsys.train", *SMALL]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        yield Bundle.load(next(Path(folder).glob("runs/train/*/bundle")))


def best_cpu(*works: Callable[[], Any], rounds: int = 5) -> list[float]:
    """Least CPU seconds of each work over rounds in which they take turns; one round before is not counted."""
    taken: list[list[float]] = [[] for _ in works]
    for k in range(rounds + 1):
        for work, seconds in zip(works, taken, strict=True):
            begun = time.process_time()
            work()
            if k:
                seconds.append(time.process_time() - begun)
    return [min(seconds) for seconds in taken]


def step_rows(bundle: Bundle) -> Iterator[dict[str, Any]]:
    """p99 of a step for 1, 7 and 50 symbols against the aim."""
    for n_symbols, aim in AIMS_MS.items():
        done = steps(bundle, n_symbols)
        decided = done.wall - done.commit
        p99 = np.quantile(decided, 0.99)
        note = (
            f"ratio: {aim:g} ms / p99; ms, median and p99: to the decision {_ms(decided)}, commit {_ms(done.commit)}, "
            f"both {_ms(done.wall)}, CPU of both {_ms(done.cpu)}"
        )
        yield row(f"closed bars to decision, {n_symbols} symbols, p99", p99, None, aim / 1e3 / p99, ">= 1", note)


def _ms(seconds: np.ndarray) -> str:
    return f"{np.median(seconds) * 1e3:.1f} {np.quantile(seconds, 0.99) * 1e3:.1f}"


def history_row(bundle: Bundle) -> dict[str, Any]:
    """A step's CPU time with a buffer of `history` bars and of four times as many: it is not to grow."""
    longer = replace(bundle, card=bundle.card | {"history": LONG * bundle.history})
    short, long = (np.median(steps(one, 1).cpu) for one in (bundle, longer))
    name = f"step with {longer.history} bars of history against {bundle.history}, CPU"
    return row(name, long, short, long / short, "<= 1.1", "median of a step, 1 symbol; ratio: long / short")


def batch_row(bundle: Bundle) -> dict[str, Any]:
    """The net over a table's rows, windows cut on the way, against onnxruntime alone on windows that are cut."""
    bars, model = random_bars(3000, 7), bundle.primary
    table = bundle.features.table(bars)
    rows = np.flatnonzero(table.ready(bundle.lookback))
    cut = [gather(table.values, rows[k : k + BATCH], model.lookback) for k in range(0, len(rows), BATCH)]

    def alone() -> None:
        for window_NTF in cut:
            model.session.run(list(model.outputs), {"window": window_NTF})  # type: ignore[attr-defined]

    ours, rival = best_cpu(lambda: model.predict(table, rows), alone)
    note = f"{len(rows)} rows, {len(rows) / ours:,.0f} a second; ratio: onnxruntime alone / ours"
    return row("batch scoring of a table, CPU", ours, rival, rival / ours, ">= 0.9", note)


def start_row(bundle: Bundle) -> dict[str, Any]:
    """From the start of the process to a session that has seen its history, exchange and settings aside."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as stored:
        random_bars(bundle.history, 1).write_parquet(stored.name)
        command = [sys.executable, "-c", READY, str(bundle.folder), stored.name]
        taken, busy = [], []
        for _ in range(3):
            begun, before = time.perf_counter(), os.times()
            subprocess.run(command, check=True)
            taken.append(time.perf_counter() - begun)
            busy.append(sum(os.times()[2:4]) - sum(before[2:4]))
    note = f"1 symbol; ratio: {START_S:g} s / wall; CPU {min(busy):.1f} s"
    return row("start to ready", min(taken), None, START_S / min(taken), ">= 1", note)


def load_row(bundle: Bundle) -> dict[str, Any]:
    """The first load of a process, its modules imported before: least CPU time of five processes."""
    command = [sys.executable, "-c", LOADED, str(bundle.folder)]
    busy = min(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(5))
    kind = bundle.card["model"]["kind"]
    note = f"a bundle of kind {kind}; least of 5 processes; ratio: {LOAD_S:g} s / CPU"
    return row("Bundle.load, cold, beside imports, CPU, against 0.2 s", busy, None, LOAD_S / busy, ">= 1", note)


def row(name: str, ours: float, rival: float | None, ratio: float, aim: str, note: str) -> dict[str, Any]:
    """A row as `benchmarks/run.py` prints it; seconds."""
    numbers = {"fast_s": float(ours), "slow_s": None if rival is None else float(rival), "ratio": float(ratio)}
    return {"name": name, **numbers, "target": aim, "note": note}


def measure() -> list[dict[str, Any]]:
    """Steps, cost of a longer history, batch scoring, load and start."""
    with some_bundle() as bundle:
        batch = [batch_row(bundle)] if bundle.card["model"]["kind"] == "onnx" else []
        return [*step_rows(bundle), history_row(bundle), *batch, load_row(bundle), start_row(bundle)]


if __name__ == "__main__":
    if "memory" not in sys.argv:
        for found in measure():
            rival = "" if found["slow_s"] is None else f" against {found['slow_s']:.4f} s"
            print(f"{found['name']}: {found['fast_s']:.4f} s{rival}, {found['ratio']:.2f} ({found['note']})")
    else:
        with some_bundle() as loaded:
            grown = steps(loaded, 1, 10_000).grown_mib
        print(f"grown by {grown:.1f} MiB over the second 5,000 of 10,000 bars")
