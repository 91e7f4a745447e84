"""`make demo`, once everything is installed: wall time and peak memory of `python -m tradsys.train +experiment=demo`.

`python benchmarks/bench_demo.py` runs it twice in an empty folder, each in a process of its own. The first run compiles
kernels where this code never ran, the second takes features and labels from the cache.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

AIM_S, AIM_GB = 45.0, 1.2
CHILD = """
import resource, sys
from tradsys.train import work
work(["+experiment=demo"])
used = resource.getrusage(resource.RUSAGE_SELF)
print("MEASURED", used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9)
"""


@dataclass(frozen=True)
class Run:
    """Seconds of wall time and CPU, and resident gigabytes, of one run."""

    wall_s: float
    cpu_s: float
    peak_gb: float


def demo(folder: Path) -> Run:
    """Runs the demo in a folder, its imports included."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=folder, capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - began
    line = next(line for line in done.stdout.splitlines() if line.startswith("MEASURED"))
    cpu_s, peak_gb = map(float, line.split()[1:])
    return Run(wall_s, cpu_s, peak_gb)


def measure() -> list[dict]:
    """Both runs against 45 s, and the larger peak against 1.2 GB."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [demo(Path(folder)) for _ in range(2)]
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
