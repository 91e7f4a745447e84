import json

import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.evidence.performance import performance
from tradsys.evidence.sharpe import (
    deflated_sharpe_ratio,
    expected_max_sharpe,
    min_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_ratio,
)
from tradsys.evidence.track_record.drawdowns import drawdown_span, equity_curve
from tradsys.evidence.track_record.tear_sheet import drawdown_episodes


@pytest.fixture
def returns_T():
    return np.random.default_rng(0).normal(0.002, 0.01, 730)


MANY = (0.01, -0.02, 0.03) * 10  # as many trades as a probability needs


def judged(returns, trades=MANY, **changes):
    given = {"periods_per_year": 365, "trade_returns": np.array(trades)} | changes
    return performance(np.asarray(returns, dtype=float), **given)


def test_growth_by_hand():
    found = judged(np.tile([0.1, -0.1], 2), periods_per_year=2)
    assert found["total_return"] == pytest.approx(0.99**2 - 1)
    assert found["cagr"] == pytest.approx(0.99 - 1)
    assert found["years"] == 2


def test_less_than_a_year_is_not_annualised_into_growth():
    found = judged(np.tile([0.1, -0.05], 20))
    assert found["cagr"] is None
    assert "0.11 years" in found["reasons"]["cagr"]


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([-0.5, 0.1, 0.1], (0.5, 3, False)),  # a first-bar loss counts: the equity starts at 1
        ([-0.5, 1.0, 0.1], (0.5, 2, True)),
        ([0.1, 0.1], (0.0, 0, True)),
        ([0.2, -0.1, -0.1, 0.5, -0.05], (0.19, 3, True)),
        ([0.5, -1.2, 0.5], (1.0, 2, False)),  # nothing is left after a loss of all
        ([0.1, 0.0, 0.0, -0.1, 0.2], (0.1, 2, True)),  # it falls from the last day at the peak, after a time in cash
    ],
)
def test_drawdown_by_hand(returns, expected):
    depth, peak, end, recovered = drawdown_span(np.array(returns))
    assert depth == pytest.approx(expected[0])
    assert (end - peak, recovered) == expected[1:]


def test_drawdown_equals_a_walk(returns_T):
    equity, peak, deepest = 1.0, 1.0, 0.0
    for r in returns_T:
        equity *= 1 + r
        peak = max(peak, equity)
        deepest = max(deepest, 1 - equity / peak)
    found = judged(returns_T)
    assert found["max_drawdown"] == pytest.approx(deepest, rel=1e-12)
    assert found["drawdown_days"] == pytest.approx(found["drawdown_periods"] * 365.25 / 365)


def test_the_longest_fall_of_the_tear_sheet_is_the_one_of_the_table(returns_T):
    """Both are one rule, also where the account rests at its peak: days in cash are no days of a fall."""
    days_T = np.datetime64("2021-01-01") + np.arange(len(returns_T))
    for returns in (returns_T, np.where(np.arange(len(returns_T)) % 3 == 0, 0.0, returns_T)):
        found, deepest = judged(returns, days_T=days_T), drawdown_episodes(days_T, returns)[0]
        assert found["drawdown_days"] == deepest["days"]
        assert found["max_drawdown"] == deepest["depth"]


def test_calmar_divides_by_the_drawdown_that_is_shown(returns_T):
    """A fall within the days, of an account whose returns are known by day alone."""
    within = {"max_drawdown": 0.4, "drawdown_periods": 3.0, "drawdown_days": 3.0, "drawdown_recovered": True}
    found = judged(returns_T, drawdown=within)
    assert {name: found[name] for name in within} == within
    assert found["calmar"]["value"] == pytest.approx(found["cagr"] / 0.4)
    assert judged(returns_T)["calmar"]["value"] > 2 * found["calmar"]["value"]


def test_equity_of_a_ruined_account_stays_at_zero():
    assert equity_curve(np.array([-1.5, 3.0])).tolist() == [1, 0, 0]
    assert judged([0.1, -1.0, 0.2, 0.3])["reasons"]["total_return"] == "the account lost all it had"


def test_sharpe_and_its_worth(returns_T):
    found = judged(returns_T, n_trials=20, sharpe_variance=0.001)
    plain = sharpe_ratio(returns_T)
    assert found["sharpe_per_period"] == plain
    assert found["sharpe"]["value"] == pytest.approx(plain * np.sqrt(365))
    assert found["sharpe"]["low"] < found["sharpe"]["value"] < found["sharpe"]["high"]
    assert found["psr"] == probabilistic_sharpe_ratio(returns_T)
    assert found["dsr"] == deflated_sharpe_ratio(returns_T, 20, 0.001)
    luck = expected_max_sharpe(20, 0.001)
    assert found["expected_max_sharpe"] == pytest.approx(luck * np.sqrt(365))
    assert found["min_track_record_periods"] == pytest.approx(min_track_record_length(returns_T, luck))
    assert found["min_track_record_years"] == pytest.approx(found["min_track_record_periods"] / 365)


def test_deflation_by_draws_agrees_with_the_formula_on_independent_returns(returns_T):
    found = judged(returns_T, n_trials=20, sharpe_variance=0.008)
    assert 0.05 < found["dsr"] < 0.95
    assert found["dsr_bootstrap"] == pytest.approx(found["dsr"], abs=0.05)


def test_autocorrelated_returns_widen_the_sharpe_interval():
    noise = np.random.default_rng(1).normal(0, 0.01, 1209)
    smooth = np.convolve(noise, np.ones(10) / np.sqrt(10), mode="valid") + 0.001
    steady = np.random.default_rng(2).permutation(smooth)
    width = [judged(r)["sharpe"]["high"] - judged(r)["sharpe"]["low"] for r in (smooth, steady)]
    assert width[0] > 2 * width[1]


def test_within_luck_no_record_is_long_enough(returns_T):
    found = judged(returns_T, n_trials=1000, sharpe_variance=1.0)
    assert found["min_track_record_periods"] is found["min_track_record_years"] is None
    assert "no record is long enough" in found["reasons"]["min_track_record_periods"]


def test_three_trades_in_800_days_have_a_sentence_instead_of_a_probability():
    returns, won = np.zeros(800), (0.02, 0.03, 0.025)
    returns[[100, 300, 500]] = won
    found = judged(returns, trades=won)
    inferred = ("psr", "dsr", "dsr_bootstrap", "min_track_record_periods", "min_track_record_years")
    assert [found[name] for name in inferred] == [None] * 5
    assert all("3 closed trades; a probability needs at least 30" in found["reasons"][name] for name in inferred)
    assert found["sharpe"]["value"] is None
    assert found["sharpe"]["low"] is None
    assert "3 of 800 periods have a return" in found["sharpe"]["reason"]


def test_what_is_held_throughout_needs_days_not_trades(returns_T):
    held = judged(returns_T, trades=(), min_trades=0)
    assert held["psr"] is not None
    assert held["sharpe"]["low"] is not None
    short = judged(np.r_[np.zeros(700), returns_T[:29]], trades=(), min_trades=0)
    assert "29 of 729 periods have a return" in short["reasons"]["psr"]


@pytest.mark.parametrize("k", [3, 7, 11])
def test_dust_of_split_cash_is_no_return(k):
    # cash split into k shares and added up again leaves rounding errors of one unit in the last place
    rng = np.random.default_rng(k)
    equity = np.array([sum([total / k] * k) / total for total in rng.uniform(0.5, 2, 400)])
    dust = np.diff(equity)
    assert dust.std() > 0
    found = judged(dust, trades=())
    assert found["sharpe"]["value"] is found["dsr"] is None
    assert "never traded" in found["sharpe"]["reason"]


def test_a_strategy_that_never_traded_has_reasons_and_no_nan():
    found = judged(np.zeros(400), trades=())
    assert found["sharpe"]["value"] is found["psr"] is found["dsr"] is found["profit_factor"] is None
    assert "never traded" in found["sharpe"]["reason"]
    assert found["win_rate"]["reason"] == "no trade was closed"
    assert (found["total_return"], found["max_drawdown"], found["n_trades"]) == (0, 0, 0)
    json.dumps(found, allow_nan=False)


def test_trades_by_hand():
    found = judged(np.zeros(5), trades=(0.02, -0.01, 0.0, 0.04), n_open_trades=1)
    assert found["win_rate"]["value"] == 0.5
    assert (found["win_rate"]["low"], found["win_rate"]["high"]) == pytest.approx((0.15, 0.85), abs=0.001)
    assert found["profit_factor"] == pytest.approx(6)
    assert found["mean_trade"] == pytest.approx(0.0125)
    assert (found["n_trades"], found["n_open_trades"]) == (4, 1)


def test_three_wins_have_a_wide_interval_and_no_infinite_factor():
    found = judged(np.zeros(5), trades=(0.01, 0.02, 0.03))
    assert found["win_rate"]["value"] == 1
    assert found["win_rate"]["low"] < 0.45
    assert found["profit_factor"] is None
    assert "none of the 3" in found["reasons"]["profit_factor"]


def test_activity_by_hand():
    arrays = {
        "exposure_T": [0, 1, -0.5, 0],
        "turnover_T": [0, 1, 1.5, 0.5],
        "costs_T": [0, 0.001, 0.0015, 0.0005],
    }
    found = judged(np.zeros(4), periods_per_year=2, **{k: np.array(v) for k, v in arrays.items()})
    assert (found["exposure"], found["time_in_market"]) == (0.375, 0.5)
    assert found["turnover_per_year"] == 1.5
    assert found["costs_paid"] == pytest.approx(0.003)


@pytest.mark.parametrize("n_periods", [1, 2, 3, 30])
def test_short_records_are_json_too(n_periods):
    found = judged(np.linspace(-0.01, 0.02, n_periods))
    json.dumps(found, allow_nan=False)
    missing = {k for k, v in found.items() if v is None}
    assert missing <= set(found["reasons"]) | {"volatility", "block_length", "n_effective"}


def test_same_returns_same_numbers(returns_T):
    assert judged(returns_T) == judged(returns_T)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"returns": [0.1, np.nan]}, "not finite"),
        ({"returns": [[0.1], [0.2]]}, r"give \[T\]"),
        ({"returns": []}, "0 periods"),
        ({"periods_per_year": 0}, "rate > 0"),
        ({"trades": [0.1, np.nan]}, "1 not finite"),
        ({"costs_T": np.zeros(3)}, "costs"),
        ({"exposure_T": np.array([0.1, np.nan])}, "exposure"),
    ],
)
def test_refuses(changes, said):
    with pytest.raises(DataError, match=said):
        judged(**({"returns": [0.1, 0.2]} | changes))
