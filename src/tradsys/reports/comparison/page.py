"""A comparison as a table on the terminal, as JSON, as Markdown to paste, and as one HTML page with its forest plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.table import Table

from tradsys.core.headline import HEADLINE, OVER_BASE_RATE
from tradsys.core.runs import write_json, write_text
from tradsys.reports import wording
from tradsys.reports.comparison.forest_plot import skills_and_differences
from tradsys.reports.page import render_page
from tradsys.reports.terminal import print_table, screen
from tradsys.reports.wording import UNKNOWN, bounds, count, number

HEADINGS = (
    "arm",
    "skill beyond\nthe level",
    "over the\nbase rate",
    "difference",
    "p",
    "p, Holm",
    "rank",
    "seeds",
    "seed sd",
    "fold sd",
    "AUC",
    "params",
    "s / fit",
)
OWN_ROWS = "* judged on its own rows, since it asks another question; its skill is beyond the level of those"


def write_comparison(table: Mapping[str, Any], folder: Path) -> None:
    """Writes table.json, metrics.json (for the journal), table.md and report.html whole into `folder`."""
    write_json(folder / "table.json", table)
    models = {arm["name"]: {HEADLINE: arm[HEADLINE], "difference": arm["difference"]} for arm in table["arms"]}
    write_json(folder / "metrics.json", {"models": models})
    write_text(folder / "table.md", markdown(table))
    write_text(folder / "report.html", render(table))


def print_comparison(table: Mapping[str, Any]) -> None:
    """Prints the table and what follows from it to standard output."""
    console = screen()
    if table["synthetic"]:
        console.print(f"SYNTHETIC DATA: {table['synthetic']}", markup=False, style="bold magenta")
    print_table(console, rich_table(table))
    for line in notes(table):
        console.print(line, markup=False, style="dim")
    for said in table["conclusions"]:
        console.print(f"- {said['text']}", markup=False)
    console.print(f"report   {table['folder']}/report.html", markup=False, soft_wrap=True)


def rich_table(table: Mapping[str, Any]) -> Table:
    """One line per arm, best first; numbers to the right, intervals under their values."""
    out = Table(title=title(table), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in HEADINGS:
        out.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
    for arm in table["arms"]:
        out.add_row(
            *(cell.replace(" [", "\n\\[").replace(" (to ", "\n(to ") for cell in cells(arm, table["reference"]))
        )
    return out


def title(table: Mapping[str, Any]) -> str:
    """What was compared, in one line."""
    first, last = table["folds"][0]["start"][:10], table["folds"][-1]["end"][:10]
    return (
        f"{table['name']}: {len(table['arms'])} arms, {table['n_folds']} folds, tested {first} to {last}, "
        f"reference {table['reference']}"
    )


def cells(arm: Mapping[str, Any], reference: str) -> tuple[str, ...]:
    """An arm's texts under HEADINGS."""
    gap, to_other = arm["difference"], arm["against"] not in (None, reference)
    return (
        arm["name"] + (" *" if arm["own_rows"] else ""),
        wording.interval(arm[HEADLINE], 4),
        number(arm[OVER_BASE_RATE], 4),
        "reference" if gap is None else _signed(gap) + (f" (to {arm['against']})" if to_other else ""),
        _p(arm["p"]),
        _p(arm["p_holm"]),
        str(arm["rank"]),
        str(len(arm["seeds"])),
        "" if arm["seed_sd"] is None else number(arm["seed_sd"], 4),
        "" if arm["fold_sd"] is None else number(arm["fold_sd"], 4),
        number(arm["auc"], 3),
        "" if arm["n_parameters"] is None else count(arm["n_parameters"]),
        number(arm["seconds_per_fit"], 1),
    )


def notes(table: Mapping[str, Any]) -> list[str]:
    """How to read the table: what intervals hold, how many comparisons there were, what does not fit."""
    level = f"{100 * table['confidence']:g} %"
    lines = [
        "skill beyond the level = 1 - log-loss / log-loss of the best constant, both at the level of each test block.",
        f"Intervals at {level} hold blocks of time (mean "
        f"{table['block_length']:.0f} of {table['n_times']:,} decision times) and seeds. Equal ranks: a tie.",
        f"{table['n_comparisons']} differences were tested; the p by Holm holds for all of them together.",
        superior(table),
    ]
    if table["no_intervals"]:
        lines.append(f"No intervals: {table['no_intervals']}.")
    if any(arm["own_rows"] for arm in table["arms"]):
        lines.append(f"{OWN_ROWS}.")
    single = [arm["name"] for arm in table["arms"] if len(arm["seeds"]) == 1]
    if single:
        lines.append(f"One seed, so that chance in the fit is not seen: {', '.join(single)}.")
    code = sorted({sha for arm in table["arms"] for sha in arm["code"]})
    if len(code) > 1:
        lines.append(f"Cells were run on different code ({', '.join(code)}); delete `cells` to run all anew.")
    return lines


def superior(table: Mapping[str, Any]) -> str:
    """Whether the best arm beats the reference beyond the luck of being chosen, or why that is not tested."""
    found, reference = table["superiority"], table["reference"]
    if found["p"] is None:
        return f"Superior predictive ability is not tested: {found['reason']}."
    return (
        f"Superior predictive ability (Hansen 2005): p {_p(found['p'])} that no one of {found['n_variants'] - 1} arms "
        f"truly beats {reference}; the best is {found['best']}. It takes off the luck of choosing, not that of seeds."
    )


def markdown(table: Mapping[str, Any]) -> str:
    """The table with its date, command and conclusions, ready to paste."""
    kind = "SYNTHETIC DATA. " if table["synthetic"] else ""
    lines = [
        f"{kind}{title(table)}.",
        f"`{table['command']}`, {table['provenance']['created'][:10]}, code {table['provenance']['code_sha']}",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|---|" + "---:|" * (len(HEADINGS) - 1),
        *("| " + " | ".join(cells(arm, table["reference"])) + " |" for arm in table["arms"]),
        "",
        *(f"- {said['text']}" for said in table["conclusions"]),
        "",
        *notes(table),
    ]
    return "\n".join(lines) + "\n"


def render(table: Mapping[str, Any]) -> str:
    """The page as HTML; every text in it is escaped."""
    return render_page(
        "comparison/comparison.html.j2",
        figures={"forest": skills_and_differences(table)},
        synthetic=table["synthetic"],
        table=table,
        title=title(table),
        headings=HEADINGS,
        rows=[(arm, _stacked(cells(arm, table["reference"]))) for arm in table["arms"]],
        notes=notes(table),
        config=yaml.safe_dump(table["provenance"]["config"], sort_keys=False, allow_unicode=True),
    )


def _stacked(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Value and, for the line below it, its interval."""
    return [(value, f"[{rest}" if rest else "") for value, _, rest in (text.partition(" [") for text in texts)]


def _signed(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return UNKNOWN
    value = f"{estimate['value']:+.4f}"
    return value if estimate["low"] is None else f"{value} {bounds(estimate['low'], estimate['high'], 4)}"


def _p(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else number(value, 3)
