"""Figures of a daily report: information coefficients over time, and feature importance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.style import INK, PERCENT_TICKS, QUIET, SERIES, colour, plain, rounded, styled
from tradsys.reports.wording import interval

MEAN_SESSIONS = 21  # of the trailing mean over daily coefficients
N_SHOWN = 12


def ic_over_time(report: Mapping[str, Any]) -> go.Figure:
    """Rank IC of each test session and its trailing mean of 21 sessions.

    Sessions as dots; one panel per horizon. The dashed line is the mean over all sessions; diamonds are live sessions,
    forecast before their labels resolved.
    """
    names = [one["name"] for one in report["horizons"]]
    titles = [f"{plain(one['name'])}: mean {interval(one['metrics']['rank_ic'], 3)}" for one in report["horizons"]]
    figure = make_subplots(
        rows=len(names), shared_xaxes=True, vertical_spacing=min(0.12, 0.24 / len(names)), subplot_titles=titles
    )
    for k, name in enumerate(names):
        _one_ic(figure, k, report["ic"][name], (report["live"] or {}).get(name), report["horizons"][k])
    styled(figure, 120 + 190 * len(names)).update_layout(legend_y=1.04 + 0.02 / len(names), legend_yanchor="bottom")
    figure.update_layout(margin_t=72)
    figure.update_yaxes(title_text="rank IC", zeroline=True, zerolinecolor=INK, zerolinewidth=1, nticks=5)
    figure.update_xaxes(type="date")
    return figure


def _one_ic(
    figure: go.Figure, k: int, tested: Mapping[str, Any], live: Mapping[str, Any] | None, horizon: Mapping[str, Any]
) -> None:
    times, values = tested["date"], tested["ic"]
    first = k == 0
    figure.add_scatter(
        x=times, y=values, mode="markers", name="one session", legendgroup="one", showlegend=first,
        marker={"size": 4, "color": colour(k), "opacity": 0.35}, row=k + 1, col=1,
        hovertemplate="%{x|%Y-%m-%d}<br>IC %{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=times, y=_trailing(values), mode="lines", name=f"mean of {MEAN_SESSIONS} sessions", legendgroup="mean",
        showlegend=first, line={"color": colour(k), "width": 2}, row=k + 1, col=1,
        hovertemplate="%{x|%Y-%m-%d}<br>mean %{y:.3f}<extra></extra>",
    )  # fmt: skip
    mean = horizon["metrics"]["rank_ic"]["value"]
    if mean is not None:
        figure.add_hline(y=mean, line={"color": QUIET, "dash": "dash", "width": 1.2}, row=k + 1, col=1)
    if live and live["ic"]:
        figure.add_scatter(
            x=live["date"], y=live["ic"], mode="markers", name="live", legendgroup="live",
            showlegend=first, marker={"size": 7, "symbol": "diamond-open", "color": INK}, row=k + 1, col=1,
            hovertemplate="%{x|%Y-%m-%d}, live<br>IC %{y:.3f}<extra></extra>",
        )  # fmt: skip


def _trailing(values: Sequence[float]) -> list[float | None]:
    """Trailing mean; None until there are enough sessions."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < MEAN_SESSIONS:
        return [None] * len(array)
    sums = np.convolve(array, np.ones(MEAN_SESSIONS), mode="valid") / MEAN_SESSIONS
    return [None] * (MEAN_SESSIONS - 1) + rounded(sums.tolist())


def importance(report: Mapping[str, Any]) -> go.Figure:
    """Share of each feature in the mean absolute contribution.

    One panel per horizon, the largest on top.
    """
    ranked = {name: rows for name, rows in report["importance"].items() if rows}
    figure = make_subplots(cols=len(ranked), horizontal_spacing=0.54 / len(ranked), subplot_titles=list(ranked))
    for k, rows in enumerate(ranked.values()):
        shown = rows[:N_SHOWN][::-1]
        figure.add_bar(
            x=[row["value"] for row in shown],
            y=[plain(row["name"]) for row in shown],
            orientation="h",
            marker_color=SERIES[k % len(SERIES)],
            hovertemplate="%{y}<br>%{x:.1%}<extra></extra>",
            row=1,
            col=k + 1,
        )
    figure.update_xaxes(title_text="share", tickformat=PERCENT_TICKS, rangemode="tozero", nticks=5)
    return styled(figure, 420).update_layout(showlegend=False)
