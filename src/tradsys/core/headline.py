"""The names of the two skills, and the one place that reads the headline from a model's metrics.

skill_beyond_level is what headlines, verdicts, sweeps, comparisons and the journal read (`evidence.skill` defines it);
skill_over_base_rate, against always forecasting the training rates, stands beside it.
"""

from collections.abc import Mapping
from typing import Any, TypedDict, cast

HEADLINE = "skill_beyond_level"
OVER_BASE_RATE = "skill_over_base_rate"
UNMEASURED = "recorded before skill beyond the level was measured; train or backtest again"


class Interval(TypedDict):
    """A number with its bounds as reports hold it; None where it is not known."""

    value: float | None
    low: float | None
    high: float | None


class EstimateRow(Interval):
    """`evidence.bootstrap.Estimate` as reports hold it. reason: why something is None."""

    reason: str | None


class NamedValue(TypedDict):
    """A column and its number, such as its importance."""

    name: str
    value: float


def headline_skill(metrics: Mapping[str, Any]) -> EstimateRow:
    """The headline estimate {value, low, high, reason} in the metrics of one model.

    metrics: as `evidence.classification.evaluate` gives them, or the same read back from a card, metrics.json or
    report.json. Files written before the measure existed give an estimate without numbers, whose reason says so.
    """
    if isinstance(found := metrics.get(HEADLINE), Mapping):
        return cast("EstimateRow", dict(found))
    return {"value": None, "low": None, "high": None, "reason": UNMEASURED}
