"""PBO against a plain loop, a stored result of two independent codings and published outputs; SPA against arch."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from arch.bootstrap import SPA
from scipy import stats

from tradsys.evidence.overfitting import pbo, spa_test


def pbo_by_loop(returns, n_blocks):
    """Bailey et al. 2017, section 3, word by word: split, join, rank, logit."""
    kept = returns[len(returns) % n_blocks :]
    blocks = np.split(kept, n_blocks)
    logits, lost = [], []
    for chosen in combinations(range(n_blocks), n_blocks // 2):
        inside = np.concatenate([blocks[b] for b in chosen])
        outside = np.concatenate([blocks[b] for b in range(n_blocks) if b not in chosen])
        first = inside.mean(axis=0) / inside.std(axis=0, ddof=1)
        second = outside.mean(axis=0) / outside.std(axis=0, ddof=1)
        winner = int(np.argmax(first))
        share = stats.rankdata(second)[winner] / (len(second) + 1)
        logits.append(np.log(share / (1 - share)))
        lost.append(second[winner] < 0)
    return np.mean(np.array(logits) <= 0), np.array(logits), np.mean(lost)


@pytest.mark.parametrize(("n_rows", "n_trials", "n_blocks"), [(83, 7, 6), (64, 2, 8), (121, 30, 10)])
def test_equals_the_loop(n_rows, n_trials, n_blocks):
    returns = np.random.default_rng(n_rows).normal(0.01, 0.02, size=(n_rows, n_trials))
    found = pbo(returns, n_blocks)
    share, logits, lost = pbo_by_loop(returns, n_blocks)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-12)
    assert (found.pbo, found.prob_loss) == (share, lost)
    assert found.n_dropped == n_rows % n_blocks


def test_etf_trials(shared_data):
    # sharpe_inference_cases.json: "pbo_self_computed", two independent codings on the seeded ETF trials
    trials = pl.read_parquet(shared_data / "oracle/pbo_etf_trials_0_99.parquet").to_numpy()
    found = pbo(trials, 8)
    assert found.pbo == pytest.approx(0.6714285714285714, abs=1e-15)
    assert found.logits.mean() == pytest.approx(-0.487839742222643, rel=1e-12)
    assert found.prob_loss == pytest.approx(0.38571428571428573, abs=1e-15)
    first = [
        -1.5284688499004333,
        -2.45315795147342,
        0.21868920096482966,
        -1.1657515915057381,
        -0.6783320947748044,
    ]
    np.testing.assert_allclose(found.logits[:5], first, rtol=1e-12)


def test_trials_of_equal_merit_as_published():
    # vignette of the R package pbo 1.0 after Bailey et al. 2017, section 6, SR = 0: 100 trials, 2400 periods, 8 blocks,
    # each trial's mean and deviation set alike, 3 % a year taken off: p_bo 1.000000, p_loss 1.000000
    noise = np.random.default_rng(765).normal(size=(2400, 100))
    alike = (noise - noise.mean(axis=0)) / noise.std(axis=0, ddof=1) / np.sqrt(252)
    found = pbo(alike - 0.03 / 252, 8)
    assert (found.pbo, found.prob_loss) == (1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_spa_agrees_with_archs_on_independent_periods(seed):
    # arch 8.0.0 takes `studentize` but never divides by the standard error, so the gains are divided here
    rng = np.random.default_rng(seed)
    gain = rng.normal(0.02 * (seed - 1), 1, size=(2000, 8)) + rng.normal(size=(2000, 1))
    ours = spa_test(-gain, np.zeros(2000), n_draws=4000, seed=seed)
    theirs = SPA(np.zeros(2000), -gain / gain.std(axis=0), block_size=1, reps=2000, seed=seed)
    theirs.compute()
    for name in ("lower", "consistent", "upper"):
        assert getattr(ours, name) == pytest.approx(theirs.pvalues[name], abs=0.07), name


def test_noise_gives_a_half():
    # the property behind mrbcuda/pbo's tests: on pure noise the winner's rank is uniform
    rng = np.random.default_rng(0)
    shares = [pbo(rng.normal(size=(200, 40)), 8).pbo for _ in range(60)]
    assert np.mean(shares) == pytest.approx(0.5, abs=3 * np.std(shares) / np.sqrt(60))


def test_a_true_winner_gives_nothing():
    returns = np.random.default_rng(0).normal(size=(400, 20))
    returns[:, 7] += 0.5
    found = pbo(returns, 8)
    assert found.pbo == 0
    assert (found.winners == 7).all()


def test_spa_holds_its_level_on_noise():
    rng = np.random.default_rng(3)
    p_values = [spa_test(rng.normal(size=(150, 5)), np.zeros(150), n_draws=150, seed=k).consistent for k in range(120)]
    rejected = int((np.array(p_values) < 0.05).sum())
    assert stats.binomtest(rejected, 120, 0.05).pvalue > 0.01


def test_spa_finds_a_planted_winner_and_takes_losses():
    losses = np.random.default_rng(0).normal(size=(300, 5))
    losses[:, 2] -= 0.3
    found = spa_test(losses, np.zeros(300), seed=1)
    assert found.consistent < 0.01
    assert found.best == 2
    assert spa_test(-losses[:, 2], np.zeros(300), seed=1).consistent > 0.3


def test_a_wild_trial_does_not_hide_a_steady_winner():
    # every gain is divided by its own error, so its scale does not matter; Hansen 2005, section 2
    rng = np.random.default_rng(5)
    gain = np.column_stack([rng.normal(0.25, 1, 300), rng.normal(0, 30, 300)])
    found = spa_test(-gain, np.zeros(300), seed=1)
    assert found.consistent < 0.01
    rescaled = spa_test(-gain * [1, 0.01], np.zeros(300), seed=1)
    assert rescaled.consistent == pytest.approx(found.consistent)
