"""Compiled kernels of the hidden Markov model's forward filter.

They loop over states instead of using array expressions, for which numba compiles broadcasting and its error
texts: two thirds of the compile time.
Shapes: R rows of the table, N decision rows, T bars of one series, D columns, K states.
"""

import math

import numpy as np

from tradsys.core.compiled import compiled
from tradsys.core.tables import Array

LEAST_MASS = 1e-200  # of a filter step relative to the row's largest density; below it the step uses logarithms


def whitening(covars_KDD: Array) -> tuple[Array, Array]:
    """Inverse Cholesky factors [K, D, D] and constants [K] of the densities.

    Raises LinAlgError where one is singular.
    """
    lower_KDD = np.linalg.cholesky(covars_KDD)
    logdet_K = np.log(np.diagonal(lower_KDD, axis1=1, axis2=2)).sum(axis=1)
    const_K = -0.5 * covars_KDD.shape[1] * math.log(2 * math.pi) - logdet_K
    return np.ascontiguousarray(np.linalg.inv(lower_KDD)), const_K


@compiled
def log_densities(
    z_TD: Array, means_KD: Array, whiten_KDD: Array, const_K: Array
) -> Array:  # pragma: no cover - compiled
    """log N(z; mean, covariance) [T, K].

    Row by row, so that a batch rounds as a single row does.
    """
    n_rows, n_dims = z_TD.shape
    out = np.empty((n_rows, len(const_K)))
    for t in range(n_rows):
        for k in range(len(const_K)):
            total = 0.0
            for i in range(n_dims):
                part = 0.0
                for j in range(i + 1):
                    part += whiten_KDD[k, i, j] * (z_TD[t, j] - means_KD[k, j])
                total += part * part
            out[t, k] = const_K[k] - 0.5 * total
    return out


@compiled
def _posterior(log_K: Array, weight_K: Array) -> float:  # pragma: no cover - compiled
    """Writes exp(log - max) to weight_K and returns max."""
    top = log_K[0]
    for k in range(1, len(log_K)):
        top = max(top, log_K[k])
    for k in range(len(log_K)):
        weight_K[k] = math.exp(log_K[k] - top)
    return top


@compiled
def _total(weight_K: Array) -> float:  # pragma: no cover - compiled
    """Sum of the weights, first to last."""
    mass = 0.0
    for k in range(len(weight_K)):
        mass += weight_K[k]
    return mass


@compiled
def _advance(weight_K: Array, transmat_KK: Array, loglik_K: Array, log_K: Array) -> None:  # pragma: no cover
    """One forward step: log_j = log(sum_i weight_i A_ij) + loglik_j."""
    n_states = len(log_K)
    for j in range(n_states):
        ahead = 0.0
        for i in range(n_states):
            ahead += weight_K[i] * transmat_KK[i, j]
        log_K[j] = np.log(ahead) + loglik_K[j]


@compiled
def filter_series(
    loglik_TK: Array, fresh_T: Array, startprob_K: Array, transmat_KK: Array
) -> tuple[Array, float]:  # pragma: no cover - compiled
    """Filtered posterior [T, K] and log-likelihood.

    The prior holds where fresh_T and after NaN.
    """
    n_rows, n_states = loglik_TK.shape
    out = np.empty((n_rows, n_states))
    log_K, weight_K = np.empty(n_states), np.empty(n_states)
    total, alive = 0.0, False
    for t in range(n_rows):
        if np.isnan(loglik_TK[t, 0]):
            for k in range(n_states):
                out[t, k] = np.nan
            alive = False
            continue
        if alive and not fresh_T[t]:
            _advance(weight_K, transmat_KK, loglik_TK[t], log_K)
        else:
            for k in range(n_states):
                log_K[k] = np.log(startprob_K[k]) + loglik_TK[t, k]
        total += _posterior(log_K, weight_K)
        mass = _total(weight_K)
        for k in range(n_states):
            out[t, k] = weight_K[k] / mass
        last = t + 1 == n_rows or fresh_T[t + 1] or np.isnan(loglik_TK[t + 1, 0])
        if last:
            total += np.log(mass)
        alive = True
    return out, total


@compiled
def _window_in_logs(loglik_TK: Array, startprob_K: Array, transmat_KK: Array) -> Array:  # pragma: no cover - compiled
    """Posterior [K] at the last row of one window, whatever the densities' range."""
    n_states = loglik_TK.shape[1]
    log_K, weight_K = np.empty(n_states), np.empty(n_states)
    for k in range(n_states):
        log_K[k] = np.log(startprob_K[k]) + loglik_TK[0, k]
    _posterior(log_K, weight_K)
    for t in range(1, len(loglik_TK)):
        _advance(weight_K, transmat_KK, loglik_TK[t], log_K)
        _posterior(log_K, weight_K)
    mass = _total(weight_K)
    for k in range(n_states):
        weight_K[k] /= mass
    return weight_K


@compiled
def filter_windows(
    loglik_RK: Array, ends_N: Array, lookback: int, startprob_K: Array, transmat_KK: Array
) -> Array:  # pragma: no cover - compiled
    """Posterior [N, K] at the last row of each window.

    Each window begins from the prior. Each row's densities are scaled by their largest once, not per window:
    overlapping windows then need no logarithm. A window whose densities all underflow is filtered in logarithms.
    """
    n_rows, n_states = loglik_RK.shape
    density_RK = np.empty((n_rows, n_states))
    for r in range(n_rows):
        _posterior(loglik_RK[r], density_RK[r])
    out = np.empty((len(ends_N), n_states))
    prior_K, weight_K = np.empty(n_states), np.empty(n_states)
    for n in range(len(ends_N)):
        first, mass = ends_N[n] - lookback + 1, 1.0
        for k in range(n_states):
            prior_K[k] = startprob_K[k]
        for t in range(first, ends_N[n] + 1):
            mass = 0.0
            for k in range(n_states):
                weight_K[k] = prior_K[k] * density_RK[t, k]
                mass += weight_K[k]
            if not mass > LEAST_MASS:
                break
            for k in range(n_states):
                weight_K[k] /= mass
            for j in range(n_states):
                ahead = 0.0
                for i in range(n_states):
                    ahead += weight_K[i] * transmat_KK[i, j]
                prior_K[j] = ahead
        if not mass > LEAST_MASS:
            weight_K = _window_in_logs(loglik_RK[first : ends_N[n] + 1], startprob_K, transmat_KK)
        for k in range(n_states):
            out[n, k] = weight_K[k]
    return out
