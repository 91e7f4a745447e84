"""A day's report as an offline HTML page and as Markdown: verdict and gates first, then the plan."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from jinja2 import Environment

from tradsys.core.plain_data import Json
from tradsys.core.runs import write_text
from tradsys.reports import wording
from tradsys.reports.daily import charts
from tradsys.reports.daily.rows import METRICS, gate_rows, horizon_rows, plan_rows
from tradsys.reports.page import render_page
from tradsys.reports.run import model_charts
from tradsys.reports.templates import template_environment
from tradsys.reports.wording import escaped

FIGURES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], go.Figure]]] = {
    "reliability": ("reliability", model_charts.reliability_diagram),
    "ic": ("ic", charts.ic_over_time),
    "importance": ("importance", charts.importance),
}
SECTIONS = (
    ("gates", "Gates"),
    ("plan", "Trade plan"),
    ("horizons", "Forecasts evaluated"),
    ("reliability", "Reliability"),
    ("ic", "IC over time"),
    ("importance", "Importance"),
    ("coverage", "Coverage"),
    ("timings", "Timings"),
    ("provenance", "Provenance"),
)


def write_daily(report: Mapping[str, Any], folder: Path) -> None:
    """Writes report.html and report.md into `folder`.

    report: of `ops.daily.report`, with `old` or None.
    """
    write_text(folder / "report.html", render(report))
    write_text(folder / "report.md", markdown(report))


def render(report: Mapping[str, Any]) -> str:
    """The page as HTML; every text in it is escaped."""
    figures = {name: draw(report) for name, (part, draw) in FIGURES.items() if _any(report[part])}
    return render_page(
        "daily/daily.html.j2",
        figures=figures,
        synthetic=report["synthetic"],
        filters={"signed": _signed},
        **_context(report),
        sections=[(a, _titled(report, a, t)) for a, t in SECTIONS if a in figures or a not in FIGURES],
        config=yaml.safe_dump(report["provenance"]["config"], sort_keys=False, allow_unicode=True),
    )


def markdown(report: Mapping[str, Any]) -> str:
    """The same report as Markdown, without figures."""
    return _markdown_environment().get_template("daily/daily.md.j2").render(**_context(report))


def _context(report: Mapping[str, Any]) -> Json:
    return {
        "report": report,
        "plan_title": _titled(report, "plan", "Trade plan"),
        "title": f"{report['name']} {report['date']}",
        "gates": gate_rows(report),
        "plan": plan_rows(report),
        "horizons": horizon_rows(report),
        "metric_titles": [title for _, title, _ in METRICS],
        "worst": [row for row in gate_rows(report) if row["outcome"] != "pass"],
    }


def _titled(report: Mapping[str, Any], anchor: str, title: str) -> str:
    """The section's title; a plan without weights is a watch-list."""
    return "Watch-list" if anchor == "plan" and report["plan"].get("kind") == "watch-list" else title


def _any(part: Mapping[str, Any]) -> bool:
    return any(bool(value) for value in part.values())


def _markdown_environment() -> Environment:
    environment = template_environment(html=False)
    names = ("bounds", "count", "counted", "fact", "interval", "listed", "moment", "number", "percent")
    environment.filters |= {name: getattr(wording, name) for name in names}
    environment.filters |= {"md": escaped, "signed": _signed}
    return environment


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}"
