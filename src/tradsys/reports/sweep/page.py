"""A study as one self-contained HTML page and as report.json."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.io
import yaml
from plotly.offline import get_plotlyjs

from tradsys.core.runs import write_json, write_text
from tradsys.reports.style import CHART_CONFIG, CONTENT_POLICY, INK, QUIET, marked_synthetic
from tradsys.reports.sweep import charts
from tradsys.reports.sweep.wording import HEADINGS, conclusions, heading, ranked, settings_of, trial_cells

# heading, what draws it, the fewest finished trials that it needs, and the note beneath
FIGURES = (
    ("History", charts.history, 1, "Skill is the share of the base rate's log-loss that a model takes away."),
    ("Folds", charts.fold_spread, 1, "A trial is picked by its bar, not by its highest dot."),
    (
        "Importance",
        charts.importance,
        8,
        "Of the settings tried here, on these folds, not in general.",
    ),
    ("Slices", charts.slices, 2, "Each parameter alone; the others differ from dot to dot. Darker is later."),
    ("Parallel coordinates", charts.parallel, 2, "Drag along an axis to keep the trials of a range."),
)
STYLE = (
    f"body{{font:15px system-ui,sans-serif;color:{INK};max-width:72rem;margin:2rem auto;padding:0 1rem}}"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:.25rem .6rem;text-align:right;border-bottom:1px solid "
    "#e6ebf0;white-space:nowrap}td:last-child,th:last-child{text-align:left;white-space:normal}"
    f".note{{color:{QUIET};font-size:13px}}pre{{background:#f5f7f9;padding:1rem;overflow:auto;font-size:12px}}"
    ".wide{overflow-x:auto}"
)


def write_sweep(report: Mapping[str, Any], folder: Path) -> None:
    """Writes report.json and report.html whole; the page needs nothing else."""
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", render(report))


def render(report: Mapping[str, Any]) -> str:
    """The page; every text in it is escaped."""
    title = html.escape(f"Sweep {report['study']}")
    said = "".join(f"<p>{html.escape(line)}</p>" for line in conclusions(report))
    about = {key: report[key] for key in ("storage", "begun", "code_sha", "identity", "overrides", "objectives")}
    about |= {key: report[key] for key in ("sampler", "pruner", "seeds", "space")}
    settings = html.escape(yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'>{CONTENT_POLICY}<title>{title}</title>"
        f"<style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><h1>{title}</h1><p><strong>{html.escape(heading(report))}</strong>"
        f"</p>{said}{''.join(_figures(report))}<h2>Trials</h2><div class='wide'>{_table(report)}</div>"
        f"<h2>Study</h2><pre>{settings}</pre></body></html>"
    )


def _figures(report: Mapping[str, Any]) -> list[str]:
    n_done, out = len(ranked(report)), []
    for title, draw, least, note in FIGURES:
        if n_done < least or (title == "Importance" and not report["importances"]):
            continue
        figure = marked_synthetic(draw(report)) if report["synthetic"] else draw(report)
        chart = plotly.io.to_html(
            figure,
            include_plotlyjs=False,
            full_html=False,
            div_id=f"chart-{title.split(maxsplit=1)[0].lower()}",
            default_height=f"{figure.layout.height}px",
            config=CHART_CONFIG,
        )
        out.append(f"<h2>{title}</h2>{chart}<p class='note'>{html.escape(note)}</p>")
    return out


def _table(report: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in (*HEADINGS, "settings"))
    rows = [(*trial_cells(t), settings_of(t)) for t in ranked(report)]
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"
