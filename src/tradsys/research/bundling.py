"""From fitted parts to the bundle: written whole, loaded again, and from then on the only source of probabilities."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from tradsys.core.runs import code_sha, write_json, written_whole
from tradsys.core.tables import Samples
from tradsys.market.bars import span
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.compose import Calibrated, Scaled
from tradsys.models.onnx_export import export_onnx
from tradsys.research.ensemble_export import is_pool, write_pool
from tradsys.research.fitting import Fitted
from tradsys.research.parts import Experiment
from tradsys.research.preparing import Prepared
from tradsys.research.provenance import config_digest
from tradsys.serving.bundle import Bundle, seal

PARITY_WINDOWS = 512  # validation windows on which graph and torch are compared at export
FORGOTTEN = 1e-8  # share of an older bar that a live buffer may lack


def export_bundle(
    experiment: Experiment, prepared: Prepared, fitted: Fitted, folder: Path, config: dict[str, Any]
) -> Bundle:
    """Writes the bundle whole, then loads it: from here on probabilities come from this object alone."""
    with written_whole(folder) as draft:
        draft.mkdir()
        kind = _write_primary(fitted.primary, draft, prepared)
        if fitted.regime is not None:
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
    valid = prepared.valid
    asked = valid.take(np.arange(0, len(valid), max(1, len(valid) // PARITY_WINDOWS)))
    if is_pool(model):
        write_pool(model, primary.calibrator_, draft, asked)
        return "ensemble"
    scaler, net = (model.scaler_, model.model_) if isinstance(model, Scaled) else (None, model)
    export_onnx(
        draft / "model.onnx",
        scaler=scaler,
        model=net,
        calibrator=primary.calibrator_,
        table=asked.table,
        rows=asked.rows,
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
        "label": experiment.labels.card(),
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
    """Bars a live buffer needs: the longest memory of any feature, of the ATR or of the exits, plus the windows."""
    memory_of_atr = math.ceil(math.log(FORGOTTEN) / math.log(1 - 1 / experiment.labels.atr_bars))
    memory_of_exits = int(experiment.labels.card().get("memory_bars", 0))
    return max(prepared.features.warmup, memory_of_atr, memory_of_exits) + experiment.lookback
