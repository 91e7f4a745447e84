"""A study of the verdict as a table on the terminal, as Markdown, and as one HTML page with the power curve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from rich import box
from rich.table import Table

from tradsys.core.runs import write_text
from tradsys.reports.page import render_page
from tradsys.reports.style import QUIET, colour, styled
from tradsys.reports.terminal import print_table, screen
from tradsys.reports.wording import UNKNOWN, bounds, number

HEADINGS = (
    "planted edge",
    "evaluation",
    "strategies seen",
    "effective number",
    "markets",
    "edge found",
    "share",
    "95 % interval",
)
MEANING = {
    "chosen": "the one that validation chose",
    "profiles": "each profile at its best level",
    "levels": "every profile at every level",
    "arms": "the other models, too",
}


def print_study(summary: Mapping[str, Any]) -> None:
    """Prints the table and its conclusions to standard output."""
    console = screen()
    print_table(console, study_table(summary))
    for line in conclusions(summary):
        console.print(line, markup=False)
    console.print(f"report   {summary['folder']}/study.html", markup=False, soft_wrap=True)


def study_table(summary: Mapping[str, Any]) -> Table:
    """Share of markets with `edge` after each evaluation, with its Wilson interval."""
    table = Table(title=title(summary), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in HEADINGS:
        table.add_column(name, justify="left" if name == "look" else "right", no_wrap=True)
    for cells in table_rows(summary):
        table.add_row(*cells)
    return table


def title(summary: Mapping[str, Any]) -> str:
    """Title of the study: number and length of the markets."""
    return (
        f"SYNTHETIC DATA: {summary['n_markets']} markets of {number(summary['years'], 1)} years, "
        f"{number(summary['test_years'], 2)} of them evaluated"
    )


def table_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under HEADINGS, one row per edge and evaluation."""
    out: list[tuple[str, ...]] = []
    for edge in summary["by_edge"]:
        sharpe = edge["sharpe"] or {"value": None}
        planted = f"{edge['edge']:g} (Sharpe {number(sharpe['value'], 2)})"
        for k, look in enumerate(edge["looks"]):
            share = look["share"]
            out.append(
                (
                    "" if k else planted,
                    look["look"],
                    f"{look['n_trials']:.0f}",
                    f"{look['n_effective']:.1f}",
                    str(look["n"]),
                    str(look["n_edge"]),
                    f"{100 * share['value']:.1f} %",
                    f"{100 * share['low']:.1f} to {100 * share['high']:.1f} %",
                )
            )
    return out


def conclusions(summary: Mapping[str, Any]) -> list[str]:
    """The conclusions of the study in a line or two."""
    lines = []
    false = summary["false_edges"]
    if false:
        kept = "kept" if false["share"]["value"] <= false["most"] else "BROKEN"
        lines.append(
            f"promise  {kept}: {false['n_edge']} of {false['n']} markets without an edge ended in edge; "
            f"at most {100 * false['most']:.0f} % may"
        )
    small = summary["smallest"]
    if small:
        where = "in {:.2f} years of test bars".format(summary["test_years"])
        if small["edge"]["value"] is None:
            lines.append(f"power    no edge of those tried is found {100 * small['share']:.0f} % of the time {where}")
        else:
            lines.append(
                f"power    found {100 * small['share']:.0f} % of the time {where}: an edge of "
                f"{_ranged(small['edge'])} sigma a bar, a Sharpe after costs of {_ranged(small['sharpe'])}"
            )
    refused = sum(edge["n_refused"] for edge in summary["by_edge"])
    if refused:
        lines.append(f"refused  {refused} markets, counted as not found; for the reasons see rows.parquet")
    return lines


def _ranged(estimate: Mapping[str, Any]) -> str:
    low, high = (UNKNOWN if v is None else number(v, 2) for v in (estimate["low"], estimate["high"]))
    if UNKNOWN in (low, high):
        return f"{number(estimate['value'], 2)} [{low}, {high}]"
    return f"{number(estimate['value'], 2)} {bounds(estimate['low'], estimate['high'], 2)}"


def power_curve(summary: Mapping[str, Any]) -> go.Figure:
    """Share found against the chosen strategy's mean Sharpe.

    After costs; one line per evaluation.
    """
    figure = go.Figure()
    edges = [e for e in summary["by_edge"] if e["sharpe"] is not None]
    for k, name in enumerate(MEANING):
        points = [(e, look) for e in edges for look in e["looks"] if look["look"] == name]
        if not points:
            continue
        share = [100 * look["share"]["value"] for _, look in points]
        figure.add_scatter(
            x=[e["sharpe"]["value"] for e, _ in points],
            y=share,
            name=MEANING[name],
            mode="lines+markers",
            line={"color": colour(k)},
            text=[f"edge {e['edge']:g}, {look['n_edge']} of {look['n']}" for e, look in points],
            error_y={
                "array": [100 * look["share"]["high"] - s for (_, look), s in zip(points, share, strict=True)],
                "arrayminus": [s - 100 * look["share"]["low"] for (_, look), s in zip(points, share, strict=True)],
                "type": "data",
                "thickness": 1,
            },
        )
    for level, words in ((5, "5 %"), (80, "80 %")):
        figure.add_hline(y=level, line={"color": QUIET, "dash": "dot", "width": 1}, annotation_text=words)
    figure.update_xaxes(title="mean Sharpe after costs of the chosen strategy, on test (a year)")
    figure.update_yaxes(title="markets that ended in edge, %", range=[-3, 103])
    return styled(figure, 460)


def markdown(summary: Mapping[str, Any]) -> str:
    """The table and its conclusions as Markdown."""
    lines = [title(summary), "", "| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(cells) + " |" for cells in table_rows(summary)]
    return "\n".join([*lines, "", *(f"- {line}" for line in conclusions(summary)), ""])


def write_study(summary: Mapping[str, Any], folder: Path) -> None:
    """Writes study.md and a self-contained study.html into `folder`."""
    write_text(folder / "study.md", markdown(summary))
    write_text(folder / "study.html", render(summary))


def render(summary: Mapping[str, Any]) -> str:
    """The page as HTML; every text in it is escaped."""
    return render_page(
        "power_study.html.j2",
        figures={"power": power_curve(summary)},
        synthetic=f"{summary['n_markets']} synthetic markets",
        summary=summary,
        title=title(summary),
        headings=HEADINGS,
        rows=table_rows(summary),
        conclusions=conclusions(summary),
    )
