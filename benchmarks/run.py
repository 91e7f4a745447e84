"""Every benchmark, one line a job: ours, the rival's, their ratio, the aim, met or missed.

python benchmarks/run.py [name ...]                    default: all; see NAMES
python benchmarks/run.py --json bench.json [name ...]  also writes the table with machine, versions and date
python benchmarks/run.py --compare OTHER.json          runs all again and shows what became slower than there

Ours and the rival are measured side by side in one run, so that ratios hold on whatever machine it is.
"""

import argparse
import importlib
import json
import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
NAMES = (
    "windows",
    "triple_barrier",
    "features",
    "fit_loop",
    "transformer",
    "backtest",
    "evidence",
    "audit",
    "supcon",
    "tune",
    "daily",
    "daily_run",
    "trading",
)
PACKAGES = ("torch", "polars", "numpy", "numba", "vectorbt", "lightgbm", "onnxruntime")
AIM = re.compile(r"(?:ratio\s*)?(>=|<=|<|>)\s*([\d.]+)\s*$")
NOT_MEASURED = "not measured"
SLOWER = 1.2  # a ratio that fell by more than this is named


def outcome(row: dict[str, Any]) -> str:
    """`met`, `missed`, or nothing where the aim is no bound on the ratio."""
    aim = row.get("target")
    bound = AIM.match(f">= {aim}" if isinstance(aim, int | float) else str(aim or ""))
    if bound is None or row.get("ratio") is None:
        return ""
    sign, limit, ratio = bound[1], float(bound[2]), row["ratio"]
    held = {">=": ratio >= limit, "<=": ratio <= limit, "<": ratio < limit, ">": ratio > limit}[sign]
    return "met" if held else "missed"


def measured(names: list[str]) -> dict[str, Any]:
    """The rows of these benchmarks with the machine, the versions and the date."""
    sys.path.insert(0, str(HERE))
    rows = [row | {"benchmark": name} for name in names for row in rows_of(name)]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}",
        "versions": {package: version(package) for package in PACKAGES},
        "rows": [row | {"outcome": outcome(row)} for row in rows],
    }


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of one benchmark; where it gives none that can be printed, one row whose note says why."""
    rows = list(importlib.import_module(f"bench_{name}").measure())
    unprinted = [k for k, row in enumerate(rows) if "name" not in row or not {"fast_s", "ratio"} & set(row)]
    if rows and not unprinted:
        return rows
    why = f"rows {unprinted} lack a name, or fast_s and ratio" if rows else "measure() returned no row"
    return [{"name": name, "note": f"{NOT_MEASURED}: {why}"}]


def table(result: dict[str, Any]) -> Table:
    """The one table that README and docs quote."""
    drawn = Table(title=f"{result['date']}, {result['machine']}")
    for column in ("job", "ours s", "rival s", "ratio", "aim", "", "note"):
        drawn.add_column(column, justify="left" if column in ("job", "", "note") else "right", overflow="fold")
    for row in result["rows"]:
        numbers = (f"{row[k]:.4g}" if row.get(k) is not None else "" for k in ("fast_s", "slow_s", "ratio"))
        drawn.add_row(row["name"], *numbers, str(row.get("target", "")), row["outcome"], row.get("note", ""))
    return drawn


def slower(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """A line for each job whose ratio fell, or whose own seconds rose where there is no ratio, beyond SLOWER."""
    old = {row["name"]: row for row in before["rows"]}
    lines = []
    for row in now["rows"]:
        was = old.get(row["name"], {})
        for key, worse in (("ratio", lambda a, b: a * SLOWER < b), ("fast_s", lambda a, b: a > b * SLOWER)):
            if row.get(key) is not None and was.get(key) is not None:
                if worse(row[key], was[key]):
                    lines.append(f"{row['name']}: {key} {was[key]:.4g} -> {row[key]:.4g}")
                break
    return lines


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--compare", type=Path)
    asked = parser.parse_args(arguments)
    before = json.loads(asked.compare.read_text(encoding="utf-8")) if asked.compare else None
    result = measured(asked.names or list(NAMES))
    console = Console(width=150)
    console.print(table(result))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if before is not None:
        lines = slower(result, before)
        console.print("\n".join(lines) if lines else f"nothing slower than {asked.compare} by more than {SLOWER}x")
    lacking = [row["name"] for row in result["rows"] if row.get("note", "").startswith(NOT_MEASURED)]
    if lacking:
        raise SystemExit(f"benchmarks without rows: {', '.join(lacking)}")


if __name__ == "__main__":
    main(sys.argv[1:])
