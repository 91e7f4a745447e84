"""The self-contained HTML page of a run, which opens offline."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from markupsafe import Markup

from tradsys.core.headline import headline_skill
from tradsys.core.plain_data import Json
from tradsys.core.runs import write_text
from tradsys.reports import equity_chart, tables, wording
from tradsys.reports.page import data_block, render_page
from tradsys.reports.run import (
    embedding_charts,
    meta_label_charts,
    model_charts,
    path_charts,
    strategy_charts,
    tear_sheet_charts,
    time_charts,
)

Draw = Callable[[Mapping[str, Any]], go.Figure]
# figure -> the part of the report that it needs, and its function; without that part there is no figure
FIGURES: dict[str, tuple[str, Draw]] = {
    "equity": ("equity", equity_chart.equity_and_drawdown),
    "sharpe": ("sharpe", strategy_charts.sharpe_ratios),
    "live": ("live", strategy_charts.live_records),
    "skill": ("models", model_charts.skills),
    "reliability": ("reliability", model_charts.reliability_diagram),
    "placebos": ("audit_value.drawn", meta_label_charts.placebo_auditors),
    "regime": ("regime", time_charts.regime_ribbon),
    "hindsight": ("hindsight.curves", meta_label_charts.equity_by_view),
    "regimes": ("hindsight", meta_label_charts.regime_shares),
    "folds": ("folds", time_charts.fold_timeline),
    "path_fan": ("paths", path_charts.path_fan),
    "path_sharpes": ("paths", path_charts.path_sharpes),
    "embedding": ("embedding", embedding_charts.embedding_map),
    "embedding_training": ("embedding.history", embedding_charts.training_curves),
    "importance": ("importance", model_charts.importance),
    "drift": ("drift", model_charts.drift),
}
# anchor, heading, and the section of the report without which it is left out
SECTIONS = (
    ("equity", "Equity", "equity"),
    ("strategies", "Strategies", "strategies"),
    ("models", "Models", "models"),
    ("ensemble", "Ensemble", "ensemble"),
    ("reliability", "Reliability", "reliability"),
    ("auditor", "Auditor", "auditor"),
    ("audit-value", "Does the auditor help?", "audit_value"),
    ("regime", "Regime", "regime"),
    ("hindsight", "Smoothed regimes", "hindsight"),
    ("folds", "Folds", "folds"),
    ("paths", "Paths", "paths"),
    ("embedding", "Embedding", "embedding"),
    ("importance", "Importance", "importance"),
    ("drift", "Drift", "drift"),
    ("trials", "Trials", "ledger"),
    ("provenance", "Provenance", "provenance"),
)


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Writes the page atomically.

    report: the dict of report.json; missing sections are left out.
    """
    write_text(path, render(report))


def render(report: Mapping[str, Any]) -> str:
    """The page as HTML; every text in it is escaped."""
    return render_page(
        "run/page.html.j2", figures=figures(report), synthetic=synthetic_note(report), **_context(report)
    )


def _context(report: Mapping[str, Any]) -> Json:
    """The template's variables: the report, its tables and their footnotes."""
    notes = {name: tables.Footnotes() for name in ("strategies", "risk", "models", "auditor")}
    audited = (report.get("auditor") or {}).get("metrics")
    return {
        "report": report,
        "sections": [(anchor, title) for anchor, title, key in SECTIONS if report.get(key)],
        "trials": tables.trials_counted(report),
        "headline": tables.headline(report),
        "columns": {
            "strategies": tables.STRATEGY_COLUMNS,
            "risk": [title for _, _, title, _ in tables.RISK_COLUMNS],
            "forecast": [title for _, _, title in tables.FORECAST_COLUMNS],
        },
        "strategies": tables.strategy_lines(report, notes["strategies"]),
        "risk": tables.risk_lines(report, notes["risk"]),
        "models": tables.model_lines(report, notes["models"]) if report.get("models") else [],
        "auditor": tables.forecast_cells(audited, notes["auditor"]) if audited else [],
        "notes": {name: footnotes.texts for name, footnotes in notes.items()},
        "sides": wording.SIDES,
        "skilled": _skilled(report),
        "confidence": _confidence(report),
        "single_repeat": model_charts.single_repeat((report.get("importance") or {}).get("permutation", [])),
        "tear_data": _tear_data(report.get("tear_sheet")),
        "config": yaml.safe_dump(report["provenance"]["config"], sort_keys=False, allow_unicode=True),
    }


def synthetic_note(report: Mapping[str, Any]) -> str | None:
    """Description of a synthetic market, from the report or the data's card.

    None on real data.
    """
    if report.get("synthetic"):
        return str(report["synthetic"])
    data = report["provenance"]["data"]
    return str(data.get("note") or "a synthetic market") if data.get("synthetic") else None


def figures(report: Mapping[str, Any]) -> dict[str, go.Figure]:
    """Each figure the report has data for."""
    drawn = {name: draw(report) for name, (part, draw) in FIGURES.items() if has(report, part)}
    return drawn | tear_sheet_charts.figures(report)


def has(report: Mapping[str, Any], part: str) -> bool:
    """Whether the report holds something under a key, or under `key.key` of a section.

    `live`: in some verdict; `sharpe`: a Sharpe ratio of any strategy or of the benchmark.
    """
    if part == "live":
        return bool(strategy_charts.expected_live(report))
    if part == "sharpe":
        return bool(report.get("strategies")) and strategy_charts.has_sharpe(report)
    found: Any = report
    for key in part.split("."):
        found = (found or {}).get(key)
    return bool(found)


def _skilled(report: Mapping[str, Any]) -> bool:
    """Whether the interval of the model's skill lies above zero."""
    if not report.get("models"):
        return False
    low = headline_skill(report["models"][0]["metrics"])["low"]
    return low is not None and low > 0


def _confidence(report: Mapping[str, Any]) -> str:
    """The confidence level of the intervals, in words."""
    if report.get("models"):
        return f"{100 * report['models'][0]['metrics']['confidence']:g} %"
    stated = (report["provenance"]["config"].get("evaluation") or {}).get("confidence")
    return "a level that the config does not state" if stated is None else f"{100 * stated:g} %"


def _tear_data(sheet: Mapping[str, Any] | None) -> Markup:
    """Trades and prices for the page's script."""
    return data_block({key: (sheet or {}).get(key) for key in ("trades", "prices")}, "tear-data")
