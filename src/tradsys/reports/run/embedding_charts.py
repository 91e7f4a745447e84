"""Figures of an encoder: embeddings of test windows, and training curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from tradsys.reports.style import INK, QUIET, colour, line, plain, styled, symbol

N_TIMES = 4  # spans of time that get a colour of their own
# panel title, the monitored number, and its reference (dashed)
CURVES = (
    ("alignment: squared distance within a class", "alignment", None),
    ("uniformity: lower is more even", "uniformity", None),
    ("kNN accuracy (dashed: always the most frequent class)", "knn_accuracy", "majority_share"),
    ("log-loss of the online probe, nats (dashed: base rate)", "valid_logloss", "base_rate_logloss"),
)


def embedding_map(report: Mapping[str, Any]) -> go.Figure:
    """Test windows on the first two principal components, three times.

    They are coloured by label, by regime, by time.
    """
    section = report["embedding"]
    points = section["points"]
    figure = make_subplots(
        cols=3, horizontal_spacing=0.04, shared_yaxes=True, subplot_titles=("by label", "by regime", "by time")
    )
    labels = sorted(set(points["label"]))
    groups = [
        [(f"label {k}", points["label"], k, colour(i)) for i, k in enumerate(labels)],
        _regimes(section["regimes"], points["regime"]),
        _times(points["time"]),
    ]
    styled(figure, 560).update_layout(margin_b=150)
    for col, group in enumerate(groups, start=1):
        for i, (name, codes, code, shade) in enumerate(group):
            _cloud(figure, points, [j for j, c in enumerate(codes) if c == code], (name, shade, symbol(i)), col)
        left = figure.get_subplot(1, col).xaxis.domain[0]
        # legends one below another: side by side, long names would shrink the panels
        place = {"orientation": "v", "x": left, "xanchor": "left", "y": -0.17, "yanchor": "top"}
        figure.update_layout({_legend(col): place | {"itemsizing": "constant"}})
    first, second = section["explained"]
    figure.update_xaxes(title_text=f"first component ({first:.0%} of variance)", zeroline=False)
    figure.update_yaxes(zeroline=False)
    figure.update_yaxes(title_text=f"second component ({second:.0%})", col=1)
    for col in (2, 3):
        figure.update_xaxes(matches="x", col=col)
    return figure


def _cloud(
    figure: go.Figure, points: Mapping[str, Any], at: Sequence[int], look: tuple[str, str, str], col: int
) -> None:
    name, shade, mark = look
    figure.add_scatter(
        x=[points["x"][j] for j in at],
        y=[points["y"][j] for j in at],
        mode="markers",
        name=name,
        legend=_legend(col),
        marker={"color": shade, "size": 4, "opacity": 0.65, "symbol": mark},
        text=[points["time"][j][:16].replace("T", " ") for j in at],
        hovertemplate="%{text} UTC<extra>%{fullData.name}</extra>",
        row=1,
        col=col,
    )


def _legend(col: int) -> str:
    return "legend" if col == 1 else f"legend{col}"


def _regimes(names: Sequence[str], codes: Sequence[int]) -> list[tuple[str, Sequence[int], int, str]]:
    """States from the calmest, in colours that rise; darker than bands are, since marks are small."""
    shades = sample_colorscale("YlOrRd", [0.35 + 0.6 * k / max(1, len(names) - 1) for k in range(len(names))])
    return [(plain(name), codes, k, shade) for k, (name, shade) in enumerate(zip(names, shades, strict=True))]


def _times(times: Sequence[str]) -> list[tuple[str, list[int], int, str]]:
    """Spans of equally many windows, named by their first day, from dark to light."""
    ranked = sorted(times)
    n = max(1, min(N_TIMES, len(times)))
    edges = [ranked[k * len(ranked) // n] for k in range(n)]
    codes = [max(k for k in range(n) if t >= edges[k]) for t in times]
    shades = sample_colorscale("Viridis", [0.9 * k / max(1, n - 1) for k in range(n)])
    return [(f"from {edge[:10]}", codes, k, shade) for k, (edge, shade) in enumerate(zip(edges, shades, strict=True))]


def training_curves(report: Mapping[str, Any]) -> go.Figure:
    """Measures on validation rows after each epoch; the kept epoch is marked."""
    section = report["embedding"]
    history = section["history"]
    epochs = [row["epoch"] + 1 for row in history]
    figure = make_subplots(
        rows=2, cols=2, horizontal_spacing=0.09, vertical_spacing=0.16, subplot_titles=[title for title, _, _ in CURVES]
    )
    for k, (_, name, reference) in enumerate(CURVES):
        place = {"row": k // 2 + 1, "col": k % 2 + 1}
        values = [row.get(name) for row in history]
        figure.add_scatter(
            x=epochs, y=values, mode="lines+markers", name=name.replace("_", " "), line=line(k), showlegend=False,
            hovertemplate="epoch %{x}: %{y:.4f}<extra></extra>", **place,
        )  # fmt: skip
        if reference:
            level = history[-1].get(reference)
            figure.add_scatter(
                x=[epochs[0] - 0.4, epochs[-1] + 0.4], y=[level, level], mode="lines", showlegend=False,
                line={"color": QUIET, "dash": "dash", "width": 1.2}, hoverinfo="skip", **place,
            )  # fmt: skip
        if section["best_epoch"] is not None:
            figure.add_vline(x=section["best_epoch"] + 1, line={"color": INK, "width": 1, "dash": "dot"}, **place)
    styled(figure, 520)
    figure.update_xaxes(title_text="epoch", row=2, tickformat="d")
    figure.update_xaxes(range=[0.5, epochs[-1] + 0.5], nticks=10)
    return figure
