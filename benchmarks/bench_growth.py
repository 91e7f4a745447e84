"""How time and memory of a whole experiment grow with its history, from 14,000 bars to 5 million rows.

`python benchmarks/bench_growth.py` runs `python -m tradsys.train` on the synthetic market once for every size, each in
a process of its own: features, labels, regimes, a logistic model, auditor, strategies, backtest, bundle and report.
What the smallest run takes beside its rows (imports, compiled kernels, drawing) is in every time.
"""

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import child

# symbols, bars of each and their minutes: one coin of up to half a year's minutes; seven coins of 4.5 years' hours, and
# of minutes up to five million rows
SIZES = ((1, 14_000, 1), (1, 70_000, 1), (1, 280_000, 1), (7, 40_000, 60), (7, 715_000, 1))
N_FEATURES, BYTES = 48, 4  # of the default feature set, in float32
AIM_EXPONENT, AIM_TABLES, AIM_FIXED_GB = 1.0, 4.0, 0.8
SETTINGS = ("model=logistic", "data.edge=0")  # an edge would compound beyond all numbers


@dataclass(frozen=True)
class Run:
    """One experiment. cpu_s: of the whole process; peak_gb: its resident memory."""

    n_symbols: int
    n_bars: int
    cpu_s: float
    peak_gb: float

    @property
    def rows(self) -> int:
        """Rows of the feature table."""
        return self.n_symbols * self.n_bars

    @property
    def allowed_gb(self) -> float:
        """The aim: so many feature tables and a fixed part."""
        return AIM_TABLES * self.rows * N_FEATURES * BYTES / 1e9 + AIM_FIXED_GB


def experiment(n_symbols: int, n_bars: int, minutes: int) -> Run:
    """Trains on that many bars in a folder that is thrown away."""
    symbols = ",".join(f"SYN{k}" for k in range(n_symbols))
    with tempfile.TemporaryDirectory() as folder:
        data = (f"data.n_bars={n_bars}", f"data.bar_minutes={minutes}", f"data.source.symbols=[{symbols}]")
        used = child.run("train", Path(folder), *data, *SETTINGS)
    return Run(n_symbols, n_bars, used.cpu_s, used.peak_gb)


def exponent(small: Run, large: Run) -> float:
    """d log(time) / d log(rows) between two runs."""
    return math.log(large.cpu_s / small.cpu_s) / math.log(large.rows / small.rows)


def measure() -> list[dict]:
    """A row for every size's memory against its aim, and the exponents of one symbol's history and of all rows."""
    most = int(os.environ.get("TRADSYS_BENCH_ROWS", "5005000"))  # sizes beyond are left out
    runs = [experiment(*size) for size in SIZES if math.prod(size[:2]) <= most]
    rows = [
        {
            "name": f"whole experiment, {run.n_symbols} x {run.n_bars:,} bars: peak over the aim",
            "fast_s": run.cpu_s,
            "ratio": run.peak_gb / run.allowed_gb,
            "target": "<= 1",
            "note": f"CPU seconds; {run.peak_gb:.2f} GB, aim {run.allowed_gb:.2f}",
        }
        for run in runs
    ]
    of_one = [run for run in runs if run.n_symbols == 1]
    pairs = [(of_one[0], of_one[-1]), (of_one[-1], runs[-1])]
    rows += [
        {
            "name": f"growth exponent of time, {small.rows:,} to {large.rows:,} rows",
            "ratio": exponent(small, large),
            "target": f"<= {AIM_EXPONENT:g}",
        }
        for small, large in pairs
        if large.rows > small.rows
    ]
    return rows


if __name__ == "__main__":
    for row in measure():
        print(*(f"{key}: {value}" for key, value in row.items()), sep="; ")
