"""A walk-forward over years as one HTML page: forecasts by horizon and fold, books after costs, the market beside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.io
from plotly.offline import get_plotlyjs

from tradsys.core.headline import headline_skill
from tradsys.core.runs import write_text
from tradsys.reports import tables, wording
from tradsys.reports.daily.rows import METRICS, estimate_cell, metric_cells
from tradsys.reports.equity_chart import equity_and_drawdown
from tradsys.reports.style import CHART_CONFIG, marked_synthetic
from tradsys.reports.templates import template_environment


def write_evaluation(report: Mapping[str, Any], folder: Path) -> None:
    """Writes report.html whole. report: of `ops.daily_evaluation`."""
    write_text(folder / "report.html", render(report))


def render(report: Mapping[str, Any]) -> str:
    """The page, plotly.js inside; every text in it is escaped."""
    environment = template_environment()
    environment.filters |= {n: getattr(wording, n) for n in ("count", "counted", "fact", "moment", "number", "percent")}
    figure = equity_and_drawdown(report)
    notes = tables.Footnotes()
    chart = plotly.io.to_html(
        marked_synthetic(figure) if report["synthetic"] else figure,
        include_plotlyjs=False, full_html=False, div_id="chart-equity", config=CHART_CONFIG,
        default_height=f"{figure.layout.height}px",
    )  # fmt: skip
    return environment.get_template("daily/evaluation.html.j2").render(
        report=report,
        metric_titles=[title for _, title, _ in METRICS],
        horizons={name: metric_cells(one) for name, one in report["horizons"].items()},
        folds={name: [_fold(part) for part in one["by_fold"]] for name, one in report["horizons"].items()},
        columns=tables.STRATEGY_COLUMNS,
        books=tables.strategy_lines(report, notes),
        carried={row["name"]: _carried(row) for row in report["strategies"]},
        notes=notes.texts,
        chart=chart,
        plotly_js=get_plotlyjs(),
    )


def _fold(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "span": f"{part['first'][:10]} to {part['last'][:10]}",
        "n": wording.count(part["n"]),
        "auc": estimate_cell(part["auc"], 3),
        "skill": estimate_cell(headline_skill(part), 4),
    }


def _carried(row: Mapping[str, Any]) -> str:
    """What capital a book carries, in millions, and how many names died in it."""
    capital = row["capacity"]["capital"]
    money = wording.UNKNOWN if capital is None else f"{capital / 1e6:,.1f} m"
    return f"carries {money}, {wording.count(row['n_died'])} died"
