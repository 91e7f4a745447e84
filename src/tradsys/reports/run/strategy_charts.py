"""Figures of strategies: Sharpe ratios against luck, and the live records to expect."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from tradsys.reports.interval_plot import ends, forest, padded
from tradsys.reports.style import ALARM, QUIET, line, log_scale, plain, rounded, styled, symbol
from tradsys.reports.tables import compared, never_traded
from tradsys.reports.wording import counted


def sharpe_ratios(report: Mapping[str, Any]) -> go.Figure:
    """Yearly Sharpe ratio of every strategy with its interval.

    Against zero and the best expected by luck alone.
    """
    rows = compared(report)
    luck = report["benchmark"]["performance"]["expected_max_sharpe"]
    estimates = {row["name"]: row["performance"]["sharpe"] for row in rows}
    idle = {row["name"]: {"reason": "it never traded"} for row in rows if never_traded(row["performance"])}
    estimates |= {name: estimates[name] | why for name, why in idle.items()}
    figure = forest(estimates, "Sharpe ratio, yearly", 2, reference=report["benchmark"]["name"])
    low, high = padded([*ends(estimates.values()), luck])
    figure.update_xaxes(range=[low, high])
    inwards = "right" if luck > (low + high) / 2 else "left"
    figure.add_vline(x=luck, line={"color": ALARM, "dash": "dash"})
    figure.add_annotation(
        x=luck, y=1, yref="paper", yanchor="bottom", xanchor=inwards, showarrow=False, font_color=ALARM,
        text=f"best of {counted(report['ledger']['n_trials'], 'trial')} by luck: {luck:.2f}",
    )  # fmt: skip
    return figure


def has_sharpe(report: Mapping[str, Any]) -> bool:
    """Whether any strategy or the benchmark has a Sharpe ratio.

    Short or idle records have none.
    """
    return any(row["performance"]["sharpe"]["value"] is not None for row in compared(report))


def expected_live(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Expected bounds of a live record by strategy.

    With an edge and with not enough evidence.
    """
    return {r["name"]: live for r in report["strategies"] if (live := (r.get("verdict") or {}).get("live"))}


def live_records(report: Mapping[str, Any]) -> go.Figure:
    """Expected lower bound of a live record's Sharpe over years of trading.

    A mark where it exceeds zero. It assumes that the backtest's Sharpe is true. Dotted: the upper bound of a record
    without an edge, which falls below the backtest's Sharpe at the same moment.
    """
    figure = go.Figure()
    for k, (name, live) in enumerate(expected_live(report).items()):
        years = [n / live["periods_per_year"] for n in live["n"]]
        shown = {"x": rounded(years), "mode": "lines", "legendgroup": name}
        label = f"{plain(name)}, Sharpe {live['sharpe']:.2f}"
        figure.add_scatter(y=rounded(live["low"]), name=label, line=line(k), **shown)
        dotted = {**line(k), "dash": "dot", "width": 1.2}
        figure.add_scatter(
            y=rounded(live["no_edge_high"]), name=f"{label}: upper bound without an edge", line=dotted,
            showlegend=False, **shown,
        )  # fmt: skip
        if live["periods"] is not None:
            when = live["periods"] / live["periods_per_year"]
            figure.add_scatter(
                x=[when], y=[0.0], mode="markers", legendgroup=name, showlegend=False, name=label,
                marker={"color": line(k)["color"], "size": 10, "symbol": symbol(k)},
                hovertemplate=f"{plain(name)}: confirmed or refuted after {when:.1f} years<extra></extra>",
            )  # fmt: skip
    figure.add_hline(y=0, line={"color": QUIET, "width": 1})
    lived = [n / live["periods_per_year"] for live in expected_live(report).values() for n in live["n"]]
    figure.update_xaxes(title_text="years of live trading (log scale)", **log_scale(lived, wide=100))
    figure.update_yaxes(title_text="Sharpe ratio, yearly", hoverformat=".2f", range=_bounded(report))
    return styled(figure, 360)


def _bounded(report: Mapping[str, Any]) -> list[float]:
    """Bounds of the first weeks are wide and say nothing: beyond twice and thrice the largest Sharpe the axis ends."""
    lives = expected_live(report).values()
    top = max((live["sharpe"] for live in lives), default=1.0)
    drawn = [v for live in lives for key in ("low", "no_edge_high") for v in live[key]]
    low, high = padded([top, *drawn])
    return [max(low, -2 * top), min(high, 3 * top)]
