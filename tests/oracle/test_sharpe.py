"""Published numbers: Bailey & Lopez de Prado 2012 and 2014, Bailey et al. 2014, Ledoit & Wolf 2008, a notebook."""

import json

import numpy as np
import pytest
from scipy import stats

from tradsys.evidence.controls.placebo import DailyRecord, paired_differences
from tradsys.evidence.sharpe import (
    SharpeMoments,
    deflated_sharpe_ratio,
    expected_max_sharpe,
    min_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_moments,
    sharpe_ratio,
    trial_variance,
)
from tradsys.evidence.trials import mean_correlation_trials


@pytest.fixture(scope="module")
def cases(shared_data):
    return json.loads((shared_data / "oracle/sharpe_inference_cases.json").read_text())


@pytest.mark.parametrize(
    ("n_trials", "value"),
    [(100, 2.5306028932016846), (10, 1.57459830134575), (45, 2.2356401777664052)],
)
def test_expected_maximum_as_published(n_trials, value):
    # Bailey et al. 2014 "Pseudo-Mathematics", eq. 4 (1.57 for 10 trials); 45 is its example in figure 2
    assert expected_max_sharpe(n_trials) == pytest.approx(value, rel=1e-12)


def test_minimum_backtest_length_of_45_trials_is_five_years():
    # Bailey et al. 2014, figure 2: a Sharpe of 1 from 45 trials is luck within 5 years
    assert (expected_max_sharpe(45) / 1.0) ** 2 == pytest.approx(4.998087004443404, rel=1e-12)


def test_expected_maximum_matches_simulation():
    best = np.random.default_rng(0).normal(size=(20_000, 50)).max(axis=1)
    assert expected_max_sharpe(50) == pytest.approx(best.mean(), abs=0.03)


@pytest.mark.parametrize(
    ("sharpe", "skew", "kurtosis", "value", "digits"),
    [
        # Bailey & Lopez de Prado 2012, "The Sharpe Ratio Efficient Frontier", section 4: 24 months, SR 0.458
        (0.458, 0.0, 3.0, 0.982, 3),
        (0.458, -2.448, 10.164, 0.913, 3),
        (0.45755008833277844, -2.448, 10.164, 0.9132343068848602, 12),
    ],
)
def test_probabilistic_sharpe_ratio_as_published(sharpe, skew, kurtosis, value, digits):
    psr = probabilistic_sharpe_ratio(SharpeMoments(sharpe, 24, skew, kurtosis))
    assert psr == pytest.approx(value, abs=0.51 * 10.0**-digits)


def test_deflated_sharpe_ratio_of_the_paper():
    # Bailey & Lopez de Prado 2014, section "A numerical example": annual SR 2.5, 5 years of days, DSR 0.9004
    moments = SharpeMoments(2.5 / np.sqrt(250), 1250, -3, 10)
    assert expected_max_sharpe(100, 0.5 / 250) * np.sqrt(250) == pytest.approx(1.7894064662732077, rel=1e-12)
    assert deflated_sharpe_ratio(moments, 100, 0.5 / 250) == pytest.approx(0.9003968344493903, rel=1e-12)


@pytest.mark.parametrize(
    ("sharpe", "bench", "periods", "shape", "years"),
    [(2, 1, 250, (0, 3), 2.731187801728176), (3, 2.5, 12, (-0.72, 5.78), 27.3529201960403)],
)
def test_minimum_track_record_length_as_published(sharpe, bench, periods, shape, years):
    # Bailey & Lopez de Prado 2012, section 5: 2.73 years of daily normal returns
    moments = SharpeMoments(sharpe / np.sqrt(periods), 999, *shape)
    found = min_track_record_length(moments, bench / np.sqrt(periods))
    assert found / periods == pytest.approx(years, rel=1e-12)


def test_real_series(shared_data, cases):
    expected = cases["real_series"]
    returns = np.loadtxt(shared_data / "oracle/returns_for_tests.csv")
    moments = sharpe_moments(returns)
    assert moments.sharpe == pytest.approx(expected["sr"], rel=1e-12)
    error = np.sqrt(moments.variance() / (moments.n_periods - 1))
    assert error == pytest.approx(expected["sr_std"], rel=1e-12)
    assert probabilistic_sharpe_ratio(returns, 0.05) == pytest.approx(expected["psr_vs_0_05"], rel=1e-12)
    assert min_track_record_length(returns, 0.05, 0.9) == pytest.approx(expected["min_trl_90pct_vs_0_05"], rel=1e-12)


def test_every_stored_case_of_our_convention(cases):
    ours = [c for c in cases["psr"] if "T-1" in c["convention"] or c["convention"] == "same"]
    assert len(ours) == 3
    for case in ours:
        moments = SharpeMoments(case["sr"], case["T"], case["skew"], case["kurt"])
        found = probabilistic_sharpe_ratio(moments, case["benchmark"])
        assert found == pytest.approx(case["value"], abs=0.5 * 10.0 ** -case.get("round", 12))


def test_five_thousand_trials_on_etfs(shared_data, cases):
    # published output of rubenbriones' notebook "Deflated Sharpe Ratio Example", from its own seeded recipe
    expected = cases["etf_5000_trials"]
    table = np.genfromtxt(shared_data / "oracle/ETFs_returns_2019-2020.csv", delimiter=",", skip_header=1)
    returns = table[:, 1:]
    legacy = np.random.RandomState(0)
    trials = np.zeros((len(returns), 5000))
    for k in range(5000):
        weights = legacy.choice([0.01, 0.25, 0.5, 0.75, 1], size=returns.shape)
        weights /= weights.sum(axis=1, keepdims=True)
        trials[1:, k] = ((1 + returns[1:]) * weights[:-1]).sum(axis=1) - 1
    sharpes = sharpe_ratio(trials)
    best = int(sharpes.argmax())
    assert best == expected["best_trial"]
    assert sharpes[best] * np.sqrt(261) == pytest.approx(expected["best_sr_annualised_261"], abs=1e-6)
    # the notebook's own rounding up
    assert int(mean_correlation_trials(np.corrcoef(trials, rowvar=False))) + 1 == expected["N_effective"]
    variance = trial_variance(sharpes)
    luck = expected_max_sharpe(expected["N_effective"], variance)
    assert luck == pytest.approx(expected["expected_max_sr"], rel=1e-9)
    assert probabilistic_sharpe_ratio(trials[:, best]) == pytest.approx(expected["psr_vs_0"], abs=1e-6)
    dsr = deflated_sharpe_ratio(trials[:, best], expected["N_effective"], variance)
    assert dsr == pytest.approx(expected["dsr_best"], rel=1e-9)


def test_difference_has_the_closed_form_error_for_normal_returns():
    # Jobson & Korkie 1981 as corrected by Memmel 2003, which the delta method becomes under normality
    rng = np.random.default_rng(1)
    rho, n = 0.6, 100_000
    a = rng.normal(size=n)
    b = rho * a + np.sqrt(1 - rho**2) * rng.normal(size=n)
    a, b = a + 0.3, b + 0.1
    one, other = (DailyRecord(r[:, None], r[:, None], np.ones((n, 1))) for r in (a, b))
    found = paired_differences(one, other, periods_per_year=1).sharpe
    sa, sb = sharpe_ratio(a), sharpe_ratio(b)
    closed = np.sqrt((2 * (1 - rho) + 0.5 * (sa**2 + sb**2) - sa * sb * rho**2) / n)
    assert found.value == pytest.approx(sa - sb, rel=1e-9)
    # the variance comes from 861 cosines, so that its root has an error of 2.4 %
    assert (found.high - found.low) / 2 == pytest.approx(stats.norm.ppf(0.975) * closed, rel=0.05)
