"""Figures over time: price and regimes, and the training, validation and test spans of each fold."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

import plotly.graph_objects as go

from tradsys.core.clock import utc64
from tradsys.reports.style import (
    ALARM,
    INK,
    PARTS,
    TIME_FORMAT,
    VEIL,
    log_scale,
    ordered_colours,
    plain,
    rounded,
    styled,
)

GAP_STEPS = 5  # a step so many times the usual one is drawn as a hole in the data
WIDE_RANGE = 2.0


def regime_ribbon(report: Mapping[str, Any]) -> go.Figure:
    """The close of one symbol over bands of the filtered regime.

    Each band reaches from its bar to the next.
    """
    ribbon = report["regime"]
    time = [_utc(t) for t in ribbon["time"]]
    figure = go.Figure()
    names, colours = ribbon["names"], ordered_colours(len(ribbon["names"]))
    bands = regime_bands(time, ribbon["state"])
    for state, name in enumerate(names):
        mine = [(start, end) for start, end, s in bands if s == state]
        figure.add_bar(
            x=[start for start, _ in mine],
            width=[_ms(end - start) for start, end in mine],
            offset=0,
            y=[1] * len(mine),
            name=plain(name),
            marker={"color": colours[state], "line_width": 0, "opacity": 0.32},
            customdata=[f"{start:{TIME_FORMAT}} to {end:{TIME_FORMAT}}" for start, end in mine],
            hovertemplate=f"{plain(name)}<br>%{{customdata}}<extra></extra>",
        )
    x, y = _broken(time, rounded(ribbon["close"]))
    figure.add_scatter(
        x=x,
        y=y,
        name=f"{plain(ribbon['symbol'])} close",
        mode="lines",
        line={"color": INK, "width": 1.8},
        yaxis="y2",
    )
    _price_axis(figure, ribbon["close"])
    figure.update_layout(barmode="overlay", bargap=0)
    styled(figure, 440)
    _mark_test(figure, report)
    return figure


def regime_bands(time: Sequence[datetime], state: Sequence[int]) -> list[tuple[datetime, datetime, int]]:
    """Runs of one state as (start, end, state).

    A run ends where the next begins, or one step after a hole's edge.
    """
    step = _step(time)
    bands: list[tuple[datetime, datetime, int]] = []
    for k, (now, s) in enumerate(zip(time, state, strict=True)):
        following = time[k + 1] if k + 1 < len(time) else now + step
        end = following if following - now <= GAP_STEPS * step else now + step
        if bands and bands[-1][2] == s and bands[-1][1] == now:
            bands[-1] = (bands[-1][0], end, s)
        else:
            bands.append((now, end, s))
    return bands


def _step(time: Sequence[datetime]) -> timedelta:
    """The usual distance of neighbours."""
    seconds = [(after - before).total_seconds() for before, after in pairwise(time)]
    return timedelta(seconds=median(seconds)) if seconds else timedelta(hours=1)


def _broken(time: Sequence[datetime], values: Sequence[float]) -> tuple[list[datetime], list[float | None]]:
    """The series with an empty point inside every hole, so that no line is drawn across it."""
    step = _step(time)
    x: list[datetime] = []
    y: list[float | None] = []
    for now, value in zip(time, values, strict=True):
        if x and now - x[-1] > GAP_STEPS * step:
            x.append(x[-1] + step)
            y.append(None)
        x.append(now)
        y.append(value)
    return x, y


def _price_axis(figure: go.Figure, close: Sequence[float]) -> None:
    """Bands on a hidden axis of full height, the price on its own above them."""
    wide = min(close) > 0 and max(close) / min(close) > WIDE_RANGE
    figure.update_layout(
        yaxis={"visible": False, "range": [0, 1], "fixedrange": True},
        yaxis2={
            "overlaying": "y",
            "side": "left",
            "showgrid": False,
            **(log_scale(close) if wide else {"type": "linear", "nticks": 7}),
            "title_text": "close" + (" (log scale)" if wide else ""),
            "hoverformat": ".6~g",
        },
        xaxis={"showgrid": False, "type": "date"},
    )


def _mark_test(figure: go.Figure, report: Mapping[str, Any]) -> None:
    """Draws a line where the test span begins; only bars to its right were evaluated."""
    test = report["provenance"].get("bundle", {}).get("test")
    if test:
        figure.add_shape(
            type="line",
            x0=_utc(test[0]),
            x1=_utc(test[0]),
            y0=0,
            y1=1,
            yref="paper",
            line={"color": INK, "dash": "dash", "width": 1.5},
        )
        figure.add_annotation(
            x=_utc(test[0]), y=0.98, yref="paper", yanchor="top", xanchor="right", text="test starts", showarrow=False,
            bgcolor=VEIL,
        )  # fmt: skip


def fold_timeline(report: Mapping[str, Any]) -> go.Figure:
    """Decisions of each part of each fold.

    pale: spans of windows and labels; hatched: purge gaps.
    """
    folds = report["folds"]
    figure = go.Figure()
    names = [f"fold {k + 1}" for k in range(len(folds))]
    for part, fill in PARTS.items():
        _spans(
            figure,
            names,
            [fold[part]["reads"] for fold in folds],
            f"{part}: windows and labels",
            fill,
            pale=True,
        )
    for part, fill in PARTS.items():
        spans = [fold[part]["decisions"] for fold in folds]
        texts = [f"{part}: {fold[part]['n']:,}" for fold in folds]
        _spans(figure, names, spans, part, fill, texts=texts)
    for before, after in (("train", "valid"), ("valid", "test")):
        gaps = [(fold[before]["decisions"][1], fold[after]["decisions"][0]) for fold in folds]
        _gaps(figure, names, gaps, first=before == "train")
    styled(figure, 150 + 56 * len(folds)).update_layout(barmode="overlay", uniformtext={"minsize": 10, "mode": "hide"})
    figure.update_xaxes(type="date")
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    return figure


def _spans(
    figure: go.Figure,
    names: Sequence[str],
    spans: Sequence[Sequence[str]],
    label: str,
    fill: str,
    *,
    pale: bool = False,
    texts: Sequence[str] | None = None,
) -> None:
    starts, ends = _parsed_spans(spans)
    figure.add_bar(
        base=starts,
        x=[_ms(end - start) for start, end in zip(starts, ends, strict=True)],
        y=list(names),
        orientation="h",
        width=0.8 if pale else 0.5,
        marker={"color": fill, "opacity": 0.28 if pale else 1.0, "line_width": 0},
        name=label,
        showlegend=not pale,
        text=list(texts) if texts else None,
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        customdata=_hover(starts, ends),
        hovertemplate=f"%{{y}}, {label}<br>%{{customdata}}<extra></extra>",
    )


def _gaps(figure: go.Figure, names: Sequence[str], gaps: Sequence[tuple[str, str]], *, first: bool) -> None:
    """Hatched boxes between the last decision of one part and the first of the next."""
    starts, ends = _parsed_spans(gaps)
    figure.add_bar(
        base=starts,
        x=[max(_ms(end - start), 0.0) for start, end in zip(starts, ends, strict=True)],
        y=list(names),
        orientation="h",
        width=0.5,
        marker={
            "color": VEIL,
            "line": {"color": ALARM, "width": 1},
            "pattern": {"shape": "/", "fgcolor": ALARM, "size": 6, "solidity": 0.25},
        },
        name="purge gap",
        legendgroup="purge gap",
        showlegend=first,
        customdata=_hover(starts, ends),
        hovertemplate="%{y}, purge gap<br>%{customdata}<extra></extra>",
    )


def _parsed_spans(spans: Sequence[Sequence[str]]) -> tuple[list[datetime], list[datetime]]:
    parsed = [[_utc(t) for t in span] for span in spans]
    return [start for start, _ in parsed], [end for _, end in parsed]


def _utc(text: str) -> datetime:
    """A moment in UTC; plotly ignores offsets, so they are removed here."""
    naive: datetime = utc64(text).astype(object)  # type: ignore[assignment]
    return naive


def _hover(starts: Sequence[datetime], ends: Sequence[datetime]) -> list[str]:
    return [f"{a:{TIME_FORMAT}} to {b:{TIME_FORMAT}}" for a, b in zip(starts, ends, strict=True)]


def _ms(span: timedelta) -> float:
    """Milliseconds, plotly's unit of lengths on a date axis."""
    return span.total_seconds() * 1000
