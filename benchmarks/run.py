"""Every benchmark, one ratio a line, fast and slow measured side by side in this run.

python benchmarks/run.py [name ...]     default: all; see NAMES
"""

import importlib
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
NAMES = (
    "windows",
    "triple_barrier",
    "features",
    "lightning",
    "backtest",
    "evidence",
    "audit",
    "supcon",
    "tune",
    "daily",
    "daily_run",
)


def main(names: list[str]) -> None:
    sys.path.insert(0, str(HERE))
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        sys.exit(f"benchmarks: {unknown} unknown; known are {list(NAMES)}")
    table = Table(title=f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}")
    for column in ("benchmark", "fast s", "slow s", "ratio", "aim", "note"):
        table.add_column(column, justify="left" if column in ("benchmark", "note") else "right", overflow="fold")
    for name in names or NAMES:
        for row in importlib.import_module(f"bench_{name}").measure():
            fast, slow, ratio = (
                f"{row[k]:.4g}" if row.get(k) is not None else "" for k in ("fast_s", "slow_s", "ratio")
            )
            table.add_row(row["name"], fast, slow, ratio, str(row.get("target", "")), row.get("note", ""))
    Console(width=150).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
