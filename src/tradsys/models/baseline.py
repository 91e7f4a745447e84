"""Base-rate model: the class frequencies of the training rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from tradsys.core.errors import TrainingError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.transforms import fitted, with_fitted
from tradsys.samples.weights import class_mass

ClassWeight = Literal["balanced"] | None


def class_weights_seen(where: str, train: Samples, valid: Samples) -> Array:
    """Sum of training weights per class [C].

    C is the highest code in train and valid plus one. Raises TrainingError when fewer than two classes exist or one of
    them has no training weight.
    """
    n_classes = max(train.n_classes, valid.n_classes)
    mass_C = class_mass(train, n_classes)
    absent = np.flatnonzero(~(mass_C > 0)).tolist()
    if n_classes < 2 or absent:
        raise TrainingError(
            f"{where}: {len(train)} training rows with weight per class {mass_C.tolist()}, class(es) "
            f"{absent or [1]} absent; at least two classes, each with rows, are needed; use a longer span or "
            "other labels"
        )
    return mass_C


def check_class_weight(where: str, how: ClassWeight) -> None:
    """Raises TrainingError for anything but None and "balanced"."""
    if how not in (None, "balanced"):
        raise TrainingError(f"{where}: class_weight={how!r}; it must be null or 'balanced'; set model.class_weight")


def class_weighted(train: Samples, valid: Samples, mass_C: Array, how: ClassWeight) -> tuple[Samples, Samples]:
    """Both parts with weights under which every class counts equally in training.

    Unchanged where `how` is None. mass_C: sum of training weights per class. Each weight is multiplied by sum(mass) /
    (C * mass of its class), in `valid` too, so that early stopping uses the objective of the fit. The scores then
    assume equally frequent classes, so a calibrator has to follow.
    """
    if how is None:
        return train, valid
    factor_C = mass_C.sum() / (len(mass_C) * mass_C)
    first, second = (replace(part, weight=part.weight * factor_C[part.y]) for part in (train, valid))
    return first, second


@dataclass(frozen=True, eq=False)
class BaseRate:
    """Weighted class frequencies of the training rows, the same for every row.

    lookback: rows required before a decision, so that all models are evaluated on the same samples; none is read.
    Fitted: proba_ float64 [C].
    """

    reads_raw: ClassVar[bool] = True
    lookback: int = 1
    proba_: Array | None = field(init=False, default=None)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Counts `train`; raises TrainingError when only one class occurs."""
        mass_C = class_weights_seen("base rate", train, valid)
        return with_fitted(self, {"proba_": mass_C / mass_C.sum()})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:  # noqa: ARG002
        """float64 [N, C], every row the training frequencies."""
        return np.tile(fitted(self, "proba_"), (len(rows), 1))

    def to_json(self) -> Json:
        """A JSON value that `from_json` turns back into the same numbers."""
        return {"lookback": self.lookback, "proba": fitted(self, "proba_").tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted model that `to_json` wrote."""
        return with_fitted(cls(lookback=value["lookback"]), {"proba_": np.asarray(value["proba"], dtype=np.float64)})
