"""One self-contained HTML page per run: it opens offline, in any browser, years later."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from plotly.offline import get_plotlyjs

from tradsys.core.runs import write_text
from tradsys.reports import charts, wording

# section of the report -> the figure that draws it; a run without that section has no such figure
FIGURES: dict[str, Callable[[Mapping[str, Any]], go.Figure]] = {
    "equity": charts.equity_and_drawdown,
    "reliability": charts.reliability_diagram,
    "regime": charts.regime_ribbon,
    "folds": charts.fold_timeline,
    "importance": charts.importance,
    "drift": charts.drift,
}


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Writes the page whole. `report` is the dict that a run leaves in report.json; absent sections are left out."""
    write_text(path, render(report))


def render(report: Mapping[str, Any]) -> str:
    """The page as HTML, plotly.js inside."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": wording.interval, "number": wording.number, "percent": wording.percent}
    figures = {name: _html(draw(report), name) for name, draw in FIGURES.items() if report.get(name)}
    config = yaml.safe_dump(report["provenance"]["config"], sort_keys=False, allow_unicode=True)
    return environment.get_template("page.html.j2").render(
        report=report, figures=figures, config=config, plotly_js=get_plotlyjs()
    )


def _html(figure: go.Figure, name: str) -> str:
    return plotly.io.to_html(
        figure,
        include_plotlyjs=False,
        full_html=False,
        div_id=f"chart-{name}",
        default_height=f"{figure.layout.height}px",
        config={"displaylogo": False, "responsive": True},
    )
