"""A study on the terminal: best trials, chosen trial, and the gain of a refined search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from tradsys.reports.sweep.wording import HEADINGS, conclusions, heading, ranked, trial_cells
from tradsys.reports.terminal import print_made_up, print_table, screen

MOST_ROWS = 10


def print_sweep(report: Mapping[str, Any], folder: Path) -> None:
    """Prints the best trials and the conclusions to standard output."""
    console = screen()
    print_made_up(console, report["synthetic"])
    table = Table(title=heading(report), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in HEADINGS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in ranked(report)[:MOST_ROWS]:
        table.add_row(*trial_cells(row))
    print_table(console, table)
    for line in conclusions(report):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"report   {folder / 'report.html'}", markup=False, soft_wrap=True)
