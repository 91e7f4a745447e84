"""Walk-forward evaluation over years: forecasts, portfolios after costs, and a refit on cut data.

It uses the daily run's model with more folds, so it shows what daily runs would have forecast, year after year.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import TradsysError
from tradsys.core.masking import masked
from tradsys.core.plain_data import Json
from tradsys.core.runs import write_json, written_atomically
from tradsys.evidence.controls.causality import Finding
from tradsys.market.bars import content_digest
from tradsys.market.parquet import read_parquet
from tradsys.ops.daily.day_data import DailyBars, data_notes
from tradsys.ops.daily.event_log import RunLog
from tradsys.ops.daily.lock import held
from tradsys.ops.daily.stages import DailySettings
from tradsys.reports.daily.evaluation_page import write_evaluation
from tradsys.research.leakage.refit_check import refit_check
from tradsys.research.panel.books import LedgerContext, run_books
from tradsys.research.panel.metrics import panel_metrics
from tradsys.research.panel.signals import evaluate_signals, newly_above, signals_at, write_signals
from tradsys.research.panel.walk_forward import walk_forward
from tradsys.research.pipeline.dataset import market_cut
from tradsys.research.pipeline.ledger_anchors import FILE as LOOKED
from tradsys.research.pipeline.provenance import provenance
from tradsys.research.pipeline.settings import Timings, synthetic_note_of
from tradsys.research.pipeline.trial_ledger import TrialLedger, check_ledger

FOLDER = "evaluation"
CUT_SESSIONS = 63  # the data are cut so many sessions before the last for the refit
N_NAMED = 5  # findings of the refit that are reported


def evaluate(settings: DailySettings, parts: Mapping[str, Any]) -> Path:
    """Evaluates every horizon walk-forward, backtests every portfolio, refits once.

    Writes `evaluation/`. The folder holds report.json, report.html and predictions.parquet and is written atomically.
    Every portfolio's returns enter the trial ledger before they are evaluated.
    """
    log, first, folder = RunLog(settings.folder), settings.first, settings.folder / FOLDER
    ledger, runs = parts["paths"]["ledger"], parts["paths"]["runs"]
    check_ledger(ledger, runs, writes=True)
    with held(settings.folder):
        data, timings = DailyBars(first), Timings()
        with timings.stage("bars"):
            bars = data.all
        with timings.stage("walk forward"):
            predictions = walk_forward(settings.experiments, bars, parts["years"])
        horizons = {}
        with timings.stage("metrics"):
            for name, experiment in settings.experiments.items():
                horizons[name] = panel_metrics(
                    predictions.filter(horizon=name), horizon_bars=experiment.labels.horizon_bars,
                    costs=experiment.costs, evaluation=experiment.evaluation, seed=experiment.seed,
                )  # fmt: skip
        described = data.described
        if "digest" not in described:  # synthetic bars have no stored digest, by which the ledger identifies data
            described = {**described, "digest": content_digest(bars.drop("segment"))}
        reported = provenance(settings.config, described)
        folder.mkdir(exist_ok=True)  # takes the ledger's note of what is evaluated, whatever becomes of the rest
        with timings.stage("books"):
            books = run_books(
                bars, predictions, parts["book"],
                horizon_bars={name: one.labels.horizon_bars for name, one in settings.experiments.items()},
                skill_low={name: one["skill_beyond_level"]["low"] for name, one in horizons.items()},
                costs=first.costs, evaluation=first.evaluation, market_symbol=first.data["market_symbol"],
                calendar=data.calendar,
                context=LedgerContext(TrialLedger(ledger, runs), reported, str(folder)),
                seed=first.seed, made_up=synthetic_note_of(described) is not None,
            )  # fmt: skip
        with timings.stage("refit on cut data"):
            refit = _refit(settings, data)
        report = {
            "kind": "evaluation",
            "name": settings.name,
            "question": first.question,
            "created": utc_now().isoformat(timespec="seconds"),
            "synthetic": synthetic_note_of(described),
            "notes": [*data_notes(first.data, described), *_cut_notes(settings, bars)],
            "horizons": horizons,
            "strategies": books["rows"],
            "benchmark": books["benchmark"],
            "equity": books["equity"],
            "span": books["span"],
            "costs": books["costs"],
            "deflation": books["deflation"],
            "refit": refit,
            "seconds": timings.seconds,
            "provenance": {
                **reported,
                "config": masked(settings.config),
                "command": settings.command("evaluate"),
            },
        }
        _write_folder(folder, report, predictions)
        log.write("evaluated", seconds={name: round(s, 2) for name, s in timings.seconds.items()})
    return folder


def _write_folder(folder: Path, report: Json, predictions: Any) -> None:
    """Writes the evaluation's folder atomically; the ledger's note of what was evaluated stays in it."""
    with written_atomically(folder) as draft:
        draft.mkdir()
        if (folder / LOOKED).is_file():
            shutil.copy(folder / LOOKED, draft)
        write_json(draft / "report.json", report)
        predictions.write_parquet(draft / "predictions.parquet")
        write_evaluation(report, draft)


def _cut_notes(settings: DailySettings, bars: pl.DataFrame) -> list[str]:
    """A sentence for the page on closes that the market symbol's span cuts."""
    notes = dict.fromkeys(market_cut(one.features, bars) for one in settings.experiments.values())
    return [f"Cut: {note}." for note in notes if note]


def signals(settings: DailySettings, parts: Mapping[str, Any]) -> tuple[Path, Json]:
    """Writes a session's signals table and evaluates the folds.

    In `signals/date=.../signals.parquet`; by default of the last bar. Raises TradsysError for an experiment that has no
    `signals`, such as foundry.
    """
    if parts.get("signals") is None:
        raise TradsysError(
            f"daily: {settings.name} has no signals table; it needs the key `signals`, as +experiment=panel has it"
        )
    with held(settings.folder):
        data = DailyBars(settings.first)
        day = parts["date"] or str(data.last_bar())
        at = data.of(data.session(day)).close
        table = signals_at(settings.first, parts["signals"], data.all, at)
        metrics = evaluate_signals(settings.first, parts["signals"], data.of(data.session(day)).bars)
        metrics_of_both: Json = {
            **metrics,
            "synthetic": synthetic_note_of(data.described),
            "notes": data_notes(settings.first.data, data.described),
        }
        folder = settings.folder / "signals" / f"date={day}"
        metrics_of_both["new"] = newly_above(parts["signals"].bar, _table_before(folder), table)
        write_signals(table, folder / "signals.parquet")
        write_json(folder / "judged.json", metrics_of_both)
        RunLog(settings.folder).write("signals", date=day, rows=table.height)
    return folder / "signals.parquet", metrics_of_both


def _table_before(folder: Path) -> pl.DataFrame | None:
    """The newest signals table of an earlier session; None without one."""
    earlier = sorted(p for p in folder.parent.glob("date=*/signals.parquet") if p.parent.name < folder.name)
    return read_parquet(earlier[-1], "run that date again") if earlier else None


class RefitResult(TypedDict):
    """Differences to a refit on data that end at `at`, the first ones in words."""

    at: str
    n: int
    findings: list[str]


def _refit(settings: DailySettings, data: DailyBars) -> RefitResult:
    """Differences to a refit on data that end 63 sessions earlier; any shows look-ahead."""
    clock = data.all["time"].unique().sort()
    at = clock[max(0, len(clock) - 1 - CUT_SESSIONS)]
    found = refit_check(settings.experiments, data.all, at)
    return {"at": at.isoformat(), "n": len(found), "findings": [_words(one) for one in found[:N_NAMED]]}


def _words(found: Finding) -> str:
    return f"{found.part}: {found.column} of {found.row} differs by {found.size:.3g}"
