"""The joint test: its budget, its size with correlated and rare strategies, its power, and what it refuses."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tradsys.core.errors import DataError
from tradsys.evidence.joint_test import ALPHA, Batch, error_budget, joint_test


def correlated(rng, n_times, n_strategies, shared):
    common, own = rng.standard_t(5, size=(n_times, 1)), rng.standard_t(5, size=(n_times, n_strategies))
    return 0.01 * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)


def split(returns, sizes=(1, 3, 16)):
    ends = np.cumsum(sizes)
    return [Batch(k + 1, returns[:, end - size : end]) for k, (end, size) in enumerate(zip(ends, sizes, strict=True))]


def test_all_batches_together_spend_the_promise_and_no_more():
    budgets = [error_budget(n) for n in range(1, 5000)]
    assert sum(budgets) < ALPHA
    assert sum(budgets) == pytest.approx(ALPHA, abs=1e-5)
    assert all(b <= a for a, b in pairwise(budgets))


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_a_researcher_who_tries_twenty_is_fooled_in_at_most_one_market_of_twenty(shared):
    # of 150 markets the plain rule below is fooled in 96, this one in 5.4; a size of 0.13 is caught nine times of ten
    rng = np.random.default_rng(int(10 * shared))
    n_markets, fooled = 150, 0
    for k in range(n_markets):
        results = joint_test(split(correlated(rng, 250, 20, shared)), n_draws=300, seed=k)
        fooled += any(one.passed for batch in results for one in batch)
    assert stats.binomtest(fooled, n_markets, 0.05, alternative="greater").pvalue > 0.01


def test_the_same_markets_fool_a_rule_that_counts_no_trials():
    # the negative control: each of the twenty at 5 % by itself
    rng = np.random.default_rng(0)
    fooled = 0
    for _ in range(200):
        returns = correlated(rng, 250, 20, 0.0)
        fooled += (stats.ttest_1samp(returns, 0, alternative="greater").pvalue <= 0.05).any()
    assert fooled / 200 > 0.5


def test_the_first_strategy_is_found_at_nearly_the_power_of_a_plain_test():
    rng, sharpe = np.random.default_rng(3), 2.6 / np.sqrt(365)
    n_markets, found, plain, late = 150, 0, 0, 0
    for k in range(n_markets):
        returns = 0.01 * (rng.standard_t(5, size=430) * np.sqrt(3 / 5) + sharpe)
        found += joint_test([Batch(1, returns)], n_draws=200, seed=k)[0][0].passed
        standard = float(returns.mean() / returns.std(ddof=1) * np.sqrt(430))
        plain += standard > stats.t.isf(0.05, 429)
        late += standard > stats.norm.isf(error_budget(5))
    # on the same markets, so that little is left to chance: 3.6 % spent instead of 5 % costs about four in a hundred
    assert found >= plain - 0.09 * n_markets
    assert found / n_markets >= 0.72
    # the control: what a fifth batch may spend would not do
    assert late < 0.6 * n_markets


def test_a_copy_of_an_idea_costs_no_more_than_the_idea():
    rng = np.random.default_rng(5)
    idea = correlated(rng, 400, 1, 0.0) + 0.0012
    alone = joint_test([Batch(1, idea)], seed=1)[0][0]
    copied = joint_test([Batch(1, np.repeat(idea, 10, axis=1))], seed=1)[0]
    assert {one.p_value for one in copied} == {alone.p_value}
    strangers = np.hstack([idea, correlated(rng, 400, 9, 0.0)])
    assert joint_test([Batch(1, strangers)], seed=1)[0][0].p_value > 3 * alone.p_value


def test_a_verdict_does_not_depend_on_what_is_tried_later():
    batches = split(correlated(np.random.default_rng(6), 300, 20, 0.5))
    first = joint_test(batches[:1], seed=2)[0][0]
    # the draws share their blocks; only the block length may differ
    later = joint_test(batches, seed=2)[0][0]
    assert later.level == first.level
    assert later.p_value == pytest.approx(first.p_value, abs=0.03)


def test_once_the_best_is_set_aside_the_rest_are_compared_among_themselves():
    rng = np.random.default_rng(7)
    returns = correlated(rng, 500, 5, 0.0)
    returns -= returns.mean(axis=0)
    returns[:, 0] += 0.4 * returns[:, 0].std()
    returns[:, 1] += 0.12 * returns[:, 1].std()
    results = joint_test([Batch(1, returns)], seed=0)[0]
    assert results[0].passed
    both = joint_test([Batch(1, returns[:, 1:])], seed=0)[0]
    assert results[1].p_value == pytest.approx(both[0].p_value, abs=0.02)


@given(st.integers(1, 6), st.integers(2, 5))
def test_p_values_rise_as_statistics_fall(seed, n_strategies):
    returns = correlated(np.random.default_rng(seed), 400, n_strategies, 0.3)
    results = joint_test([Batch(1, returns)], n_draws=200, seed=seed)[0]
    ordered = sorted(results, key=lambda one: -one.statistic)
    assert all(a.p_value <= b.p_value for a, b in pairwise(ordered))
    assert all(0 <= one.p_value <= 1 for one in results)


def test_what_never_traded_or_is_too_short_has_a_reason_and_no_p_value():
    returns = np.column_stack([np.zeros(300), np.random.default_rng(1).normal(0, 0.01, 300)])
    idle, other = joint_test([Batch(1, returns)], seed=0)[0]
    assert idle.p_value is None
    assert "never traded" in idle.reason
    assert other.p_value is not None
    assert not idle.passed
    short = joint_test([Batch(1, returns[:5, 1:])], seed=0)[0][0]
    assert short.p_value is None
    assert short.reason
    everything_idle = joint_test([Batch(1, np.zeros((300, 2)))], seed=0)[0]
    assert all("never traded" in one.reason for one in everything_idle)


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "at least one"),
        ([Batch(2, np.zeros((9, 1))), Batch(1, np.zeros((9, 1)))], "rise"),
        ([Batch(1, np.zeros((9, 1))), Batch(2, np.zeros((8, 1)))], "same"),
        ([Batch(1, np.full((9, 1), np.nan))], "finite"),
    ],
)
def test_batches_that_make_no_sense_are_refused(batches, words):
    with pytest.raises(DataError, match=words):
        joint_test(batches, seed=0)
