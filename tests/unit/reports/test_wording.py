import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.reports import wording


def estimate(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "reason": None}


def test_numbers_and_shares():
    assert wording.number(1.23456, 2) == "1.23"
    assert wording.number(None, 2) == "n/a"
    assert wording.percent(-0.01234) == "-1.2 %"
    assert wording.percent(None) == "n/a"
    assert wording.count(1234567) == "1,234,567"
    assert [wording.counted(n, "trade") for n in (0, 1, 1200)] == ["0 trades", "1 trade", "1,200 trades"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (estimate(None), "n/a"),
        (estimate(0.5), "0.50"),
        (estimate(0.5, 0.25, 0.75), "0.50 [0.25, 0.75]"),
        (estimate(0.0, 0.0, 0.0), "0.00 [0.00, 0.00]"),
    ],
)
def test_interval(given, said):
    assert wording.interval(given, 2) == said


def test_a_probability_just_below_the_bar_does_not_read_as_having_met_it():
    assert wording.confidence(0.9499) == "0.949"
    assert wording.confidence(0.99999) == "0.999"
    assert wording.confidence(0.95) == "0.950"
    assert wording.confidence(1.0) == "1.000"
    assert wording.confidence(None) == "n/a"


@given(st.floats(0, 1))
def test_a_probability_is_never_rounded_up(value):
    said = float(wording.confidence(value))
    assert said <= value + 1e-9
    assert value - said <= 1e-3


def test_moments_are_utc():
    assert wording.moment("2024-03-01T12:00:00+02:00") == "2024-03-01 10:00 UTC"
    assert wording.moment("2024-03-01T12:00:00.123456Z") == "2024-03-01 12:00 UTC"
    assert wording.moment("2024-03-01") == "2024-03-01"
    assert wording.moment("store") == "store"


def test_long_lists_say_how_many_more():
    assert wording.listed(["a", "b"]) == "a, b"
    assert wording.listed(range(2000), most=2) == "0, 1 and 1,998 more"


def test_facts_of_a_card():
    assert wording.fact(None) == "not stated"
    assert wording.fact(True) == "yes"
    assert wording.fact({"upper": 1.5, "short": False}) == "upper 1.5, short no"
    assert wording.fact(["2024-03-01T12:00:00Z"]) == "2024-03-01 12:00 UTC"
    assert wording.fact(0.25) == "0.25"
