"""Figures of models: skill, calibration, feature importance, and drift of the data."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.core.headline import headline_skill
from tradsys.reports.interval_plot import forest
from tradsys.reports.style import PERCENT_TICKS, QUIET, SERIES, colour, line, plain, styled, symbol

N_SHOWN = 15
PALE = 0.35
SHOWN_SHARE = 0.01  # the chart's range covers intervals of bins with at least this share of the forecasts


def skills(report: Mapping[str, Any]) -> go.Figure:
    """Skill beyond the level of every model with its interval.

    Against zero, the skill of a constant.
    """
    estimates = {row["name"]: headline_skill(row["metrics"]) for row in report["models"]}
    return forest(estimates, "skill beyond the level", 4)


def reliability_diagram(report: Mapping[str, Any]) -> go.Figure:
    """Observed rate against mean predicted probability.

    A histogram below shows the predicted probabilities.
    """
    figure = make_subplots(
        cols=2, column_widths=[0.6, 0.4], horizontal_spacing=0.1,
        subplot_titles=("observed frequency", "number of forecasts"),
    )  # fmt: skip
    (low, high), observed = _ranges(report["reliability"])
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", name="perfect", hoverinfo="skip",
        line={"color": QUIET, "dash": "dot"}, row=1, col=1,
    )  # fmt: skip
    for k, (name, bins) in enumerate(report["reliability"].items()):
        _observed(figure, k, plain(name), bins)
        figure.add_bar(
            x=[b["mean_predicted"] for b in bins],
            y=[b["n"] for b in bins],
            width=(high - low) / 60,
            name=plain(name),
            marker={"color": colour(k), "opacity": 0.75},
            legendgroup=name,
            showlegend=False,
            hovertemplate="predicted %{x:.3f}<br>n = %{y:,}",
            row=1,
            col=2,
        )
    styled(figure, 500).update_layout(barmode="overlay", legend_y=1.08)
    figure.update_xaxes(title_text="mean predicted probability", range=[low, high])
    figure.update_yaxes(title_text="observed rate", range=observed, row=1, col=1)
    figure.update_yaxes(title_text="test samples", row=1, col=2)
    return figure


def _ranges(reliability: Mapping[str, Sequence[Mapping[str, float]]]) -> tuple[list[float], list[float]]:
    """Ranges of both axes: all forecasts; all observed rates, with the intervals of bins that hold 1 % or more.

    The interval of a bin with few forecasts is wide; it may exceed the chart, so that the others stay readable.
    """
    every = [(b, sum(other["n"] for other in bins)) for bins in reliability.values() for b in bins]
    x = [b["mean_predicted"] for b, _ in every]
    y = [*x, *(b["observed"] for b, _ in every)]
    y += [b[key] for b, n in every if b["n"] >= SHOWN_SHARE * n for key in ("observed_low", "observed_high")]
    return _axis_range(x), _axis_range(y)


def _axis_range(values: Sequence[float]) -> list[float]:
    """The values' range with a margin, inside [0, 1] and a little more."""
    pad = max(0.01, 0.06 * (max(values) - min(values)))
    return [max(min(values) - pad, -0.02), min(max(values) + pad, 1.02)]


def _observed(figure: go.Figure, k: int, name: str, bins: Sequence[Mapping[str, float]]) -> None:
    observed = [b["observed"] for b in bins]
    figure.add_scatter(
        x=[b["mean_predicted"] for b in bins],
        y=observed,
        name=name,
        legendgroup=name,
        mode="lines+markers",
        marker={"size": 9, "symbol": symbol(k)},
        line=line(k),
        customdata=[[b["n"], b["observed_low"], b["observed_high"]] for b in bins],
        hovertemplate="predicted %{x:.3f}<br>observed %{y:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]"
        "<br>n = %{customdata[0]:,}",
        error_y={
            "type": "data",
            "array": [b["observed_high"] - b["observed"] for b in bins],
            "arrayminus": [b["observed"] - b["observed_low"] for b in bins],
            "thickness": 1.2,
        },
        row=1,
        col=1,
    )


def importance(report: Mapping[str, Any]) -> go.Figure:
    """Permutation importance of the model's columns.

    An auditor's columns are shown by their gain.
    """
    permuted = report["importance"]["permutation"]
    gain = report["importance"]["auditor_gain"]
    titles = [f"model: permutation ({_count_line(permuted)})"]
    if gain:
        titles.append(f"auditor: XGBoost gain ({_count_line(gain)})")
    figure = make_subplots(cols=len(titles), horizontal_spacing=0.24, subplot_titles=titles)
    _permuted(figure, permuted[:N_SHOWN][::-1], ranged=not single_repeat(permuted))
    if gain:
        _ranked(figure, gain, SERIES[3], col=2)
    return styled(figure, 520).update_layout(showlegend=False)


def _permuted(figure: go.Figure, shown: Sequence[Mapping[str, Any]], *, ranged: bool) -> None:
    """Bars with the range over repeats; pale where zero lies inside it or there is no range."""
    figure.add_bar(
        x=[row["value"] for row in shown],
        y=[plain(row["name"]) for row in shown],
        orientation="h",
        marker={"color": SERIES[0], "opacity": [1.0 if ranged and row["low"] > 0 else PALE for row in shown]},
        error_x={
            "type": "data",
            "array": [row["high"] - row["value"] for row in shown],
            "arrayminus": [row["value"] - row["low"] for row in shown],
            "thickness": 1.2,
            "visible": ranged,
        },
        hovertemplate="%{y}<br>%{x:.6f} nats<extra></extra>",
        row=1,
        col=1,
    )
    figure.update_xaxes(title_text="rise of log-loss, nats", tickformat="~g", nticks=5, row=1, col=1)


def single_repeat(permutation: Sequence[Mapping[str, float]]) -> bool:
    """Whether each column was permuted only once, so that there is no range."""
    return all(row["low"] == row["high"] for row in permutation)


def drift(report: Mapping[str, Any]) -> go.Figure:
    """The columns by which a classifier distinguishes test rows from training rows."""
    rows = report["drift"]["importances"]
    figure = make_subplots(cols=1, subplot_titles=[f"classifier of train against test: gain ({_count_line(rows)})"])
    _ranked(figure, rows, SERIES[2], col=1)
    return styled(figure, 460).update_layout(showlegend=False)


def _ranked(figure: go.Figure, rows: Sequence[Mapping[str, Any]], fill: str, *, col: int) -> None:
    """The first rows as bars, the largest on top; values are shares."""
    shown = rows[:N_SHOWN][::-1]
    figure.add_bar(
        x=[row["value"] for row in shown],
        y=[plain(row["name"]) for row in shown],
        orientation="h",
        marker_color=fill,
        hovertemplate="%{y}<br>%{x:.1%}<extra></extra>",
        row=1,
        col=col,
    )
    figure.update_xaxes(title_text="share of gain", tickformat=PERCENT_TICKS, rangemode="tozero", row=1, col=col)


def _count_line(rows: Sequence[Any]) -> str:
    return f"{min(N_SHOWN, len(rows))} of {len(rows)} columns"
