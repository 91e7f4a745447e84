"""Intervals over slow cosines: their formula, their transforms, and what cannot be known."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_auc_score

from tradsys.core.errors import DataError
from tradsys.evidence import cosines
from tradsys.evidence.bootstrap import Estimate, dependence_length, too_few_blocks
from tradsys.evidence.classification import evaluate
from tradsys.evidence.sharpe import sharpe_ratio


@pytest.fixture
def series():
    return np.random.default_rng(0).normal(size=300)


def test_mean_equals_the_formula_by_loops(series):
    # Lazarus et al. 2018, eq. 4 and 5: B cosine coefficients, their mean square, Student's t with B degrees
    n, found = len(series), cosines.mean_interval(series, min_block=5)
    n_waves = cosines.n_cosines(n, 5, 5)
    assert n_waves == int(min(0.4 * n ** (2 / 3), 0.35 * n / 5))
    weights = [[np.sqrt(2 / n) * np.cos(np.pi * j * (t + 0.5) / n) for t in range(n)] for j in range(1, n_waves + 1)]
    variance = sum(float(np.dot(w, series)) ** 2 for w in weights) / n_waves
    half = stats.t.ppf(0.975, n_waves) * np.sqrt(variance / n)
    assert (found.low, found.high) == pytest.approx((series.mean() - half, series.mean() + half), rel=1e-10)


def test_slopes_of_a_function_of_sums_are_the_delta_method(series):
    a, b = series + 3, series**2
    ratio = cosines.spread(lambda w: ((w @ a) / (w @ b))[:, None], 300, series, min_block=4)
    influence = (a - a.mean() / b.mean() * b) / b.mean()
    direct = cosines.spread_of_means(influence, min_block=4, values=np.array([a.mean() / b.mean()]))
    np.testing.assert_allclose(ratio.slope_BM, direct.slope_BM[: ratio.degrees], atol=1e-6)
    assert ratio.value_M == pytest.approx(direct.value_M)


def test_draws_are_students_and_share_the_slopes(series):
    both = cosines.spread_of_means(np.column_stack([series, -2 * series]), min_block=4)
    draws = both.draws(40_000, seed=1)
    np.testing.assert_allclose(draws[:, 1], -2 * draws[:, 0], rtol=1e-9)
    low, high = np.quantile(draws[:, 0], [0.025, 0.975])
    exact = both.estimates()[0]
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.05 * (exact.high - exact.low))
    assert both.p_values()[0] == pytest.approx(both.p_values()[1])
    assert both.above(exact.low)[0] == pytest.approx(0.975)


def test_one_strategy_among_many_has_the_value_and_interval_it_has_alone():
    returns = np.random.default_rng(3).normal(0.001, 0.01, size=(300, 4))
    together = cosines.sharpe_intervals(returns, min_block=12)
    for k, one in enumerate(together):
        alone = cosines.sharpe_intervals(returns[:, k], min_block=12)[0]
        assert (one.value, one.low, one.high) == pytest.approx((alone.value, alone.low, alone.high))
        assert one.value == pytest.approx(sharpe_ratio(returns[:, k]))


def test_the_error_of_a_sharpe_ratio_is_the_published_one():
    returns = np.random.default_rng(4).normal(0.05, 1, 50_000)
    found = cosines.sharpe_spread(returns)
    published = np.sqrt((1 + 0.05**2 / 2) / len(returns))  # Lo 2002, eq. 6
    assert found.error_M[0] == pytest.approx(published, rel=2.5 / np.sqrt(2 * found.degrees))


def test_idle_strategies_and_short_records_have_reasons_instead_of_intervals():
    returns = np.random.default_rng(4).normal(0.001, 0.01, size=(300, 3))
    returns[:, 1] = 1e-16
    found = cosines.sharpe_intervals(returns)
    assert found[1] == Estimate(None, reason=found[1].reason)
    assert "never traded" in found[1].reason
    assert found[0].low < found[0].value < found[0].high
    short = cosines.sharpe_intervals(returns, min_block=20)[0]
    assert (short.value, short.low) == (found[0].value, None)
    assert "15.0 independent blocks of 20; an interval needs 20: 100 more periods" in short.reason
    assert (
        too_few_blocks(125, 6.26)
        == "125 periods hold 19.9 independent blocks of 6.26; an interval needs 20: 1 more period"
    )
    with pytest.raises(DataError, match="18 of 18 returns are not finite"):
        cosines.sharpe_intervals(np.full((9, 2), np.nan))
    with pytest.raises(DataError, match="at least 2"):
        cosines.sharpe_intervals(np.zeros((1, 2)))


def test_what_cannot_be_known_is_none_with_a_reason():
    assert cosines.mean_interval(np.empty(0)).reason == "no date has a value"
    assert cosines.mean_interval(np.ones(50)).reason == "the series never moves"
    assert cosines.mean_interval(np.random.default_rng(0).normal(size=99), min_block=5).low is None
    with pytest.raises(DataError, match="1 values that are not finite"):
        cosines.mean_interval(np.array([1.0, np.nan]))
    with pytest.raises(DataError, match="confidence=1"):
        cosines.mean_interval(np.arange(9.0), confidence=1.0)


def test_dependence_is_known_from_labels_or_estimated_where_it_is_longer():
    rng = np.random.default_rng(5)
    noise = rng.normal(size=4000)
    overlap = np.convolve(noise, np.ones(20), "valid")
    assert dependence_length(noise) == 1
    assert dependence_length(overlap, 20) == 20
    assert dependence_length(overlap, 2) == pytest.approx(20, rel=0.3)
    assert dependence_length(np.zeros(100), 3) == 3
    assert too_few_blocks(400, 20) is None
    with pytest.raises(DataError, match="not finite"):
        dependence_length(np.r_[np.nan, noise])


@pytest.mark.parametrize("n_symbols", [1, 5])
def test_metrics_of_weighted_rows_are_sklearns(n_symbols):
    rng = np.random.default_rng(6)
    time = np.repeat(np.arange(200), n_symbols)
    proba = np.round(rng.uniform(0.05, 0.95, len(time)), 1)  # many ties
    y, weight = (rng.uniform(size=len(time)) < proba).astype(int), rng.uniform(0.5, 2, len(time))
    found = evaluate(proba, y, 0.4, time_N=time, weight_N=weight, min_block=5)
    waves = cosines.cosines(200, cosines.n_cosines(200, found["block_length"], 5))

    def slopes(metric):
        steps = [weight * (1 + 1e-3 * w[time]) for w in waves], [weight * (1 - 1e-3 * w[time]) for w in waves]
        return np.array([(metric(up) - metric(down)) / 2e-3 for up, down in zip(*steps, strict=True)])

    for name, metric in {
        "log_loss": lambda w: log_loss(y, proba, sample_weight=w),
        "auc": lambda w: roc_auc_score(y, proba, sample_weight=w),
        "brier": lambda w: np.average((proba - y) ** 2, weights=w),
    }.items():
        half = cosines.student_quantile(0.95, len(waves)) * np.sqrt((slopes(metric) ** 2).mean())
        bounds = metric(weight) + np.array([-half, half])
        if name == "auc":  # on the logit scale
            value = metric(weight)
            bounds = expit(logit(value) + np.array([-half, half]) / (value * (1 - value)))
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(bounds, rel=1e-6), name
