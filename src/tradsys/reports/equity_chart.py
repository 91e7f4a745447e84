"""Equity and drawdown of several strategies over time."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.style import PERCENT_TICKS, QUIET, line, log_scale, plain, rounded, styled, thinned
from tradsys.reports.tables import never_traded

WIDE_RANGE = 3.0  # highest over lowest value; above it the axis is logarithmic


def equity_and_drawdown(report: Mapping[str, Any]) -> go.Figure:
    """Daily equity of every strategy and of buy and hold, over drawdowns.

    Equity starts at a common 1.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.05)
    days = report["equity"]["time"]
    eve = date.fromisoformat(days[0][:10]) - timedelta(days=1)  # the equity is 1 before the first day's return
    time = [str(eve), *days]
    benchmark = (report["benchmark"] or {}).get("name")  # portfolios without a market symbol have none
    idle = {row["name"] for row in report["strategies"] if never_traded(row["performance"])}
    for k, (name, curve) in enumerate(report["equity"]["curves"].items()):
        look = line(k) if name != benchmark else {"color": QUIET, "width": 1.5, "dash": "dot"}
        label = f"{plain(name)} (never traded)" if name in idle else plain(name)
        path = [1.0, *curve]
        for row, values in ((1, path), (2, drawdowns(path))):
            shown = thinned(values)
            figure.add_scatter(
                x=[time[i] for i in shown],
                y=rounded([values[i] for i in shown]),
                name=label,
                mode="lines",
                line=look,
                legendgroup=name,
                showlegend=row == 1,
                row=row,
                col=1,
            )
    curves = report["equity"]["curves"].values()
    equity_axis(figure, [v for curve in curves for v in curve])
    figure.update_layout(hovermode="x unified")
    falls = [fall for curve in curves for fall in drawdowns([1.0, *curve])]
    figure.update_yaxes(range=drawdown_range(falls), row=2, col=1)
    return styled(figure, 560)


def equity_axis(figure: go.Figure, values: Sequence[float]) -> None:
    """Axes of a figure of equity over drawdown.

    The equity's is logarithmic where the values spread far, else linear.
    """
    low, high = min(values), max(values)
    wide = low > 0 and high / low > WIDE_RANGE
    title = "equity, start = 1" + (" (log scale)" if wide else "")
    scale = log_scale(values) if wide else {"type": "linear"}
    figure.update_yaxes(title_text=title, hoverformat=".4f", row=1, col=1, **scale)
    figure.update_yaxes(title_text="below peak", tickformat=PERCENT_TICKS, hoverformat=".2%", row=2, col=1)


def drawdown_range(falls: Sequence[float]) -> list[float]:
    """Limits of an axis of drawdowns.

    At least one percent deep, and nothing above the peak.
    """
    return [min(1.05 * min(falls), -0.01), 0.0]


def drawdowns(curve: Sequence[float]) -> list[float]:
    """Share [T] by which each value lies below the highest so far.

    0 at a peak, negative below it.
    """
    peak, out = curve[0], []
    for value in curve:
        peak = max(peak, value)
        out.append(value / peak - 1)
    return out
