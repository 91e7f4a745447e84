"""The win rate: Wilson's interval where trades were never open together, their effective number where they were."""

import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.evidence.multiple_testing import wilson_interval
from tradsys.evidence.performance import performance
from tradsys.evidence.track_record.win_rate import decisions_within_a_trade, win_rate

HOUR = np.timedelta64(1, "h")


def spans_of(start, hours):
    at = np.datetime64("2024-01-01", "us") + np.asarray(start) * HOUR
    return at, at + np.asarray(hours) * HOUR


def test_trades_one_after_the_other_have_wilsons_interval():
    """A trade decided at the close at which another exits does not overlap it."""
    net = np.random.default_rng(0).normal(size=60)
    spans = spans_of(np.arange(60) * 5, np.full(60, 5))
    assert decisions_within_a_trade(60, spans) == 0
    found = win_rate(net, spans)
    assert (found.low, found.high) == wilson_interval(int((net > 0).sum()), 60)
    assert win_rate(net) == found


def test_seven_copies_of_a_trade_are_one_trade():
    once = np.random.default_rng(1).normal(size=400)
    start = np.arange(400) * 30
    alone, copied = win_rate(once), win_rate(np.repeat(once, 7), spans_of(np.repeat(start, 7), np.full(2800, 5)))
    assert copied.value == alone.value
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.2)
    assert win_rate(np.repeat(once, 7)).high - win_rate(np.repeat(once, 7)).low < 0.45 * (alone.high - alone.low)


def test_a_trade_spans_the_decisions_until_its_exit():
    """Decisions at 0, 0, 2 and 9; exits at 4, 4, 6 and 11: the first two span two of them, the others one."""
    assert decisions_within_a_trade(4, spans_of([0, 0, 2, 9], [4, 4, 4, 2])) == pytest.approx(6 / 4)


@pytest.mark.parametrize("net", [[], [0.1], [0.1] * 40, [-0.1] * 40, [0.0] * 40])
def test_counts_of_every_kind_have_bounds_within_0_and_1(net):
    found = win_rate(np.array(net), spans_of(np.zeros(len(net), int), np.ones(len(net), int)))
    if not net:
        assert (found.value, found.reason) == (None, "no trade was closed")
        return
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.5  # forty trades of one hour are one, and one shows next to nothing


def test_spans_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"exits \(1,\) of 2 trades"):
        win_rate(np.ones(2), spans_of([0], [1]))
    with pytest.raises(DataError, match="no exit before its decision"):
        win_rate(np.ones(1), spans_of([0], [-1]))


def test_a_record_of_several_symbols_shows_the_wider_interval():
    rng = np.random.default_rng(2)
    net = np.repeat(rng.normal(size=80), 5)
    spans = spans_of(np.repeat(np.arange(80) * 24, 5), np.full(400, 12))
    given = {"periods_per_year": 365, "trade_returns": net}
    plain = performance(rng.normal(0, 0.01, 400), **given)["win_rate"]
    known = performance(rng.normal(0, 0.01, 400), trade_spans=spans, **given)["win_rate"]
    assert known["value"] == plain["value"]
    assert known["high"] - known["low"] > 1.8 * (plain["high"] - plain["low"])
