"""Forest plot: one line per name with its value and interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from tradsys.reports.style import INK, QUIET, colour, plain, styled, symbol
from tradsys.reports.wording import UNKNOWN


def forest(
    estimates: Mapping[str, Mapping[str, Any]], title: str, digits: int, reference: str | None = None
) -> go.Figure:
    """One line per name: value and interval; a hollow mark without one, `n/a` and why where there is no value.

    reference: the name drawn in grey, since it stands beside the others and is not one of them.
    """
    figure = go.Figure()
    places = {name: len(estimates) - 1 - k for k, name in enumerate(estimates)}
    for k, (name, estimate) in enumerate(estimates.items()):
        if estimate["value"] is None:
            _say(figure, places[name], f"{UNKNOWN}: {estimate['reason'] or 'not known'}")
        else:
            look = (QUIET, "circle") if name == reference else (colour(k), symbol(k))
            _mark(figure, places[name], name, estimate, digits, look)
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    styled(figure, 150 + 34 * len(estimates))
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text=title, zeroline=False, range=_padded(_ends(estimates)))
    figure.update_yaxes(
        tickvals=list(places.values()), ticktext=[plain(n) for n in places], range=[-0.6, len(places) - 0.4]
    )
    return figure


def _ends(estimates: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Every value and bound that is known."""
    return [e[key] for e in estimates.values() for key in ("low", "value", "high") if e[key] is not None]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds zero and all values, with room at both ends."""
    low, high = min([0.0, *values]), max([0.0, *values])
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room


def _mark(
    figure: go.Figure, place: int, name: str, estimate: Mapping[str, Any], digits: int, look: tuple[str, str]
) -> None:
    fill, shape = look
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    bounded = low is not None
    said = f"[{low:.{digits}f}, {high:.{digits}f}]" if bounded else f"no interval: {estimate['reason']}"
    figure.add_scatter(
        x=[value],
        y=[place],
        mode="markers" if bounded else "markers+text",
        text=None if bounded else "  no interval",
        textposition="middle right",
        textfont={"color": QUIET, "size": 12},
        marker={
            "size": 10,
            "symbol": shape if bounded else f"{shape}-open",
            "color": fill,
            "line": {"width": 2, "color": fill},
        },
        error_x={"type": "data", "array": [high - value], "arrayminus": [value - low]} if bounded else None,
        hovertemplate=f"{plain(name)}<br>{value:.{digits}f} {plain(said)}<extra></extra>",
    )


def _say(figure: go.Figure, place: int, text: str) -> None:
    """Words in a line that has no mark."""
    figure.add_annotation(
        x=0.01, xref="paper", xanchor="left", y=place, text=plain(text), showarrow=False,
        font={"color": QUIET, "size": 12}, bgcolor="white",
    )  # fmt: skip
