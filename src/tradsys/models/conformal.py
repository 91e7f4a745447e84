"""Prediction intervals for an expected move without a distribution: split conformal prediction.

Legend: M calibration samples, N predictions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array
from tradsys.models.transforms import fitted, with_fitted

KINDS = ("symmetric", "asymmetric")


@dataclass(frozen=True, eq=False)
class SplitConformal:
    """Intervals around a prediction from its errors on later rows.

    An interval runs from predicted - low_ * scale to predicted + high_ * scale.
    alpha: share of outcomes that may lie outside, 0 < alpha < 1. kind `symmetric`: one margin, the conformal quantile
    of |actual - predicted| / scale at alpha. `asymmetric`: each side its own at alpha / 2, for moves that are skewed;
    wider where they are not. scale: divisor of an error, such as a point-in-time volatility, so that
    margins follow it; 1 for every row where none is given.
    The margin is the k-th smallest of M errors, k = ceil((M + 1)(1 - alpha)). If calibration and later rows were
    exchangeable, at least 1 - alpha of the later ones would lie inside, whatever the predictor. **They are not**: rows
    are ordered in time, moves cluster, markets change. So `fit` takes rows later than all training rows and earlier
    than any evaluated, and the coverage on the evaluated rows is measured (`coverage`) and reported.
    Overlapping labels also make M look larger than it is.
    Fitted: low_, high_, margins >= 0 in units of the scale (an asymmetric one may be negative, where the predictor
    misses to one side); n_ = M.
    Source: Vovk, Gammerman and Shafer 2005; Lei et al. 2018, algorithm 2 and theorem 2.2; section 5.2 (scaled).
    """

    alpha: float = 0.1
    kind: Literal["symmetric", "asymmetric"] = "asymmetric"
    low_: float | None = field(init=False, default=None)
    high_: float | None = field(init=False, default=None)
    n_: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or self.kind not in KINDS:
            raise TrainingError(
                f"conformal: alpha={self.alpha}, kind={self.kind!r}; alpha must lie in (0, 1) and the kind be "
                f"one of {KINDS}; set both"
            )

    def fit(self, predicted_M: Array, actual_M: Array, scale_M: Array | None = None) -> Self:
        """A copy with margins from the errors on calibration rows.

        No model was fitted on those. Raises DataError for numbers that are not finite, a scale that is not positive, or
        fewer rows than the quantile needs: ceil(1 / tail) - 1, tail being alpha, or alpha / 2 where each side has its
        own.
        """
        predicted, actual, scale = _checked_predictions(predicted_M, actual_M, scale_M)
        miss = (actual - predicted) / scale
        if self.kind == "symmetric":
            low = high = conformal_quantile(np.abs(miss), self.alpha)
        else:
            low, high = (conformal_quantile(side, self.alpha / 2) for side in (-miss, miss))
        return with_fitted(self, {"low_": low, "high_": high, "n_": len(miss)})

    def interval(self, predicted_N: Array, scale_N: Array | None = None) -> tuple[Array, Array]:
        """Lower and upper bound, float64 [N] each, in the unit of the prediction.

        NaN in, NaN out. scale_N: given where `fit` was given one, in the same unit.
        """
        predicted = np.asarray(predicted_N, dtype=np.float64)
        scale = np.ones(len(predicted)) if scale_N is None else np.asarray(scale_N, dtype=np.float64)
        if scale.shape != predicted.shape:
            raise DataError(
                f"conformal: predictions {predicted.shape}, scales {scale.shape}; every prediction needs one "
                "scale; align them first"
            )
        return predicted - fitted(self, "low_") * scale, predicted + fitted(self, "high_") * scale

    def to_json(self) -> Json:
        """A JSON value that `from_json` turns back into the same numbers."""
        state = {name.rstrip("_"): fitted(self, name) for name in ("low_", "high_", "n_")}
        return {"alpha": self.alpha, "kind": self.kind, **state}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted intervals that `to_json` wrote."""
        state = {"low_": float(value["low"]), "high_": float(value["high"]), "n_": int(value["n"])}
        return with_fitted(cls(alpha=value["alpha"], kind=value["kind"]), state)


def conformal_quantile(miss_M: Array, alpha: float) -> float:
    """The k-th smallest of M values, k = ceil((M + 1)(1 - alpha)).

    Raises DataError where k > M: the bound would be infinite. Source: Lei et al. 2018, algorithm 2; Vovk et al. 2005.
    """
    n = len(miss_M)
    # a product such as 20 * 0.95 must not be rounded up past an integer
    k = math.ceil(round((n + 1) * (1 - alpha), 9))
    if k > n:
        raise DataError(
            f"conformal: {n} calibration rows for a tail of {alpha:g}; ceil((M + 1)(1 - tail)) <= M needs at least "
            f"{math.ceil(round(1 / alpha, 9)) - 1}; calibrate on more rows or raise alpha"
        )
    return float(np.partition(np.asarray(miss_M, dtype=np.float64), k - 1)[k - 1])


def coverage(low_N: Array, high_N: Array, actual_N: Array) -> float:
    """Share of outcomes inside their closed interval.

    Rows where any of the three is NaN do not count. DataError where no row is left. On rows later than calibration it
    is the coverage that was really achieved.
    """
    low, high, actual = (np.asarray(a, dtype=np.float64) for a in (low_N, high_N, actual_N))
    if not low.shape == high.shape == actual.shape:
        raise DataError(
            f"conformal: bounds {low.shape}, {high.shape} for outcomes {actual.shape}; all three need one length; "
            "align them first"
        )
    known = ~np.isnan(low + high + actual)
    if not known.any():
        raise DataError(f"conformal: none of {len(actual)} rows has bounds and an outcome; use resolved labels")
    return float(((low <= actual) & (actual <= high))[known].mean())


def _checked_predictions(predicted_M: Array, actual_M: Array, scale_M: Array | None) -> tuple[Array, Array, Array]:
    predicted, actual = (np.asarray(a, dtype=np.float64) for a in (predicted_M, actual_M))
    scale = np.ones(predicted.shape) if scale_M is None else np.asarray(scale_M, dtype=np.float64)
    if not (predicted.shape == actual.shape == scale.shape and predicted.ndim == 1):
        raise DataError(
            f"conformal: predictions {predicted.shape}, outcomes {actual.shape}, scales {scale.shape}; vectors of one "
            "length; align them first"
        )
    bad = int((~np.isfinite(predicted + actual + scale)).sum()), int((scale <= 0).sum())
    if any(bad):
        raise DataError(
            f"conformal: {bad[0]} of {len(scale)} rows are not finite and {bad[1]} scales are not above 0; drop rows "
            "without an outcome first"
        )
    return predicted, actual, scale
