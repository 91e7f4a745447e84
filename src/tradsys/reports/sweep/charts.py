"""Figures of a study: history, importances, slices, parallel coordinates, spread over folds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.style import ALARM, GRID, INK, QUIET, SERIES, colour, plain, rounded, styled
from tradsys.reports.sweep.wording import ranked, settings_of

COLUMNS = 3
MOST_SPREAD = 30
SHADES = [[0.0, GRID], [1.0, SERIES[0]]]
# a line as pale as the grid would vanish
LINES = [[0.0, SERIES[4]], [0.5, SERIES[5]], [1.0, SERIES[0]]]


def history(report: Mapping[str, Any]) -> go.Figure:
    """Mean skill and lower bound of each trial in order, and the highest bound so far."""
    done = sorted(ranked(report), key=lambda t: t["place"])
    place, mean = [t["place"] for t in done], rounded([t["mean_skill"] for t in done])
    bound = rounded([t["lower_bound"] for t in done])
    figure = go.Figure()
    text = [plain(settings_of(t)) for t in done]
    figure.add_scatter(x=place, y=mean, mode="markers", name="mean skill", marker={"color": colour(0)}, text=text)
    below = {"color": QUIET, "size": 5, "symbol": "triangle-down"}
    figure.add_scatter(x=place, y=bound, mode="markers", name="lower bound", marker=below, text=text)
    so_far = [max(bound[: k + 1]) for k in range(len(bound))]
    line = {"color": colour(1), "shape": "hv", "width": 1.8}
    figure.add_scatter(x=place, y=so_far, mode="lines", name="highest bound so far", line=line)
    figure.add_hline(y=0, line={"color": QUIET, "dash": "dot", "width": 1})
    figure.update_xaxes(title="trial")
    figure.update_yaxes(title="skill beyond the level, inner folds", range=_visible([*mean, *bound]))
    return styled(figure, 380)


def importance(report: Mapping[str, Any]) -> go.Figure:
    """Share of importance by parameter, both methods side by side."""
    figure = go.Figure()
    first = next(iter(report["importances"].values()))
    names = sorted({n for found in report["importances"].values() for n in found}, key=lambda n: first.get(n, 0.0))
    for k, (method, found) in enumerate(report["importances"].items()):
        shares = [found.get(n) for n in names]
        figure.add_bar(y=names, x=shares, name=method, orientation="h", marker_color=colour(k))
    figure.update_xaxes(title="share of importance")
    return styled(figure, 120 + 34 * len(names))


def slices(report: Mapping[str, Any]) -> go.Figure:
    """Mean skill against each parameter by itself; darker is later."""
    done = ranked(report)
    paths = [p for p in report["space"] if any(p in t["params"] for t in done)]
    rows = -(-len(paths) // COLUMNS)
    figure = make_subplots(rows=rows, cols=min(COLUMNS, len(paths)), shared_yaxes=True, vertical_spacing=0.35 / rows)
    for k, path in enumerate(paths):
        row, col = divmod(k, COLUMNS)
        own = [t for t in done if path in t["params"]]
        kind = report["space"][path]["type"]
        x = [str(t["params"][path]) if kind == "categorical" else t["params"][path] for t in own]
        figure.add_scatter(
            x=x,
            y=rounded([t["mean_skill"] for t in own]),
            mode="markers",
            marker={"color": [t["place"] for t in own], "colorscale": SHADES, "line": {"color": INK, "width": 0.5}},
            text=[f"trial {t['place']}" for t in own],
            showlegend=False,
            row=row + 1,
            col=col + 1,
        )
        axis = "log" if kind == "log" else ("category" if kind == "categorical" else "linear")
        figure.update_xaxes(title=path, type=axis, row=row + 1, col=col + 1)
        if kind == "log":
            figure.update_xaxes(dtick=1, row=row + 1, col=col + 1)
    figure.update_yaxes(range=_visible([t["mean_skill"] for t in done]))
    figure.update_yaxes(title="mean skill", col=1)
    return styled(figure, 90 + 230 * rows)


def parallel(report: Mapping[str, Any]) -> go.Figure:
    """One line per trial through all parameters that every finished trial has, coloured by its lower bound."""
    done = ranked(report)
    paths = [p for p in report["space"] if all(p in t["params"] for t in done)]
    bounds = rounded([t["lower_bound"] for t in done])
    axes = [{"label": "lower bound", "values": bounds}]
    for path in paths:
        axes.append(_axis(path, report["space"][path], [t["params"][path] for t in done]))
    shown = _visible(bounds)
    scale = {"color": bounds, "colorscale": LINES, "cmin": shown[0], "cmax": shown[1]}
    figure = styled(go.Figure(go.Parcoords(line=scale, dimensions=axes, labelangle=-18)), 460)
    return figure.update_layout(margin={"t": 120, "l": 80, "r": 60})


def _axis(path: str, entry: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    label = path.rpartition(".")[2]
    if entry["type"] == "categorical":
        codes = {str(c): k for k, c in enumerate(entry["choices"])}
        ticks = {"tickvals": list(codes.values()), "ticktext": list(codes)}
        return {"label": label, "values": [codes[str(v)] for v in values]} | ticks
    if entry["type"] == "log":
        powers = [math.log10(v) for v in values]
        marks = [
            m for m in range(math.floor(min(powers)), math.ceil(max(powers)) + 1) if min(powers) <= m <= max(powers)
        ]
        return {"label": label, "values": powers, "tickvals": marks, "ticktext": [f"1e{m}" for m in marks]}
    return {"label": label, "values": rounded(values)}


def fold_spread(report: Mapping[str, Any]) -> go.Figure:
    """Skill of every fold and seed of the best trials, the pick in red."""
    figure = go.Figure()
    for trial in ranked(report)[:MOST_SPREAD]:
        name = str(trial["place"])
        flat = [(f, s, v) for f, row in enumerate(trial["skills"]) for s, v in enumerate(row)]
        figure.add_scatter(
            x=[name] * len(flat),
            y=rounded([v for *_, v in flat]),
            mode="markers",
            marker={"color": [colour(f) for f, *_ in flat], "size": 7},
            text=[f"fold {f}, seed {report['seeds'][s]}" for f, s, _ in flat],
            showlegend=False,
        )
        mark = ALARM if trial["place"] == report["best"] else INK
        figure.add_scatter(
            x=[name],
            y=[trial["lower_bound"]],
            mode="markers",
            marker={"symbol": "line-ew-open", "size": 22, "color": mark, "line": {"width": 2}},
            text=["lower bound"],
            showlegend=False,
        )
    figure.add_hline(y=0, line={"color": QUIET, "dash": "dot", "width": 1})
    figure.update_xaxes(title="trial, highest lower bound (bar) first; one colour per fold", type="category")
    figure.update_yaxes(title="skill")
    return styled(figure, 380)


def _visible(values: Sequence[float]) -> list[float]:
    """A range that shows the better nine tenths; failed fits at -1 would flatten all others."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 10], ordered[-1]
    pad = 0.08 * (high - low) or 0.01
    return [low - pad, high + pad]
