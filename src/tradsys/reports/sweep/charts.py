"""Figures of a study: history, importances, slices, parallel coordinates, spread over folds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradsys.reports.style import ALARM, GRID, INK, QUIET, SERIES, VEIL, colour, log_scale, plain, rounded, styled
from tradsys.reports.sweep.wording import ranked, settings_of

COLUMNS = 3
MOST_SPREAD = 30
MOST_TICKS = 20  # up to so many trials each have their own tick
SHADES = [[0.0, GRID], [1.0, SERIES[0]]]
# fifths of the trials, the best first
LEVELS = (SERIES[1], SERIES[4], SERIES[5], SERIES[0], QUIET)
RANKS = ("best", "second", "third", "fourth", "last")


def history(report: Mapping[str, Any]) -> go.Figure:
    """Mean skill and lower bound of each trial in order, and the highest bound so far."""
    done = sorted(ranked(report), key=lambda t: t["place"])
    place, mean = [t["place"] for t in done], rounded([t["mean_skill"] for t in done])
    bound = rounded([t["lower_bound"] for t in done])
    figure = go.Figure()
    text = [plain(settings_of(t)) for t in done]
    figure.add_scatter(x=place, y=mean, mode="markers", name="mean skill", marker={"color": colour(0)}, text=text)
    below = {"color": QUIET, "size": 8, "symbol": "triangle-down"}
    figure.add_scatter(x=place, y=bound, mode="markers", name="lower bound", marker=below, text=text)
    so_far = [max(bound[: k + 1]) for k in range(len(bound))]
    line = {"color": colour(1), "shape": "hv", "width": 1.8}
    figure.add_scatter(x=place, y=so_far, mode="lines", name="highest bound so far", line=line)
    figure.add_hline(y=0, line={"color": QUIET, "dash": "dot", "width": 1})
    figure.update_xaxes(title="trial", dtick=1 if len(done) <= MOST_TICKS else None)
    figure.update_yaxes(title="skill beyond the level, inner folds", range=_visible([*mean, *bound]))
    return styled(figure, 380)


def importance(report: Mapping[str, Any]) -> go.Figure:
    """Share of importance by parameter, with its interval, by two methods.

    Intervals over resamples of the trials; methods side by side.
    """
    figure = go.Figure()
    first = next(iter(report["importances"].values()))
    names = sorted({n for found in report["importances"].values() for n in found}, key=lambda n: first.get(n, 0.0))
    for k, (method, found) in enumerate(report["importances"].items()):
        shares = [found.get(n) for n in names]
        spans = report.get("importance_intervals", {}).get(method, {})
        error = {
            "symmetric": False,
            "array": [max(spans[n][1] - found[n], 0.0) if n in spans else None for n in names],
            "arrayminus": [max(found[n] - spans[n][0], 0.0) if n in spans else None for n in names],
            "thickness": 1,
        }
        figure.add_bar(y=names, x=shares, name=method, orientation="h", marker_color=colour(k), error_x=error)
    figure.update_xaxes(title="share of importance")
    return styled(figure, 120 + 34 * len(names))


def slices(report: Mapping[str, Any]) -> go.Figure:
    """Mean skill against each parameter alone; later trials are darker."""
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
        plain_scale = {"type": "category" if kind == "categorical" else "linear", "exponentformat": "e"}
        axis = log_scale([float(v) for v in x], wide=100) if kind == "log" else plain_scale
        figure.update_xaxes(title=path.rpartition(".")[2], row=row + 1, col=col + 1, **axis)
    figure.update_yaxes(range=_visible([t["mean_skill"] for t in done]))
    figure.update_yaxes(title="mean skill", col=1)
    return styled(figure, 90 + 230 * rows)


def parallel(report: Mapping[str, Any]) -> go.Figure:
    """One line per trial through all its parameters.

    Those that every finished trial has; darker the higher its lower bound.
    """
    done = ranked(report)
    paths = [p for p in report["space"] if all(p in t["params"] for t in done)]
    axes = [_Axis("lower bound", [t["lower_bound"] for t in done], "linear", ())]
    for path in paths:
        entry = report["space"][path]
        values = [t["params"][path] for t in done]
        axes.append(_Axis(path.rpartition(".")[2], values, entry["type"], tuple(entry.get("choices", ()))))
    figure = go.Figure()
    for k, shade in enumerate(LEVELS):
        # sorted, the best trials first, so that each level is one slice
        mine = range(k * len(done) // len(LEVELS), (k + 1) * len(done) // len(LEVELS))
        _lines(figure, axes, done, mine, (f"{RANKS[k]} fifth by lower bound", shade, 2.2 if k == 0 else 1.2))
    for x, axis in enumerate(axes):
        figure.add_shape(type="line", x0=x, x1=x, y0=0, y1=1, line={"color": QUIET, "width": 1}, layer="below")
        for height, text in axis.marks():
            figure.add_annotation(
                x=x, y=height, text=plain(text), showarrow=False, xanchor="left", xshift=4, bgcolor=VEIL, font_size=11
            )
    styled(figure, 480)
    figure.update_xaxes(
        tickvals=list(range(len(axes))), ticktext=[plain(a.label) for a in axes], range=[-0.15, len(axes) - 0.4],
        showgrid=False, zeroline=False, side="bottom", tickangle=25,
    )  # fmt: skip
    return figure.update_yaxes(visible=False, range=[-0.05, 1.05])


@dataclass(frozen=True)
class _Axis:
    """One parameter of the parallel coordinates. kind: of the search space. choices: of a categorical one."""

    label: str
    values: Sequence[Any]
    kind: str
    choices: tuple[Any, ...]

    def heights(self) -> list[float]:
        """Each value's place on the axis, from 0 to 1; logarithmic where the search was."""
        if self.kind == "categorical":
            codes = {str(c): k for k, c in enumerate(self.choices)}
            return [codes[str(v)] / max(1, len(codes) - 1) for v in self.values]
        placed = [math.log10(v) if self.kind == "log" else float(v) for v in self.values]
        low, high = min(placed), max(placed)
        return [(v - low) / (high - low) if high > low else 0.5 for v in placed]

    def marks(self) -> list[tuple[float, str]]:
        """Height and text of the axis labels: every choice, or both ends and the middle."""
        if self.kind == "categorical":
            return [(k / max(1, len(self.choices) - 1), str(c)) for k, c in enumerate(self.choices)]
        low, high = min(self.values), max(self.values)
        if low == high:
            return [(0.5, f"{low:.4g}")]
        middle = math.sqrt(low * high) if self.kind == "log" else (low + high) / 2
        return [(0.0, f"{low:.4g}"), (0.5, f"{middle:.3g}"), (1.0, f"{high:.4g}")]


def _lines(
    figure: go.Figure, axes: Sequence[_Axis], done: Sequence[Mapping[str, Any]], mine: range,
    look: tuple[str, str, float],
) -> None:  # fmt: skip
    """The trials of one level as one trace, with a gap after each."""
    name, shade, width = look
    heights = [axis.heights() for axis in axes]
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for i in mine:
        x += [*range(len(axes)), None]
        y += [*rounded([column[i] for column in heights]), None]
        text += [plain(f"trial {done[i]['place']}: {settings_of(done[i])}")] * (len(axes) + 1)
    if x:
        figure.add_scatter(
            x=x, y=y, text=text, name=name, mode="lines+markers", line={"color": shade, "width": width},
            marker={"size": 4}, hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip


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
    """A range that shows all values, or the better nine tenths where failed fits at -1 would flatten all others."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 10], ordered[-1]
    low = ordered[0] if high - ordered[0] <= 2 * (high - low) else low
    pad = 0.08 * (high - low) or 0.01
    return [low - pad, high + pad]
