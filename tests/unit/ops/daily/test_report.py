"""The daily report: which plan has weights, and the command that its page names."""

from types import SimpleNamespace

import pytest

from tradsys.ops.daily.report import has_weights
from tradsys.ops.daily.stages import DailySettings


def record(low, high):
    value = None if low is None else (low + high) / 2
    return {"metrics": {"skill_beyond_level": {"value": value, "low": low, "high": high, "reason": "few blocks"}}}


GOOD, BAD, UNKNOWN = record(0.01, 0.03), record(-0.02, 0.01), record(None, None)


@pytest.mark.parametrize(
    ("horizons", "ranked_by", "weighted"),
    [
        ({"1d": GOOD, "20d": GOOD}, "20d", True),
        ({"1d": BAD, "20d": BAD}, "20d", False),
        ({"1d": GOOD, "20d": BAD}, "20d", False),  # the day has skill, what ranks has none
        ({"1d": GOOD, "20d": BAD}, "1d", True),
        ({"1d": GOOD, "20d": UNKNOWN}, "20d", True),
        ({"1d": BAD, "20d": UNKNOWN}, "20d", False),
    ],
)
def test_a_horizon_that_is_shown_to_have_no_skill_gives_no_weights(horizons, ranked_by, weighted):
    assert has_weights(horizons, ranked_by) is weighted


def test_a_page_names_the_command_that_made_it_without_its_secrets():
    typed = ("data=synthetic_daily", "name=my plan", "date=2020-12-01", "paths.ledger=postgresql://me:hunter22@db/x")
    said = DailySettings.command(SimpleNamespace(overrides=typed), "run", "date=2020-12-22")
    assert said.startswith("python -m tradsys.daily run data=synthetic_daily 'name=my plan' ")
    assert said.endswith(" date=2020-12-22")
    assert "2020-12-01" not in said
    assert "hunter22" not in said
