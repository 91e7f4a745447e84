"""A fitted pool as files of a bundle: ensemble.json, and one graph or tree per member that has a weight."""

from pathlib import Path
from typing import Any

import numpy as np

from tradsys.core.errors import BundleError
from tradsys.core.runs import write_json
from tradsys.core.tables import Samples
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.compose import Average, Calibrated, RegimeWeighted, Scaled, SeedAverage, Stacked
from tradsys.models.onnx_export import TOLERANCE, export_onnx, has_graph
from tradsys.serving.ensemble import FILE, ServedEnsemble

ENSEMBLES = (Average, SeedAverage, Stacked)


def is_pool(model: Any) -> bool:
    """Whether the fitted model is an ensemble that no single graph can hold."""
    return isinstance(model, ENSEMBLES) and not has_graph(model)


def write_pool(model: Any, calibrator: Any, folder: Path, asked: Samples) -> None:
    """Writes ensemble.json and `member_<name>.onnx|txt` into `folder`, then compares what they say with the model.

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


def _pool(model: Any, folder: Path, stem: str, asked: Samples) -> dict[str, Any]:
    """What ensemble.json says of a pool; its members' files are written on the way."""
    members = [_member(name, one, folder, f"{stem}_{name}", asked) for name, one in model.members_.items()]
    told: dict[str, Any] = {
        "kind": "average",
        "lookback": model.lookback,
        "weights": {name: 1 / len(model.members_) for name in model.members_},
        "state_weights": None,
        "floor": None,
        "base_rate": None,
        "regime": None,
        "members": members,
    }
    if isinstance(model, Stacked):
        names, weights = model.earning()
        told |= {"kind": "stacked", "floor": model.floor, "base_rate": model.base_rate_.tolist()}  # type: ignore[union-attr]
        told["weights"] = dict(zip(names, np.atleast_2d(weights)[0].tolist(), strict=True))
    if isinstance(model, RegimeWeighted):
        told |= {"kind": "regime_weighted", "weights": None, "regime": model.regime_.to_json()}  # type: ignore[union-attr]
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
    export_onnx(
        folder / f"{stem}.onnx", scaler=scaler, model=net, calibrator=calibrator, table=asked.table, rows=asked.rows
    )
    return {"name": name, "kind": "onnx", "file": f"{stem}.onnx", "lookback": net.lookback}  # type: ignore[union-attr]


def _behind(calibrator: Any) -> dict[str, Any]:
    return {"calibrator": None if calibrator is None else calibrator.to_json()}
