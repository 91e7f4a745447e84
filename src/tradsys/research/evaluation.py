"""Evaluates models, auditor and strategies on the test span, once; every evaluation is entered in the ledger."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.headline import headline_skill
from tradsys.core.masking import masked
from tradsys.core.plain_data import Config, Json
from tradsys.core.runs import digest_json, write_json, written_atomically
from tradsys.core.tables import Array, Samples
from tradsys.evidence.calibration import ReliabilityBin, reliability
from tradsys.evidence.classification import evaluate
from tradsys.evidence.skill import log_losses
from tradsys.evidence.verdict import verdict_of_run
from tradsys.market.bars import utc_series
from tradsys.models.regime import HmmRegime
from tradsys.models.supervisors.supervised import Regime, filters_of
from tradsys.reports.run.page import write_report
from tradsys.reports.run.report import RunReport
from tradsys.research.pipeline.backtesting import Backtest, backtest, bounds
from tradsys.research.pipeline.dataset import Prepared, aware, market_cut
from tradsys.research.pipeline.provenance import provenance
from tradsys.research.pipeline.records.rows import AuditorRow, EmSteps, FoldRow, ModelRow, PartSpan, Ribbon
from tradsys.research.pipeline.settings import Experiment, Timings
from tradsys.research.pipeline.training import Fitted, are_too_few, candidates
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger
from tradsys.research.sections.cpcv import cpcv_paths
from tradsys.research.sections.embedding import embedding_section
from tradsys.research.sections.ensemble_weights import ensemble_section
from tradsys.research.sections.importance import _drift, _importance
from tradsys.research.sections.meta_label_value import audit_value
from tradsys.research.sections.regime_views import regime_views_section
from tradsys.research.sections.test_span import EvaluatedSpan
from tradsys.samples.weights import class_rates
from tradsys.serving.bundle import Bundle, seal

LOG = logging.getLogger(__name__)


def evaluate_run(
    experiment: Experiment,
    prepared: Prepared,
    fitted: Fitted,
    bundle: Bundle,
    folder: Path,
    config: Config,
    timings: Timings,
) -> Json:
    """Evaluates the test span, writes a run's results, returns the report as JSON."""
    source = provenance(config, bundle.card["data"])
    ledger = TrialLedger(config["paths"]["ledger"], config["paths"]["runs"])
    with timings.stage("models on test"):
        probabilities = _probabilities(prepared, fitted, bundle)
        models = [_model_row(experiment, prepared, name, p) for name, p in probabilities.items()]
        skill = headline_skill(models[0]["metrics"])
        _record_models(ledger, prepared, probabilities, source, folder)
        audit = _auditor_row(experiment, prepared, fitted, bundle)
    with timings.stage("importance and drift"):
        importance = _importance(experiment, prepared, fitted, bundle)
        drift = _drift(prepared, experiment.seed)
        inside: Json = {
            "embedding": embedding_section(fitted.primary, fitted.regime, prepared.test, experiment.seed),
            "ensemble": ensemble_section(fitted.primary),
        }
    if experiment.evaluation.cpcv:
        with timings.stage("paths"):  # before any strategy is evaluated: these evaluations count as trials too
            inside["paths"] = cpcv_paths(experiment, prepared, ledger, source, folder)
    with timings.stage("strategies"):
        tested = backtest(
            bundle,
            prepared.bars,
            experiment.strategy,
            experiment.costs,
            experiment.evaluation,
            ledger=ledger,
            source=source,
            run=str(folder),
            skill_low=skill["low"],
            since=prepared.test_start,
            until=aware(prepared.test.time.max()),
            table=prepared.table,
        )
    with timings.stage("auditor and regimes"):
        questions = _questions(experiment, prepared, bundle, tested)
    verdict = verdict_of_run(bounds(skill), tested.verdicts)
    if note := market_cut(bundle.features, prepared.bars):
        verdict = replace(verdict, reasons=(*verdict.reasons, note))
    report = RunReport(
        run=folder.name,
        question=experiment.question,
        synthetic=bundle.card["data"].get("note") if bundle.card["data"]["synthetic"] else None,
        verdict=verdict.as_dict(),
        models=models,
        reliability=_reliability(experiment, probabilities, prepared.test),
        reliability_overlap=max(1.0, float((prepared.test.end - prepared.test.rows).mean())),  # sharing an outcome
        auditor=audit,
        importance=importance,
        drift=drift,
        folds=[_fold(prepared)],
        regime=_ribbon(prepared, fitted.regime) if fitted.regime else None,
        **tested.as_dict(),
        **questions,
        **{name: section for name, section in inside.items() if section},
        label=bundle.card["label"],
        provenance=source | {"config": masked(config), "bundle": bundle.card["span"]},
        timings=timings.seconds,
    )
    _write(folder, report, bundle, prepared, probabilities, tested)
    return report.to_json()


def _probabilities(prepared: Prepared, fitted: Fitted, bundle: Bundle) -> dict[str, Array]:
    """Calibrated test probabilities [N, C] per model; the primary's come from the bundle, as in live trading."""
    test = prepared.test
    out = {"primary": bundle.primary.predict(test.table, test.rows)[1]}
    return out | {name: model.predict_proba(test.table, test.rows) for name, model in fitted.baselines.items()}


def _reliability(
    experiment: Experiment, probabilities: Mapping[str, Array], test: Samples
) -> dict[str, list[ReliabilityBin]]:
    """Calibration curves of all models but the base rate, which is one point."""
    drawn: Any = {
        "min_block": float(experiment.labels.horizon_bars),
        "confidence": experiment.evaluation.confidence,
    }
    return {
        name: reliability(proba, test.y, time_N=test.time, **drawn)
        for name, proba in probabilities.items()
        if name != "base_rate"
    }


def _model_row(experiment: Experiment, prepared: Prepared, name: str, proba_NC: Array) -> ModelRow:
    """One row of the table of models."""
    test, settings = prepared.test, experiment.evaluation
    metrics = evaluate(
        proba_NC,
        test.y,
        class_rates(prepared.train),
        time_N=test.time,
        min_block=experiment.labels.horizon_bars,
        n_draws=settings.n_draws,
        confidence=settings.confidence,
        seed=experiment.seed,
    )
    kind = type(experiment.model).__name__ if name == "primary" else "baseline"
    return {"name": name, "kind": kind, "metrics": metrics}


def _record_models(
    ledger: TrialLedger, prepared: Prepared, probabilities: Mapping[str, Array], source: Json, folder: Path
) -> None:
    test = prepared.test
    for name, proba in probabilities.items():
        ledger.append(
            LedgerEntry(
                purpose="model on test",
                subject=name,
                code_sha=source["code_sha"],
                config_digest=source["config_digest"],
                data_digest=prepared.data_digest,
                span_start=prepared.test_start,
                span_end=aware(test.time.max()),
                run=str(folder),
                measure="loss",
            ),
            log_losses(proba, test.y),
        )


def _auditor_row(experiment: Experiment, prepared: Prepared, fitted: Fitted, bundle: Bundle) -> AuditorRow | None:
    """Metrics of the auditor on test rows: how well it separates profitable candidates from others."""
    if fitted.auditor is None or fitted.candidate_score is None:
        return None
    test = prepared.test
    score_NC = bundle.primary.predict(test.table, test.rows)[0]
    samples = candidates(experiment, test, score_NC, fitted.regime, fitted.candidate_score)
    if are_too_few(samples):
        return {"n": len(samples), "metrics": None}
    expected = fitted.candidate_paid
    metrics = evaluate(
        fitted.auditor.predict_proba(samples.table, samples.rows),
        samples.y,
        np.array([1 - expected, expected]),
        time_N=samples.time,
        min_block=experiment.labels.horizon_bars,
        n_draws=experiment.evaluation.n_draws,
        confidence=experiment.evaluation.confidence,
        seed=experiment.seed,
    )
    return {"n": len(samples), "paid": float(samples.y.mean()), "paid_in_training": expected, "metrics": metrics}


def _questions(experiment: Experiment, prepared: Prepared, bundle: Bundle, tested: Backtest) -> Json:
    """Sections that explain evaluated strategies: whether the auditor helps, what regimes contributed."""
    if not experiment.strategy:
        return {}
    span = EvaluatedSpan.of(experiment, prepared, bundle)
    out: Json = {}
    valued = audit_value(span, experiment.strategy, prepared.test)
    if valued is not None:
        out["audit_value"] = valued
    if bundle.regime is not None:
        parts = {"train": prepared.train, "valid": prepared.valid, "test": prepared.test}
        regime: Any = bundle.regime
        out["hindsight"] = regime_views_section(span, regime, prepared.table, parts, experiment.strategy, tested.trades)
    return out


def _fold(prepared: Prepared) -> FoldRow:
    """The fold's spans, and the number of purged samples."""

    def span(samples: Samples) -> PartSpan:
        time = prepared.table.time
        return {
            "n": len(samples),
            "decisions": [aware(samples.time.min()).isoformat(), aware(samples.time.max()).isoformat()],
            "reads": [aware(time[samples.start].min()).isoformat(), aware(time[samples.end].max()).isoformat()],
        }

    used = len(prepared.train) + len(prepared.valid) + len(prepared.test)
    return {
        "n_purged": len(prepared.samples) - used,
        "train": span(prepared.train),
        "valid": span(prepared.valid),
        "test": span(prepared.test),
    }


def _em_steps(filters: Sequence[HmmRegime]) -> EmSteps:
    """How EM ended: of several filters the one with most steps; converged where all did."""
    slowest = max(filters, key=lambda one: one.n_iter_ or 0)
    done = [one.converged_ for one in filters]
    converged = None if None in done else all(done)
    return {"converged": converged, "n_iter": slowest.n_iter_, "last_gain": slowest.last_gain_}


def _ribbon(prepared: Prepared, regime: Regime, n_points: int = 2000) -> Ribbon:
    """Filtered regimes of the first symbol over its close, thinned to at most `n_points`."""
    table = prepared.table
    rows = np.flatnonzero((table.symbol == 0) & table.ready(regime.lookback))
    every = max(1, len(rows) // n_points)
    rows = rows[::every]
    belief = regime.predict_proba(table, rows)
    return {
        "symbol": table.symbols[0],
        "names": list(regime.names),
        "fit": _em_steps(filters_of(regime)),
        "warning": "; ".join(note for one in filters_of(regime) if (note := one.unconverged())) or None,
        "time": [aware(t).isoformat() for t in table.time[rows]],
        "close": prepared.bars["close"].to_numpy()[rows].tolist(),
        "state": belief.argmax(axis=1).tolist(),
        "every": every,
    }


def _write(
    folder: Path,
    report: RunReport,
    bundle: Bundle,
    prepared: Prepared,
    probabilities: Mapping[str, Array],
    tested: Backtest,
) -> None:
    """Writes a run's predictions, trades, data, metrics, the bundle card with its verdict, and the report."""
    test = prepared.test
    frame = pl.DataFrame(
        {
            "symbol": test.table.symbols_of(test.rows),
            "time": utc_series(test.time),
            "y": test.y,
            "ret": test.ret,
            **{name: proba[:, 1] for name, proba in probabilities.items()},
        }
    )
    for name, table in (("predictions", frame), ("trades", tested.trades)):
        with written_atomically(folder / f"{name}.parquet") as draft:
            table.write_parquet(draft)
    metrics = report.summary()
    signals = {row["name"]: {"settings": row["settings"], **row["signals"]} for row in tested.rows}
    evaluated = {"metrics": metrics["models"]["primary"], "verdict": report.verdict, "signals": signals}
    seal(bundle.folder, {**bundle.card, **evaluated})
    write_json(folder / "data.json", bundle.card["data"])
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "report.json", report.to_json())
    write_report(report.to_json(), folder / "report.html")
    LOG.info("report digest %s", digest_json(metrics)[:12])
