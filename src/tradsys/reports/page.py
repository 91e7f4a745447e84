"""The base of every HTML page: stylesheet, theme, security policy, charts and their script.

A page is a template of this package that extends `base.html.j2`. It opens offline and contacts no host.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.io.json import to_json_plotly

from tradsys.core.masking import without_remembered
from tradsys.reports import wording
from tradsys.reports.style import CHART_SETTINGS, DARK, marked_synthetic
from tradsys.reports.templates import template_environment

ASSETS = Path(__file__).parent / "assets"
# a page may run only the scripts below, by their hashes, and no script from a received report
POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)


def render_page(
    template: str,
    *,
    figures: Mapping[str, go.Figure] | None = None,
    synthetic: str | None = None,
    scripted: bool = False,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **context: Any,
) -> str:
    """A page as HTML; every text in it is escaped.

    template: a file of this package that extends base.html.j2. figures: name -> figure, shown by `{{ figures.NAME }}`.
    synthetic: description of a synthetic market, None on real data. scripted: whether tables of a page without figures
    sort and filter. context: variables of the template.
    """
    charts = {name: chart_html(figure, name, synthetic=bool(synthetic)) for name, figure in (figures or {}).items()}
    environment = template_environment()
    environment.filters |= {name: getattr(wording, name) for name in wording.FILTERS}
    environment.filters |= dict(filters or {})
    scripts = _scripts(charts=bool(charts)) if charts or scripted else ()
    base = {
        "css": _asset("page.css"),
        "policy": POLICY.format(scripts=" ".join(map(_hashed, scripts)) or "'none'"),
        "theme": _in_script(json.dumps(DARK)),
        "settings": _in_script(json.dumps(CHART_SETTINGS)),
        "scripts": scripts,
        "synthetic": synthetic,
    }
    page = environment.get_template(template).render(base=base, figures=charts, synthetic=synthetic, **context)
    return _unbroken(page)


def _unbroken(page: str) -> str:
    """The page with numbers that stay on one line with their `%`; scripts and their data are left alone."""
    parts = re.split(r"(<script.*?</script>)", page, flags=re.DOTALL)
    return "".join(part if k % 2 else re.sub(r"(?<=\d) %", "&nbsp;%", part) for k, part in enumerate(parts))


def chart_html(figure: go.Figure, name: str, *, synthetic: bool = False) -> Markup:
    """A figure as an empty element and the JSON that the page's script draws into it."""
    shown = figure.to_dict()  # a plain dict: plotly validates each change of a figure
    if synthetic:
        marked_synthetic(shown["layout"])
    return Markup(
        f'<div class="plotly-graph-div chart" id="chart-{name}" style="height:{shown["layout"]["height"]}px"></div>'
        f'<script type="application/json" data-chart="chart-{name}">{_in_script(to_json_plotly(shown))}</script>'
    )


def data_block(value: Any, name: str) -> Markup:
    """JSON for the page's script under the id `name`; nothing in it can end the block."""
    text = _in_script(without_remembered(json.dumps(value, allow_nan=False, separators=(",", ":"))))
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def _in_script(text: str) -> str:
    """JSON in which no text can end the script element around it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _scripts(*, charts: bool) -> tuple[str, ...]:
    return (_asset("plotly-basic.min.js"), _asset("page.js")) if charts else (_asset("page.js"),)


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def _hashed(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
