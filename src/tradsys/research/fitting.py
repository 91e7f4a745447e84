"""Everything that learns: primary, baselines, regime, auditor; and the bundle they end in."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradsys.core.errors import TrainingError
from tradsys.core.runs import code_sha, write_json, written_whole
from tradsys.core.tables import Array, Samples
from tradsys.labels.meta import pays
from tradsys.market.bars import span
from tradsys.models.baseline import BaseRate
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.calibrators import Identity
from tradsys.models.compose import Calibrated, Scaled, in_workdir
from tradsys.models.onnx_export import export_onnx
from tradsys.models.regime import HmmRegime
from tradsys.models.stacking import out_of_fold
from tradsys.research.parts import Experiment, Timings
from tradsys.research.preparing import Prepared
from tradsys.research.provenance import config_digest
from tradsys.samples.splits import PurgedKFold
from tradsys.serving.bundle import Bundle, seal, widened

LOG = logging.getLogger(__name__)
PARITY_WINDOWS = 512  # validation windows on which graph and torch are compared at export
FORGOTTEN = 1e-8  # share of an older bar that a live buffer may lack


@dataclass(frozen=True, eq=False)
class Fitted:
    """Fitted parts. candidate_score: the out-of-fold score from which the auditor was taught; candidate_paid: how
    often such a candidate paid after costs.
    """

    primary: Calibrated
    baselines: Mapping[str, Calibrated]
    regime: HmmRegime
    auditor: Xgboost | None
    candidate_score: float | None = None
    candidate_paid: float = 0.5


def fit(experiment: Experiment, prepared: Prepared, checkpoints: Path, timings: Timings) -> Fitted:
    """Fits every part on training rows; early stopping and calibration read validation rows, nothing reads test."""
    train, valid = prepared.train, prepared.valid
    with timings.stage("primary model"):
        primary = in_workdir(_whole(experiment, experiment.model), checkpoints / "primary").fit(train, valid)
    baselines = {}
    with timings.stage("baselines"):
        for name, model in experiment.baselines.items():
            baselines[name] = _whole(experiment, model).fit(train, valid)
    with timings.stage("regime"):
        regime = experiment.regime.fit(train, valid)
    if experiment.auditor is None:
        return Fitted(primary, baselines, regime, None)
    with timings.stage("out-of-fold scores"):
        folds = PurgedKFold(experiment.evaluation.n_oof_folds, embargo_bars=experiment.labels.horizon_bars)
        scaled = Scaled(experiment.transforms, experiment.model)
        held_out = out_of_fold(scaled, train, folds, valid, checkpoints / "out_of_fold")
    with timings.stage("auditor"):
        known = held_out.covered_N
        least = float(np.quantile(held_out.proba_NC[known, 1], experiment.evaluation.candidate_quantile))
        taught = audit_samples(experiment, train.take(known), held_out.proba_NC[known], regime, least)
        checked = audit_samples(experiment, valid, primary.score(valid.table, valid.rows), regime, least)
        auditor = experiment.auditor.fit(taught, checked)
        LOG.info("auditor: %d candidates with score >= %.3f, %.1f %% paid", len(taught), least, 100 * taught.y.mean())
    return Fitted(primary, baselines, regime, auditor, least, float(taught.y.mean()))


def _whole(experiment: Experiment, model: Any) -> Calibrated:
    """Scaler, model and calibrator as one model. Trees need no scaler, the base rate neither."""
    if isinstance(model, BaseRate):
        return Calibrated(model, Identity())
    inner = model if isinstance(model, LightGbm | Xgboost) else Scaled(experiment.transforms, model)
    return Calibrated(inner, experiment.calibration)


def audit_samples(
    experiment: Experiment, samples: Samples, score_NC: Array, regime: HmmRegime, least: float
) -> Samples:
    """The auditor's samples: candidates with score >= least, features + score + regime, y = paid after costs."""
    belief = regime.predict_proba(samples.table, samples.rows)
    extra = {"score": score_NC[:, 1]} | {f"regime_{n}": belief[:, k] for k, n in enumerate(regime.names)}
    table, rows = widened(samples.table, samples.rows, extra)
    y = pays(samples.ret, experiment.costs.log_round_trip)
    candidates = Samples(table, rows, y, samples.weight, rows, rows, samples.ret).take(score_NC[:, 1] >= least)
    if len(candidates) < 50 or candidates.n_classes < 2:
        raise TrainingError(
            f"auditor: {len(candidates)} candidates with score >= {least:.3f}, {int(candidates.y.sum())} paid; "
            "it needs 50 of both outcomes; load more bars, lower evaluation.candidate_quantile, or auditor=none"
        )
    return candidates


def export_bundle(
    experiment: Experiment, prepared: Prepared, fitted: Fitted, folder: Path, config: dict[str, Any]
) -> Bundle:
    """Writes the bundle whole, then loads it: from here on probabilities come from this object alone."""
    with written_whole(folder) as draft:
        draft.mkdir()
        kind = _write_primary(fitted.primary, draft, prepared)
        write_json(draft / "regime.json", fitted.regime.to_json())
        if fitted.auditor is not None:
            fitted.auditor.save(draft / "auditor.json")
        seal(draft, _card(experiment, prepared, fitted, kind, config))
    return Bundle.load(folder)


def _write_primary(primary: Calibrated, draft: Path, prepared: Prepared) -> str:
    """Writes the scoring part in its own format; returns which."""
    model = primary.model_
    if isinstance(model, LightGbm | Xgboost):
        model.save(draft / "model.txt")
        return "lightgbm" if isinstance(model, LightGbm) else "xgboost"
    scaler, net = (model.scaler_, model.model_) if isinstance(model, Scaled) else (None, model)
    valid = prepared.valid
    export_onnx(
        draft / "model.onnx",
        scaler=scaler,
        model=net,
        calibrator=primary.calibrator_,
        table=valid.table,
        rows=valid.rows[:: max(1, len(valid) // PARITY_WINDOWS)],
    )
    return "onnx"


def _card(
    experiment: Experiment, prepared: Prepared, fitted: Fitted, kind: str, config: dict[str, Any]
) -> dict[str, Any]:
    """What the bundle was made from. Metrics and verdict are added once it was judged."""
    valid, fold = prepared.valid, prepared.fold
    score = fitted.primary.score(valid.table, valid.rows)[:, 1]
    first, last = span(prepared.bars)
    fitted_calibrator: Any = fitted.primary.calibrator_
    times = {part: _span(prepared.samples.take(getattr(fold, part))) for part in ("train", "valid", "test")}
    return {
        "name": type(fitted.primary.model).__name__,
        "model": {"kind": kind, "lookback": fitted.primary.lookback},
        "calibrator": fitted_calibrator.to_json(),
        "classes": ["stop or timeout", "take profit"],
        "label": {k: getattr(experiment.labels, k) for k in ("upper", "lower", "horizon_bars", "atr_bars")},
        "features": prepared.features.to_json(),
        "feature_names": list(prepared.features.names),
        "schema_hash": prepared.features.schema_hash(),
        "max_gap_minutes": experiment.data["max_gap_minutes"],
        "history": _history(experiment, prepared),
        "valid_score_quantiles": np.quantile(score, np.linspace(0, 1, 1001)).tolist(),
        "candidate_score": fitted.candidate_score,
        "data": {
            **experiment.data["source"].describe(),
            "digest": prepared.data_digest,
            "first": first.isoformat(),
            "last": last.isoformat(),
        },
        "data_config": config["data"],
        "span": times,
        "config_digest": config_digest(config),
        "code_sha": code_sha(),
        "question": experiment.question,
    }


def _span(samples: Samples) -> list[str]:
    """First and last decision, ISO UTC."""
    return [f"{np.datetime_as_string(t, unit='s')}+00:00" for t in (samples.time.min(), samples.time.max())]


def _history(experiment: Experiment, prepared: Prepared) -> int:
    """Bars a live buffer needs: the longest memory of any feature or of the barriers' ATR, plus the windows."""
    memory_of_atr = math.ceil(math.log(FORGOTTEN) / math.log(1 - 1 / experiment.labels.atr_bars))
    return max(prepared.features.warmup, memory_of_atr) + experiment.lookback
