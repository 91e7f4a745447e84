"""The names of the two skill measures, and the reader of the headline skill.

skill_beyond_level (defined in `evidence.skill`) is the headline in verdicts, sweeps, comparisons and the journal.
skill_over_base_rate, relative to a constant forecast of the training rates, is shown next to it.
"""

from collections.abc import Mapping
from typing import Any, Final, TypedDict, cast

HEADLINE: Final = "skill_beyond_level"
OVER_BASE_RATE: Final = "skill_over_base_rate"
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
