"""A whole daily run: the first session of a store against its aim, sessions added to it, peak memory of each.

`python benchmarks/bench_daily_run.py` prints one line each; `measure()` returns the numbers.
"""

import json
import os
import tempfile
import time
from datetime import date
from pathlib import Path

import child

from tradsys.market.sessions import session_date
from tradsys.market.store import BarStore
from tradsys.market.synthetic_panel import SyntheticPanel

N_SYMBOLS = int(os.environ.get("TRADSYS_BENCH_SYMBOLS", "500"))
N_SESSIONS = int(os.environ.get("TRADSYS_BENCH_SESSIONS", "1250"))
AIM_S, AIM_OF_TWO_S, AIM_SHARE, AIM_MODELS_S = 10.0, 15.0, 10.0, 7.0
# gates that let a panel without an edge through: what is timed is the run, not its verdict
SETTINGS = [
    "data=us_daily",
    "data.market_symbol=MKT",
    "data.source.start=null",
    "data.source.end=null",
    "gates.rules.auc.stop_below=0.0",
    "gates.rules.training_rows.stop_below=1",
]


def stages(lab: Path, day: date) -> dict[str, float]:
    """Seconds of a session's own stages, as their manifests tell: no import, no config, no reading of the store."""
    folders = (lab / "runs" / "daily" / "foundry").glob(f"*/date={day}/manifest.json")
    reported = {path.parents[1].name: json.loads(path.read_text())["seconds"] for path in folders}
    return {name: seconds for name, seconds in reported.items() if name not in ("prices", "training")}


def measure() -> list[dict]:
    """The first session alone and with one more, against their aims; an added session against the first."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder)
        bars = SyntheticPanel(n_symbols=N_SYMBOLS, n_sessions=N_SESSIONS, deaths=0.0, late=0.0).bars()
        BarStore(lab / "data").write("us_daily", bars, {"source": "synthetic", "bar_minutes": 1440})
        days = sorted(bars.select(session_date().unique()).to_series().to_list())[-3:]
        only = child.run("daily", lab, "run", *SETTINGS, f"date={days[0]}", "name=alone")
        whole = child.run("daily", lab, "run", *SETTINGS, f"date={days[0]}", f"until={days[1]}")
        of_first = stages(lab, days[0])
        first, added = sum(of_first.values()), sum(stages(lab, days[1]).values())
        alone = child.run("daily", lab, "run", *SETTINGS, f"date={days[2]}")
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    size = f"{N_SYMBOLS} names x {N_SESSIONS} sessions; {load}"
    return [
        {
            "name": "first session alone, whole command, against 10 s",
            "fast_s": only.wall_s,
            "slow_s": AIM_S,
            "ratio": AIM_S / only.wall_s,
            "target": ">= 1",
            "note": f"{only.cpu_s:.1f} s of CPU, {only.peak_gb:.2f} GB; {size}",
        },
        {
            "name": "first session and one more, whole command, against 15 s",
            "fast_s": whole.wall_s,
            "slow_s": AIM_OF_TWO_S,
            "ratio": AIM_OF_TWO_S / whole.wall_s,
            "target": ">= 1",
            "note": f"{whole.cpu_s:.1f} s of CPU, {whole.peak_gb:.2f} GB; {size}",
        },
        {
            "name": f"models stage of the first session, against {AIM_MODELS_S:g} s",
            "fast_s": of_first["models"],
            "slow_s": AIM_MODELS_S,
            "ratio": AIM_MODELS_S / of_first["models"],
            "target": ">= 1",
            "note": f"three horizons, bundles and test forecasts included; {size}",
        },
        {
            "name": "stages of an added session, against those of the first",
            "fast_s": added,
            "slow_s": first,
            "ratio": first / added,
            "target": f">= {AIM_SHARE:.0f}",
            "note": size,
        },
        {
            "name": "an added session, a command of its own, against the first two",
            "fast_s": alone.cpu_s,
            "slow_s": whole.cpu_s,
            "ratio": whole.cpu_s / alone.cpu_s,
            "note": f"CPU seconds, imports and reading the store included; {alone.peak_gb:.2f} GB",
        },
    ]


if __name__ == "__main__":
    began = time.perf_counter()
    for row in measure():
        print(f"{row['name']}: {row['fast_s']:.2f} s, {row['slow_s']:.2f} s, {row['ratio']:.1f}x ({row['note']})")
    print(f"{time.perf_counter() - began:.0f} s in all")
