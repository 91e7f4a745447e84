"""Figures of the tear sheet: one set per strategy, and the price of a symbol that the reader chooses."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.core.plain_data import Json
from tradsys.reports.interval_plot import Mark, Panel, ends, forest_panels, padded
from tradsys.reports.style import ALARM, GRID, INK, PERCENT_TICKS, QUIET, SERIES, band, line, rounded, styled

BASIS_POINTS = 1e4
# traces of the price chart in the order in which the page's script fills them: name, colour, marker
PRICE_TRACES = (
    ("buys to open", SERIES[2], "triangle-up"),
    ("sells to open", SERIES[1], "triangle-down"),
    ("closed with a gain", SERIES[0], "circle-open"),
    ("closed with a loss", ALARM, "x-thin-open"),
)


def figures(report: Mapping[str, Any]) -> dict[str, go.Figure]:
    """`tear_<k>_<kind>` for the k-th strategy of the tear sheet, and `tear_price`.

    None without one.
    """
    sheet = report.get("tear_sheet")
    if not sheet:
        return {}
    out: dict[str, go.Figure] = {}
    for k, one in enumerate(sheet["strategies"].values()):
        drawn = {"activity": exposure_and_turnover(one["activity"])}
        if one["rolling"]["time"]:
            drawn["rolling"] = rolling(one["rolling"])
        if one["distribution"]["counts"]:
            drawn["trades"] = trade_returns(one["distribution"])
        drawn |= {name: means(rows) for name, rows in one["groups"].items()}
        out |= {f"tear_{k}_{name}": figure for name, figure in drawn.items()}
    return out | {"tear_price": price()}


def rolling(found: Mapping[str, Any]) -> go.Figure:
    """Sharpe ratio and volatility of the last window at each day.

    The ratio's interval as a band.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    time, sharpe = found["time"], found["sharpe"]
    figure.add_trace(band(time, sharpe["low"], sharpe["high"]), row=1, col=1)
    figure.add_scatter(
        x=time, y=sharpe["value"], name="Sharpe, yearly", mode="lines", line=line(0), row=1, col=1,
        customdata=list(zip(sharpe["low"], sharpe["high"], strict=True)), showlegend=False,
        hovertemplate="%{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}]<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=time, y=found["volatility"]["value"], name="volatility, yearly", mode="lines", line=line(1), row=2, col=1,
        showlegend=False,
    )  # fmt: skip
    figure.update_yaxes(title_text="Sharpe, yearly", row=1, col=1)
    figure.update_yaxes(title_text="volatility, yearly", tickformat=PERCENT_TICKS, row=2, col=1)
    figure.add_hline(y=0, line={"color": INK, "width": 1}, row=1, col=1)
    figure.update_layout(hovermode="x unified")
    return styled(figure, 400)


def exposure_and_turnover(found: Mapping[str, Any]) -> go.Figure:
    """Mean position over equity, and traded notional over equity, over time."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    figure.add_scatter(
        x=found["time"], y=rounded(found["exposure"]), mode="lines", name="exposure", fill="tozeroy", line=line(0),
        row=1, col=1,
    )  # fmt: skip
    bars = {"marker": {"color": SERIES[1], "line_width": 0}, "name": "turnover"}
    figure.add_bar(x=found["time"], y=rounded(found["turnover"]), row=2, col=1, **bars)
    figure.update_yaxes(title_text="exposure", tickformat=PERCENT_TICKS, row=1, col=1)
    figure.update_yaxes(title_text="turnover", tickformat=PERCENT_TICKS, row=2, col=1)
    return styled(figure, 340).update_layout(showlegend=False, bargap=0.05)


def trade_returns(found: Mapping[str, Any]) -> go.Figure:
    """Histogram of the net returns of closed trades."""
    edges, counts = found["edges"], found["counts"]
    middle = [(a + b) / 2 for a, b in pairwise(edges)]
    colours = [SERIES[0] if x > 0 else ALARM for x in middle]
    figure = go.Figure()
    figure.add_bar(
        x=rounded(middle), y=counts, width=edges[1] - edges[0], marker={"color": colours, "line": {"color": GRID}},
        hovertemplate="about %{x:.2%}: %{y} trades<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    figure.update_xaxes(title_text="net return of a trade", tickformat=PERCENT_TICKS)
    figure.update_yaxes(title_text="trades")
    return styled(figure, 300).update_layout(showlegend=False, bargap=0)


def means(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Mean return of each group with its interval, in basis points."""
    estimates = {row["name"]: _in_basis_points(row["mean"]) for row in rows}
    marks = {name: Mark(estimate, SERIES[0]) for name, estimate in estimates.items()}
    labels = [f"{row['name']}  ({row['n']:,})" for row in rows]
    figure = forest_panels([Panel("mean return, basis points", marks)], list(estimates), 2, labels)
    figure.update_layout(height=110 + (18 if len(rows) > 12 else 26) * len(rows))
    return figure.update_xaxes(range=padded(ends(estimates.values())))


def _in_basis_points(estimate: Mapping[str, Any]) -> Json:
    known = ("value", "low", "high")
    return {k: None if estimate[k] is None else estimate[k] * BASIS_POINTS for k in known} | {
        "reason": estimate["reason"]
    }


def price() -> go.Figure:
    """A symbol's close with entries and exits.

    The page's script fills in the chosen symbol.
    """
    figure = go.Figure()
    figure.add_scatter(x=[], y=[], mode="lines", name="close", line={"color": QUIET, "width": 1.4})
    for name, colour, marker in PRICE_TRACES:
        figure.add_scatter(
            x=[], y=[], mode="markers", name=name,
            marker={"color": colour, "symbol": marker, "size": 9, "line": {"color": colour, "width": 2}},
        )  # fmt: skip
    figure.update_yaxes(title_text="price")
    return styled(figure, 420).update_xaxes(type="date")
