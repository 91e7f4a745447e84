"""The row of a strategy and its tear sheet: one drawdown, one number of days in a year."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tradsys.portfolio.ledger import EQUITY_SCHEMA, OPEN_SCHEMA, TRADES_SCHEMA, Ledger
from tradsys.research.pipeline.backtesting import _strategy_row, _tear_sheet
from tradsys.research.pipeline.settings import Evaluation

HOURS, YEARLY = 24 * 400, 244.85


def ledger_with_falls_within_days() -> Ledger:
    """Forty trades; every tenth day the account loses a third at noon, which is back at midnight."""
    time = [datetime(2022, 1, 1, 1, tzinfo=UTC) + timedelta(hours=k) for k in range(HOURS)]
    day, hour = np.divmod(np.arange(HOURS), 24)
    equity = np.exp(np.cumsum(np.random.default_rng(0).normal(2e-5, 1e-3, HOURS)))
    equity = np.where((day % 10 == 9) & (hour == 12), equity * 2 / 3, equity)
    record = pl.DataFrame({"time": time, "equity": equity, "exposure": np.ones(HOURS)}).cast(EQUITY_SCHEMA)
    trade = {name: 1.0 for name, kind in TRADES_SCHEMA.items() if kind == pl.Float64}
    trade |= {"symbol": "AAA", "side": 1, "reason": "timeout", "bars_held": 24, "spans_gap": False}
    moments = {"signal_time": 0, "entry_time": 1, "exit_time": 24}
    rows = [trade | {k: time[240 * n + at] for k, at in moments.items()} | {"net_return": 0.01} for n in range(40)]
    trades = pl.DataFrame(rows, schema=TRADES_SCHEMA)
    return Ledger(trades, record, pl.DataFrame(schema=OPEN_SCHEMA), 0)


@pytest.fixture(scope="module")
def row():
    trials = {"n_trials": 1, "sharpe_variance": 0.0, "n_effective": None}
    return _strategy_row(ledger_with_falls_within_days(), trials, Evaluation(), yearly=YEARLY)


def test_calmar_is_of_the_drawdown_beside_it(row):
    """Measured on bars: on the closes of days alone the fall is a tenth as deep and Calmar many times better."""
    assert row["max_drawdown"] > 0.33
    assert row["calmar"]["value"] == pytest.approx(row["cagr"] / row["max_drawdown"])


@pytest.mark.parametrize(("least", "known"), [(5, True), (40, True), (41, False)])
def test_trades_too_few_to_decide_give_no_probability(least, known):
    """Forty trades; the threshold of the verdict is that of the row, where it is above 30."""
    trials = {"n_trials": 1, "sharpe_variance": 0.0, "n_effective": None}
    found = _strategy_row(ledger_with_falls_within_days(), trials, Evaluation(min_trades=least), yearly=YEARLY)
    assert (found["psr"] is not None, found["calmar"]["value"] is not None) == (known, known)


def test_the_tear_sheet_has_the_year_of_the_row(row):
    """The exchange's own number of sessions, not one measured anew from the days: 365 here, 252 of a short record."""
    ledger = ledger_with_falls_within_days()
    bars = ledger.equity.select("time", symbol=pl.lit("AAA"), close=pl.lit(1.0))
    found = _tear_sheet({"one": ledger}, bars, None, Evaluation(), YEARLY)["strategies"]["one"]["rolling"]
    daily = ledger.daily_returns()[1][-found["window"] :]
    assert found["volatility"]["value"][-1] == pytest.approx(daily.std(ddof=1) * np.sqrt(YEARLY), rel=1e-4)
    assert row["periods_per_year"] == YEARLY
