"""From probabilities to a side. Pure functions; NaN never signals. Legend: N decisions, M validation rows."""

from dataclasses import dataclass

import numpy as np

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array

KINDS = ("score", "probability", "quantile")


@dataclass(frozen=True)
class Threshold:
    """A level and what it is measured in: a raw score, a calibrated probability, or a quantile of validation scores.

    Raises TradsysError outside 0 < value < 1 or for another kind.
    """

    value: float
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TradsysError(f"threshold: kind {self.kind!r}; it is one of {list(KINDS)}; say which in the profile")
        if not 0 < self.value < 1:
            raise TradsysError(
                f"threshold: {self.kind} >= {self.value}; it lies in 0 < value < 1; mend the profile's rule.value"
            )

    def resolve(self, valid_scores: Array) -> float:
        """The level itself; a quantile is looked up in the validation scores [M]."""
        return float(np.quantile(valid_scores, self.value)) if self.kind == "quantile" else self.value


def above(proba_N: Array, threshold: float) -> Array:
    """int8 [N]: 1 where the probability reaches the threshold, else 0."""
    return (np.asarray(proba_N) >= threshold).astype(np.int8)


def break_even_probability(take_profit: Array, stop_loss: Array, price: Array, round_trip: float) -> Array:
    """P(profit barrier first) [N] at which a trade earns nothing: (stop + c price) / (profit + stop).

    take_profit, stop_loss: distances from entry in price units [N]. price [N]. round_trip: c, costs of both sides as a
    fraction. Timeouts are counted as stops, so the true bar lies a little lower. Above 1 no probability is enough.
    From p * profit - (1 - p) * stop - c * price = 0.
    """
    return (stop_loss + round_trip * price) / (take_profit + stop_loss)
