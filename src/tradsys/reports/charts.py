"""The report's figures: each takes the part of the report it draws and returns a plotly figure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

INK, QUIET, GRID = "#1c2733", "#8a97a6", "#e6ebf0"
SERIES = ("#0b6bcb", "#d9480f", "#2b8a3e", "#862e9c", "#c2255c", "#0c8599", "#5c940d", "#495057")
REGIMES = ("#74b816", "#f59f00", "#e03131", "#7048e8")
PARTS = {"train": "#4c6ef5", "valid": "#f59f00", "test": "#2b8a3e"}
N_SHOWN = 15


def equity_and_drawdown(report: Mapping[str, Any]) -> go.Figure:
    """Daily equity of every strategy and of buy and hold, with the drawdown of each below."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.06)
    time = report["equity"]["time"]
    for k, (name, curve) in enumerate(report["equity"]["curves"].items()):
        held = name == "buy and hold"
        line = {"color": QUIET if held else SERIES[k % len(SERIES)], "width": 1.5, "dash": "dot" if held else "solid"}
        figure.add_scatter(x=time, y=curve, name=name, line=line, legendgroup=name, row=1, col=1)
        figure.add_scatter(
            x=time, y=_drawdown(curve), name=name, line=line, legendgroup=name, showlegend=False, row=2, col=1
        )
    figure.update_yaxes(title_text="equity, start = 1", row=1, col=1)
    figure.update_yaxes(title_text="drawdown", tickformat=".0%", row=2, col=1)
    return _styled(figure, 520)


def _drawdown(curve: Sequence[float]) -> list[float]:
    """Fall below the highest equity so far, the starting 1 included."""
    peak, out = 1.0, []
    for value in curve:
        peak = max(peak, value)
        out.append(value / peak - 1)
    return out


def reliability_diagram(report: Mapping[str, Any]) -> go.Figure:
    """Observed rate against mean predicted probability with Wilson intervals, and the diagonal of perfect calibration."""
    figure = go.Figure()
    every = [b for bins in report["reliability"].values() for b in bins]
    low = min(b["mean_predicted"] for b in every) - 0.05
    high = max(b["mean_predicted"] for b in every) + 0.05
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", name="perfect", line={"color": QUIET, "dash": "dot"})
    for k, (name, bins) in enumerate(report["reliability"].items()):
        observed = [b["observed"] for b in bins]
        figure.add_scatter(
            x=[b["mean_predicted"] for b in bins],
            y=observed,
            name=name,
            mode="lines+markers",
            marker={"size": 7},
            line={"color": SERIES[k % len(SERIES)]},
            customdata=[b["n"] for b in bins],
            hovertemplate="predicted %{x:.3f}<br>observed %{y:.3f}<br>n = %{customdata}",
            error_y={
                "type": "data",
                "array": [b["observed_high"] - o for b, o in zip(bins, observed, strict=True)],
                "arrayminus": [o - b["observed_low"] for b, o in zip(bins, observed, strict=True)],
                "thickness": 1,
            },
        )
    figure.update_xaxes(title_text="predicted probability", range=[low, high])
    figure.update_yaxes(title_text="observed rate")
    return _styled(figure, 420)


def regime_ribbon(report: Mapping[str, Any]) -> go.Figure:
    """The close of one symbol over a ribbon of the filtered regime at each bar."""
    ribbon = report["regime"]
    names = ribbon["names"]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.84, 0.16], vertical_spacing=0.02)
    figure.add_scatter(
        x=ribbon["time"], y=ribbon["close"], name=ribbon["symbol"], line={"color": INK, "width": 1}, row=1, col=1
    )
    steps = [c for k in range(len(names)) for c in ((k / len(names), REGIMES[k]), ((k + 1) / len(names), REGIMES[k]))]
    figure.add_heatmap(
        x=ribbon["time"],
        z=[ribbon["state"]],
        zmin=-0.5,
        zmax=len(names) - 0.5,
        colorscale=[list(step) for step in steps],
        showscale=False,
        customdata=[[names[s] for s in ribbon["state"]]],
        hovertemplate="%{x}<br>%{customdata}<extra></extra>",
        row=2,
        col=1,
    )
    for k, name in enumerate(names):
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=name, marker={"color": REGIMES[k], "symbol": "square"}, row=1, col=1
        )
    figure.update_yaxes(title_text="close", type="log", row=1, col=1)
    figure.update_yaxes(showticklabels=False, row=2, col=1)
    return _styled(figure, 380)


def fold_timeline(report: Mapping[str, Any]) -> go.Figure:
    """Decisions of each part of each fold as bars, what its windows and labels read as outline, gaps shaded."""
    figure = go.Figure()
    for k, fold in enumerate(report["folds"]):
        for part, colour in PARTS.items():
            for key, opacity, width in (("reads", 0.25, 0.7), ("decisions", 1.0, 0.45)):
                start, end = (datetime.fromisoformat(t) for t in fold[part][key])
                figure.add_bar(
                    base=[start],
                    x=[(end - start).total_seconds() * 1000],
                    y=[f"fold {k + 1}"],
                    orientation="h",
                    width=width,
                    marker={"color": colour, "opacity": opacity},
                    name=part if key == "decisions" else f"{part}: windows and labels",
                    showlegend=k == 0 and key == "decisions",
                    hovertemplate=f"{part} {key}<br>{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
                    f"<br>n = {fold[part]['n']:,}<extra></extra>",
                )
        for before, after in (("train", "valid"), ("valid", "test")):
            figure.add_vrect(
                x0=fold[before]["decisions"][1], x1=fold[after]["decisions"][0], fillcolor="#e03131", opacity=0.18, line_width=0
            )
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(type="date")
    return _styled(figure, 150 + 60 * len(report["folds"]))


def importance(report: Mapping[str, Any]) -> go.Figure:
    """The columns the model leans on (permutation) beside those the auditor splits on (gain)."""
    figure = make_subplots(
        rows=1,
        cols=2,
        horizontal_spacing=0.22,
        subplot_titles=("model: rise of log-loss when permuted", "auditor: share of XGBoost gain"),
    )
    permuted = report["importance"]["permutation"][:N_SHOWN][::-1]
    figure.add_bar(
        x=[row["value"] for row in permuted],
        y=[row["name"] for row in permuted],
        orientation="h",
        marker_color=SERIES[0],
        error_x={
            "type": "data",
            "array": [row["high"] - row["value"] for row in permuted],
            "arrayminus": [row["value"] - row["low"] for row in permuted],
            "thickness": 1,
        },
        row=1,
        col=1,
    )
    gain = report["importance"]["auditor_gain"][:N_SHOWN][::-1]
    figure.add_bar(
        x=[row["value"] for row in gain], y=[row["name"] for row in gain], orientation="h", marker_color=SERIES[3],
        row=1, col=2,
    )
    figure.update_layout(showlegend=False)
    return _styled(figure, 460)


def drift(report: Mapping[str, Any]) -> go.Figure:
    """The columns by which a classifier tells test rows from training rows."""
    rows = report["drift"]["importances"][:N_SHOWN][::-1]
    figure = go.Figure(
        go.Bar(x=[r["value"] for r in rows], y=[r["name"] for r in rows], orientation="h", marker_color=SERIES[5])
    )
    figure.update_xaxes(title_text="share of the classifier's gain", tickformat=".0%")
    return _styled(figure, 420)


def _styled(figure: go.Figure, height: int) -> go.Figure:
    """One look for all figures."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 36, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"bgcolor": "white"},
    )
    figure.update_xaxes(gridcolor=GRID, automargin=True)
    figure.update_yaxes(gridcolor=GRID, automargin=True)
    return figure
