"""A fitted pool as files of a bundle: ensemble.json, and a graph, trees or coefficients per member with a weight."""

from pathlib import Path
from typing import Any

import numpy as np

from tradsys.core.errors import BundleError
from tradsys.core.runs import write_json
from tradsys.core.tables import Samples
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.compose import Average, Calibrated, RegimeWeighted, Scaled, SeedAverage, Stacked
from tradsys.models.linear import LogisticRegression
from tradsys.models.onnx_export import TOLERANCE, export_onnx, has_graph
from tradsys.models.regime_pooled import RegimePooled
from tradsys.models.transforms import RobustScaler
from tradsys.serving.ensemble import FILE, ServedEnsemble

ENSEMBLES = (Average, SeedAverage, Stacked, RegimePooled)


def is_pool(model: Any) -> bool:
    """Whether the fitted model is an ensemble that no single graph can hold."""
    return isinstance(model, ENSEMBLES) and not has_graph(model)


def write_pool(model: Any, calibrator: Any, folder: Path, asked: Samples) -> None:
    """Writes ensemble.json and `member_<name>.onnx|txt|json` into `folder`, then compares what they say with the model.

    asked: the samples compared. Raises BundleError where a score differs by more than 1e-5, or for a member that
    has no file format.
    """
    write_json(folder / FILE, _pool(model, folder, "member", asked))
    served = ServedEnsemble.load(folder, calibrator.to_json(), len(asked.table.names))
    score_NC, expected_NC = served.predict(asked.table, asked.rows)[0], model.predict_proba(asked.table, asked.rows)
    gap = float(np.abs(score_NC - expected_NC).max())
    if not gap <= TOLERANCE:
        raise BundleError(
            f"ensemble: its files differ from the fitted pool by {gap:.2e} on {len(asked)} rows; at most "
            f"{TOLERANCE:.0e} is rounding; look for NaN features"
        )


def weights_of(model: Average | SeedAverage) -> dict[str, float]:
    """The weight of each fitted member of a mean, in their order; equal where it names none."""
    names = list(model.members_ or {})
    return model.weight_of if isinstance(model, Average) else {name: 1 / len(names) for name in names}


def _pool(model: Any, folder: Path, stem: str, asked: Samples) -> dict[str, Any]:
    """What ensemble.json says of a pool; its members' files are written on the way."""
    members = [_member(name, one, folder, f"{stem}_{name}", asked) for name, one in model.members_.items()]
    told: dict[str, Any] = {
        "kind": "average",
        "lookback": model.lookback,
        "weights": None,
        "state_weights": None,
        "floor": None,
        "base_rate": None,
        "regime": None,
        "members": members,
    }
    if isinstance(model, Average | SeedAverage):
        told["weights"] = weights_of(model)
    else:
        names, weights = model.earning()
    if isinstance(model, Stacked):
        told |= {"kind": "stacked", "floor": model.floor, "base_rate": model.base_rate_.tolist()}  # type: ignore[union-attr]
        told["weights"] = dict(zip(names, np.atleast_2d(weights)[0].tolist(), strict=True))
    if isinstance(model, RegimeWeighted | RegimePooled):
        kind = "regime_weighted" if isinstance(model, RegimeWeighted) else "regime_pooled"
        told |= {"kind": kind, "weights": None, "regime": model.regime_.to_json()}  # type: ignore[union-attr]
        told["state_weights"] = [dict(zip(names, row.tolist(), strict=True)) for row in weights]
    return told


def _member(name: str, model: Any, folder: Path, stem: str, asked: Samples) -> dict[str, Any]:
    """One member's entry; a graph holds its scaler and calibrator, a tree has the calibrator beside it."""
    inner, calibrator = (model.model_, model.calibrator_) if isinstance(model, Calibrated) else (model, None)
    if is_pool(inner):
        return {"name": name, **_pool(inner, folder, stem, asked), **_behind(calibrator)}
    if isinstance(inner, LightGbm | Xgboost):
        inner.save(folder / f"{stem}.txt")
        kind = "lightgbm" if isinstance(inner, LightGbm) else "xgboost"
        return {"name": name, "kind": kind, "file": f"{stem}.txt", "lookback": inner.lookback, **_behind(calibrator)}
    scaler, net = (inner.scaler_, inner.model_) if isinstance(inner, Scaled) else (None, inner)
    if isinstance(net, LogisticRegression) and (scaler is None or isinstance(scaler, RobustScaler)):
        # coefficients, not a graph: the same numbers to the bit, readable, and no seconds of tracing
        write_json(folder / f"{stem}.json", {"scaler": scaler and scaler.to_json(), "model": net.to_json()})
        return {
            "name": name, "kind": "logistic", "file": f"{stem}.json", "lookback": net.lookback, **_behind(calibrator),
        }  # fmt: skip
    export_onnx(
        folder / f"{stem}.onnx", scaler=scaler, model=net, calibrator=calibrator, table=asked.table, rows=asked.rows
    )
    return {"name": name, "kind": "onnx", "file": f"{stem}.onnx", "lookback": net.lookback}  # type: ignore[union-attr]


def _behind(calibrator: Any) -> dict[str, Any]:
    return {"calibrator": None if calibrator is None else calibrator.to_json()}
