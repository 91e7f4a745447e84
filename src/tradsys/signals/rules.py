"""Decision rules that turn probabilities into sides: pure functions; NaN is never a signal."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tradsys.core.errors import DataError, TradsysError
from tradsys.core.tables import Array

KINDS = ("score", "probability", "quantile")


@dataclass(frozen=True)
class Threshold:
    """A decision level for scores, with the unit it is stated in.

    kind `score`: raw model output, any finite value. `probability`: calibrated, 0 < value < 1. `quantile`:
    of the validation scores, 0 < value < 1, never of the test span. Raises TradsysError for anything else.
    """

    value: float
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TradsysError(f"threshold: kind {self.kind!r}; it is one of {list(KINDS)}; pick one (levels=)")
        if not np.isfinite(self.value) or (self.kind != "score" and not 0 < self.value < 1):
            rule = "a finite number" if self.kind == "score" else "0 < value < 1"
            raise TradsysError(
                f"threshold: value {self.value} of kind {self.kind!r}; the rule is {rule}; set rule.value"
            )

    def resolve(self, valid_scores: Array) -> float:
        """The level in the unit of the scores.

        A quantile is computed from the validation scores [N] without NaN. Raises DataError for a quantile that leaves
        none of the validation scores above it.
        """
        if self.kind != "quantile":
            return self.value
        known = valid_scores[np.isfinite(valid_scores)]
        if round(len(known) * (1 - self.value), 9) < 1:
            raise DataError(
                f"threshold: quantile {self.value} of {len(known)} validation scores; at least one must lie "
                f"above it, n * (1 - value) >= 1; validate on more rows or lower the quantile"
            )
        return float(np.quantile(known, self.value))


def above(proba: Array, threshold: ArrayLike) -> Array:
    """int8 [N]: 1 where proba >= threshold (a number, or one per row), else 0.

    NaN on either side is 0.
    """
    return (np.asarray(proba) >= threshold).astype(np.int8)


def break_even_probability(
    take_profit: ArrayLike, stop_loss: ArrayLike, price: ArrayLike, round_trip: ArrayLike
) -> Array:
    """Probability [N] of the profit barrier at which a trade breaks even.

    (stop + c price) / (take + stop). take_profit, stop_loss: distances in price units, > 0. price: of the entry.
    round_trip: costs c of both sides as a fraction of the notional, one or [N]. A result above 1: no probability is
    enough. NaN in, NaN out. Source: p take - (1 - p) stop - c price = 0 solved for p; a timeout is assumed to end at no
    gain and no loss.
    """
    take, stop = np.asarray(take_profit, dtype=np.float64), np.asarray(stop_loss, dtype=np.float64)
    return (stop + np.asarray(round_trip) * np.asarray(price)) / (take + stop)
