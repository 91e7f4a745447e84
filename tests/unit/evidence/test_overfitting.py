from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from tradsys.core.errors import DataError
from tradsys.evidence.overfitting import pbo, pbo_of_scores, spa_test


@pytest.fixture
def returns_TN():
    return np.random.default_rng(0).normal(0.001, 0.01, size=(163, 6))


def test_the_first_rows_are_dropped(returns_TN):
    found, cut = pbo(returns_TN, 8), pbo(returns_TN[3:], 8)
    assert (found.n_dropped, cut.n_dropped) == (3, 0)
    np.testing.assert_array_equal(found.logits, cut.logits)


def test_scale_of_a_trial_does_not_matter(returns_TN):
    np.testing.assert_array_equal(pbo(returns_TN, 8).logits, pbo(returns_TN * np.arange(1, 7), 8).logits)


def test_winner_and_its_two_sharpes(returns_TN):
    found = pbo(returns_TN[:160], 2)
    inside, outside = returns_TN[:80], returns_TN[80:160]
    first = inside.mean(axis=0) / inside.std(axis=0, ddof=1)
    assert found.winners[0] == first.argmax()
    assert found.in_sample[0] == pytest.approx(first.max())
    column = outside[:, found.winners[0]]
    assert found.out_of_sample[0] == pytest.approx(column.mean() / column.std(ddof=1))


def test_an_idle_trial_counts_as_zero(returns_TN):
    idle = returns_TN.copy()
    idle[:, 2] = 0
    losing = -np.abs(idle)
    assert (pbo(losing, 4).winners == 2).all()


def test_ties_share_their_rank():
    twice = np.random.default_rng(1).normal(size=(40, 1)).repeat(2, axis=1)
    # two equal trials: rank 1.5 of 3, logit 0, which counts as overfitted
    assert pbo(twice, 4).pbo == 1
    np.testing.assert_allclose(pbo(twice, 4).logits, 0, atol=1e-12)


def test_two_trials_of_mean_exactly_zero_tie_in_every_order_of_summing():
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in one order and 0 in another: halves of these trials have a true mean of zero
    up, down = np.array([0.1, 0.2, -0.3]), np.array([-0.3, 0.2, 0.1])
    zero = np.column_stack([np.tile(up, 16), np.tile(down, 16), np.tile(np.roll(up, 1), 16)])
    found = pbo(zero, 8)
    np.testing.assert_allclose(found.logits, 0, atol=1e-9)
    assert (found.pbo, found.prob_loss) == (1, 0)
    assert (found.winners == 0).all()
    by_block = pbo_of_scores(zero[:6])
    assert (pbo_of_scores(np.repeat(zero[:2], 3, axis=0)[:6]).logits.shape[0], len(by_block.logits)) == (20, 20)
    scores = np.column_stack([[0.1, 0.2, -0.3, 0.1, 0.2, -0.3]] * 2)
    assert pbo_of_scores(scores).pbo == 1


def pbo_of_scores_by_loop(scores):
    n = len(scores)
    logits = []
    for chosen in combinations(range(n), n // 2):
        rest = [b for b in range(n) if b not in chosen]
        winner = int(np.argmax(scores[list(chosen)].mean(axis=0)))
        share = stats.rankdata(scores[rest].mean(axis=0))[winner] / (scores.shape[1] + 1)
        logits.append(np.log(share / (1 - share)))
    return np.array(logits)


@pytest.mark.parametrize(("n_blocks", "n_trials"), [(4, 3), (8, 25), (12, 6)])
def test_scores_of_blocks_equal_a_loop(n_blocks, n_trials):
    scores = np.random.default_rng(n_blocks).normal(0.002, 0.01, (n_blocks, n_trials))
    logits = pbo_of_scores_by_loop(scores)
    np.testing.assert_allclose(pbo_of_scores(scores).logits, logits, rtol=1e-12)
    assert pbo_of_scores(scores).pbo == (logits <= 0).mean()


def test_scores_of_noise_give_a_half_and_a_better_trial_nothing():
    rng = np.random.default_rng(1)
    shares = [pbo_of_scores(rng.normal(size=(8, 20))).pbo for _ in range(80)]
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * np.std(shares) / np.sqrt(80))
    better = rng.normal(size=(8, 20))
    better[:, 3] += 8
    assert pbo_of_scores(better).pbo == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda r: pbo(r[:, 0], 8), "one trial"),
        (lambda r: pbo(r[:, :1], 8), "one trial"),
        (lambda r: pbo(r, 7), "7 blocks"),
        (lambda r: pbo_of_scores(r[:2]), "scores of 2 blocks"),
        (lambda r: pbo_of_scores(r[:7]), "scores of 7 blocks"),
        (lambda r: pbo_of_scores(r[:22]), "scores of 22 blocks"),
        (lambda r: pbo_of_scores(r[:8, :1]), "one trial"),
        (lambda r: pbo(r, 0), "0 blocks"),
        (lambda r: pbo(r[:12], 8), "8 blocks on 12 rows"),
        (lambda r: pbo(np.repeat(r, 10, axis=0), 60), "60 blocks"),
        (lambda r: pbo(np.where(r == r[5, 2], np.nan, r), 8), "not finite"),
        (lambda r: pbo(np.full_like(r, 0.01), 8), "trial 0 earns the same"),
        (lambda r: spa_test(r, np.zeros(5), seed=0), "same T periods"),
        (lambda r: spa_test(r * 0, np.zeros(163), seed=0), "by a constant"),
        (lambda r: spa_test(r[:10], np.zeros(10), seed=0), "at least 20"),
        (lambda r: spa_test(np.where(r == r[5, 2], np.nan, r), np.zeros(163), seed=0), "not finite"),
        (lambda r: spa_test(r, np.r_[np.nan, np.zeros(162)], seed=0), "not finite"),
        (lambda r: pbo([r[:, 0].tolist(), r[1:, 1].tolist()], 8), "different lengths"),
    ],
)
def test_refuses(returns_TN, call, said):
    with pytest.raises(DataError, match=said):
        call(returns_TN)
