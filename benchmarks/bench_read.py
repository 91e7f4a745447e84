"""Reading and checking 10 million rows: this reader against a bare polars scan with the checks a skilled user writes.

  python benchmarks/bench_read.py [ROWS] [csv|parquet]      default: TRADSYS_BENCH_ROWS or 10 million, parquet

Each variant runs in a child process: wall-clock and CPU seconds of reading alone, and the child's peak resident set
with imports in it. Twenty symbols, one file, hourly.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tradsys.market.sources.files import read

N_ROWS = int(os.environ.get("TRADSYS_BENCH_ROWS", "10000000"))
AIM_S, AIM_GB = 10.0, 2.0
SYMBOLS = 20
PRICES = ("open", "high", "low", "close")


def write(folder: Path, n_rows: int, kind: str) -> Path:
    """Random hourly bars of several symbols, as a vendor's long file stamped at the open."""
    per = n_rows // SYMBOLS
    rng = np.random.default_rng(0)
    minutes = np.arange(per) * 60_000_000 + int(datetime(2000, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    frames = []
    for k in range(SYMBOLS):
        close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, per)))
        opened = np.concatenate([[100.0], close[:-1]])
        spread = np.abs(rng.normal(0, 5e-4, (2, per)))
        frames.append(
            pl.DataFrame(
                {
                    "symbol": pl.Series([f"C{k:02d}USDT"]).new_from_index(0, per),
                    "timestamp": pl.Series(minutes).cast(pl.Datetime("us")),
                    "open": opened.round(6),
                    "high": (np.maximum(opened, close) * (1 + spread[0])).round(6) + 1e-6,
                    "low": (np.minimum(opened, close) * (1 - spread[1])).round(6) - 1e-6,
                    "close": close.round(6),
                    "volume": rng.uniform(1, 1000, per).round(3),
                }
            )
        )
    path = folder / f"rows.{kind}"
    frame = pl.concat(frames)
    if kind == "csv":
        frame.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    else:
        frame.write_parquet(path)
    return path


def ours(path: Path) -> int:
    """Rows that the package's reader returns."""
    return read(path, "plain").bars.height


def rival(path: Path) -> int:
    """Rows of polars alone: read, sort, and the same rules on order, duplicates, ranges and steps."""
    lazy = pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path, try_parse_dates=True)
    bars = lazy.sort("symbol", "timestamp").collect()
    again = (pl.col("symbol") == pl.col("symbol").shift()) & (pl.col("timestamp") == pl.col("timestamp").shift())
    bad = bars.select(
        pl.any_horizontal(~pl.col(n).is_finite() | (pl.col(n) <= 0) for n in PRICES).sum(),
        high=(pl.col("high") < pl.max_horizontal("open", "close")).sum(),
        low=(pl.col("low") > pl.min_horizontal("open", "close")).sum(),
        twice=again.sum(),
    )
    steps = bars.group_by("symbol").agg(pl.col("timestamp").diff().mode().first())
    assert bad.row(0) == (0, 0, 0, 0)
    assert steps.height == SYMBOLS
    return bars.height


VARIANTS: dict[str, Callable[[Path], int]] = {"ours": ours, "rival": rival}


def measured(name: str, path: Path) -> dict[str, float]:
    """Rows, seconds, CPU seconds and peak memory of one variant in a child process."""
    command = [sys.executable, __file__, name, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def both(n_rows: int, kind: str) -> dict[str, dict[str, float]]:
    """What each variant took for one file of this kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), n_rows, kind)
        return {name: measured(name, path) for name in VARIANTS}


def measure() -> list[dict[str, Any]]:
    """CPU seconds of both variants, and the reader's wall time and memory against their aims, for each kind of file."""
    rows: list[dict[str, Any]] = []
    for kind in ("csv", "parquet"):
        found = both(N_ROWS, kind)
        fast, slow = found["ours"], found["rival"]
        size = f"{N_ROWS / 1e6:g} M rows of {kind}"
        name, note = f"{size} read and checked, CPU, against bare polars", f"rival: {slow['peak_gb']:.2f} GB"
        ratio = slow["cpu"] / fast["cpu"]
        rows.append({"name": name, "fast_s": fast["cpu"], "slow_s": slow["cpu"], "ratio": ratio, "note": note})
        rows.append(
            {
                "name": f"{size}: wall time, against {AIM_S:g} s",
                "fast_s": fast["seconds"],
                "ratio": AIM_S / fast["seconds"],
                "target": ">= 1",
            }
        )
        rows.append({"name": f"{size}: peak in GB", "ratio": fast["peak_gb"], "target": f"<= {AIM_GB:g}"})
    return rows


def main(argv: list[str]) -> None:
    """Writes the file, runs both variants, prints a line each and the ratio."""
    if argv and argv[0] in VARIANTS:
        began, cpu = time.perf_counter(), time.process_time()
        n_rows = VARIANTS[argv[0]](Path(argv[1]))
        spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(json.dumps({"rows": n_rows, **spent, "peak_gb": peak}))
        return
    n_rows, kind = int(argv[0]) if argv else N_ROWS, argv[1] if len(argv) > 1 else "parquet"
    found = both(n_rows, kind)
    for name, one in found.items():
        spent = f"{one['seconds']:7.1f} s {one['cpu']:6.1f} CPU s {one['peak_gb']:5.2f} GB"
        print(f"{name:6s} {one['rows']:>12,} rows {spent}")
    print(f"ratio  {found['ours']['cpu'] / found['rival']['cpu']:.1f} times the CPU seconds of the bare read")


if __name__ == "__main__":
    main(sys.argv[1:])
