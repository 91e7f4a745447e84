"""All runs on the terminal and as one page: a table that sorts, leaderboards, equity curves of selected runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go
from rich.markup import escape

from tradsys.core.plain_data import Json
from tradsys.core.runs import write_text
from tradsys.reports.page import render_page
from tradsys.reports.style import line, plain, styled
from tradsys.reports.terminal import print_table, screen, table
from tradsys.reports.wording import confidence, counted, interval, moment, number

COLUMNS = (
    "when",
    "task",
    "experiment",
    "data",
    "model",
    "verdict",
    "skill",
    "AUC",
    "best Sharpe",
    "DSR",
    "code",
    "min",
)
LEFT = COLUMNS[:6]
USUAL = 0.95  # confidence of an interval that states none
TICKED = 6  # runs whose curves are selected at first
MOST_CURVES = 60
MOST_BROKEN = 50
MOST_ROWS = 700  # of the page, which stays below two megabytes


def print_runs(rows: Sequence[Any], page: Path) -> None:
    """Prints one line per run, numbers over their intervals.

    rows: of `research.run_index`.
    """
    console = screen()
    if not rows:
        console.print(
            f"no run in {page.parent} matches these filters; `tradsys train` makes one", markup=False, soft_wrap=True
        )
        console.print(f"page     {page}", markup=False, soft_wrap=True)
        return
    out = table(counted(len(rows), "run"), COLUMNS, left=(*LEFT, "code"))
    for row in rows:
        out.add_row(*(escape("\n".join(filter(None, parted(text)))) for text in cells(row)))
    print_table(console, out)
    for row in rows:
        if row.state != "done":
            console.print(f"{row.state:<9} {row.folder}: {row.note}", markup=False, soft_wrap=True)
    console.print(f"page     {page}", markup=False, soft_wrap=True)


def print_removal(gone: Sequence[Any], kept: Sequence[tuple[Any, str]], *, confirmed: bool) -> None:
    """Prints the runs to remove, and why the others stay."""
    console = screen()
    for row, why in kept:
        console.print(f"stays    {row.folder}: {why}", markup=False, soft_wrap=True)
    for row in gone:
        console.print(f"{'removed' if confirmed else 'would go':<8} {row.folder}", markup=False, soft_wrap=True)
    last = "" if confirmed or not gone else "; confirm=rm removes them"
    console.print(f"{counted(len(gone), 'run')} to remove, {counted(len(kept), 'run')} stay{last}", markup=False)


def print_kept(folder: Path) -> None:
    """Prints the run that is marked as kept."""
    screen().print(f"kept     {folder}", markup=False, soft_wrap=True)


def cells(row: Any) -> tuple[str, ...]:
    """A run's texts under COLUMNS; intervals not of USUAL state their confidence."""
    level = "" if row.confidence in (None, USUAL) else f" at {100 * row.confidence:g} %"
    figures = [_text(*figure) for figure in ((row.skill, 4), (row.auc, 3), (row.sharpe, 2))]
    return (
        moment(row.when)[:16], row.task, row.experiment, row.data, row.model,
        row.verdict or f"({row.state})", *(f"{text}{level}" if "[" in text else text for text in figures),
        "" if row.dsr is None else confidence(row.dsr), row.code[:7] + row.code[12:],
        "" if row.minutes is None else number(row.minutes, 1),
    )  # fmt: skip


def parted(text: str) -> tuple[str, str]:
    """A figure and its interval, or `(no interval)`; "" where there is none."""
    figure, mark, rest = next((text.partition(m) for m in (" [", " (no") if m in text), (text, "", ""))
    return figure, f"{mark}{rest}".strip()


def write_runs(rows: Sequence[Any], boards: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Writes index.html into `folder` atomically and returns its path."""
    path = folder / "index.html"
    write_text(path, render(rows, boards))
    return path


def render(rows: Sequence[Any], boards: Sequence[Mapping[str, Any]]) -> str:
    """The page as HTML; every text of a run is escaped, and no link leaves the folder."""
    drawn = [row for row in rows if row.curve][:MOST_CURVES]
    return render_page(
        "runs/index.html.j2",
        figures={"curves": equity_curves(drawn)} if drawn else {},
        scripted=True,
        filters={"estimate": _text},
        columns=COLUMNS,
        rows=[_page_row(row, drawn) for row in rows[:MOST_ROWS]],
        n_rows=len(rows),
        boards=boards,
        broken=[row for row in rows if row.state != "done"][:MOST_BROKEN],
        n_done=sum(row.state == "done" for row in rows),
    )


def equity_curves(rows: Sequence[Any]) -> go.Figure:
    """Equity of the best strategy of each run from a common 1.

    `meta` ties a curve to its tick box.
    """
    figure = go.Figure()
    for k, row in enumerate(rows):
        figure.add_scatter(
            x=row.curve["time"], y=row.curve["equity"], mode="lines", line=line(k), meta=row.folder,
            name=plain(f"{row.experiment or row.task} {row.best}, {row.folder.rsplit('/', 1)[-1][:15]}"),
            visible=k < TICKED,
        )  # fmt: skip
    figure.update_yaxes(title_text="equity, start = 1", hoverformat=".4f")
    figure.update_xaxes(type="date")
    return styled(figure, 460)


def _page_row(row: Any, drawn: Sequence[Any]) -> Json:
    """A row of the page: texts, sort keys, and the link to its report."""
    figures = (row.skill["value"], row.auc["value"], row.sharpe["value"], row.dsr, "", row.minutes)
    values = (row.when, *[""] * 5, *figures)
    return {
        "cells": [(*parted(text), value) for text, value in zip(cells(row), values, strict=True)],
        "folder": row.folder,
        "link": f"{quote(row.folder)}/report.html" if row.page else None,
        "drawn": row in drawn,
        "ticked": row in drawn[:TICKED],
        "synthetic": row.synthetic,
        "verdict": row.verdict,
    }


def _text(estimate: Mapping[str, Any], digits: int) -> str:
    if estimate["value"] is None:
        return ""
    return interval(estimate, digits) if estimate["low"] is not None else f"{interval(estimate, digits)} (no interval)"
