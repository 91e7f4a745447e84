"""Figures of strategies: what they earned over time, and how far the Sharpe ratios can be told from luck."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from tradsys.reports.interval_plot import ends, forest, padded
from tradsys.reports.style import ALARM
from tradsys.reports.tables import never_traded
from tradsys.reports.wording import counted


def sharpe_ratios(report: Mapping[str, Any]) -> go.Figure:
    """Yearly Sharpe ratio of every strategy with its interval, against zero and what luck alone would show."""
    rows = [*report["strategies"], report["benchmark"]]
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
