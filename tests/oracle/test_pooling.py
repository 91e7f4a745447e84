"""Pool weights and skills against EM, a library, a grid, and a plain loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import bootstrap, t

from tradsys.core.errors import TrainingError
from tradsys.models.ensembles.pool_weights import (
    GAP,
    floored,
    likelihoods,
    pool_weights,
    pooled,
    shrunk,
    skill,
    time_batches,
)


def evidence(seed: int, n: int = 600, n_members: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Members of rising knowledge and the base rate; weights of the samples."""
    rng = np.random.default_rng(seed)
    y, truth = rng.integers(0, 2, n), rng.normal(size=n)
    up = [1 / (1 + np.exp(-(k * 0.4 * (2 * y - 1) + truth * rng.normal(size=n)))) for k in range(n_members - 1)]
    reported = [np.where(y == 1, p, 1 - p) for p in up] + [np.full(n, 0.5)]
    return np.stack(reported, axis=1), rng.uniform(0.1, 2, n)


def loss(w, reported, weight):
    return -(weight * np.log(reported @ w)).sum() / weight.sum()


def em(reported, weight, steps=20_000):
    """Mixture proportions by expectation and maximisation (Dempster et al. 1977), one plain step at a time."""
    w = np.full(reported.shape[1], 1 / reported.shape[1])
    for _ in range(steps):
        share = reported * w
        share /= share.sum(axis=1, keepdims=True)
        before, w = w, (weight[:, None] * share).sum(axis=0) / weight.sum()
        if np.abs(w - before).max() < 1e-12:
            break
    return w


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_those_of_em_and_of_a_library(seed):
    reported, weight = evidence(seed)
    got = pool_weights(reported, weight)
    np.testing.assert_allclose(got, em(reported, weight), atol=2e-4)
    library = minimize(
        loss, np.full(4, 0.25), (reported, weight), "SLSQP", bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert loss(got, reported, weight) <= library.fun + 1e-9
    np.testing.assert_allclose(got, library.x, atol=1e-3)


def test_no_point_of_a_grid_is_better():
    reported, weight = evidence(7, n_members=3)
    got = loss(pool_weights(reported, weight), reported, weight)
    grid = [(a / 50, b / 50, (50 - a - b) / 50) for a in range(51) for b in range(51 - a)]
    losses = [loss(np.array(w), reported, weight) for w in grid]
    assert got <= min(losses)
    assert min(losses) - got < 1e-3


def test_where_the_base_rate_is_best_it_takes_all_to_the_bit():
    rng = np.random.default_rng(3)
    reported = np.stack([rng.uniform(0.1, 0.9, 4000) * rng.integers(0, 2, 4000) + 0.01, np.full(4000, 0.6)], axis=1)
    np.testing.assert_array_equal(pool_weights(reported, np.ones(4000)), [0.0, 1.0])


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(5, 200))
def test_weights_lie_on_the_simplex_and_no_member_could_still_gain(seed, n_members, n):
    reported, weight = evidence(seed, n, n_members)
    got = pool_weights(reported, weight)
    assert np.isfinite(got).all()
    assert (got >= 0).all()
    assert got.sum() == pytest.approx(1, abs=1e-12)
    # first-order conditions of the simplex: gradient 1 where a weight is, at most 1 elsewhere
    gain = reported.T @ (weight / (reported @ got)) / weight.sum()
    assert gain.max() <= 1 + max(GAP, 1e-6)
    np.testing.assert_allclose(gain[got > 1e-3], 1, atol=1e-4)


@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_the_order_of_members_does_not_matter(seed, order):
    reported, weight = evidence(seed)
    np.testing.assert_allclose(
        pool_weights(reported[:, order], weight), pool_weights(reported, weight)[list(order)], atol=1e-4
    )


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_a_member_named_twice_changes_no_probability(seed, which):
    reported, weight = evidence(seed)
    twice = np.hstack([reported, reported[:, [which]]])
    before, after = reported @ pool_weights(reported, weight), twice @ pool_weights(twice, weight)
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_scale_of_the_sample_weights_is_nothing_and_zero_weight_is_absence():
    reported, weight = evidence(1)
    got = pool_weights(reported, weight)
    np.testing.assert_allclose(pool_weights(reported, 1e6 * weight), got, atol=1e-7)
    held = weight * (np.arange(len(weight)) % 2)
    np.testing.assert_allclose(pool_weights(reported, held), pool_weights(reported[1::2], weight[1::2]), atol=1e-7)


def test_certainty_that_is_wrong_does_not_blow_up():
    y = np.arange(200) % 2
    sure = np.stack([y == 1, y == 0], axis=1).astype(float)  # always the wrong class
    reported = likelihoods([sure, np.full((200, 2), 0.5)], y)
    np.testing.assert_array_equal(pool_weights(reported, np.ones(200)), [0.0, 1.0])
    with pytest.raises(TrainingError, match="3 of 200"):
        likelihoods([np.where(np.arange(200)[:, None] < 3, np.nan, 0.5) * np.ones((1, 2))], y)


def test_floor_shrinkage_and_mixing_by_hand():
    cut = floored(np.array([0.009, 0.291, 0.7]), 0.01)
    assert cut[0] == 0
    np.testing.assert_allclose(cut[1:], [0.291 / 0.991, 0.7 / 0.991], rtol=1e-15)
    own, common = np.array([1.0, 0.0]), np.array([0.2, 0.8])
    np.testing.assert_allclose(shrunk(own, common, 100, 300), [0.4, 0.6])
    np.testing.assert_array_equal(shrunk(own, common, 100, np.inf), common)
    np.testing.assert_array_equal(shrunk(own, common, 0, 0), common)
    np.testing.assert_array_equal(shrunk(own, common, 5, 0), own)
    each = [np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([[0.5, 0.5], [0.5, 0.5]])]
    vectors, belief = np.array([[1.0, 0.0], [0.25, 0.75]]), np.array([[1.0, 0.0], [0.5, 0.5]])
    got = pooled(vectors, each, belief)
    np.testing.assert_array_equal(got[0], each[0][0])  # certain of the first state: its vector alone
    np.testing.assert_allclose(got[1], 0.625 * each[0][1] + 0.375 * each[1][1], rtol=1e-15)
    assert np.isnan(pooled(vectors, each, np.array([[np.nan, np.nan], [1, 0]]))[0]).all()


def test_batches_hold_four_of_the_longest_label_and_are_at_most_thirty():
    bars = np.arange(1000, 2000)
    for label, n_batches in ((1, 30), (6, 30), (10, 25), (75, 3), (250, 1), (400, 1)):
        codes = time_batches(bars, label)
        sizes = np.bincount(codes)
        assert (np.diff(codes) >= 0).all()
        assert sizes.min() >= min(4 * label, 1000)
        assert len(sizes) == n_batches
    np.testing.assert_array_equal(time_batches(np.array([5, 6, 7]), 10), 0)


def test_skill_and_its_interval_are_those_of_a_plain_loop():
    rng = np.random.default_rng(2)
    n, batch = 900, np.arange(900) // 90
    base, given_loss, weight = rng.uniform(0.6, 0.8, n), rng.uniform(0.5, 0.85, n), rng.uniform(0.5, 1.5, n)
    got = skill(given_loss, base, weight, batch, 0.9)
    gains, totals = [], []
    for b in range(10):
        inside = batch == b
        gains.append(sum(w * (x - y) for w, x, y in zip(weight[inside], base[inside], given_loss[inside], strict=True)))
        totals.append(sum(w * x for w, x in zip(weight[inside], base[inside], strict=True)))
    ratio = sum(gains) / sum(totals)
    variance = sum((g - ratio * s) ** 2 for g, s in zip(gains, totals, strict=True)) * 10 / 9 / sum(totals) ** 2
    half = t.ppf(0.95, 9) * variance**0.5
    np.testing.assert_allclose([got.value, got.low, got.high], [ratio, ratio - half, ratio + half], rtol=1e-12)
    assert got.n_batches == 10
    # an interval that shares no formula: resample the batches
    drawn = bootstrap(
        (np.array(gains), np.array(totals)), lambda g, s: g.sum() / s.sum(), paired=True, vectorized=False,
        confidence_level=0.9, method="percentile", rng=np.random.default_rng(0), n_resamples=2000,
    ).confidence_interval  # fmt: skip
    assert got.high - got.low == pytest.approx(drawn.high - drawn.low, rel=0.35)
    with pytest.raises(TrainingError, match="one batch"):
        skill(given_loss, base, weight, np.zeros(n, int), 0.9)


def test_the_interval_holds_the_truth_as_often_as_it_says_on_overlapping_labels():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        shock = rng.normal(size=1200 + 24)
        gain = 0.05 + np.convolve(shock, np.ones(24) / 24**0.5, "valid")[:1200] * 0.2  # 24 bars share an outcome
        got = skill(1 - gain, np.ones(1200), np.ones(1200), time_batches(np.arange(1200), 24), 0.95)
        hits += got.low <= 0.05 <= got.high
    naive = 1.96 * 0.2 / 1200**0.5
    assert got.high - got.low > 4 * naive
    assert hits / 400 == pytest.approx(0.95, abs=0.035)
