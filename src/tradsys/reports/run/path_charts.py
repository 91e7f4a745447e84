"""Figures of cross-validation paths: the fan of equity curves, and their Sharpe ratios."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tradsys.reports.style import ALARM, INK, QUIET, band, colour, rounded, styled, thinned

FEW_DAYS = 500
MOST_BINS = 20


def path_fan(report: Mapping[str, Any]) -> go.Figure:
    """Equity of every path from a common 1, with the paths' median.

    Day by day, and the middle nine tenths. report["paths"]: the dict of `research.paths.Paths.as_dict`.
    """
    paths = report["paths"]
    curves_PD = np.asarray(paths["curves"])
    middle = np.median(curves_PD, axis=0)
    shown = thinned(middle.tolist(), FEW_DAYS)
    days = [paths["time"][k] for k in shown]
    low, high = np.quantile(curves_PD, [0.05, 0.95], axis=0)
    figure = go.Figure()
    bounds = rounded(low[shown].tolist()), rounded(high[shown].tolist())
    figure.add_trace(
        band(days, *bounds, name="middle 90 % of paths", showlegend=True, fillcolor="rgba(0,114,178,0.15)")
    )
    for k, curve in enumerate(curves_PD):
        figure.add_scatter(
            x=days,
            y=rounded(curve[shown].tolist()),
            name="single paths",
            legendgroup="paths",
            showlegend=k == 0,
            mode="lines",
            line={"color": QUIET, "width": 0.8},
            opacity=0.6,
            hovertemplate=f"path {k + 1}: %{{y:.4f}}<extra></extra>",
        )
    figure.add_scatter(
        x=days, y=rounded(middle[shown].tolist()), name="median of paths", mode="lines", line=_bold(colour(0))
    )
    figure.add_hline(y=1, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_yaxes(title_text="equity, start = 1", hoverformat=".4f")
    return styled(figure, 420)


def path_sharpes(report: Mapping[str, Any]) -> go.Figure:
    """Histogram of the paths' yearly Sharpe ratios, with zero and the median marked.

    report["paths"]: as of `path_fan`.
    """
    paths = report["paths"]
    sharpe = np.asarray(paths["sharpe"])
    width = max(float(np.ptp(sharpe)), 1e-6)
    counts, edges = np.histogram(sharpe, bins=int(min(MOST_BINS, max(5, len(sharpe) // 2))))
    figure = go.Figure()
    figure.add_bar(
        x=rounded(((edges[:-1] + edges[1:]) / 2).tolist()),
        y=counts.tolist(),
        width=rounded((np.diff(edges) * 0.96).tolist()),
        marker={"color": colour(0), "opacity": 0.65},
        name="paths",
        customdata=[[a, b] for a, b in pairwise(rounded(edges.tolist()))],
        hovertemplate="%{y} paths with a Sharpe of %{customdata[0]:.2f} to %{customdata[1]:.2f}<extra></extra>",
    )
    figure.add_scatter(
        x=rounded(paths["sharpe"]),
        y=[0] * len(sharpe),
        mode="markers",
        name="each path",
        marker={"symbol": "line-ns-open", "color": INK},
    )
    above = paths["median"] > 0  # labels on opposite sides, so that they never overlap
    for x, text, look, side in (
        (0, "nothing earned", {"color": ALARM, "width": 1.5, "dash": "dash"}, "left" if above else "right"),
        (paths["median"], f"median {paths['median']:.2f}", _bold(colour(0)), "right" if above else "left"),
    ):
        figure.add_vline(x=x, line=look, annotation_text=text, annotation_position=f"top {side}")
    span = [min(0.0, float(sharpe.min())) - 0.2 * width, max(0.0, float(sharpe.max())) + 0.2 * width]
    figure.update_xaxes(title_text="yearly Sharpe ratio of a path", range=span)
    figure.update_yaxes(title_text="paths", tickformat="d", range=[0, 1.2 * int(counts.max())])
    return styled(figure, 340)


def _bold(shade: str) -> dict[str, object]:
    return {"color": shade, "width": 2.4}
