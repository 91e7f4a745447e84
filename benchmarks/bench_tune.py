"""What a trial costs beyond its training, and what a second worker brings."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from child import surroundings

from tradsys.research.pipeline.single_thread import ONE_THREAD

TARGET_SHARE = 0.05  # of a trial of 60 s
TRIAL_S = 60.0
TARGET_SPEED_UP = 1.7
N_TRIALS = int(os.environ.get("TRADSYS_BENCH_TRIALS", "12"))
N_BARS = int(os.environ.get("TRADSYS_BENCH_BARS", "20000"))
COMMAND = [sys.executable, "-m", "tradsys.tune"]
SETTINGS = [
    "sweep=lightgbm",
    f"data.n_bars={N_BARS}",
    "sweep.sampler=random",
    "sweep.pruner=none",
    f"n_trials={N_TRIALS}",
]


def study(folder: str, n_workers: int) -> tuple[dict, float]:
    """The report and the wall time of a command of its own, its start included, one thread per worker."""
    runs = f"{folder}/{n_workers}"
    began = time.perf_counter()
    words = [*COMMAND, *SETTINGS, f"paths.runs={runs}", f"n_workers={n_workers}"]
    subprocess.run(words, check=True, capture_output=True, env=surroundings() | dict.fromkeys(ONE_THREAD, "1"))
    return json.loads(
        (Path(runs) / "tune" / "lightgbm" / "report.json").read_text(encoding="utf-8")
    ), time.perf_counter() - began


def measure() -> list[dict]:
    """Overhead of a trial against 5 % of a minute, and one worker against two on the same trials."""
    with tempfile.TemporaryDirectory() as folder:
        one, seconds_one = study(folder, 1)
        _, seconds_two = study(folder, 2)
    overheads = sorted(t["seconds"] - t["fit_seconds"] for t in one["trials"] if t["state"] == "complete")
    overhead = overheads[len(overheads) // 2]
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return [
        {
            "name": "trial beyond its training (median), against 5 % of 60 s",
            "fast_s": overhead,
            "slow_s": TARGET_SHARE * TRIAL_S,
            "ratio": TARGET_SHARE * TRIAL_S / overhead,
            "target": ">= 1",
            "note": f"{N_TRIALS} trials, {N_BARS} bars; {load}",
        },
        {
            "name": "study with two workers, against one",
            "fast_s": seconds_two,
            "slow_s": seconds_one,
            "ratio": seconds_one / seconds_two,
            "target": f">= {TARGET_SPEED_UP}",
            "note": load,
        },
    ]


def main() -> None:
    for row in measure():
        print(f"{row['name']}: {row['fast_s']:.2f} s against {row['slow_s']:.2f} s, {row['ratio']:.2f}x {row['note']}")


if __name__ == "__main__":
    main()
