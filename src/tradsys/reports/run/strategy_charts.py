"""Figures of strategies: what they earned over time, and how far the Sharpe ratios can be told from luck."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.style import ALARM, INK, QUIET, colour, line, plain, rounded, styled, symbol, thinned
from tradsys.reports.wording import UNKNOWN, counted

WIDE_RANGE = 3.0  # highest over lowest, above which equal steps should be equal shares


def equity_and_drawdown(report: Mapping[str, Any]) -> go.Figure:
    """Daily equity of every strategy and of buy and hold from a common 1, with each one's fall from its peak below."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.05)
    days = report["equity"]["time"]
    eve = date.fromisoformat(days[0][:10]) - timedelta(days=1)  # the equity is 1 before the first day's return
    time = [str(eve), *days]
    idle = {row["name"] for row in report["strategies"] if never_traded(row["performance"])}
    for k, (name, curve) in enumerate(report["equity"]["curves"].items()):
        look = line(k) if name != report["benchmark"]["name"] else {"color": QUIET, "width": 1.5, "dash": "dot"}
        label = f"{plain(name)} (never traded)" if name in idle else plain(name)
        whole = [1.0, *curve]
        for row, values in ((1, whole), (2, drawdowns(whole))):
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
    _equity_axes(figure, [v for curve in report["equity"]["curves"].values() for v in curve])
    return styled(figure, 560)


def _equity_axes(figure: go.Figure, values: Sequence[float]) -> None:
    """A log axis where curves spread far, else a linear one; both panels hover together."""
    low, high = min(values), max(values)
    wide = low > 0 and high / low > WIDE_RANGE
    title = "equity, start = 1" + (" (log scale)" if wide else "")
    figure.update_yaxes(title_text=title, type="log" if wide else "linear", hoverformat=".4f", row=1, col=1)
    figure.update_yaxes(title_text="below peak", tickformat=".0%", hoverformat=".2%", row=2, col=1)
    figure.update_layout(hovermode="x unified")


def drawdowns(curve: Sequence[float]) -> list[float]:
    """Share [T] by which each value lies below the highest so far; 0 at a peak, negative below it."""
    peak, out = curve[0], []
    for value in curve:
        peak = max(peak, value)
        out.append(value / peak - 1)
    return out


def never_traded(performance: Mapping[str, Any]) -> bool:
    """Whether no position was ever opened, so that there is nothing to measure."""
    return performance["n_trades"] + performance["n_open_trades"] == 0


def sharpe_ratios(report: Mapping[str, Any]) -> go.Figure:
    """Yearly Sharpe ratio of every strategy with its interval, against zero and what luck alone would show."""
    rows = [*report["strategies"], report["benchmark"]]
    luck = report["benchmark"]["performance"]["expected_max_sharpe"]
    estimates = {row["name"]: row["performance"]["sharpe"] for row in rows}
    idle = {row["name"]: {"reason": "it never traded"} for row in rows if never_traded(row["performance"])}
    estimates |= {name: estimates[name] | why for name, why in idle.items()}
    figure = forest(estimates, "Sharpe ratio, yearly", 2, reference=report["benchmark"]["name"])
    low, high = _padded([*_ends(estimates), luck])
    figure.update_xaxes(range=[low, high])
    inwards = "right" if luck > (low + high) / 2 else "left"
    figure.add_vline(x=luck, line={"color": ALARM, "dash": "dash"})
    figure.add_annotation(
        x=luck, y=1, yref="paper", yanchor="bottom", xanchor=inwards, showarrow=False, font_color=ALARM,
        text=f"best of {counted(report['ledger']['n_trials'], 'trial')} by luck: {luck:.2f}",
    )  # fmt: skip
    return figure


def forest(
    estimates: Mapping[str, Mapping[str, Any]], title: str, digits: int, reference: str | None = None
) -> go.Figure:
    """One line per name: value and interval; a hollow mark without one, `n/a` and why where there is no value.

    reference: the name drawn in grey, since it stands beside the others and is not one of them.
    """
    figure = go.Figure()
    places = {name: len(estimates) - 1 - k for k, name in enumerate(estimates)}
    for k, (name, estimate) in enumerate(estimates.items()):
        if estimate["value"] is None:
            _say(figure, places[name], f"{UNKNOWN}: {estimate['reason'] or 'not known'}")
        else:
            look = (QUIET, "circle") if name == reference else (colour(k), symbol(k))
            _mark(figure, places[name], name, estimate, digits, look)
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    styled(figure, 150 + 34 * len(estimates))
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text=title, zeroline=False, range=_padded(_ends(estimates)))
    figure.update_yaxes(
        tickvals=list(places.values()), ticktext=[plain(n) for n in places], range=[-0.6, len(places) - 0.4]
    )
    return figure


def _ends(estimates: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Every value and bound that is known."""
    return [e[key] for e in estimates.values() for key in ("low", "value", "high") if e[key] is not None]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds zero and all values, with room at both ends."""
    low, high = min([0.0, *values]), max([0.0, *values])
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room


def _mark(
    figure: go.Figure, place: int, name: str, estimate: Mapping[str, Any], digits: int, look: tuple[str, str]
) -> None:
    fill, shape = look
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    bounded = low is not None
    said = f"[{low:.{digits}f}, {high:.{digits}f}]" if bounded else f"no interval: {estimate['reason']}"
    figure.add_scatter(
        x=[value],
        y=[place],
        mode="markers" if bounded else "markers+text",
        text=None if bounded else "  no interval",
        textposition="middle right",
        textfont={"color": QUIET, "size": 12},
        marker={
            "size": 10,
            "symbol": shape if bounded else f"{shape}-open",
            "color": fill,
            "line": {"width": 2, "color": fill},
        },
        error_x={"type": "data", "array": [high - value], "arrayminus": [value - low]} if bounded else None,
        hovertemplate=f"{plain(name)}<br>{value:.{digits}f} {plain(said)}<extra></extra>",
    )


def _say(figure: go.Figure, place: int, text: str) -> None:
    """Words in a line that has no mark."""
    figure.add_annotation(
        x=0.01, xref="paper", xanchor="left", y=place, text=plain(text), showarrow=False,
        font={"color": QUIET, "size": 12}, bgcolor="white",
    )  # fmt: skip
