"""Figures of a trading page: equity inside the band that the backtest predicts, drawdown, slippage."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.equity_chart import drawdown_range, drawdowns, equity_axis
from tradsys.reports.style import QUIET, SERIES, band, plain, rounded, styled, thinned

HALF_A_DAY = timedelta(hours=12)


def equity(page: Any) -> go.Figure:
    """Equity per bar from 1, the band of 90 % of backtests, the drawdown.

    Backtests are bootstrapped.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06)
    if page.band is not None:
        dates, low, high = page.band
        area = band(dates, rounded(low), rounded(high), name="90 % of bootstrapped backtests", showlegend=True)
        figure.add_trace(area, row=1, col=1)
    falls = drawdowns([1.0, *page.equity])[1:]
    for row, values, name in ((1, page.equity, "equity"), (2, falls, "drawdown")):
        shown = thinned(values)
        figure.add_scatter(
            x=[page.time[i] for i in shown], y=rounded([values[i] for i in shown]), name=name, mode="lines",
            line={"color": SERIES[0] if row == 1 else SERIES[1], "width": 1.8}, showlegend=row == 1, row=row, col=1,
        )  # fmt: skip
    equity_axis(figure, [*page.equity, *(() if page.band is None else (*page.band[1], *page.band[2]))])
    figure.update_yaxes(range=drawdown_range(falls), row=2, col=1)
    figure.update_xaxes(type="date")
    figure.update_layout(hovermode="x unified")
    return styled(figure, 480)


def slippage(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Each real entry against the simulated fill, in basis points.

    The simulated fill is at the open of its bar; above 0 is worse.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[row["time"] for row in rows], y=rounded([row["bps"] for row in rows]), mode="markers",
        marker={"color": SERIES[1], "size": 7}, text=[plain(row["symbol"]) for row in rows], showlegend=False,
        hovertemplate="%{text}<br>%{y:.1f} bps<extra></extra>",
    )  # fmt: skip
    figure.add_hline(y=0, line={"color": QUIET, "width": 1})
    figure.update_yaxes(title_text="slippage, bps")
    times = [datetime.fromisoformat(str(row["time"])) for row in rows]
    room = max((max(times) - min(times)) / 20, HALF_A_DAY)  # of one fill alone plotly would show milliseconds
    figure.update_xaxes(type="date", range=[min(times) - room, max(times) + room])
    return styled(figure, 240)


def live_record(live: Mapping[str, Any]) -> go.Figure:
    """Running mean of the bot's daily returns within its bounds.

    The bounds are valid at all times; with the backtest's mean.
    """
    figure = go.Figure()
    shade = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    bps = {k: rounded([1e4 * v for v in live[k]]) for k in ("mean", "low", "high")}
    figure.add_scatter(x=live["date"], y=bps["high"], showlegend=False, **shade)
    figure.add_scatter(
        x=live["date"], y=bps["low"], fill="tonexty", fillcolor="rgba(95,107,122,.18)", name="95 %, at all times",
        **shade,
    )  # fmt: skip
    figure.add_scatter(
        x=live["date"], y=bps["mean"], name="mean so far", mode="lines", line={"color": SERIES[0], "width": 1.8}
    )
    figure.add_hline(y=0, line={"color": QUIET, "width": 1})
    if live["expected"] is not None:
        figure.add_hline(y=1e4 * live["expected"], line={"color": SERIES[2], "dash": "dash"})
    figure.update_yaxes(title_text="return a day, bps")
    figure.update_xaxes(type="date")
    return styled(figure, 260)
