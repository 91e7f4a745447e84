"""Forest plot of a comparison: every arm's skill, and beside it how far it stands from the reference."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.style import ALARM, INK, QUIET, SERIES, marked_synthetic, plain, styled
from tradsys.reports.wording import number

BETTER, WORSE, OPEN = SERIES[2], ALARM, SERIES[0]
ROW_PX = 34


def skills_and_differences(table: Mapping[str, Any]) -> go.Figure:
    """Two panels with a line per arm, best on top: skill, and paired difference to the reference, with intervals.

    A difference is green where its interval lies above zero, red where below, blue where it holds zero. The reference
    is grey and its difference a hollow zero. A value without an interval is hollow.
    """
    arms: Sequence[Mapping[str, Any]] = table["arms"]
    figure = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.04,
        subplot_titles=("skill beyond the level", _difference_title(table)),
    )  # fmt: skip
    for k, arm in enumerate(arms):
        place = len(arms) - 1 - k
        _mark(figure, 1, place, arm, arm["skill_beyond_level"], QUIET if arm["is_reference"] else INK)
        if arm["difference"] is None:
            _mark(figure, 2, place, arm, {"value": 0.0, "low": None, "high": None, "reason": "the reference"}, QUIET)
        else:
            _mark(figure, 2, place, arm, arm["difference"], _verdict_colour(arm["difference"]))
    for col in (1, 2):
        figure.add_vline(x=0, line={"color": INK, "width": 1}, row=1, col=col)
    styled(figure, 130 + ROW_PX * len(arms)).update_layout(showlegend=False)
    figure.update_xaxes(zeroline=False, tickformat="~g", nticks=7)
    figure.update_yaxes(
        tickvals=[len(arms) - 1 - k for k in range(len(arms))],
        ticktext=[f"{plain(arm['name'])}{' *' if arm['own_rows'] else ''}" for arm in arms],
        range=[-0.6, len(arms) - 0.4],
    )
    return marked_synthetic(figure) if table["synthetic"] else figure


def _difference_title(table: Mapping[str, Any]) -> str:
    others = {arm["against"] for arm in table["arms"]} - {None, table["reference"]}
    return "difference in skill, paired" + ("" if others else f", to {plain(table['reference'])}")


def _verdict_colour(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None or estimate["low"] <= 0 <= estimate["high"]:
        return OPEN
    return BETTER if estimate["low"] > 0 else WORSE


def _mark(
    figure: go.Figure, col: int, place: int, arm: Mapping[str, Any], estimate: Mapping[str, Any], fill: str
) -> None:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return
    bounded = low is not None
    said = f"[{number(low, 4)}, {number(high, 4)}]" if bounded else str(estimate["reason"])
    figure.add_scatter(
        x=[value],
        y=[place],
        mode="markers",
        marker={"size": 10, "symbol": "square" if bounded else "square-open", "color": fill},
        error_x={"type": "data", "array": [high - value], "arrayminus": [value - low], "thickness": 2, "width": 5}
        if bounded
        else None,
        hovertemplate=f"{plain(arm['name'])}<br>{value:+.4f} {plain(said)}<extra></extra>",
        row=1,
        col=col,
    )
