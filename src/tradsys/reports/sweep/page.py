"""A study as one self-contained HTML page and as report.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tradsys.core.runs import write_json, write_text
from tradsys.reports.page import render_page
from tradsys.reports.sweep import charts
from tradsys.reports.sweep.wording import HEADINGS, conclusions, heading, ranked, settings_of, trial_cells

# heading, its function, the least finished trials that it needs, and the note below
FIGURES = (
    ("History", charts.history, 1, "Skill is the share of the best constant's log-loss that a model takes away."),
    ("Folds", charts.fold_spread, 1, "A trial is chosen by its bar (lower bound), not by its highest dot."),
    (
        "Importance",
        charts.importance,
        8,
        "Of the settings tried here, on these folds, not in general. Lines: 90 % over resamples of the trials.",
    ),
    ("Slices", charts.slices, 2, "Each parameter alone; the others differ from dot to dot. Darker is later."),
    (
        "Parallel coordinates",
        charts.parallel,
        2,
        "One line per trial; where lines of the best fifth meet, these trials share a value.",
    ),
)


def write_sweep(report: Mapping[str, Any], folder: Path) -> None:
    """Writes report.json and a self-contained report.html, each atomically."""
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", render(report))


def render(report: Mapping[str, Any]) -> str:
    """The page as HTML; every text in it is escaped."""
    n_done = len(ranked(report))
    parts = [(title, title.split(maxsplit=1)[0].lower(), draw, note) for title, draw, least, note in FIGURES
             if n_done >= least and (title != "Importance" or report["importances"])]  # fmt: skip
    about = {key: report[key] for key in ("storage", "begun", "code_sha", "identity", "overrides", "objectives")}
    about |= {key: report[key] for key in ("sampler", "pruner", "seeds", "space")}
    return render_page(
        "sweep/sweep.html.j2",
        figures={name: draw(report) for _, name, draw, _ in parts},
        synthetic=report["synthetic"] or None,
        report=report,
        heading=heading(report),
        conclusions=conclusions(report),
        sections=[(name, title, note) for title, name, _, note in parts],
        headings=(*HEADINGS, "settings"),
        rows=[
            (trial["place"] == report["best"], (*trial_cells(trial), settings_of(trial))) for trial in ranked(report)
        ],
        settings=yaml.safe_dump(about, sort_keys=False, allow_unicode=True),
    )
