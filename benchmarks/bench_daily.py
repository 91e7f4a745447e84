"""A daily run's features and labels: one polars query against pandas by symbol; memory of the widest table.

`python benchmarks/bench_daily.py` prints one line each; `measure()` returns the numbers, `child()` runs by itself.
"""

import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import yaml

from tradsys.core.tables import FeatureTable, Labels
from tradsys.features.feature_set import FeatureSet
from tradsys.labels.forward_return import ForwardReturn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from bench_features import timed, wide_panel  # noqa: E402
from slow_daily import HORIZONS, RANKED, slow_daily  # noqa: E402

SIZES = ((500, 1250), (2394, 490))
MARKET = "S0000"
SAMPLE = 20_000  # rows compared


def daily(name: str) -> FeatureSet:
    """The set of conf/features/NAME.yaml."""
    spec = yaml.safe_load((HERE.parent / "conf" / "features" / f"{name}.yaml").read_text(encoding="utf-8"))
    features = []
    for entry in spec["features"]:
        module, cls = entry.pop("_target_").rsplit(".", 1)
        features.append(getattr(importlib.import_module(module), cls)(**entry))
    return FeatureSet(features, max_gap_minutes=None, market_symbol=MARKET, ranks=spec.get("ranks", ()))


def fast_daily(features: FeatureSet, bars: pl.DataFrame) -> tuple[FeatureTable, dict[int, Labels]]:
    """The table, and the labels of each horizon."""
    return features.table(bars), {h: ForwardReturn(h).label(bars) for h in HORIZONS}


def check_equal(table: FeatureTable, labels: dict[int, Labels], slow: pd.DataFrame, features: FeatureSet) -> None:
    """Raises AssertionError unless a sample of rows holds the same numbers, and NaN in the same places."""
    rows = np.random.default_rng(0).choice(len(table), min(SAMPLE, len(table)), replace=False)
    n_days = int((table.symbol == 0).sum())
    # pandas shows Wilder's RSI from row 14 on; ours waits until the seed is forgotten
    warm = {feature.name: feature.warmup for feature in features.features}
    for name in table.names:
        settled = rows[rows % n_days >= warm[name.removesuffix("_rank") if name not in warm else name]]
        size = slow[name].std()
        got, want = table.column(name)[settled], slow[name].to_numpy()[settled]
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6 * size, err_msg=name)
    for horizon, label in labels.items():
        want = slow[f"gain_{horizon}"].to_numpy()[rows]
        np.testing.assert_allclose(label.ret[rows], want, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(label.y[rows], np.where(np.isnan(want), -1, want > 0))


def race(n_symbols: int, n_days: int) -> dict[str, Any]:
    """Seconds of both on the same bars, warm, and their ratio."""
    bars, features = wide_panel(n_symbols, n_days), daily("foundry")
    fast_daily(features, bars.head(3 * n_days))  # numba compiles once
    fast, (table, labels) = min((timed(lambda: fast_daily(features, bars)) for _ in range(3)), key=lambda run: run[0])
    frame = pd.DataFrame({name: bars[name].to_numpy() for name in bars.columns if name != "time"})
    frame["time"] = bars["time"].dt.replace_time_zone(None).to_numpy()
    slow, columns = timed(lambda: slow_daily(frame, MARKET))
    check_equal(table, labels, columns, features)
    return {
        "name": f"daily: features and labels, {n_symbols} x {n_days}",
        "fast_s": fast,
        "slow_s": slow,
        "ratio": slow / fast,
        "note": f"{len(table.names)} features, {len(RANKED)} of them ranks, {len(HORIZONS)} horizons; equal on "
        f"{SAMPLE:,} rows; pandas by symbol",
        "target": 10.0,
    }


def child() -> dict[str, float]:
    """Seconds and peak memory of this process after making the wide panel and its extended table."""
    bars = wide_panel(*SIZES[1])
    seconds, table = timed(lambda: daily("panel").table(bars))
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "peak_gib": peak_gib, "rows": len(table), "columns": len(table.names)}


def memory() -> dict[str, Any]:
    """The extended table in a process of its own, whose peak is the operating system's."""
    code = "import json, bench_daily; print(json.dumps(bench_daily.child()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    reported = json.loads(done.stdout)
    note = f"peak {reported['peak_gib']:.2f} GiB of the process, bars and numba's compile included; aim below 3"
    name = f"daily: table of {reported['rows'] / 1e6:.2f} M rows x {reported['columns']} columns"
    return {"name": name, "fast_s": reported["seconds"], "note": note, "peak_gib": reported["peak_gib"]}


def measure() -> list[dict[str, Any]]:
    """One row a size, and one for memory."""
    return [*(race(*size) for size in SIZES), memory()]


if __name__ == "__main__":
    for row in measure():
        rival = f" vs {row['slow_s']:.2f} s, {row['ratio']:.1f}x" if "ratio" in row else ""
        print(f"{row['name']}: {row['fast_s']:.2f} s{rival} ({row['note']})")
