"""The quick study of the verdict on kinds of markets, as a table on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from tradsys.reports.terminal import print_table, screen
from tradsys.reports.wording import number

TRIED = {"chosen": "1 tried", "profiles": "4", "levels": "20", "arms": "40"}


def print_kinds(summary: Mapping[str, Any]) -> None:
    """Prints the share of `edge` verdicts by kind of market.

    Also prints whether it is at most 5 %.
    """
    console = screen()
    print_table(console, kinds_table(summary))
    nulls = [cell for cell in summary["cells"] if cell["setting"]["edge"] == 0]
    if nulls:
        broken = summary["broken"]
        kept = f"BROKEN on {', '.join(broken)}" if broken else f"kept on all {len(nulls)} kinds without an edge"
        console.print(f"promise  {kept}: at most 5 % of such markets end in edge", markup=False)
    console.print(f"rows     {summary['folder']}", markup=False, soft_wrap=True)


def kinds_table(summary: Mapping[str, Any]) -> Table:
    """Share of markets with `edge` after each evaluation.

    Wilson's interval for the last one.
    """
    title = "SYNTHETIC DATA: share of markets that end in edge, by how many strategies were tried"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("kind", no_wrap=True)
    for name in ("plant", "edge", "markets", "Sharpe", *TRIED.values(), "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in summary["cells"]:
        setting, last = cell["setting"], cell["looks"][-1]
        shares = [f"{look['n_edge'] / cell['n']:.1%}" for look in cell["looks"]]
        low, high = last["interval"]
        plant = setting["plant"] if setting["edge"] else "none"
        given = (setting["kind"], plant, f"{setting['edge']:g}", str(cell["n"]), number(cell["sharpe"], 2))
        table.add_row(*given, *shares, f"{low:.1%} to {high:.1%}")
    return table
