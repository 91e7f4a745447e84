import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.evidence.deflation import Deflation, deflated_sharpe, deflation, deflation_of_returns
from tradsys.evidence.performance import performance
from tradsys.evidence.sharpe import (
    deflated_sharpe_ratio,
    expected_max_sharpe,
    min_track_record_length,
    sharpe_ratio,
    trial_variance,
)
from tradsys.evidence.trials import independent_trials, shared_correlation


@pytest.fixture
def days():
    return np.datetime64("2021-01-01") + np.arange(500)


def variants(n_trials, correlation, seed=0, n_periods=500):
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(n_periods, 1)), rng.normal(size=(n_periods, n_trials))
    return 0.01 * (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)


def test_each_count_is_paired_with_its_own_variance_and_the_larger_luck_holds():
    raw, single = expected_max_sharpe(50, 0.0004), expected_max_sharpe(8.5, 1 / 499)
    assert Deflation(50, 0.0004, 8.5).luck(500) == max(raw, single) == single
    assert Deflation(50, 0.01, 8.5).luck(500) == expected_max_sharpe(50, 0.01)
    assert Deflation(50, 0.0004).luck(500) == raw


def test_correlation_is_discounted_once(days):
    returns = variants(50, 0.9)
    found = deflation_of_returns([days] * 50, list(returns.T))
    sharpes = sharpe_ratio(returns)
    twice = expected_max_sharpe(found.n_effective, trial_variance(sharpes))
    assert found.n_trials == 50
    assert found.n_effective == independent_trials(shared_correlation([days] * 50, list(returns.T))) < 15
    assert found.luck(500) > 1.4 * twice


def test_copies_of_one_trial_have_no_luck(days):
    one = variants(1, 0)[:, 0]
    assert deflation_of_returns([days] * 5, [one] * 5).luck(500) == pytest.approx(0, abs=1e-9)


def test_series_that_never_traded_are_no_trials(days):
    moving = list(variants(4, 0.2).T)
    idle = [np.zeros(500), np.full(500, 1e-16)]
    assert deflation_of_returns([days] * 6, moving + idle) == deflation_of_returns([days] * 4, moving)
    assert deflation_of_returns([days], [np.zeros(500)]).luck(500) == 0
    assert deflation(np.array([]), 0) == Deflation(n_effective=1.0)


def test_all_deflated_figures_read_the_same_luck(days):
    returns = variants(20, 0.5) + 0.001
    trials = deflation_of_returns([days] * 20, list(returns.T))
    luck, best = trials.luck(500), returns[:, 0]
    found = performance(best, periods_per_year=365, trade_returns=np.ones(40), **trials.as_dict())
    assert found["expected_max_sharpe"] == pytest.approx(luck * np.sqrt(365))
    assert found["dsr"] == deflated_sharpe(best, trials)
    assert found["min_track_record_periods"] == pytest.approx(min_track_record_length(best, luck))
    assert deflated_sharpe(best, Deflation(20, trials.sharpe_variance)) == deflated_sharpe_ratio(
        best, 20, trials.sharpe_variance
    )


@pytest.mark.parametrize("n_effective", [0.5, 6.0, np.nan])
def test_refuses_an_effective_number_outside_the_count(n_effective):
    with pytest.raises(DataError, match="must lie in"):
        Deflation(5, 0.1, n_effective)
