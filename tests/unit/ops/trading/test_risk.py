"""Limits of the bot: each breaks where it says, and not before."""

from datetime import UTC, datetime, timedelta

import pytest

from tradsys.core.errors import TradsysError
from tradsys.ops.trading.risk import Risk
from tradsys.ops.trading.state import State
from tradsys.serving.brokers import Account, Order

NOW = datetime(2024, 1, 2, 12, tzinfo=UTC)


def state_with(*equity, capital=100.0):
    """A state whose moments are hours before NOW and whose cash is the last equity."""
    state = State(settings={"capital": capital})
    state.accounts = {"AAA": Account("AAA", equity[-1], capital)}
    state.moment = NOW
    state.times = [NOW - timedelta(hours=6 * (len(equity) - 1 - k)) for k in range(len(equity))]
    state.equity = list(equity)
    state.peak = max(equity)
    return state


@pytest.mark.parametrize(("now", "broken"), [(95.1, None), (94.9, "daily_loss")])
def test_daily_loss_counts_from_the_day_before(now, broken):
    # midnight of Jan 2 belongs to the day before: 100 then
    found = Risk(max_drawdown=None, max_daily_loss=0.05).breach(state_with(50.0, 100.0, 99.0, now))
    assert (found[0] if found else None) == broken


@pytest.mark.parametrize(("now", "broken"), [(161.0, None), (159.0, "drawdown")])
def test_drawdown_counts_from_the_highest_equity(now, broken):
    found = Risk(max_drawdown=0.2, max_daily_loss=None).breach(state_with(200.0, 170.0, now))
    assert (found[0] if found else None) == broken


def test_orders_within_an_hour_are_counted():
    state = state_with(100.0)
    state.sent.extend([NOW - timedelta(minutes=m) for m in (70, 50, 10)])
    assert Risk(max_orders_per_hour=3).too_many_orders(state, NOW) is None
    assert Risk(max_orders_per_hour=2).too_many_orders(state, NOW)[0] == "orders"


def test_size_is_cut_to_what_the_exposure_leaves():
    state = state_with(100.0)
    state.accounts["BBB"] = Account("BBB", 100.0, 100.0)
    state.accounts["BBB"].pending = Order("x", "BBB", "entry", 1, NOW, size=1.0)
    assert Risk(max_symbol_exposure=1.0, max_exposure=1.0).size_allowed(state, "AAA", 0.5) == 0.5
    assert Risk(max_symbol_exposure=0.1, max_exposure=1.0).size_allowed(state, "AAA", 0.5) == pytest.approx(0.2)
    assert Risk(max_symbol_exposure=1.0, max_exposure=0.5).size_allowed(state, "AAA", 0.5) == 0.0


@pytest.mark.parametrize("wrong", [{"max_drawdown": 0}, {"max_exposure": 1.5}, {"max_errors": 0}, {"model_band": "x"}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(TradsysError, match="risk: "):
        Risk(**wrong)
