import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM

from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.regime import HmmRegime, _gaussian_hmm, stationary
from tradsys.models.regime_filter import _window_in_logs, filter_windows

TRANSMAT = np.array([[0.990, 0.008, 0.002], [0.010, 0.985, 0.005], [0.010, 0.030, 0.960]])
SIGMA = np.array([0.001, 0.002, 0.006])
DRIFT = np.array([0.0, 0.0004, -0.001])


def simulate(n: int, seed: int = 0, states: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """States [T] and columns (return, noisy log volatility) [T, 2] of a known chain."""
    rng = np.random.default_rng(seed)
    transmat = TRANSMAT[:states, :states] / TRANSMAT[:states, :states].sum(axis=1, keepdims=True)
    state = np.zeros(n, dtype=np.int64)
    for t in range(1, n):
        state[t] = rng.choice(states, p=transmat[state[t - 1]])
    ret = rng.normal(DRIFT[state], SIGMA[state])
    return state, np.stack([ret, np.log(SIGMA[state]) + rng.normal(0, 0.3, n)], axis=1)


def as_samples(x: np.ndarray, lookback: int = 1) -> Samples:
    n = len(x)
    codes, rows = np.zeros(n, dtype=np.int32), np.arange(lookback - 1, n)
    time = np.datetime64("2020-01-01", "us") + np.arange(n) * np.timedelta64(5, "m")
    table = FeatureTable(codes, time, codes, x.astype(np.float32), ("ret", "vol"), ("AAA",))
    zeros = np.zeros(len(rows))
    return Samples(table, rows, zeros.astype(np.int64), zeros + 1, rows - lookback + 1, rows, zeros)


def fit(x: np.ndarray, **params) -> HmmRegime:
    samples = as_samples(x)
    given = {"columns": ("ret", "vol"), "n_seeds": 2, "lookback": 60, **params}
    return HmmRegime(**given).fit(samples, samples.take(np.arange(0)))


def as_hmmlearn(model: HmmRegime) -> GaussianHMM:
    hmm = GaussianHMM(n_components=model.n_states, covariance_type="full")
    hmm.startprob_, hmm.transmat_ = model.startprob_, model.transmat_
    hmm.means_, hmm.covars_ = model.means_, model.covars_
    return hmm


@pytest.fixture(scope="module")
def market() -> tuple[np.ndarray, np.ndarray]:
    return simulate(4000)


@pytest.fixture(scope="module")
def model(market) -> HmmRegime:
    return fit(market[1])


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_filter_is_the_last_row_of_the_prefix_posterior(market, covariance):
    # smoothing at a series' last point is filtering, and hmmlearn smooths
    model = fit(market[1], covariance=covariance)
    x = market[1][:400]
    z = (x - model.center_) / model.scale_
    oracle = as_hmmlearn(model)
    ours = model.filter(x)
    for t in [0, 1, 2, 17, 100, 399]:
        np.testing.assert_allclose(ours[t], oracle.predict_proba(z[: t + 1])[-1], atol=1e-10)


def test_smoothing_would_have_known_the_future(market, model):
    # negative control: the smoothed path is not ours, and it is the better guess because it has seen later
    # bars
    state, x = market
    smoothed = as_hmmlearn(model).predict_proba((x - model.center_) / model.scale_)
    ours = model.filter(x)
    assert np.abs(smoothed - ours).max() > 0.5
    assert (smoothed.argmax(axis=1) == state).mean() > (ours.argmax(axis=1) == state).mean()


def test_window_filter_is_the_prefix_posterior_of_the_window(market, model):
    samples = as_samples(market[1])
    rows = np.array([59, 60, 777, 3999])
    ours = model.predict_proba(samples.table, rows)
    oracle = as_hmmlearn(model)
    for row, posterior in zip(rows, ours, strict=True):
        window = samples.table.values[row - 59 : row + 1].astype(np.float64)
        expected = oracle.predict_proba((window - model.center_) / model.scale_)[-1]
        np.testing.assert_allclose(posterior, expected, atol=1e-10)


def test_likelihood_is_hmmlearns(market, model):
    x32 = market[1].astype(np.float32).astype(np.float64)
    assert model.loglik_ == pytest.approx(as_hmmlearn(model).score((x32 - model.center_) / model.scale_), rel=1e-12)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_em_goes_where_hmmlearns_own_densities_lead_it(market, monkeypatch, covariance):
    x, given = market[1].astype(np.float32), {"covariance": covariance, "n_seeds": 1, "max_iter": 12}
    ours = fit(x, **given)
    monkeypatch.setattr("tradsys.models.regime._gaussian_hmm", GaussianHMM)
    theirs = fit(x, **given)
    for name in ("transmat_", "means_", "covars_", "loglik_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-12)


def test_densities_of_a_singular_covariance_are_hmmlearns():
    # a state on a line: hmmlearn adds a little to the diagonal before it gives up
    z = np.random.default_rng(2).normal(size=(50, 2))
    pair = [_gaussian_hmm(n_components=1), GaussianHMM(n_components=1)]
    for hmm in pair:
        hmm.covariance_type, hmm.n_features, hmm.means_ = "full", 2, np.zeros((1, 2))
        hmm._covars_ = np.ones((1, 2, 2))
    ours, theirs = (hmm._compute_log_likelihood(z) for hmm in pair)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("states", [2, 3])
def test_a_known_chain_is_recovered(states):
    state, x = simulate(6000, seed=1, states=states)
    model = fit(x, n_states=states, names=("calm", "trend", "panic")[:states])
    sigma = np.sqrt(model.covars_[:, 0, 0]) * model.scale_[0]
    np.testing.assert_allclose(sigma, SIGMA[:states], rtol=0.1)
    np.testing.assert_allclose(np.diag(model.transmat_), np.diag(TRANSMAT)[:states], atol=0.02)
    posterior = model.filter(x)
    assert (posterior.argmax(axis=1) == state).mean() > 0.95
    # calibrated: where it says 0.6 to 0.9, it is right about that often
    top = posterior.max(axis=1)
    unsure = (top > 0.6) & (top < 0.9)
    assert (posterior.argmax(axis=1) == state)[unsure].mean() == pytest.approx(top[unsure].mean(), abs=0.12)


def test_stationary_distribution_is_the_limit_of_powers():
    pi = stationary(TRANSMAT)
    np.testing.assert_allclose(pi, np.linalg.matrix_power(TRANSMAT, 5000)[0], atol=1e-10)


def test_a_hand_worked_two_state_step():
    _, x = simulate(1000, states=2)
    model = fit(x[:, :1].repeat(2, axis=1) + x * [0, 1], n_states=2, names=("calm", "panic"))
    z = (x[:2] - model.center_) / model.scale_

    def density(k: int, t: int) -> float:
        gap = z[t] - model.means_[k]
        inverse = np.linalg.inv(model.covars_[k])
        return float(np.exp(-0.5 * gap @ inverse @ gap) / np.sqrt(np.linalg.det(2 * np.pi * model.covars_[k])))

    first = np.array([model.startprob_[k] * density(k, 0) for k in range(2)])
    second = np.array([sum(first[i] * model.transmat_[i, k] for i in range(2)) * density(k, 1) for k in range(2)])
    np.testing.assert_allclose(model.filter(x[:2]), [first / first.sum(), second / second.sum()], rtol=1e-10)


def test_windows_of_scaled_densities_are_the_recursion_in_logarithms():
    rng = np.random.default_rng(3)
    loglik_RK = rng.normal(0, 1, (400, 3)) * rng.choice([1, 30, 3000], (400, 1))
    loglik_RK[200, :] = [-5000, -1e5, 0]
    start_K = np.array([1.0, 0.0, 0.0])  # a received file may hold zeros
    transmat_KK = np.array([[1.0, 0.0, 0.0], [1e-8, 0.5, 0.5 - 1e-8], [0.3, 1e-8, 0.7 - 1e-8]])
    ends = np.arange(59, 400)
    for start, transmat in ((start_K, transmat_KK), (np.full(3, 1 / 3), 0.9 * np.eye(3) + 0.1 / 3)):
        got_NK = filter_windows(loglik_RK, ends, 60, start, transmat)
        with np.errstate(divide="ignore"):
            wanted = [_window_in_logs.py_func(loglik_RK[e - 59 : e + 1], start, transmat) for e in ends]
        assert np.abs(got_NK - np.array(wanted)).max() < 1e-12


@pytest.mark.parametrize("outlier", [False, True])
def test_em_on_scaled_densities_is_em_in_logarithms(market, monkeypatch, outlier):
    x = market[1][:1500].copy()
    if outlier:  # no state has a density there, which scaled recursions cannot carry
        x[700] = 60 * np.abs(x).max(axis=0)
    scaled = fit(x, n_seeds=1, min_share=0.0)
    plain = HmmRegime._expectation_maximisation

    def in_logs(self, z_TD, lengths, stretches, _):
        return plain(self, z_TD, lengths, stretches, "log")

    monkeypatch.setattr(HmmRegime, "_expectation_maximisation", in_logs)
    in_logarithms = fit(x, n_seeds=1, min_share=0.0)
    assert scaled.n_iter_ == in_logarithms.n_iter_
    for name in ("transmat_", "means_", "covars_", "loglik_"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(in_logarithms, name), rtol=1e-6, atol=1e-9)
