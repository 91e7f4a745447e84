"""Forest plots: one line per name with its value and interval, in one panel or several side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.style import INK, PAPER, QUIET, colour, plain, styled, symbol
from tradsys.reports.wording import UNKNOWN

ROW_PX = 34


@dataclass(frozen=True)
class Mark:
    """One estimate of a panel, and how it is drawn.

    value, low, high, reason (of `Estimate`), colour, plotly marker.
    """

    estimate: Mapping[str, Any]
    colour: str
    shape: str = "circle"


@dataclass(frozen=True)
class Panel:
    """Marks by name under one axis title; a name without a mark has an empty line."""

    title: str
    marks: Mapping[str, Mark]


def forest(
    estimates: Mapping[str, Mapping[str, Any]], title: str, digits: int, reference: str | None = None
) -> go.Figure:
    """One panel: value and interval.

    A hollow mark without one, `n/a` and the reason without a value. reference: the name drawn in grey, since it is
    listed next to the others and is not one of them.
    """
    marks = {
        name: Mark(estimate, QUIET) if name == reference else Mark(estimate, colour(k), symbol(k))
        for k, (name, estimate) in enumerate(estimates.items())
    }
    figure = forest_panels([Panel(title, marks)], list(estimates), digits)
    return figure.update_xaxes(range=padded(ends(estimates.values())))


def forest_panels(panels: Sequence[Panel], names: Sequence[str], digits: int, labels: Sequence[str] = ()) -> go.Figure:
    """Panels side by side over one list of names, with lines at zero.

    The first name is on top. labels: text of each line; the names if empty.
    """
    several = len(panels) > 1
    titles = [panel.title for panel in panels] if several else None
    # a grid of one panel would cost 15 ms, and a tear sheet has six a strategy
    grid = {"cols": len(panels), "shared_yaxes": True, "horizontal_spacing": 0.04, "subplot_titles": titles}
    figure = make_subplots(**grid) if several else go.Figure()
    places = {name: len(names) - 1 - k for k, name in enumerate(names)}
    for col, panel in enumerate(panels, start=1):
        cell = {"row": 1, "col": col} if several else {}
        low, high = padded(ends(mark.estimate for mark in panel.marks.values()))
        for name, mark in panel.marks.items():
            if mark.estimate["value"] is None:
                _write_reason(figure, col, places[name], f"{UNKNOWN}: {mark.estimate['reason'] or 'not known'}")
            else:
                near_the_end = mark.estimate["value"] > low + 0.6 * (high - low)
                _draw_mark(figure, cell, places[name], name, mark, digits, near_the_end)
        figure.add_vline(x=0, line={"color": INK, "width": 1}, **cell)
    styled(figure, 130 + ROW_PX * len(names) + (0 if several else 20)).update_layout(showlegend=False)
    figure.update_xaxes(zeroline=False, nticks=7, title_text=None if several else panels[0].title)
    return figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[plain(text) for text in (labels or names)],
        range=[-0.6, len(names) - 0.4],
    )


def ends(estimates: Any) -> list[float]:
    """Every existing value and bound."""
    return [e[key] for e in estimates for key in ("low", "value", "high") if e[key] is not None]


def padded(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds zero and all values, with room at both ends."""
    low, high = min([0.0, *values]), max([0.0, *values])
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room


def _draw_mark(
    figure: go.Figure,
    cell: Mapping[str, int],
    place: int,
    name: str,
    mark: Mark,
    digits: int,
    near_the_end: bool,
) -> None:
    """cell: row and column of the panel, where there are several. near_the_end: words go to the left of the mark."""
    value, low, high = (mark.estimate[key] for key in ("value", "low", "high"))
    bounded = low is not None
    text = f"[{low:.{digits}f}, {high:.{digits}f}]" if bounded else f"no interval: {mark.estimate['reason']}"
    figure.add_scatter(
        x=[value],
        y=[place],
        mode="markers" if bounded else "markers+text",
        text=None if bounded else "  no interval  ",
        textposition="middle left" if near_the_end else "middle right",
        textfont={"color": QUIET, "size": 12},
        marker={
            "size": 10,
            "symbol": mark.shape if bounded else f"{mark.shape}-open",
            "color": mark.colour,
            "line": {"width": 2, "color": mark.colour},
        },
        error_x={"type": "data", "array": [high - value], "arrayminus": [value - low]} if bounded else None,
        hovertemplate=f"{plain(name)}<br>{value:.{digits}f} {plain(text)}<extra></extra>",
        **cell,
    )


def _write_reason(figure: go.Figure, col: int, place: int, text: str) -> None:
    """Writes a text into a line without a mark."""
    figure.add_annotation(
        x=0.01, xref="paper" if col == 1 else f"x{col} domain", xanchor="left", y=place, yref="y", text=plain(text),
        showarrow=False, font={"color": QUIET, "size": 12}, bgcolor=PAPER,
    )  # fmt: skip
