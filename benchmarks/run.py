"""Every benchmark, one line a job: ours, the rival's, their ratio, the aim, met or missed.

python benchmarks/run.py [name ...]                    default: all; see NAMES
python benchmarks/run.py --json bench.json [name ...]  also writes the table with machine, versions and date
python benchmarks/run.py --compare OTHER.json NOW.json what became slower, faster or is gone; runs nothing
python benchmarks/run.py --markdown bench.json         the table as benchmarks/README.md has it; runs nothing

Ours and the rival are measured side by side in one run, so that ratios hold on whatever machine it is. Every benchmark
has a process of its own: one that fails or is killed is named, and costs no row of the others. How fast the machine was
stands beside its name: a shared core runs at a quarter of its speed at times, and seconds mean nothing without it.
"""

import argparse
import importlib
import json
import math
import os
import platform
import re
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

HERE = Path(__file__).parent
NAMES = (
    "windows",
    "triple_barrier",
    "features",
    "fit_loop",
    "stack",
    "transformer",
    "backtest",
    "evidence",
    "audit",
    "supcon",
    "tune",
    "daily",
    "daily_run",
    "trading",
    "commands",
    "demo",
    "read",
    "orderbook",
    "growth",
)
PACKAGES = ("torch", "polars", "numpy", "numba", "vectorbt", "lightgbm", "onnxruntime")
AIM = re.compile(r"(?:ratio\s*)?(>=|<=|<|>)\s*([\d.]+)\s*$")
NOT_MEASURED = "not measured"
CHANGED = 1.2  # a figure that became worse or better by more than this is named
WIDTH = 80


def bound_of(row: dict[str, Any]) -> tuple[str, float] | None:
    """Sign and limit of the aim; None where it is no bound on the ratio."""
    aim = row.get("target")
    bound = AIM.match(f">= {aim}" if isinstance(aim, int | float) else str(aim or ""))
    return None if bound is None else (bound[1], float(bound[2]))


def outcome(row: dict[str, Any]) -> str:
    """`met`, `missed`, or nothing where the aim is no bound on the ratio."""
    bound, ratio = bound_of(row), row.get("ratio")
    if bound is None or ratio is None:
        return ""
    sign, limit = bound
    held = {">=": ratio >= limit, "<=": ratio <= limit, "<": ratio < limit, ">": ratio > limit}[sign]
    return "met" if held else "missed"


def about() -> dict[str, Any]:
    """Date, machine and versions."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{processor()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}",
        "loop_s": round(min(loop_seconds() for _ in range(5)), 2),
        "versions": {package: version(package) for package in PACKAGES},
    }


def loop_seconds() -> float:
    """CPU seconds of ten million additions in plain Python: the speed of one core now."""
    began, total = time.process_time(), 0
    for k in range(10_000_000):
        total += k
    return time.process_time() - began


def processor() -> str:
    """The processor's name where Linux gives it, else its kind."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def measured(name: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of one benchmark from a process of its own; one row that says why where it failed."""
    began = time.perf_counter()
    # spawned: threads, imports and memory of one benchmark are no other's
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        try:
            rows = process.submit(rows_of, name, folder).result()
        except (Exception, SystemExit) as cause:  # also a killed process; the others go on
            rows = [{"name": name, "note": f"{NOT_MEASURED}: {type(cause).__name__}: {_last_line(cause)}"}]
    spent = time.perf_counter() - began
    return [row | {"benchmark": name, "outcome": outcome(row), "benchmark_s": round(spent, 1)} for row in rows]


def _last_line(cause: BaseException) -> str:
    """What an exception says last; of a failed command, what the command said."""
    said = getattr(cause, "stderr", None) or str(cause)
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return (text.strip().splitlines() or [""])[-1][:300]


def rows_of(name: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of one benchmark; where it gives none that can be printed, one row whose note says why."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    rows = list(importlib.import_module(f"bench_{name}").measure())
    unprinted = [k for k, row in enumerate(rows) if "name" not in row or not {"fast_s", "ratio"} & set(row)]
    if rows and not unprinted:
        return rows
    why = f"rows {unprinted} lack a name, or fast_s and ratio" if rows else "measure() returned no row"
    return [{"name": name, "note": f"{NOT_MEASURED}: {why}"}]


def machine_of(result: dict[str, Any]) -> str:
    """Date, machine and, where it was measured, its speed."""
    speed = f"; ten million additions in Python: {result['loop_s']:g} s" if "loop_s" in result else ""
    return f"{result['date']}, {result['machine']}{speed}"


def notes(result: dict[str, Any]) -> list[str]:
    """A line for each job that has more to say: an aim that is no bound on the ratio, how it was measured."""
    lines = []
    for row in result["rows"]:
        aim = f"aim: {row['target']}" if row.get("target") and bound_of(row) is None else ""
        if said := "; ".join(part for part in (aim, row.get("note", "")) if part):
            lines.append(f"{row['name'].strip()}: {said}")
    return lines


def table(result: dict[str, Any]) -> Table:
    """The one table that README and docs quote, a section for each benchmark."""
    drawn = Table(
        title=machine_of(result), box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), width=WIDTH, title_justify="left"
    )
    for column in ("job", "ours s", "rival s", "ratio", "aim", ""):
        drawn.add_column(column, justify="left" if column in ("job", "") else "right", overflow="fold")
    drawn.columns[0].ratio = 1
    last = result["rows"][-1]["benchmark"] if result["rows"] else None
    for row, after in zip(result["rows"], [*result["rows"][1:], {"benchmark": last}], strict=False):
        numbers = (f"{row[k]:.4g}" if row.get(k) is not None else "" for k in ("fast_s", "slow_s", "ratio"))
        bound = bound_of(row)
        aim = "" if bound is None else f"{bound[0]} {bound[1]:g}"
        ends = row["benchmark"] != after["benchmark"]
        outcome = row["outcome"] or ("failed" if row.get("note", "").startswith(NOT_MEASURED) else "")
        drawn.add_row(Text(row["name"]), *numbers, aim, outcome, end_section=ends)  # no markup: names have brackets
    return drawn


def markdown(result: dict[str, Any]) -> str:
    """The table with its notes in Markdown, as `benchmarks/README.md` has it."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [f"{machine_of(result)}{'; ' * bool(versions)}{versions}.", ""]
    lines += ["| benchmark | job | ours s | rival s | ratio | aim | | how |", "|---|---|---|---|---|---|---|---|"]
    for row in result["rows"]:
        numbers = [f"{row[k]:.4g}" if row.get(k) is not None else "" for k in ("fast_s", "slow_s", "ratio")]
        bound = bound_of(row)
        aim = str(row.get("target") or "") if bound is None else f"{bound[0]} {bound[1]:g}"
        cells = [row["benchmark"], row["name"].strip(), *numbers, aim, row["outcome"], row.get("note", "")]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def compared(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Lines on the jobs that became slower or faster by more than CHANGED, are gone or new; worse first.

    Compared is the ratio, which holds on another machine, else our own seconds. Where the aim is an upper bound, less
    is better.
    """
    old, new = ({(row["benchmark"], row["name"]): row for row in one["rows"]} for one in (before, now))
    lines: dict[str, list[str]] = {"slower": [], "not measured now": [], "faster": [], "new": []}
    for key, was in old.items():
        row = new.get(key, {})
        figure = next((k for k in ("ratio", "fast_s") if was.get(k) is not None), None)
        if figure is None:
            continue
        if row.get(figure) is None:
            lines["not measured now"].append(was["name"])
            continue
        bound = bound_of(row)
        less_is_better = figure == "fast_s" or (bound is not None and bound[0] in ("<", "<="))
        a, b = (was[figure], row[figure]) if less_is_better else (row[figure], was[figure])
        kind = "slower" if b > a * CHANGED else "faster" if a > b * CHANGED else None
        if kind:
            unit = " s" if figure == "fast_s" else "x"
            lines[kind].append(f"{was['name']}: {was[figure]:.4g}{unit} -> {row[figure]:.4g}{unit}")
    lines["new"] = [row["name"] for key, row in new.items() if key not in old and row.get("ratio") is not None]
    other = [f"other {k}: {before[k]} -> {now[k]}" for k in ("machine", "versions") if before[k] != now[k]]
    speeds = [one.get("loop_s", math.nan) for one in (before, now)]
    if max(speeds) > CHANGED * min(speeds):
        other.append(f"other speed of a core: a loop of {speeds[0]:g} s -> {speeds[1]:g} s; compare no seconds")
    return [*other, *(f"{kind:16s} {line}" for kind, some in lines.items() for line in some)]


def read_result(path: Path) -> dict[str, Any]:
    """A file that `--json` wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise SystemExit(f"bench: {path}: {cause}; `make bench` writes such a file") from None
    if not isinstance(found, dict) or not {"date", "machine", "versions", "rows"} <= found.keys():
        raise SystemExit(f"bench: {path} is no table of benchmarks; `make bench` writes one")
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OTHER", "NOW"))
    parser.add_argument("--markdown", type=Path, metavar="FILE.json")
    asked = parser.parse_args(arguments)
    if asked.markdown:
        print(markdown(read_result(asked.markdown)))
        return
    console = Console(width=WIDTH, highlight=False)
    if asked.compare:
        other, now = (read_result(path) for path in asked.compare)
        lines = compared(now, other)
        same = f"nothing slower or faster than {asked.compare[0]} by more than {CHANGED}x"
        console.print("\n".join(lines or [same]), markup=False)
        return
    result = about() | {"rows": []}
    for name in asked.names or NAMES:
        result["rows"] += (rows := measured(name, HERE))
        print(f"{name}: {rows[0]['benchmark_s']:.0f} s", file=sys.stderr, flush=True)
        if asked.json:  # after each: a run that is stopped keeps what it measured
            asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print("\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in notes(result)), markup=False)
    console.print(table(result))
    lacking = [row["name"] for row in result["rows"] if row.get("note", "").startswith(NOT_MEASURED)]
    if lacking:
        raise SystemExit(f"benchmarks without rows: {', '.join(lacking)}")


if __name__ == "__main__":
    main(sys.argv[1:])
