"""A bot's page: figures of one form, and a replay that is called one."""

import pytest

from tests.unit.reports.sample_pages import trading
from tradsys.reports.trading.page import render, shown


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.0267, "net_return", "+2.67 %"), (-0.5, "gain", "-50.00 %"), (0.5631, "probability", "0.563"),
        (11708, "", "11,708"), (True, "", "True"), ("take_profit", "reason", "take profit"),
        (25663.2, "entry", "25663.2"), (None, "gain", ""),
    ],
)  # fmt: skip
def test_a_value_has_the_form_of_its_column(value, name, text):
    assert shown(value, name) == text


def test_a_replay_is_no_live_record():
    live, replayed = trading(), trading()
    replayed.settings["mode"], replayed.watch = "replay", []
    page = render(replayed)
    assert "Record of the replay" in page
    assert "adds no evidence" in page
    assert "not yet done" not in page
    assert "Live record" in render(live)
