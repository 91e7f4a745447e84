"""Ratios and tails against their formulas by hand and against quantstats."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tradsys.core.errors import DataError
from tradsys.evidence.performance import performance
from tradsys.evidence.track_record.risk import risk_statistics


@pytest.fixture
def returns_T():
    return stats.t.rvs(4, size=800, random_state=np.random.default_rng(0)) * 0.01 + 0.001


def measured(returns, **changes):
    given = {"periods_per_year": 252, "cagr": 0.1, "max_drawdown": 0.2} | changes
    return risk_statistics(np.asarray(returns, dtype=float), **given)


def test_by_hand():
    found = measured([0.02, -0.01, 0.03, -0.02], periods_per_year=4, exposure_T=np.array([1, -1, 0.5, 0]))
    assert found["sortino"].value == pytest.approx(2 * 0.005 / np.sqrt((0.01**2 + 0.02**2) / 4))
    assert found["omega"].value == pytest.approx(0.05 / 0.03)
    assert found["calmar"].value == pytest.approx(0.5)
    assert found["value_at_risk"].value == pytest.approx(-0.02 + 0.15 * 0.01)
    assert found["exposure_adjusted_return"].value == pytest.approx(4 * 0.005 / 0.625)


def test_equals_quantstats(returns_T):
    quantstats = pytest.importorskip("quantstats", reason="quantstats is not installed")
    series = pd.Series(returns_T, index=pd.date_range("2020-01-01", periods=len(returns_T)))
    found = measured(returns_T)
    assert found["sortino"].value == pytest.approx(quantstats.stats.sortino(series, periods=252))
    assert found["omega"].value == pytest.approx(quantstats.stats.omega(series, periods=252))
    assert found["tail_ratio"].value == pytest.approx(quantstats.stats.tail_ratio(series))
    below = returns_T <= np.quantile(returns_T, 0.05)
    assert found["cvar"].value == pytest.approx(returns_T[below].mean(), rel=0.01)


def test_intervals_hold_their_value(returns_T):
    found = measured(returns_T, exposure_T=np.ones(len(returns_T)))
    for name in ("sortino", "omega", "tail_ratio", "value_at_risk", "cvar", "exposure_adjusted_return"):
        assert found[name].low < found[name].value < found[name].high, name
    assert found["calmar"].low is None
    assert "one path" in found["calmar"].reason


@pytest.mark.parametrize(
    ("returns", "changes", "name", "why"),
    [
        (np.full(400, 0.01), {}, "sortino", "no downside"),
        (np.full(400, 0.01), {}, "omega", "no loss"),
        (np.full(400, 0.01), {}, "tail_ratio", "tails is empty"),
        (np.zeros(400), {"exposure_T": np.zeros(400)}, "exposure_adjusted_return", "no exposure"),
        (np.zeros(400), {}, "exposure_adjusted_return", "not recorded"),
        (np.zeros(400), {"max_drawdown": 0.0}, "calmar", "no drawdown"),
        (np.zeros(400), {"cagr": None}, "calmar", "under one year"),
        (np.full(60, 0.01), {"cagr": None, "exposure_T": np.ones(60)}, "exposure_adjusted_return", "under one year"),
    ],
)
def test_what_has_nothing_to_divide_by_says_so(returns, changes, name, why):
    found = measured(returns, **changes)[name]
    assert found.value is None
    assert why in found.reason


def test_short_records_have_values_without_intervals():
    found = measured(np.random.default_rng(0).normal(0, 0.01, 60), too_little="too little")
    assert found["sortino"].reason == found["value_at_risk"].reason == "too little"
    few = measured(np.random.default_rng(0).normal(0, 0.01, 60))["value_at_risk"]
    assert few.low is None
    assert "3 of 60 returns lie in the tail" in few.reason


def test_a_report_carries_them(returns_T):
    found = performance(returns_T, periods_per_year=252, trade_returns=np.ones(40))
    assert found["omega"]["low"] < found["omega"]["value"]
    assert found["exposure_adjusted_return"]["reason"] == "exposure was not recorded"


def test_refuses_what_does_not_fit(returns_T):
    with pytest.raises(DataError, match="each"):
        measured(returns_T, exposure_T=np.ones(3))
    with pytest.raises(DataError, match="not finite"):
        measured(np.r_[np.nan, returns_T])


def test_gains_over_losses_have_no_bound_below_zero():
    """One large gain in a hundred days: Student's interval alone reaches below zero, where omega cannot lie."""
    returns = np.where(np.arange(100) == 50, 0.3, np.random.default_rng(0).normal(-0.002, 1e-3, 100))
    found = risk_statistics(returns, periods_per_year=365, cagr=0.0, max_drawdown=0.1)["omega"]
    assert found.low == 0.0
    assert found.high > found.value > 0
