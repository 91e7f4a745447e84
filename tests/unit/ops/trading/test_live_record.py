"""The bot's daily record against bounds that hold at all times at once."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tradsys.evidence.sequential import followed
from tradsys.ops.trading.summary import live_record, predicted_band
from tradsys.portfolio.ledger import EQUITY_SCHEMA, OPEN_SCHEMA, TRADES_SCHEMA, Ledger
from tradsys.reports.trading.charts import live_record as draw


def lived(returns, bars_a_day=4):
    """A state whose equity moves within days but ends each at the given returns, the last day unfinished."""
    daily = 1000 * np.cumprod(1 + np.asarray(returns))
    start = datetime(2024, 1, 1, 3, tzinfo=UTC)
    times = [start + timedelta(days=k, hours=5 * j) for k in range(len(daily)) for j in range(bars_a_day)]
    equity = [float(v) * (1 if j == bars_a_day - 1 else 0.9) for v in daily for j in range(bars_a_day)]
    return SimpleNamespace(times=[*times, start + timedelta(days=len(daily))], equity=[*equity, 7.0], capital=1000.0)


def test_days_are_closed_days_and_bounds_those_of_the_sequence():
    returns = np.random.default_rng(0).normal(0.001, 0.01, 100)
    live = live_record(lived(returns), np.array([0.032, -0.03]))
    mean, low, high = followed(returns, expected_deviation=0.062 / np.sqrt(2))
    assert live["date"][0] == "2024-02-29", "bounds begin on the 60th day"
    assert len(live["date"]) == 41
    for name, values in (("mean", mean), ("low", low), ("high", high)):
        np.testing.assert_allclose(live[name], values[59:])
    assert live["expected"] == pytest.approx(0.001)
    assert live["text"].startswith("100 live days")
    assert len(draw(live).data) == 3


def test_a_day_is_the_backtests_day_which_its_bar_at_midnight_ends():
    """Eight bars a day, the last at midnight: what it earned belongs to the day before, as in the backtest."""
    rng, n = np.random.default_rng(1), 8 * 70
    start = datetime(2024, 1, 1, 3, tzinfo=UTC)
    times, equity = [start + timedelta(hours=3 * k) for k in range(n)], np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    record = pl.DataFrame({"time": times, "equity": equity, "exposure": 1.0}).cast(EQUITY_SCHEMA)
    nothing = pl.DataFrame(schema=TRADES_SCHEMA), record, pl.DataFrame(schema=OPEN_SCHEMA)
    days, returns = Ledger(*nothing, n_cancelled=0).daily_returns()
    live = live_record(SimpleNamespace(times=times, equity=equity.tolist(), capital=1.0), None)
    mean, _, _ = followed(returns[:-1])
    assert live["date"] == [str(day) for day in days[59:-1]]
    np.testing.assert_allclose(live["mean"], mean[59:])


def test_the_band_of_a_record_of_shares_grows_by_trading_days():
    """Three weeks of weekdays hold as much risk as fifteen days of the backtest, not as 19 of the calendar."""
    returns = np.random.default_rng(2).normal(0, 0.01, 250)
    weekdays = [
        day for day in (datetime(2024, 1, 1, 15, tzinfo=UTC) + timedelta(k) for k in range(19)) if day.weekday() < 5
    ]
    times = [day + timedelta(hours=hour) for day in weekdays for hour in range(6)]
    moments, low, high = predicted_band(times, returns)
    assert moments == [times[0].isoformat(), *(time.isoformat() for time in times[5::6])]
    assert len(low) == len(high) == 16
    assert np.log(high[-1] / low[-1]) / 2 == pytest.approx(1.645 * returns.std() * np.sqrt(15), rel=0.1)
    assert len(predicted_band(times, returns[:7])[0]) == 8


@pytest.mark.parametrize("dust", [0.0, 2e-16])
def test_a_bot_that_has_not_traded_has_no_bounds(dust):
    live = live_record(lived([dust, *[0.0] * 89], bars_a_day=1), None)
    assert live["text"] == "90 live days without a return: it has not traded, so nothing is measured"
    assert live["date"] == []
    assert live_record(lived([0.0] * 90, bars_a_day=1), np.array([0.01, -0.01]))["date"] != []


def test_a_ruined_bot_earns_nothing_from_then_on():
    returns = [0.01, -0.02] * 35 + [-1.0] + [0.0] * 20
    live = live_record(lived(returns, bars_a_day=1), None)
    assert np.isfinite(live["mean"] + live["low"] + live["high"]).all()
    assert live["text"].startswith("91 live days, mean ")


def test_a_young_bot_says_when_bounds_begin():
    live = live_record(lived([0.01, 0.02]), None)
    assert (live["date"], live["expected"]) == ([], None)
    assert live["text"] == "2 live days; bounds on the mean begin at 60, after 58 more"
