import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from tradsys.core.errors import DataError
from tradsys.models.calibrators import Isotonic, Temperature


@pytest.fixture
def held_out():
    rng = np.random.default_rng(3)
    n = 4000
    truth = rng.normal(-0.7, 1.0, n)
    y = (rng.uniform(size=n) < 1 / (1 + np.exp(-truth))).astype(np.int64)
    score = 1 / (1 + np.exp(-(2.5 * truth + 1.2)))  # too sure of itself, and too bullish
    return np.stack([1 - score, score], axis=1), y, rng.uniform(0.1, 1, n)


def log_loss(proba, y, weight) -> float:
    return float(-np.average(np.log(proba[np.arange(len(y)), y]), weights=weight))


def test_temperature_with_bias_is_platt_scaling_of_the_log_odds(held_out):
    proba, y, weight = held_out
    platt = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    weight_N = weight / weight.mean()
    own_N = 1 - 1 / (np.bincount(y, weight_N)[y] + 2)  # Platt's targets: each row counts a little for the other class
    both, split = np.concatenate([y, 1 - y]), np.concatenate([own_N, 1 - own_N]) * np.tile(weight_N, 2)
    platt.fit(np.tile(logit(proba[:, [1]]), (2, 1)), both, sample_weight=split)
    ours = Temperature(bias=True).fit(proba, y, weight)
    assert 1 / ours.temperature_ == pytest.approx(platt.coef_[0, 0], rel=1e-4)
    assert ours.bias_[1] - ours.bias_[0] == pytest.approx(platt.intercept_[0], abs=1e-4)
    n_rows = weight.sum() ** 2 / (weight**2).sum()
    expected = np.clip(platt.predict_proba(logit(proba[:, [1]]))[:, 1], 1 / (n_rows + 2), (n_rows + 1) / (n_rows + 2))
    np.testing.assert_allclose(ours.apply(proba)[:, 1], expected, atol=1e-5)
    # the planted distortion: T = 2.5, and the shift that undoes 1.2
    assert ours.temperature_ == pytest.approx(2.5, rel=0.1)
    assert ours.bias_[1] - ours.bias_[0] == pytest.approx(-1.2 / 2.5, abs=0.1)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_temperature_without_bias_is_the_one_dimensional_optimum(n_classes):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3000, n_classes))
    y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    weight = rng.uniform(0.1, 1, 3000)
    proba = softmax(truth * 3.0, axis=1)

    share = 1 / (np.bincount(y, weight / weight.mean()) + 2)[y]
    target = np.tile(share[:, None] / (n_classes - 1), (1, n_classes))
    target[np.arange(3000), y] = 1 - share

    def loss(log_t: float) -> float:
        logq = log_softmax(np.log(proba) / np.exp(log_t), axis=1)
        return float(-np.average((target * logq).sum(axis=1), weights=weight))

    best = np.exp(minimize_scalar(loss, bounds=(-3, 4), method="bounded", options={"xatol": 1e-10}).x)
    ours = Temperature(bias=False).fit(proba, y, weight)
    assert ours.temperature_ == pytest.approx(best, rel=1e-5)
    np.testing.assert_array_equal(ours.bias_, np.zeros(n_classes))


def test_bias_restores_the_base_rate_that_balanced_class_weights_destroyed(held_out):
    proba, y, weight = held_out
    base_rate = np.average(y, weights=weight)
    with_bias = Temperature(bias=True).fit(proba, y, weight).apply(proba)
    without = Temperature(bias=False).fit(proba, y, weight).apply(proba)
    assert np.average(with_bias[:, 1], weights=weight) == pytest.approx(base_rate, abs=2e-5)  # a score equation
    assert abs(np.average(without[:, 1], weights=weight) - base_rate) > 0.05
    assert log_loss(with_bias, y, weight) < log_loss(without, y, weight) < log_loss(proba, y, weight)


def test_isotonic_is_scikit_learn_clipped_away_from_certainty(held_out):
    proba, y, weight = held_out
    oracle = IsotonicRegression(out_of_bounds="clip").fit(proba[:, 1], y, sample_weight=weight)
    ours = Isotonic().fit(proba, y, weight)
    grid = np.linspace(0, 1, 501)
    eps = 1 / (weight.sum() ** 2 / (weight**2).sum() + 2)
    expected = np.clip(oracle.predict(grid), eps, 1 - eps)
    np.testing.assert_allclose(ours.apply(np.stack([1 - grid, grid], axis=1))[:, 1], expected, atol=2 * eps)


def pool_adjacent_violators(y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    blocks = [[value, mass, 1] for value, mass in zip(y.tolist(), weight.tolist(), strict=True)]
    i = 0
    while i < len(blocks) - 1:
        if blocks[i][0] > blocks[i + 1][0]:
            (a, m, n), (b, k, o) = blocks[i], blocks[i + 1]
            blocks[i : i + 2] = [[(a * m + b * k) / (m + k), m + k, n + o]]
            i = max(i - 1, 0)
        else:
            i += 1
    return np.concatenate([np.full(n, value) for value, _, n in blocks])


def test_isotonic_agrees_with_pooling_adjacent_violators_by_hand():
    rng = np.random.default_rng(5)
    score = np.sort(rng.uniform(0.05, 0.95, 60))
    y = (rng.uniform(size=60) < score).astype(np.int64)
    weight = rng.uniform(0.5, 2, 60)
    eps = 1 / (weight.sum() ** 2 / (weight**2).sum() + 2)
    ours = Isotonic().fit(np.stack([1 - score, score], axis=1), y, weight).apply(np.stack([1 - score, score], axis=1))
    np.testing.assert_allclose(ours[:, 1], np.clip(pool_adjacent_violators(y, weight), eps, 1 - eps), atol=1e-9)


def pooled_steps(score: np.ndarray, y: np.ndarray, n_runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of equally many sorted scores and the monotone means over them, by hand; n a multiple of n_runs."""
    order = np.argsort(score)
    means, runs = (values[order].reshape(n_runs, -1).mean(axis=1) for values in (score, y.astype(float)))
    return means, pool_adjacent_violators(runs, np.ones(n_runs))


def test_isotonic_with_a_least_share_is_pooled_first_by_hand():
    rng = np.random.default_rng(8)
    score = rng.uniform(0.2, 0.8, 400)
    y = (rng.uniform(size=400) < score).astype(np.int64)
    x, up = pooled_steps(score, y, 10)
    ours = Isotonic(least_share=0.1).fit(np.stack([1 - score, score], axis=1), y, np.ones(400))
    grid = np.linspace(0, 1, 301)
    np.testing.assert_allclose(ours.apply(np.stack([1 - grid, grid], axis=1))[:, 1], np.interp(grid, x, up), atol=1e-9)


def test_a_few_lucky_rows_at_an_end_are_no_certainty():
    rng = np.random.default_rng(9)
    score = rng.uniform(0.4, 0.6, 2000)
    y = (rng.uniform(size=2000) < 0.5).astype(np.int64)
    y[np.argsort(score)[-12:]] = 1  # one good day of a panel
    proba, weight = np.stack([1 - score, score], axis=1), np.ones(2000)
    beyond = np.array([[0.1, 0.9]])
    assert Isotonic().fit(proba, y, weight).apply(beyond)[0, 1] > 0.99
    assert Isotonic(least_share=0.05).fit(proba, y, weight).apply(beyond)[0, 1] < 0.65


@pytest.mark.parametrize("weighted", [False, True])
def test_every_step_holds_its_share_and_ties_stay_together(weighted):
    rng = np.random.default_rng(10)
    score = np.round(rng.uniform(0.2, 0.8, 1000), 2)
    weight = rng.uniform(0.5, 2, 1000) if weighted else np.ones(1000)
    y = (rng.uniform(size=1000) < score).astype(np.int64)
    fitted = Isotonic(least_share=0.1).fit(np.stack([1 - score, score], axis=1), y, weight)
    assert 2 <= len(fitted.x_) <= 10
    assert (np.diff(fitted.x_) > 0).all()
    assert (np.diff(fitted.y_) >= 0).all()
    assert Isotonic.from_json(fitted.to_json()).y_.tolist() == fitted.y_.tolist()


def test_a_share_of_more_than_half_is_refused():
    with pytest.raises(DataError, match=r"least_share=0\.7"):
        Isotonic(least_share=0.7)
