"""`make demo`, once everything is installed: wall time and peak memory of `python -m tradsys.train +experiment=demo`.

`python benchmarks/bench_demo.py` runs it twice in an empty folder, each in a process of its own. The first run compiles
kernels where this code never ran, the second takes features and labels from the cache.
"""

import os
import tempfile
from pathlib import Path

import child

AIM_S, AIM_GB = 45.0, 1.2


def measure() -> list[dict]:
    """Both runs against 45 s, and the larger peak against 1.2 GB."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [child.run("train", Path(folder), "+experiment=demo") for _ in range(2)]
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    rows = [
        {
            "name": f"make demo after the install, {which} run, against {AIM_S:.0f} s",
            "fast_s": run.wall_s,
            "slow_s": AIM_S,
            "ratio": AIM_S / run.wall_s,
            "target": ">= 1",
            "note": f"wall time; {run.cpu_s:.1f} s of CPU; {load}",
        }
        for which, run in zip(("first", "second"), runs, strict=True)
    ]
    peak = max(run.peak_gb for run in runs)
    return [
        *rows,
        {
            "name": "make demo: peak over the aim",
            "ratio": peak / AIM_GB,
            "target": "<= 1",
            "note": f"{peak:.2f} GB of {AIM_GB}",
        },
    ]


if __name__ == "__main__":
    for row in measure():
        print(f"{row['name']}: {row['ratio']:.2f}x ({row['note']})")
