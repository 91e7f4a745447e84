"""Column-wise transforms fitted on training rows, and the fitted fields of frozen parts."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, FeatureTable, trait_classes

Part = TypeVar("Part")


def with_fitted(part: Part, state: Mapping[str, Any]) -> Part:
    """A copy of a frozen part with its fitted fields (`name_`) set.

    The original stays unfitted.
    """
    done = copy.copy(part)
    for name, value in state.items():
        assert name.endswith("_"), name
        assert hasattr(part, name), name
        object.__setattr__(done, name, value)
    return done


def fitted(part: object, name: str) -> Any:
    """The fitted field of a part. Raises TrainingError where `fit` has not run."""
    value = getattr(part, name)
    if value is None:
        raise TrainingError(
            f"{type(part).__name__}: not fitted, {name} is empty; only a fitted copy predicts; use what `fit` returns"
        )
    return value


@dataclass(frozen=True, eq=False)
class RobustScaler:
    """Maps the median to 0 and one robust sigma to 1, then clips.

    So a crash bar cannot dominate.
    clip: largest absolute value kept, in sigmas. quantile: lower end of the inter-quantile range that
    measures the spread (0.25 = IQR), scaled so that on a Gaussian it is the standard deviation. A column
    whose range is 0 but which is not constant (a rare flag) uses its standard deviation; a constant one
    uses 1. The codes of traits (`core.tables.trait_classes`) stay unchanged.
    Fitted: center_ and scale_ float32 [F]; names_. NaN is skipped in `fit` and stays NaN in `apply`, which maps each
    row by itself.
    """

    by_row: ClassVar[bool] = True
    clip: float = 5.0
    quantile: float = 0.25
    center_: Array | None = field(init=False, default=None)
    scale_: Array | None = field(init=False, default=None)
    names_: tuple[str, ...] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not (0 < self.quantile < 0.5 and self.clip > 0):
            raise DataError(
                f"robust scaler: quantile={self.quantile}, clip={self.clip}; the rule is 0 < quantile < 0.5 "
                "and clip > 0; change the transforms config"
            )

    def fit(self, table: FeatureTable, rows: Array) -> Self:
        """A copy fitted on these rows alone.

        Raises DataError for a column without a finite value.
        """
        center, scale, empty = np.zeros(len(table.names)), np.ones(len(table.names)), []
        for f, name in enumerate(table.names):  # one column at a time: the table may be most of the memory
            x = table.values[rows, f].astype(np.float64)
            x = x[np.isfinite(x)]
            if not len(x):
                empty.append(name)
                continue
            low, center[f], high = np.quantile(x, [self.quantile, 0.5, 1 - self.quantile])
            spread = (high - low) / (2 * NormalDist().inv_cdf(1 - self.quantile))
            # a column that is constant in float32 counts as constant
            noise = np.finfo(np.float32).eps * abs(center[f]) + np.finfo(np.float32).tiny
            scale[f] = next((s for s in (spread, x.std()) if s > noise), 1.0)
        if empty or not len(rows):
            raise DataError(
                f"robust scaler: {len(rows)} training rows, no finite value in {empty or 'any column'}; a scale "
                "needs data; drop the feature or load earlier bars"
            )
        codes = list(trait_classes(table.names))
        center[codes], scale[codes] = 0.0, 1.0
        state = {
            "center_": center.astype(np.float32),
            "scale_": scale.astype(np.float32),
            "names_": table.names,
        }
        return with_fitted(self, state)

    def apply(self, table: FeatureTable) -> FeatureTable:
        """clip((x - center_) / scale_) in float32.

        Raises DataError when the columns are not the fitted ones.
        """
        names = fitted(self, "names_")
        if table.names != names:
            raise DataError(
                f"robust scaler: fitted on {list(names)}, applied to {list(table.names)}; the columns must "
                "be the same in the same order; select them first"
            )
        scaled = table.values - self.center_
        scaled /= self.scale_
        np.clip(scaled, np.float32(-self.clip), np.float32(self.clip), out=scaled)
        codes = list(trait_classes(names))
        scaled[:, codes] = table.values[:, codes]
        return table.with_values(scaled)

    def to_json(self) -> Json:
        """A JSON value that `from_json` turns back into the same numbers."""
        return {
            "clip": self.clip,
            "quantile": self.quantile,
            "names": list(fitted(self, "names_")),
            "center": fitted(self, "center_").tolist(),
            "scale": fitted(self, "scale_").tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted scaler that `to_json` wrote."""
        state = {
            "names_": tuple(value["names"]),
            "center_": np.asarray(value["center"], dtype=np.float32),
            "scale_": np.asarray(value["scale"], dtype=np.float32),
        }
        return with_fitted(cls(clip=value["clip"], quantile=value["quantile"]), state)
