"""A comparison as a table on the terminal, as JSON, as Markdown to paste, and as one HTML page with its forest plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.table import Table

from tradsys.core.headline import HEADLINE, OVER_BASE_RATE
from tradsys.core.plurals import counted, plural
from tradsys.core.runs import write_json, write_text
from tradsys.reports import wording
from tradsys.reports.comparison.forest_plot import skills_and_differences
from tradsys.reports.page import render_page
from tradsys.reports.terminal import print_made_up, print_table, screen
from tradsys.reports.wording import UNKNOWN, bounds, count, number

HEADINGS = (
    "variant",
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
OWN_ROWS = "* evaluated on its own rows, since its label differs; its skill is beyond the level of those rows"


def write_comparison(table: Mapping[str, Any], folder: Path) -> None:
    """Writes the tables and the page of a comparison into `folder`.

    table.json, metrics.json (for the journal), table.md and report.html.
    """
    write_json(folder / "table.json", table)
    models = {
        variant["name"]: {HEADLINE: variant[HEADLINE], "difference": variant["difference"]}
        for variant in table["variants"]
    }
    write_json(folder / "metrics.json", {"models": models})
    write_text(folder / "table.md", markdown(table))
    write_text(folder / "report.html", render(table))


def print_comparison(table: Mapping[str, Any]) -> None:
    """Prints the table and its conclusions to standard output."""
    console = screen()
    print_made_up(console, table["synthetic"])
    print_table(console, rich_table(table))
    for line in notes(table):
        console.print(line, markup=False, style="dim", soft_wrap=True)
    for conclusion in table["conclusions"]:
        console.print(f"- {conclusion['text']}", markup=False, soft_wrap=True)
    console.print(f"report   {table['folder']}/report.html", markup=False, soft_wrap=True)


def rich_table(table: Mapping[str, Any]) -> Table:
    """One line per variant, best first.

    Numbers to the right, intervals under their values.
    """
    out = Table(title=title(table), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in HEADINGS:
        out.add_column(name, justify="left" if name == "variant" else "right", no_wrap=True)
    for variant in table["variants"]:
        out.add_row(
            *(cell.replace(" [", "\n\\[").replace(" (to ", "\n(to ") for cell in cells(variant, table["reference"]))
        )
    return out


def title(table: Mapping[str, Any]) -> str:
    """Title of a comparison: variants, folds, test span and reference."""
    first, last = table["folds"][0]["start"][:10], table["folds"][-1]["end"][:10]
    return (
        f"{table['name']}: {counted(len(table['variants']), 'variant')}, {counted(table['n_folds'], 'fold')}, tested "
        f"{first} to {last}, "
        f"reference {table['reference']}"
    )


def cells(variant: Mapping[str, Any], reference: str) -> tuple[str, ...]:
    """A variant's texts under HEADINGS."""
    gap, to_other = variant["difference"], variant["against"] not in (None, reference)
    return (
        variant["name"] + (" *" if variant["own_rows"] else ""),
        wording.interval(variant[HEADLINE], 4),
        number(variant[OVER_BASE_RATE], 4),
        "reference" if gap is None else _signed(gap) + (f" (to {variant['against']})" if to_other else ""),
        _p(variant["p"]),
        _p(variant["p_holm"]),
        str(variant["rank"]),
        str(len(variant["seeds"])),
        "" if variant["seed_sd"] is None else number(variant["seed_sd"], 4),
        "" if variant["fold_sd"] is None else number(variant["fold_sd"], 4),
        number(variant["auc"], 3),
        "" if variant["n_parameters"] is None else count(variant["n_parameters"]),
        number(variant["seconds_per_fit"], 1),
    )


def notes(table: Mapping[str, Any]) -> list[str]:
    """Notes below the table of a comparison.

    Coverage of intervals, number of comparisons, inconsistencies.
    """
    level, tested = f"{100 * table['confidence']:g} %", table["n_comparisons"]
    lines = [
        "skill beyond the level = 1 - log-loss / log-loss of the best constant, both at the level of each test block.",
        f"Intervals at {level} include the variation of blocks of time (mean "
        f"{table['block_length']:.0f} of {table['n_times']:,} decision times) and seeds. Equal ranks: a tie.",
        f"{counted(tested, 'difference')} {plural(tested, 'was')} tested; the p by Holm holds for all together.",
        superior(table),
    ]
    if table["no_intervals"]:
        lines.append(f"No intervals: {table['no_intervals']}.")
    if any(variant["own_rows"] for variant in table["variants"]):
        lines.append(f"{OWN_ROWS}.")
    single = [variant["name"] for variant in table["variants"] if len(variant["seeds"]) == 1]
    if single:
        lines.append(f"One seed, so the variation between fits is not measured: {', '.join(single)}.")
    code = sorted({sha for variant in table["variants"] for sha in variant["code"]})
    if len(code) > 1:
        lines.append(f"Fits were run on different code ({', '.join(code)}); delete `fits` to run all again.")
    return lines


def superior(table: Mapping[str, Any]) -> str:
    """Text on the SPA test of the best variant, or why there is none.

    The test is against the reference.
    """
    found, reference = table["superiority"], table["reference"]
    if found["p"] is None:
        return f"Superior predictive ability is not tested: {found['reason']}."
    return (
        f"Superior predictive ability (Hansen 2005): were no variant truly better than {reference}, the best of "
        f"{found['n_variants'] - 1}, here {found['best']}, would do as well as it did with p = "
        f"{_p(found['p'])}. It takes off the luck of choosing, not that of seeds."
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
        *("| " + " | ".join(cells(variant, table["reference"])) + " |" for variant in table["variants"]),
        "",
        *(f"- {conclusion['text']}" for conclusion in table["conclusions"]),
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
        rows=[(variant, _stacked(cells(variant, table["reference"]))) for variant in table["variants"]],
        notes=notes(table),
        config=yaml.safe_dump(table["provenance"]["config"], sort_keys=False, allow_unicode=True),
    )


def _stacked(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a value and its interval, which goes on the line below."""
    return [(value, f"[{rest}" if rest else "") for value, _, rest in (text.partition(" [") for text in texts)]


def _signed(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return UNKNOWN
    value = f"{estimate['value']:+.4f}"
    return value if estimate["low"] is None else f"{value} {bounds(estimate['low'], estimate['high'], 4)}"


def _p(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else number(value, 3)
