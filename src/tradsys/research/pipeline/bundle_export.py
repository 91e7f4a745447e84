"""Exports fitted parts as a bundle: written atomically, loaded again, then the only source of probabilities."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tradsys.core.errors import BundleError, CombinationError, DataError
from tradsys.core.extensions import foreign_parts, is_own, is_registered, registered_targets
from tradsys.core.plain_data import Config, Json
from tradsys.core.runs import code_sha, write_json, written_atomically
from tradsys.core.tables import Array, Samples
from tradsys.market.bars import bar_minutes, span
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.ensembles.compose import Average, Calibrated, Scaled, SeedAverage, weights_of
from tradsys.models.ensembles.regime_pooled import RegimePooled
from tradsys.models.ensembles.resampled import Decayed, SequentialBootstrap
from tradsys.models.ensembles.stacked import RegimeWeighted, Stacked
from tradsys.models.linear import LogisticRegression
from tradsys.models.transforms import RobustScaler
from tradsys.research.pipeline.dataset import Prepared
from tradsys.research.pipeline.provenance import config_digest
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.training import Fitted
from tradsys.serving.bundle import DRIFT, Bundle, seal
from tradsys.serving.ensemble import FILE, ServedEnsemble

PARITY_WINDOWS = 512  # validation windows on which graph and parts are compared at export
FORGOTTEN = 1e-8  # largest weight of older bars that a live buffer may lack


def export_bundle(
    experiment: Experiment,
    prepared: Prepared,
    fitted: Fitted,
    folder: Path,
    config: Config,
    *,
    with_drift: bool = True,
) -> Bundle:
    """Writes the bundle atomically, then loads it.

    From here on probabilities come from this object alone. with_drift: also writes drift references for live bars,
    which take seconds; omit them for a bundle that is not served.
    """
    with written_atomically(folder) as draft:
        draft.mkdir()
        kind = _write_primary(fitted.primary, draft, prepared)
        if fitted.regime is not None:
            write_json(draft / "regime.json", fitted.regime.to_json())
        if fitted.auditor is not None:
            fitted.auditor.save(draft / "auditor.json")
        references = _drift_references(fitted, prepared) if with_drift else {}
        if any("reason" not in one for one in references.values()):
            write_json(draft / DRIFT, references)
        seal(draft, _card(experiment, prepared, fitted, kind, config))
    return Bundle.load(folder)


def _write_primary(primary: Calibrated, draft: Path, prepared: Prepared) -> str:
    """Writes the scoring part in its own format; returns the kind of file."""
    model = primary.model_
    if isinstance(model, LightGbm | Xgboost):
        model.save(draft / "model.txt")
        return "lightgbm" if isinstance(model, LightGbm) else "xgboost"
    valid = prepared.valid
    compared = valid.take(np.arange(0, len(valid), max(1, len(valid) // PARITY_WINDOWS)))
    if is_pool(model):
        write_pool(model, primary.calibrator_, draft, compared)
        return "ensemble"
    scaler, net = (model.scaler_, model.model_) if isinstance(model, Scaled) else (None, model)
    export_onnx(
        draft / "model.onnx",
        scaler=scaler,
        model=net,
        calibrator=primary.calibrator_,
        table=compared.table,
        rows=compared.rows,
    )
    return "onnx"


def _drift_references(fitted: Fitted, prepared: Prepared) -> dict[str, Json]:
    """Drift references for live bars: features of the training rows, scores of the validation rows.

    A span that is too short has a `reason` instead; with two such spans there is no file.
    """
    train, valid = prepared.train, prepared.valid
    score = fitted.primary.score(valid.table, valid.rows)[:, 1:2]
    return {
        "features": _reference(train.table.values, train.time, train.table.names, rows=train.rows),
        "scores": _reference(score, valid.time, ("score",), classifier=False),
    }


def _reference(
    values: Array, time: Array, names: Sequence[str], *, rows: Array | None = None, classifier: bool = True
) -> Json:
    from tradsys.evidence.controls.block_drift import BlockReference  # noqa: PLC0415 - beside its only use

    try:
        return BlockReference.of(values, time, names, rows=rows, classifier=classifier).to_json()
    except DataError as error:
        return {"reason": str(error)}


def _card(experiment: Experiment, prepared: Prepared, fitted: Fitted, kind: str, config: Config) -> Json:
    """The card of the bundle. Metrics and verdict are added after the evaluation."""
    valid, fold = prepared.valid, prepared.fold
    score = fitted.primary.score(valid.table, valid.rows)[:, 1]
    first, last = span(prepared.bars)
    fitted_calibrator: Any = fitted.primary.calibrator_
    times = {part: _span_texts(prepared.samples.take(getattr(fold, part))) for part in ("train", "valid", "test")}
    return {
        "name": type(fitted.primary.model).__name__,
        "model": {"kind": kind, "lookback": fitted.primary.lookback},
        "calibrator": fitted_calibrator.to_json(),
        "label": experiment.labels.card(),
        "features": prepared.features.to_json(),
        "feature_names": list(prepared.features.names),
        "schema_hash": prepared.features.schema_hash(),
        "foreign": foreign_parts([*map(type, prepared.features.features), *_registered_label(experiment)]),
        "made_with": registered_targets(config),  # nets, losses, rules and sources too, which loading does not need
        "max_gap_minutes": experiment.data["max_gap_minutes"],
        "bar_minutes": bar_minutes(prepared.bars),
        "levels": config.get("levels"),
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


def _registered_label(experiment: Experiment) -> list[type]:
    """The label's class where an installed package registers it: loading the bundle then needs that package."""
    cls = type(experiment.labels)
    return [cls] if is_registered("labels", cls) else []


def _span_texts(samples: Samples) -> list[str]:
    """First and last decision, ISO UTC."""
    return [f"{np.datetime_as_string(t, unit='s')}+00:00" for t in (samples.time.min(), samples.time.max())]


def _history(experiment: Experiment, prepared: Prepared) -> int:
    """Bars a live buffer needs: the longest memory of any feature, of the ATR or of the exits, plus the windows."""
    memory_of_atr = math.ceil(math.log(FORGOTTEN) / math.log(1 - 1 / experiment.labels.atr_bars))
    memory_of_exits = int(experiment.labels.card().get("memory_bars", 0))
    return max(prepared.features.warmup, memory_of_atr, memory_of_exits) + experiment.lookback


TOLERANCE = 1e-5  # of scores read back from a pool's files
ENSEMBLES = (Average, SeedAverage, Stacked, RegimePooled)


def is_pool(model: Any) -> bool:
    """Whether the fitted model is an ensemble that no single graph can hold."""
    return isinstance(model, ENSEMBLES) and not has_graph(model)


def has_graph(model: Any) -> bool:
    """Whether one ONNX graph can hold the model.

    The exporter is imported for models that need it.
    """
    kinds = set(_leaf_kinds(model))
    if kinds & {LightGbm, Xgboost}:
        return False
    if kinds == {LogisticRegression}:
        return True
    from tradsys.models import onnx_export  # noqa: PLC0415 - trees do without it

    return onnx_export.has_graph(model)


def _leaf_kinds(model: Any) -> Iterator[type]:
    """The classes of what a model is made of, as far as one graph could hold it together."""
    if isinstance(model, Average | SeedAverage):
        for member in (model.members_ or {}).values():
            yield from _leaf_kinds(member)
    elif isinstance(model, Scaled | Calibrated):
        yield from _leaf_kinds(model.model_)
    else:
        yield type(model)


def export_onnx(path: Path, **parts: Any) -> float:
    """Calls `models.onnx_export.export_onnx`.

    It is imported only when a graph is written.
    """
    from tradsys.models import onnx_export  # noqa: PLC0415

    return onnx_export.export_onnx(path, **parts)


def check_bundled_parts(experiment: Experiment) -> None:
    """Raises CombinationError, before any fit, for a part that a bundle cannot hold.

    A bundle is loaded by its content, never by code of other packages: of their parts it holds graphs and features.
    """
    check_bundled(experiment.model)
    for name in ("regime", "auditor", "calibration"):
        part = getattr(experiment, name)
        if part is not None and not is_own(type(part)):
            raise CombinationError(
                f"config: no bundle can hold {name}={type(part).__module__}.{type(part).__name__}, which is no part of "
                f"tradsys; it can be compared but not trained for serving; choose one of tradsys' own, such as "
                f"{name}=none, or use yours with python -m tradsys.compare"
            )


def check_bundled(model: Any) -> None:
    """Raises CombinationError for a model that a bundle cannot hold.

    Before it is fitted.
    """
    if isinstance(model, Average | Stacked):
        for member in model.members.values():
            check_bundled(member)
    elif isinstance(model, SeedAverage | RegimePooled | SequentialBootstrap | Decayed | Scaled | Calibrated):
        check_bundled(model.model)
    elif not (isinstance(model, LightGbm | Xgboost) or has_graph(model)):
        raise CombinationError(
            f"config: no bundle can hold a {type(model).__name__}, so it can be compared but not trained for serving; "
            "compare it with python -m tradsys.compare, choose another model, or register its graph in "
            "models.onnx_export"
        )


def write_pool(model: Any, calibrator: Any, folder: Path, compared: Samples) -> None:
    """Writes the files of an ensemble and compares them with the model.

    ensemble.json and `member_<name>.onnx|txt|json` in `folder`. compared: the samples of the comparison. Raises
    BundleError where a score differs by more than 1e-5, or for a member without a file format.
    """
    write_json(folder / FILE, _pool(model, folder, "member", compared))
    served = ServedEnsemble.load(folder, calibrator.to_json(), len(compared.table.names))
    score_NC, expected_NC = (
        served.predict(compared.table, compared.rows)[0],
        model.predict_proba(compared.table, compared.rows),
    )
    gap = float(np.abs(score_NC - expected_NC).max())
    if not gap <= TOLERANCE:
        raise BundleError(
            f"ensemble: its files differ from the fitted pool by {gap:.2e} on {len(compared)} rows; at most "
            f"{TOLERANCE:.0e} is rounding; look for NaN features"
        )


def _pool(model: Any, folder: Path, stem: str, compared: Samples) -> Json:
    """Content of ensemble.json for a pool; its members' files are written on the way."""
    members = [_member(name, one, folder, f"{stem}_{name}", compared) for name, one in model.members_.items()]
    reported: Json = {
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
        reported["weights"] = weights_of(model)
    else:
        names, weights = model.earning()
    if isinstance(model, Stacked):
        reported |= {"kind": "stacked", "floor": model.floor, "base_rate": model.base_rate_.tolist()}  # type: ignore[union-attr]
        reported["weights"] = dict(zip(names, np.atleast_2d(weights)[0].tolist(), strict=True))
    if isinstance(model, RegimeWeighted | RegimePooled):
        kind = "regime_weighted" if isinstance(model, RegimeWeighted) else "regime_pooled"
        reported |= {"kind": kind, "weights": None, "regime": model.regime_.to_json()}  # type: ignore[union-attr]
        reported["state_weights"] = [dict(zip(names, row.tolist(), strict=True)) for row in weights]
    return reported


def _member(name: str, model: Any, folder: Path, stem: str, compared: Samples) -> Json:
    """One member's entry; a graph holds its scaler and calibrator, a tree file has the calibrator next to it."""
    inner, calibrator = (model.model_, model.calibrator_) if isinstance(model, Calibrated) else (model, None)
    if is_pool(inner):
        return {"name": name, **_pool(inner, folder, stem, compared), **_behind(calibrator)}
    if isinstance(inner, LightGbm | Xgboost):
        inner.save(folder / f"{stem}.txt")
        kind = "lightgbm" if isinstance(inner, LightGbm) else "xgboost"
        return {"name": name, "kind": kind, "file": f"{stem}.txt", "lookback": inner.lookback, **_behind(calibrator)}
    scaler, net = (inner.scaler_, inner.model_) if isinstance(inner, Scaled) else (None, inner)
    if isinstance(net, LogisticRegression) and (scaler is None or isinstance(scaler, RobustScaler)):
        # coefficients, not a graph: the same numbers to the bit, and readable
        write_json(folder / f"{stem}.json", {"scaler": scaler and scaler.to_json(), "model": net.to_json()})
        return {
            "name": name, "kind": "logistic", "file": f"{stem}.json", "lookback": net.lookback, **_behind(calibrator),
        }  # fmt: skip
    export_onnx(
        folder / f"{stem}.onnx",
        scaler=scaler,
        model=net,
        calibrator=calibrator,
        table=compared.table,
        rows=compared.rows,
    )
    return {"name": name, "kind": "onnx", "file": f"{stem}.onnx", "lookback": net.lookback}  # type: ignore[union-attr]


def _behind(calibrator: Any) -> Json:
    return {"calibrator": None if calibrator is None else calibrator.to_json()}
