"""The names of the two skills, and the one place that reads the headline from a model's metrics.

skill_beyond_level is what headlines, verdicts, sweeps, comparisons and the journal read (`evidence.skill` defines it);
skill_over_base_rate, against always forecasting the training rates, stands beside it.
"""

from collections.abc import Mapping
from typing import Any

HEADLINE = "skill_beyond_level"
OVER_BASE_RATE = "skill_over_base_rate"
UNMEASURED = "recorded before skill beyond the level was measured; train or backtest again"


def headline_skill(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The headline estimate {value, low, high, reason} in the metrics of one model.

    metrics: as `evidence.classification.evaluate` gives them, or the same read back from a card, metrics.json or
    report.json. Files written before the measure existed give an estimate without numbers, whose reason says so.
    """
    if isinstance(found := metrics.get(HEADLINE), Mapping):
        return dict(found)
    return {"value": None, "low": None, "high": None, "reason": UNMEASURED}
