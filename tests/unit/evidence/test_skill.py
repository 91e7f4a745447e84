"""Skill beyond the level: what no constant and no shift of the logits can earn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax

from tradsys.core.headline import HEADLINE, OVER_BASE_RATE, headline_skill
from tradsys.evidence.classification import evaluate
from tradsys.evidence.skill import levelled_losses, log_losses

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int = 200, spread: float = 0.5, level: float = 0.3):
    """Logits [N] and outcomes [N] that follow them, both classes present."""
    rng = np.random.default_rng(seed)
    z = level + spread * rng.standard_normal(n)
    y = (rng.random(n) < expit(z)).astype(int)
    y[:2] = 0, 1
    return z, y


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, constant=st.floats(1e-6, 1 - 1e-6), weighted=st.booleans())
def test_any_constant_has_exactly_zero_skill_in_value_and_interval(seed, constant, weighted):
    _, y = drawn(seed)
    weight = np.random.default_rng(seed).uniform(0.1, 2, len(y)) if weighted else None
    found = evaluate(np.full(len(y), constant), y, 0.5, time_N=np.arange(len(y)), weight_N=weight, n_draws=20)
    assert found[HEADLINE]["value"] == 0.0
    assert found[HEADLINE]["low"] in (0.0, None)  # None where the outcomes ask for blocks too long for an interval
    assert found[HEADLINE]["high"] in (0.0, None)


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, shift=st.floats(-8, 8), spread=st.floats(0.01, 3))
def test_a_shift_of_the_logits_changes_nothing(seed, shift, spread):
    z, y = drawn(seed, spread=spread)
    same = levelled_losses(expit(z), y).skill
    assert levelled_losses(expit(z + shift), y).skill == pytest.approx(same, abs=1e-7)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, shift=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_a_shift_of_three_classes_changes_nothing_either(seed, shift):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((150, 3))
    y = np.append([0, 1, 2], (logits[3:] + rng.gumbel(size=(147, 3))).argmax(axis=1))
    same = levelled_losses(softmax(logits, axis=1), y).skill
    assert levelled_losses(softmax(logits + np.array(shift), axis=1), y).skill == pytest.approx(same, abs=1e-7)


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, spread=st.floats(0.01, 5), rate=st.floats(0.1, 0.9))
def test_forecasts_dealt_at_random_expect_no_skill(seed, spread, rate):
    """Over all permutations of the outcomes, exactly: the shift depends on how many are positive alone."""
    n = 100
    y = np.arange(n) < round(rate * n)
    z = spread * np.random.default_rng(seed).standard_normal(n)
    losses = [levelled_losses(expit(z), np.roll(y, k).astype(int)) for k in (0, 1)]
    shift = logit(np.exp(-losses[0].forecast[0])) - z[0]  # y[0] is positive
    q = expit(z + shift)
    assert q.mean() == pytest.approx(y.mean(), abs=1e-9)
    expected = -(y.mean() * np.log(q).mean() + (1 - y.mean()) * np.log(1 - q).mean())
    assert losses[0].constant.mean() <= expected + 1e-12


def test_skill_is_the_least_loss_over_a_grid_of_shifts():
    z, y = drawn(3)
    found = levelled_losses(expit(z), y)
    grid = min(log_losses(expit(z + a), y).mean() for a in np.linspace(-2, 2, 4001))
    assert found.forecast.mean() == pytest.approx(grid, abs=1e-6)
    assert found.forecast.mean() <= grid
    rate = y.mean()
    assert found.constant.mean() == pytest.approx(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))


def test_each_fit_has_a_level_of_its_own():
    z, y = drawn(4, n=400)
    fold = np.repeat([0, 1], 200)
    moved = expit(z + np.where(fold == 0, 1.5, -1.5))
    apart = levelled_losses(moved, y, fold_N=fold)
    assert apart.forecast == pytest.approx(levelled_losses(expit(z), y, fold_N=fold).forecast, abs=1e-9)
    assert levelled_losses(moved, y).skill < apart.skill


def test_a_level_that_moves_with_the_rate_within_the_rows_is_paid():
    """Market timing: nothing tells samples of one time apart, yet the forecast rises where outcomes do."""
    rng = np.random.default_rng(5)
    good = np.repeat([0, 1], 500)
    y = (rng.random(1000) < np.where(good, 0.6, 0.4)).astype(int)
    assert levelled_losses(np.where(good, 0.6, 0.4), y).skill > 0.01
    assert levelled_losses(np.where(good, 0.4, 0.6), y).skill < 0


def test_rows_of_a_single_class_have_no_level_to_be_beyond():
    assert np.isnan(levelled_losses(np.linspace(0.2, 0.8, 50), np.ones(50, dtype=int)).skill)
    found = evaluate(np.linspace(0.2, 0.8, 100), np.ones(100, dtype=int), 0.5, time_N=np.arange(100), n_draws=10)
    assert found[HEADLINE]["value"] is None
    assert found[HEADLINE]["reason"]
    fold = np.repeat([0, 1], 50)
    y = np.append(np.ones(50, dtype=int), np.arange(50) % 2)
    alone = levelled_losses(np.linspace(0.2, 0.8, 100), y, fold_N=fold)
    assert not alone.forecast[:50].any()
    assert not alone.constant[:50].any()
    assert np.isfinite(alone.skill)


def test_saturated_forecasts_are_finite_and_punished():
    p = np.tile([0.0, 1.0, 1.0, 0.0], 10)
    y = np.tile([0, 1, 0, 1], 10)
    found = levelled_losses(p, y)
    assert np.isfinite(found.forecast).all()
    assert found.skill < -10


def test_the_base_rate_has_exactly_zero_skill_over_itself():
    _, y = drawn(6)
    found = evaluate(np.full(len(y), 0.37), y, 0.37, time_N=np.arange(len(y)), n_draws=20)
    assert (found[OVER_BASE_RATE]["value"], found[OVER_BASE_RATE]["low"]) == (0.0, 0.0)


def test_a_rising_market_pays_the_base_rate_measure_and_not_the_headline():
    """The flattery that the headline exists to remove: noise around the right level of a market that rose."""
    rng = np.random.default_rng(7)
    y = (rng.random(4000) < 0.6).astype(int)
    p = expit(logit(0.6) + 0.02 * rng.standard_normal(4000))
    found = evaluate(p, y, 0.5, time_N=np.arange(4000), n_draws=100)
    assert found[OVER_BASE_RATE]["low"] > 0
    assert found[HEADLINE]["low"] <= 0
    assert abs(found[HEADLINE]["value"]) < 1e-3


def test_metrics_of_an_older_file_give_a_reason_and_no_number():
    assert headline_skill({"skill": {"value": 0.1, "low": 0.05, "high": 0.2, "reason": None}})["low"] is None
    assert "train or backtest again" in headline_skill({})["reason"]
    assert headline_skill({HEADLINE: {"value": 0.1}}) == {"value": 0.1}
