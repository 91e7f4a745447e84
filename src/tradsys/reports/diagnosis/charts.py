"""Figures of a diagnosis: coverage over time, correlation with the label, events by date and symbol, examples."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.style import (
    ALARM,
    GRID,
    INK,
    PERCENT_TICKS,
    PRESENT,
    QUIET,
    SERIES,
    band,
    colour,
    plain,
    styled,
    symbol,
)

# covered is pale and missing is strong, so that one missing date in a thousand is visible
COVERAGE = (
    (-1.0, "missing", ALARM),
    (0.01, "less than half", "#d55e01"),
    (0.5, "half or more", "#e69f00"),
    (0.9, "nearly all", "#7fb3d0"),
    (0.99995, "all", PRESENT),
)
N_CORRELATIONS = 30
N_SYMBOLS = 40
COLUMNS = 4
EVENTS, REST = SERIES[1], SERIES[0]
KINDS = {"event": "events", "near miss": "near misses", "false alarm": "compressed without an event"}


def coverage_map(report: Mapping[str, Any]) -> go.Figure:
    """Share of expected values by feature and date.

    All dates on the left, the last dates on the right.
    """
    found = report["coverage"]
    outcome = {f["feature"]: f["outcome"] for f in reversed(found["findings"])}
    outcome |= {f["feature"]: "stop" for f in found["findings"] if f["outcome"] == "stop"}
    titles = (f"all {found['n_dates']:,} dates", f"the last {len(found['recent_dates'])} dates")
    figure = make_subplots(
        cols=2, shared_yaxes=True, column_widths=[0.74, 0.26], horizontal_spacing=0.02, subplot_titles=titles
    )
    rows = list(range(len(found["names"])))
    for col, dates, share in ((1, "dates", "share"), (2, "recent_dates", "recent_share")):
        for level, (least, name, fill) in enumerate(COVERAGE):
            most = COVERAGE[level + 1][0] if level + 1 < len(COVERAGE) else math.inf
            runs = [
                run for row in rows for run in _coverage_runs(found, row, found[dates], found[share][row], least, most)
            ]
            _coverage_bars(figure, runs, name, fill, col)
        figure.update_xaxes(range=[-0.5, len(found[dates]) - 0.5], row=1, col=col)
    labels = [_marked(name, outcome.get(name)) for name in found["names"]]
    styled(figure, 150 + 19 * len(rows)).update_layout(barmode="overlay", bargap=0.06, margin_t=92)
    figure.update_layout(legend_y=1 + 26 / (19 * len(rows) + 10))  # above the panels' titles
    figure.update_yaxes(tickvals=rows, range=[len(rows) - 0.4, -0.6], showgrid=False, zeroline=False, tickfont_size=12)
    figure.update_yaxes(ticktext=labels, row=1, col=1)
    # placed manually: the labels of two panels would overlap
    n, m = len(found["dates"]), len(found["recent_dates"])
    figure.update_xaxes(showgrid=False, tickangle=0, zeroline=False)
    left, right = list(range(0, 9 * n // 10, max(1, n // 6))), sorted({m // 6, m - 1 - m // 6})
    figure.update_xaxes(tickvals=left, ticktext=[found["dates"][k] for k in left], row=1, col=1)
    return figure.update_xaxes(tickvals=right, ticktext=[found["recent_dates"][k] for k in right], row=1, col=2)


def _coverage_runs(
    found: Mapping[str, Any], row: int, dates: Sequence[str], share: Sequence[float | None], least: float, most: float
) -> list[tuple[int, int, int, str]]:
    """Neighbouring dates of one feature whose coverage lies in [least, most), as (row, first, count, text)."""
    inside = [k for k, s in enumerate(share) if s is not None and least <= s < most]
    runs = []
    for _, group in groupby(enumerate(inside), key=lambda pair: pair[1] - pair[0]):
        at = [k for _, k in group]
        low = min(float(share[k]) for k in at)  # type: ignore[arg-type]
        when = dates[at[0]] if len(at) == 1 else f"{dates[at[0]]} to {dates[at[-1]]}"
        runs.append((row, at[0], len(at), f"{plain(found['names'][row])}<br>{when}<br>covered {low:.1%}"))
    return runs


def _coverage_bars(
    figure: go.Figure, runs: Sequence[tuple[int, int, int, str]], name: str, fill: str, col: int
) -> None:
    if not runs and col == 2:
        return
    figure.add_bar(
        base=[first - 0.5 for _, first, _, _ in runs] or [0],
        x=[n for _, _, n, _ in runs] or [0],
        y=[row for row, *_ in runs] or [0],
        text=None,
        orientation="h",
        marker={"color": fill, "line_width": 0},
        name=name,
        legendgroup=name,
        showlegend=col == 1,
        customdata=[text for *_, text in runs] or [""],
        hovertemplate="%{customdata}<extra></extra>",
        row=1,
        col=col,
    )


def _marked(name: str, outcome: str | None) -> str:
    """The feature's name, highlighted where it fails."""
    if outcome == "stop":
        return f"<b><span style='color:{ALARM}'>FAILS  {plain(name)}</span></b>"
    return f"<b>{plain(name)} (see below)</b>" if outcome == "warn" else plain(name)


def correlations(report: Mapping[str, Any]) -> go.Figure:
    """Rank correlation of each column with the event.

    Solid where significant after Holm, pale where not.
    """
    rows = [r for r in report["correlation"] if r["value"] is not None][:N_CORRELATIONS][::-1]
    held = [r["p_holm"] is not None and r["p_holm"] + report["confidence"] < 1 for r in rows]
    figure = go.Figure()
    for is_held, name, look in (
        (True, "beyond chance after Holm", {"color": SERIES[0], "size": 9}),
        (False, "may be chance", {"color": QUIET, "size": 8, "symbol": "circle-open", "line": {"width": 1.6}}),
    ):
        mine = [(k, r) for k, (r, h) in enumerate(zip(rows, held, strict=True)) if h is is_held]
        figure.add_scatter(
            x=[r["value"] for _, r in mine],
            y=[k for k, _ in mine],
            mode="markers",
            name=name,
            marker=look,
            error_x=_error_bars([r for _, r in mine]),
            text=[plain(r["name"]) for _, r in mine],
            hovertemplate="%{text}<br>%{x:+.3f}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    styled(figure, 120 + 21 * len(rows))
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=[plain(r["name"]) for r in rows], tickfont_size=12)
    figure.update_yaxes(range=[-0.7, len(rows) - 0.3])
    return figure.update_xaxes(title_text="rank correlation with the event, block-bootstrap interval", zeroline=False)


def _error_bars(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Plotly's error bars of estimates; none without an interval."""
    up = [0 if r["high"] is None else r["high"] - r["value"] for r in rows]
    down = [0 if r["low"] is None else r["value"] - r["low"] for r in rows]
    return {"type": "data", "array": up, "arrayminus": down, "thickness": 1.3, "width": 3}


def distributions(report: Mapping[str, Any]) -> go.Figure:
    """Histograms of the columns with the strongest correlation, as shares.

    Events against the rest.
    """
    shown = report["distributions"]
    n_rows = -(-len(shown) // COLUMNS)
    titles = [plain(d["name"]) for d in shown]
    figure = make_subplots(
        rows=n_rows, cols=min(COLUMNS, len(shown)), subplot_titles=titles, vertical_spacing=0.3 / n_rows
    )
    for k, found in enumerate(shown):
        row, col = divmod(k, COLUMNS)
        middle = [(a + b) / 2 for a, b in pairwise(found["edges"])]
        for name, key, fill in (("rest", "rest", REST), ("events", "events", EVENTS)):
            figure.add_scatter(
                x=middle, y=found[key], name=name, legendgroup=name, showlegend=k == 0, mode="lines",
                line={"color": fill, "width": 2, "shape": "hvh"},
                fill="tozeroy" if key == "rest" else None, fillcolor="rgba(0,114,178,0.18)",
                hovertemplate="%{x:.3g}: %{y:.1%}", row=row + 1, col=col + 1,
            )  # fmt: skip
    figure.update_yaxes(tickformat=PERCENT_TICKS, rangemode="tozero", nticks=4)
    figure.update_xaxes(nticks=5)
    styled(figure, 130 + 190 * n_rows)
    # above the titles of the first row, whatever the figure's height
    return figure.update_layout(margin_t=92, legend={"y": 1 + 26 / (190 * n_rows - 10)})


def compression_lift(report: Mapping[str, Any]) -> go.Figure:
    """Lift of compressed rows; 1 is none.

    Plain, against the rate of their own dates, and of their own symbols.
    """
    rows = report["compression"]["lifts"]
    measures = (("lift", "against all rows"), ("within_time", "against their own dates"),
                ("within_symbol", "against their own symbols"))  # fmt: skip
    figure = go.Figure()
    for m, (key, name) in enumerate(measures):
        known = [(k, r[key]) for k, r in enumerate(reversed(rows)) if r[key]["value"] is not None]
        figure.add_scatter(
            x=[e["value"] for _, e in known],
            y=[k + 0.22 * (1 - m) for k, _ in known],
            mode="markers",
            name=name,
            marker={"color": colour(m), "symbol": symbol(m), "size": 10},
            error_x=_error_bars([e for _, e in known]),
            hovertemplate=f"{name}<br>%{{x:.2f}}<extra></extra>",
        )
    figure.add_vline(x=1, line={"color": INK, "width": 1})
    styled(figure, 140 + 62 * len(rows))
    labels = [f"{plain(r['name'])}<br>{r['n_both']:,} of {r['n_chosen']:,}" for r in reversed(rows)]
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=labels, range=[-0.6, len(rows) - 0.4])
    return figure.update_xaxes(title_text="lift: how many times as often as the rate compared with", zeroline=False)


def event_fifths(report: Mapping[str, Any]) -> go.Figure:
    """Event rate by fifth of each compression column.

    Its lowest first, against the rate of all rows.
    """
    section = report["compression"]
    figure = go.Figure()
    for k, (name, fifths) in enumerate(section["fifths"].items()):
        shown = [f for f in fifths if f["value"] is not None]
        figure.add_scatter(
            x=[f["fifth"] + 0.06 * k for f in shown],
            y=[f["value"] for f in shown],
            mode="lines+markers",
            name=plain(name),
            line={"color": colour(k), "width": 1.8},
            marker={"symbol": symbol(k), "size": 9},
            error_y=_error_bars(shown),
            hovertemplate="%{y:.2%}<extra></extra>",
        )
    figure.add_hline(y=section["rate"], line={"color": QUIET, "dash": "dot"}, annotation_text="all rows")
    styled(figure, 360)
    figure.update_xaxes(
        tickvals=[1, 2, 3, 4, 5], ticktext=["lowest", "2nd", "3rd", "4th", "highest"], title_text="fifth"
    )
    return figure.update_yaxes(tickformat=PERCENT_TICKS, title_text="share of events", rangemode="tozero")


def balance_by_time(report: Mapping[str, Any]) -> go.Figure:
    """Share of events by month, with the number of rows and episodes below."""
    months = report["balance"]["by_time"]
    x = [m["month"] for m in months]
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.62, 0.38], vertical_spacing=0.06)
    figure.add_bar(
        x=x, y=[m["rate"] for m in months], marker_color=EVENTS, showlegend=False,
        hovertemplate="%{x}<br>%{y:.2%} events<extra></extra>", row=1, col=1,
    )  # fmt: skip
    figure.add_hline(y=report["balance"]["rate"], line={"color": QUIET, "dash": "dot"}, row=1, col=1)
    figure.add_bar(
        x=x, y=[m["episodes"] for m in months], marker_color=SERIES[0], showlegend=False,
        customdata=[m["n"] for m in months], hovertemplate="%{x}<br>%{y} episodes, %{customdata:,} rows<extra></extra>",
        row=2, col=1,
    )  # fmt: skip
    figure.update_yaxes(tickformat=PERCENT_TICKS, title_text="event rate", row=1, col=1)
    figure.update_yaxes(title_text="episodes", row=2, col=1)
    figure.update_xaxes(type="category", nticks=14)
    return styled(figure, 400)


def balance_by_symbol(report: Mapping[str, Any]) -> go.Figure:
    """Share of events of the symbols that have most of them."""
    rows = report["balance"]["by_symbol"]
    shown = rows[:N_SYMBOLS]
    figure = go.Figure()
    figure.add_bar(
        x=[plain(r["symbol"]) for r in shown],
        y=[r["rate"] for r in shown],
        marker_color=EVENTS,
        customdata=[[r["events"], r["n"], r["episodes"]] for r in shown],
        hovertemplate="%{x}<br>%{y:.1%}: %{customdata[0]:,} of %{customdata[1]:,} rows, "
        "%{customdata[2]} episodes<extra></extra>",
    )
    figure.add_hline(y=report["balance"]["rate"], line={"color": QUIET, "dash": "dot"}, annotation_text="all")
    styled(figure, 340)
    figure.update_yaxes(tickformat=PERCENT_TICKS, title_text="event rate")
    return figure.update_xaxes(title_text=f"{len(shown)} of {len(rows)} symbols, most events first", tickangle=-60)


def examples(report: Mapping[str, Any], kind: str) -> go.Figure:
    """Small charts of one kind of example, around the decision.

    Close between its high and low, in percent of the entry.
    """
    shown = [e for e in report["examples"] if e["kind"] == kind]
    n_rows = -(-len(shown) // COLUMNS)
    titles = [f"{plain(e['symbol'])}  {e['time'][:10]}{_rise(e)}" for e in shown]
    figure = make_subplots(
        rows=n_rows, cols=max(1, min(COLUMNS, len(shown))), subplot_titles=titles, vertical_spacing=0.3 / max(1, n_rows)
    )
    for k, example in enumerate(shown):
        _example(figure, example, report["label"].get("rise"), *(1 + p for p in divmod(k, COLUMNS)))
    figure.update_yaxes(ticksuffix=" %", nticks=5)
    figure.update_xaxes(nticks=6)
    figure.update_xaxes(title_text="bars from the decision", row=n_rows)
    styled(figure, 110 + 190 * n_rows)
    return figure.update_layout(showlegend=False).update_annotations(font_size=12)


def _rise(example: Mapping[str, Any]) -> str:
    best = example["best_rise"]
    # rounded down: a near miss of 49.98 % must not read as the 50 % that it missed
    return "" if best is None else f"  {math.floor(1000 * best + 1e-9) / 10:+.1f} %"


def _example(figure: go.Figure, example: Mapping[str, Any], rise: float | None, row: int, col: int) -> None:
    at = {"row": row, "col": col}
    x = example["offset"]
    figure.add_trace(band(x, example["low"], example["high"]), **at)
    figure.add_scatter(
        x=x, y=example["close"], mode="lines", line={"color": INK, "width": 1.6},
        hovertemplate="bar %{x}: %{y:+.1f} %<extra></extra>", **at,
    )  # fmt: skip
    figure.update_yaxes(range=_shown_range(example, rise), **at)
    figure.add_vline(x=0, line={"color": SERIES[0], "width": 1.4}, **at)
    figure.add_hline(y=0, line={"color": GRID, "width": 1}, **at)
    if rise is not None:
        figure.add_hline(y=100 * rise, line={"color": EVENTS, "dash": "dash", "width": 1.4}, **at)


def _shown_range(example: Mapping[str, Any], rise: float | None) -> tuple[float, float]:
    """Limits of the y axis: all bars after the decision and the label's threshold, limited before the decision.

    Bars before it may reach at most three times as far: a coin that has just lost nearly everything was at millions of
    percent of its entry, next to which no rise is visible.
    """
    after = [k for k, offset in enumerate(example["offset"]) if offset > 0]
    low = min([0.0, *(example["low"][k] for k in after)])
    high = max([100 * (rise or 0.0), *(example["high"][k] for k in after)])
    reach = 3 * max(high - low, 1.0)
    low, high = max(min(example["low"]), low - reach), min(max(*example["high"], high), high + reach)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)
