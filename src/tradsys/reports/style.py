"""Common style of all figures: colours for the colour-blind, thinning that keeps extremes."""

import html
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

INK, QUIET, GRID, ALARM, SYNTHETIC = "#1c2733", "#5f6b7a", "#e6ebf0", "#b3261e", "#6a1b8a"
# Okabe and Ito 2008, without yellow, which is invisible on white
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("solid", "dash", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
PARTS = {"train": SERIES[0], "valid": SERIES[4], "test": SERIES[2]}
BAND = "rgba(95,107,122,0.18)"  # fill between the bounds of an interval
TIME_FORMAT = "%Y-%m-%d %H:%M"
PERCENT_TICKS = "~%"  # as many digits as needed to distinguish ticks: 0 %, 0.5 %, 1 %
PRESENT = "#cfe3ee"  # a pale blue for present values
PAPER, VEIL = "#ffffff", "rgba(255,255,255,0.85)"
# colour of the light theme -> of the dark one; the page's script swaps them in every chart
DARK = {
    INK: "#e3e8ee",
    QUIET: "#9aa6b4",
    GRID: "#2a3440",
    ALARM: "#ff8a80",
    SYNTHETIC: "#cf9be6",
    PRESENT: "#1f3a4d",
    PAPER: "#12181f",
    VEIL: "rgba(18,24,31,0.85)",
    SERIES[0]: "#4aa8e0",
    SERIES[1]: "#f08a3c",
    SERIES[2]: "#2fc79a",
    SERIES[3]: "#e29ac3",
}
_AXIS = {
    "gridcolor": GRID, "linecolor": GRID, "zerolinecolor": GRID, "automargin": True,
    "title": {"standoff": 8, "font": {"size": 13}},
}  # fmt: skip
_MARGIN = {"l": 64, "r": 24, "t": 52, "b": 48}
# at the bottom right, where no legend, button or axis title comes
_TITLE = {
    "x": 1,
    "xref": "paper",
    "xanchor": "right",
    "y": 0,
    "yref": "container",
    "yanchor": "bottom",
    "pad": {"b": 6},
}
# common settings in a template: plotly validates it once, but a figure's own layout each time (40 ms)
TEMPLATE = go.layout.Template(
    layout={
        "colorway": SERIES,
        "xaxis": _AXIS,
        "yaxis": {**_AXIS, "ticklabelstandoff": 4},
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": _MARGIN,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "title": {"font": {"size": 13, "color": SYNTHETIC}, **_TITLE},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "hoverlabel": {"bgcolor": PAPER, "font": {"color": INK}, "namelength": -1},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": INK},
    }
)


def colour(k: int) -> str:
    """The k-th series' colour, the first again after the last."""
    return SERIES[k % len(SERIES)]


def line(k: int) -> dict[str, object]:
    """The k-th series' line; dashed once the colours repeat."""
    return {"color": colour(k), "width": 1.8, "dash": DASHES[k // len(SERIES) % len(DASHES)]}


def symbol(k: int) -> str:
    """The k-th series' marker, so that series differ in greyscale too."""
    return SYMBOLS[k % len(SYMBOLS)]


def ordered_colours(n: int) -> list[str]:
    """`n` colours from light to dark, for states that have an order."""
    return sample_colorscale("YlOrRd", [0.08 + 0.6 * k / max(1, n - 1) for k in range(n)])


def plain(text: object) -> str:
    """A name escaped for plotly, which reads labels as HTML."""
    return html.escape(str(text), quote=False)


def thinned(values: Sequence[float], most: int = 2000) -> list[int]:
    """Ascending positions of at most `most` + 2 values to draw.

    The ends, and of each run its lowest and its highest. So the depth of a drawdown and the height of a peak are kept,
    which taking every k-th point would lose.
    """
    n = len(values)
    if n <= most:
        return list(range(n))
    n_runs = most // 2
    kept = {0, n - 1}
    for run in range(n_runs):
        inside = range(run * n // n_runs, (run + 1) * n // n_runs)
        kept |= {min(inside, key=values.__getitem__), max(inside, key=values.__getitem__)}
    return sorted(kept)


def rounded(values: Sequence[float]) -> list[float]:
    """Six significant digits: more than a screen shows, a third of the bytes."""
    return [float(f"{v:.6g}") for v in values]


def band(x: Sequence[Any], low: Sequence[float | None], high: Sequence[float | None], **look: Any) -> go.Scatter:
    """The area between two lines over the same x.

    One closed shape per stretch without missing bounds.
    """
    around: list[Any] = []
    level: list[float | None] = []
    both = [b is not None and t is not None and math.isfinite(b + t) for b, t in zip(low, high, strict=True)]
    for present, stretch in groupby(range(len(x)), key=both.__getitem__):
        if present:
            there = list(stretch)
            around += [x[i] for i in [*there, *there[::-1]]] + [None]
            level += [low[i] for i in there] + [high[i] for i in there[::-1]] + [None]
    shape = {"mode": "lines", "line": {"width": 0}, "fill": "toself", "hoverinfo": "skip", "showlegend": False}
    return go.Scatter(x=around[:-1], y=level[:-1], **{**shape, "fillcolor": BAND, **look})


def log_scale(values: Sequence[float], *, wide: float = 1000.0) -> dict[str, object]:
    """A logarithmic axis over these values (> 0).

    Its ticks depend on how far they spread, each with its whole number. Without a format plotly writes the ticks
    between powers of ten as single digits, 0.2 as 2. wide: highest over lowest from which the powers of ten alone have
    a tick; less where ticks stand side by side.
    """
    spread = max(values) / min(values)
    return {"type": "log", "dtick": "D1" if spread < 8 else "D2" if spread < wide else 1, "tickformat": "~g"}


def styled(figure: go.Figure, height: int) -> go.Figure:
    """The figure with the common fonts, margins, grid and legend, `height` in pixels."""
    figure.update_layout(template=TEMPLATE, height=height)
    return figure.update_annotations(font_size=13)


def marked_synthetic(layout: dict[str, Any]) -> None:
    """Adds the text SYNTHETIC DATA to a figure's layout.

    So it is part of every screenshot.
    """
    margin = layout.setdefault("margin", {})
    layout["height"] += 20
    margin["b"] = margin.get("b", _MARGIN["b"]) + 20
    layout.setdefault("title", {})["text"] = "<b>SYNTHETIC DATA</b>"


# without plotly's button that uploads the chart to its cloud
CHART_SETTINGS = {
    "displaylogo": False,
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
