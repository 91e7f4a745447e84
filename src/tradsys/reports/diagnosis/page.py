"""A diagnosis as report.json, as one HTML page that opens offline, and as a summary on the terminal."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from rich import box
from rich.table import Table

from tradsys.core.runs import write_json, write_text
from tradsys.reports import wording
from tradsys.reports.diagnosis import charts
from tradsys.reports.page import render_page
from tradsys.reports.terminal import print_made_up, print_table, screen

STYLES = {"stop": "bold red", "warn": "yellow", "note": ""}
N_PRINTED = 8
Draw = Callable[[Mapping[str, Any]], go.Figure]
# figure -> the part of the report that it needs, and its function
FIGURES: dict[str, tuple[str, Draw]] = {
    "coverage": ("coverage", charts.coverage_map),
    "correlation": ("correlation", charts.correlations),
    "distributions": ("distributions", charts.distributions),
    "lift": ("compression", charts.compression_lift),
    "fifths": ("compression", charts.event_fifths),
    "time": ("balance", charts.balance_by_time),
    "symbol": ("balance", charts.balance_by_symbol),
}


def write_diagnosis(report: Mapping[str, Any], folder: Path) -> None:
    """Writes report.json and report.html, each atomically."""
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", render(report))


def render(report: Mapping[str, Any]) -> str:
    """The page as HTML; every text in it is escaped."""
    return render_page(
        "diagnosis/diagnosis.html.j2",
        figures=_figures(report),
        synthetic=report["synthetic"],
        report=report,
        kinds=charts.KINDS,
        by_level={level: [a["text"] for a in report["advice"] if a["level"] == level] for level in STYLES},
        config=yaml.safe_dump(report["provenance"]["config"], sort_keys=False, allow_unicode=True),
    )


def _figures(report: Mapping[str, Any]) -> dict[str, go.Figure]:
    """Each figure the report has data for; examples by kind."""
    drawn = {name: draw(report) for name, (part, draw) in FIGURES.items() if report.get(part)}
    present = {example["kind"] for example in report["examples"]}
    return drawn | {kind.replace(" ", "-"): charts.examples(report, kind) for kind in charts.KINDS if kind in present}


def print_diagnosis(report: Mapping[str, Any], folder: Path) -> None:
    """Prints the data read, the correlated columns, the lift and the advice."""
    console = screen()
    print_made_up(console, report["synthetic"])
    if report["survivors_only"]:
        console.print("SURVIVORS ONLY: delisted names are missing from these data", style="bold red")
    span, balance = report["span"], report["balance"]
    console.print(
        f"{span['n_symbols']:,} symbols, {span['n_dates']:,} dates; outcomes of {span['n_rows']:,} rows read, all "
        f"resolved before {span['test_start'][:10]}, where the test span begins;\n{balance['n_events']:,} events "
        f"({balance['rate']:.2%}), {balance['n_episodes']:,} episodes",
        markup=False,
    )
    print_table(console, _correlation_table(report))
    for row in (report["compression"] or {}).get("lifts", []):
        console.print(
            f"lift of compression, {row['name']}: {wording.interval(row['lift'], 2)}; within dates "
            f"{wording.interval(row['within_time'], 2)}; within symbols {wording.interval(row['within_symbol'], 2)}",
            markup=False,
        )
    for line in report["advice"]:
        console.print(f"{line['level']:<5} {line['text']}", markup=False, style=STYLES[line["level"]])
    console.print(f"report   {folder / 'report.html'}", markup=False, soft_wrap=True)


def _correlation_table(report: Mapping[str, Any]) -> Table:
    rows = report["correlation"]
    table = Table(
        title=f"Rank correlation with the event, {min(N_PRINTED, len(rows))} of {len(rows)} columns",
        title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1),
    )  # fmt: skip
    for name in ("column", "correlation", "p, Holm", "median of events", "of the rest"):
        table.add_column(name, justify="left" if name == "column" else "right", no_wrap=True)
    for row in rows[:N_PRINTED]:
        table.add_row(
            row["name"],
            wording.interval(row, 3).replace("[", "\\["),
            wording.number(row["p_holm"], 3),
            _four_digits(row["median_event"]),
            _four_digits(row["median_rest"]),
        )
    return table


def _four_digits(value: float | None) -> str:
    return wording.UNKNOWN if value is None else f"{value:.4g}"
