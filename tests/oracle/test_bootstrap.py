"""The stationary bootstrap against arch, its own law (Politis & Romano 1994) and the coverage it promises."""

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from scipy import stats
from sklearn.metrics import log_loss, roc_auc_score

from tradsys.evidence.bootstrap import (
    automatic_block_length,
    block_bootstrap_interval,
    bootstrap_draws,
    bootstrap_indices,
    sharpe_draws,
)
from tradsys.evidence.classification import evaluate


def moving_average(rng, n, width):
    return np.convolve(rng.normal(size=n + width - 1), np.ones(width) / np.sqrt(width), mode="valid")


def test_counts_and_indices_are_the_same_draws_whatever_the_chunk():
    indices = np.array(list(bootstrap_indices(60, 4.0, 50, seed=3)))
    counted = np.array([np.bincount(row, minlength=60) for row in indices])
    for cells in (1, 10**6, 10**5):
        whole = bootstrap_draws(lambda c: c, 60, 4.0, 50, seed=3, cells_per_draw=cells)
        np.testing.assert_array_equal(whole, counted)


def test_blocks_have_geometric_length_and_uniform_starts():
    # Politis & Romano 1994, section 2: a block goes on with probability 1 - 1/b, around the end
    indices = np.array(list(bootstrap_indices(40, 5.0, 4000, seed=1)))
    goes_on = (np.diff(indices, axis=1) % 40 == 1).mean()
    assert goes_on == pytest.approx(1 - 1 / 5 + 1 / 5 / 40, abs=0.004)
    frequency = np.bincount(indices.ravel(), minlength=40) / indices.size
    assert frequency == pytest.approx(np.full(40, 1 / 40), abs=0.002)


def test_spread_of_the_mean_equals_archs():
    series = moving_average(np.random.default_rng(0), 400, 5)
    ours = bootstrap_draws(lambda c: c @ series / 400, 400, 8.0, 4000, seed=1)
    theirs = StationaryBootstrap(8, series, seed=2).apply(np.mean, 4000).ravel()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * theirs.std() / np.sqrt(2000))


def test_automatic_length_is_archs_but_at_least_one():
    rng = np.random.default_rng(1)
    series = moving_average(rng, 500, 10)
    assert automatic_block_length(series) == optimal_block_length(series)["stationary"].iloc[0]
    assert automatic_block_length(series, 40) == 40
    assert automatic_block_length(rng.normal(size=5000)) >= 1


def test_sharpe_draws_equal_resampling_by_index():
    returns = np.random.default_rng(2).normal(0.001, 0.01, size=(80, 3))
    fast = sharpe_draws(returns, 6.0, 30, seed=4)
    slow = [returns[t].mean(axis=0) / returns[t].std(axis=0, ddof=1) for t in bootstrap_indices(80, 6.0, 30, seed=4)]
    np.testing.assert_allclose(fast, slow, rtol=1e-9)


@pytest.mark.parametrize("n_symbols", [1, 3])
def test_vectorised_metrics_equal_sklearn_on_resampled_rows(n_symbols):
    rng = np.random.default_rng(5)
    n_times = 150
    time = np.repeat(np.arange(n_times), n_symbols)
    proba = np.round(rng.uniform(0.05, 0.95, len(time)), 1)  # many ties
    y = (rng.uniform(size=len(time)) < proba).astype(int)
    weight = rng.uniform(0.5, 2, len(time))
    found = evaluate(proba, y, 0.4, time_N=time, weight_N=weight, min_block=5, n_draws=40, seed=9)
    draws = {"log_loss": [], "auc": [], "brier": [], "skill_over_base_rate": []}
    for times in bootstrap_indices(n_times, found["block_length"], 40, seed=9):
        rows = (times[:, None] * n_symbols + np.arange(n_symbols)).ravel()
        p, t, w = proba[rows], y[rows], weight[rows]
        draws["log_loss"].append(log_loss(t, p, sample_weight=w))
        draws["auc"].append(roc_auc_score(t, p, sample_weight=w))
        draws["brier"].append(np.average((p - t) ** 2, weights=w))
        base = log_loss(t, np.full(len(t), 0.4), sample_weight=w)
        draws["skill_over_base_rate"].append(1 - draws["log_loss"][-1] / base)
    for name, values in draws.items():
        low, high = np.quantile(values, [0.025, 0.975])
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((low, high), rel=1e-9), name
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(y, proba, sample_weight=weight), rel=1e-12)


def test_generic_interval_equals_the_vectorised_one():
    rng = np.random.default_rng(6)
    loss, time = rng.normal(size=240), np.repeat(np.arange(120), 2)
    generic = block_bootstrap_interval(np.mean, loss, group=time, block_length=4, n_draws=200, seed=7)
    per_time = loss.reshape(-1, 2).sum(axis=1)
    fast = bootstrap_draws(lambda c: c @ per_time / 240, 120, 4, 200, seed=7)
    assert (generic.low, generic.high) == pytest.approx(tuple(np.quantile(fast, [0.025, 0.975])), rel=1e-9)


def covers(interval, truth):
    return interval.low <= truth <= interval.high


def test_interval_covers_the_mean_of_overlapping_series_where_single_rows_do_not():
    rng = np.random.default_rng(8)
    blocks, rows = 0, 0
    for k in range(150):
        series = moving_average(rng, 600, 12)
        blocks += covers(block_bootstrap_interval(np.mean, series, min_block=24, n_draws=150, seed=k), 0.0)
        rows += covers(block_bootstrap_interval(np.mean, series, block_length=1, n_draws=150, seed=k), 0.0)
    assert stats.binomtest(blocks, 150, 0.93).pvalue > 0.01
    assert rows / 150 < 0.6


def test_interval_of_a_panel_that_moves_together_is_no_narrower_than_one_series():
    rng = np.random.default_rng(9)
    common = rng.normal(size=200)
    panel, time = np.repeat(common, 10), np.repeat(np.arange(200), 10)
    one = block_bootstrap_interval(np.mean, common, block_length=2, n_draws=300, seed=1)
    grouped = block_bootstrap_interval(np.mean, panel, group=time, block_length=2, n_draws=300, seed=1)
    loose = block_bootstrap_interval(np.mean, panel, block_length=2, n_draws=300, seed=1)
    assert (grouped.low, grouped.high) == pytest.approx((one.low, one.high))
    assert loose.high - loose.low < 0.6 * (one.high - one.low)
