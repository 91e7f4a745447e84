"""Figures of the auditor against placebos, of filtered and smoothed regimes, and of returns by regime."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.style import (
    ALARM,
    INK,
    PERCENT_TICKS,
    QUIET,
    colour,
    ordered_colours,
    plain,
    rounded,
    styled,
    thinned,
)

MOST_BINS = 40
# side -> colour, dash and words of its line among the placebos
MARKS = {
    "audited": (colour(0), "solid", "audited"),
    "unaudited": (INK, "dash", "without the auditor"),
    "reckless": (ALARM, "dot", "Reckless"),
}
MEASURES = (("sharpe", "Sharpe ratio, yearly", 1.0), ("per_trade", "mean net return of a trade, %", 100.0))
VIEWS = {
    "none": ({"color": QUIET, "width": 1.5, "dash": "dot"}, "no regime"),
    "filtered": ({"color": colour(0), "width": 2.4}, "filtered: point in time"),
    "smoothed": ({"color": colour(1), "width": 1.8, "dash": "dash"}, "smoothed: uses the future"),
    "viterbi": ({"color": colour(3), "width": 1.8, "dash": "dashdot"}, "Viterbi: uses the future"),
}
SPANS = {"train": "training", "valid": "validation", "test": "test"}


def placebo_auditors(report: Mapping[str, Any]) -> go.Figure:
    """Results of placebo auditors, one row per audited strategy.

    Marks the real auditor and references.
    """
    rows = [row for row in report["audit_value"]["rows"] if row["placebos"]]
    titles = [f"{plain(row['name'])}: {title.split(',')[0]}" for row in rows for _, title, _ in MEASURES]
    figure = make_subplots(
        rows=len(rows), cols=2, horizontal_spacing=0.08, vertical_spacing=0.22 / len(rows), subplot_titles=titles
    )
    for r, row in enumerate(rows, 1):
        for c, (key, title, scale) in enumerate(MEASURES, 1):
            drawn = [scale * v for v in row["placebos"]["draws"][key]]
            known = {k: scale * v[key] for k, v in row["sides"].items() if k in MARKS and v[key] is not None}
            _histogram(figure, (r, c), drawn, known, first=r == c == 1)
            ends = [*drawn, *known.values()] or [0.0]
            room = 0.04 * (max(ends) - min(ends)) or 1.0
            figure.update_xaxes(title_text=title, range=[min(ends) - room, max(ends) + room], row=r, col=c)
        figure.update_yaxes(title_text="placebos", row=r, col=1)
    styled(figure, 120 + 260 * len(rows))
    figure.update_layout(margin_t=88, bargap=0.04, legend_y=1.0 + 40 / (260 * len(rows)))
    return figure


def _histogram(
    figure: go.Figure, at: tuple[int, int], drawn: Sequence[float], known: Mapping[str, float], *, first: bool
) -> None:
    """Counts of the placebos, where any has a value; with a vertical line for each strategy that has a value."""
    place = {"row": at[0], "col": at[1]}
    low, high = min(drawn, default=0.0), max(drawn, default=0.0)
    n_bins = max(5, min(MOST_BINS, len(drawn) // 10))
    width = (high - low) / n_bins or 1.0
    counts = [0] * n_bins
    for value in drawn:
        counts[min(int((value - low) / width), n_bins - 1)] += 1
    figure.add_bar(
        x=rounded([low + (k + 0.5) * width for k in range(n_bins)]),
        y=counts,
        width=width * 0.96,
        name="placebo auditors",
        legendgroup="placebos",
        showlegend=first,
        marker={"color": QUIET, "opacity": 0.45},
        hovertemplate="%{y} placebos near %{x:.3g}<extra></extra>",
        **place,
    )
    for side, value in known.items():
        shade, dash, words = MARKS[side]
        figure.add_scatter(
            x=rounded([value, value]),
            y=[0, 1.08 * max(counts)],
            mode="lines",
            name=words,
            legendgroup=side,
            showlegend=first,
            line={"color": shade, "dash": dash, "width": 2.6 if side == "audited" else 1.8},
            hovertemplate=f"{words}: %{{x:.3g}}<extra></extra>",
            **place,
        )


def equity_by_view(report: Mapping[str, Any]) -> go.Figure:
    """Daily equity of one strategy under each view of the regimes.

    Views that use the future in broken lines.
    """
    curves = report["hindsight"]["curves"]
    figure = go.Figure()
    for view, (look, words) in VIEWS.items():
        values = curves["curves"][view]
        shown = thinned(values, 600)
        figure.add_scatter(
            x=[curves["time"][k] for k in shown],
            y=rounded([values[k] for k in shown]),
            name=words,
            mode="lines",
            line=look,
        )
    figure.add_hline(y=1, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_yaxes(title_text=f"equity of {plain(curves['strategy'])}, start = 1", hoverformat=".4f")
    figure.update_layout(hovermode="x unified")
    return styled(figure, 380)


def regime_shares(report: Mapping[str, Any]) -> go.Figure:
    """Share of decisions and return of every strategy in each regime state.

    The second chart is left out where no strategy closed a trade.
    """
    section = report["hindsight"]
    shades = ordered_colours(len(section["names"]))
    strategies = [row for row in section["contribution"] if row["traded"]]
    figure = make_subplots(
        rows=1, cols=2, column_widths=[0.4, 0.6], horizontal_spacing=0.12,
        subplot_titles=("occupancy", "return, of the initial capital"),
    ) if strategies else make_subplots(rows=1, cols=1, subplot_titles=("occupancy",))  # fmt: skip
    for k, (state, shade) in enumerate(zip(section["states"], shades, strict=True)):
        look = {"color": shade, "line": {"color": INK, "width": 0.5}}
        figure.add_bar(
            x=[SPANS[span] for span in SPANS],
            y=rounded([state["occupancy"][span] for span in SPANS]),
            name=plain(state["name"]), legendgroup=str(k), marker=look, offsetgroup="share",
            base=rounded([sum(s["occupancy"][span] for s in section["states"][:k]) for span in SPANS]),
            hovertemplate=f"{plain(state['name'])}: %{{customdata:.1%}}<extra></extra>",
            customdata=rounded([state["occupancy"][span] for span in SPANS]),
            row=1, col=1,
        )  # fmt: skip
        if strategies:
            figure.add_bar(
                x=[plain(row["name"]) for row in strategies],
                y=rounded([row["regimes"][k]["earned"] for row in strategies]),
                name=plain(state["name"]), legendgroup=str(k), showlegend=False, marker=look, offsetgroup=str(k),
                hovertemplate=f"{plain(state['name'])}: %{{y:.2%}}<extra></extra>",
                row=1, col=2,
            )  # fmt: skip
    figure.update_yaxes(tickformat=PERCENT_TICKS)
    figure.update_yaxes(range=[0, 1], row=1, col=1)
    styled(figure, 380)
    figure.update_layout(barmode="group", margin_t=84, legend_y=1.1)
    return figure
