"""HTML page of a walk-forward evaluation: forecasts by horizon and fold, portfolios after costs, the market."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradsys.core.headline import headline_skill
from tradsys.core.plain_data import Json
from tradsys.core.runs import write_text
from tradsys.reports import tables, wording
from tradsys.reports.daily.rows import METRICS, estimate_cell, metric_cells
from tradsys.reports.equity_chart import equity_and_drawdown
from tradsys.reports.page import render_page


def write_evaluation(report: Mapping[str, Any], folder: Path) -> None:
    """Writes report.html atomically. report: of `ops.daily.evaluation`."""
    write_text(folder / "report.html", render(report))


def render(report: Mapping[str, Any]) -> str:
    """The page as HTML; every text in it is escaped."""
    notes = tables.Footnotes()
    return render_page(
        "daily/evaluation.html.j2",
        figures={"equity": equity_and_drawdown(report)},
        synthetic=report["synthetic"],
        report=report,
        metric_titles=[title for _, title, _ in METRICS],
        horizons={name: metric_cells(one) for name, one in report["horizons"].items()},
        folds={name: [_fold_context(part) for part in one["by_fold"]] for name, one in report["horizons"].items()},
        columns=tables.STRATEGY_COLUMNS,
        books=tables.strategy_lines(report, notes),
        carried={row["name"]: _carried(row) for row in report["strategies"]},
        notes=notes.texts,
    )


def _fold_context(part: Mapping[str, Any]) -> Json:
    return {
        "span": f"{part['first'][:10]} to {part['last'][:10]}",
        "n": wording.count(part["n"]),
        "auc": estimate_cell(part["auc"], 3),
        "skill": estimate_cell(headline_skill(part), 4),
    }


def _carried(row: Mapping[str, Any]) -> str:
    """A portfolio's capacity in millions, its number of delistings, and whether its short leg is missing."""
    capital = row["capacity"]["capital"]
    money = wording.UNKNOWN if capital is None else f"{capital / 1e6:,.1f} m"
    unsold = f"; {row['unsold']}" if row.get("unsold") else ""
    return f"carries {money}, {wording.count(row['n_died'])} delisted{unsold}"
