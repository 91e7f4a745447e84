"""Models of models: scaled, calibrated, averaged. Each is a Model like any other."""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from tradsys.core.errors import TrainingError
from tradsys.core.protocols import Calibrator, Model, Transform
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.transforms import fitted, with_fitted

Part = TypeVar("Part")


@dataclass(frozen=True, eq=False)
class Scaled:
    """A model that sees the table through a transform fitted on its own training rows.

    Fitted: scaler_, model_.
    """

    scaler: Transform
    model: Model
    scaler_: Transform | None = field(init=False, default=None)
    model_: Model | None = field(init=False, default=None)

    @property
    def lookback(self) -> int:
        """The inner model's."""
        return self.model.lookback

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Fits the transform on the rows of `train`, then the model on the transformed table."""
        scaler = self.scaler.fit(train.table, train.rows)
        table = scaler.apply(train.table)
        held = table if valid.table is train.table else scaler.apply(valid.table)
        return self.of(scaler, self.model.fit(train.on(table), valid.on(held)))

    @classmethod
    def of(cls, scaler: Transform, model: Model) -> Self:
        """The composition of two parts that are fitted already, as a bundle loads them."""
        return with_fitted(cls(scaler, model), {"scaler_": scaler, "model_": model})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C] from the transformed table."""
        return fitted(self, "model_").predict_proba(fitted(self, "scaler_").apply(table), rows)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A model whose scores on the validation rows, never the training rows, fit a calibrator.

    Fitted: model_, calibrator_.
    """

    model: Model
    calibrator: Calibrator
    model_: Model | None = field(init=False, default=None)
    calibrator_: Calibrator | None = field(init=False, default=None)

    @property
    def lookback(self) -> int:
        """The inner model's."""
        return self.model.lookback

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Fits the model on `train`, the calibrator on `valid`; TrainingError when that is empty."""
        if not len(valid):
            raise TrainingError(
                "calibrated: no validation rows; a calibrator learns from rows the model was not fitted on; "
                "give the split a validation span or use calibration=none"
            )
        model = self.model.fit(train, valid)
        scores = model.predict_proba(valid.table, valid.rows)
        return self.of(model, self.calibrator.fit(scores, valid.y, valid.weight))

    @classmethod
    def of(cls, model: Model, calibrator: Calibrator) -> Self:
        """The composition of two parts that are fitted already, as a bundle loads them."""
        return with_fitted(cls(model, calibrator), {"model_": model, "calibrator_": calibrator})

    def score(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C] before calibration."""
        return fitted(self, "model_").predict_proba(table, rows)

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Calibrated float64 [N, C]."""
        return fitted(self, "calibrator_").apply(self.score(table, rows))


@dataclass(frozen=True, eq=False)
class SeedAverage:
    """The plain mean of its members' probabilities, say of one net under several seeds.

    Fitted: models_.
    """

    models: tuple[Model, ...]
    models_: tuple[Model, ...] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not self.models:
            raise TrainingError("seed average: no members; a mean needs at least one model; list them in the config")

    @property
    def lookback(self) -> int:
        """The longest of its members'."""
        return max(model.lookback for model in self.models)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Fits each member on the same rows."""
        return self.of(tuple(model.fit(train, valid) for model in self.models))

    @classmethod
    def of(cls, models: tuple[Model, ...]) -> Self:
        """The mean of members that are fitted already, as a bundle loads them."""
        return with_fitted(cls(models), {"models_": models})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the mean over members."""
        return np.mean([model.predict_proba(table, rows) for model in fitted(self, "models_")], axis=0)


def scaled(scaler: Transform, model: Model) -> Model:
    """The model behind the scaler, or the model itself where it `reads_raw` values, as trees and the base rate do."""
    return model if getattr(model, "reads_raw", False) else Scaled(scaler, model)


def seeded(model: Part, seed: int) -> Part:
    """A copy of a nested, unfitted model whose every `seed` field has this value."""
    if not is_dataclass(model) or isinstance(model, type):
        return model
    changed: dict[str, Any] = {}
    for each in (f for f in fields(model) if f.init):
        value = getattr(model, each.name)
        if each.name == "seed":
            changed[each.name] = seed
        elif isinstance(value, tuple | list):
            changed[each.name] = type(value)(seeded(item, seed) for item in value)
        elif isinstance(value, dict):
            changed[each.name] = {key: seeded(item, seed) for key, item in value.items()}
        elif is_dataclass(value):
            changed[each.name] = seeded(value, seed)
    return replace(model, **changed)


def in_workdir(model: Part, folder: Path) -> Part:
    """An unfitted copy of a nested model whose parts write to `folder`.

    Every part with a `workdir` field points there; members of a tuple get `folder/0`, `folder/1`, ... so that
    they do not overwrite each other. What has no such part comes back equal.
    """
    if not is_dataclass(model) or isinstance(model, type):
        return model
    changed: dict[str, Any] = {}
    for each in (f for f in fields(model) if f.init):
        value = getattr(model, each.name)
        if each.name == "workdir":
            changed[each.name] = folder
        elif isinstance(value, tuple | list):
            moved = [in_workdir(item, folder / str(i)) for i, item in enumerate(value)]
            if any(new is not old for new, old in zip(moved, value, strict=True)):
                changed[each.name] = type(value)(moved)
        elif isinstance(value, dict):
            changed[each.name] = {key: in_workdir(item, folder / str(key)) for key, item in value.items()}
        elif is_dataclass(value):
            changed[each.name] = in_workdir(value, folder)
    return replace(model, **changed)
