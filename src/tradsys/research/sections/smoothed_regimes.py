"""Smoothed and Viterbi states of regimes: non-causal, used only for the report's section `hindsight`.

They cannot be traded: a smoothed state weighs each bar with all later ones, a Viterbi state belongs to the
single best path through the whole record. Both are computed from the fitted numbers of an `HmmRegime`, whose own
posteriors are filtered; no strategy, model or bundle ever uses them. Legend: R rows of the table, T bars of one
unbroken run, D columns, K states.
"""

import numpy as np

from tradsys.core.compiled import compiled
from tradsys.core.tables import Array, FeatureTable
from tradsys.models.regime import HmmRegime
from tradsys.models.supervisors.session_regime import SessionRegime
from tradsys.models.supervisors.supervised import Regime, SupervisedRegime, joint
from tradsys.models.transforms import fitted

UNKNOWN = -1


def smoothed_posterior(model: Regime, table: FeatureTable) -> Array:
    """Posterior of each state given ALL bars of its unbroken run, float64 [R, K].

    Non-causal, never for trading. The prior holds at a run's first bar. NaN where a column is not finite; a run ends
    there and at a segment's end. A regime of sessions is smoothed over its sessions, each of which holds until the
    next; a joint one is the product. Source: Rabiner 1989, eqs. 20, 25 and 27 (forward-backward), each step normalised.
    """
    if isinstance(model, SupervisedRegime):
        parts = [smoothed_posterior(fitted(model, name), table) for name in ("market_", "macro_")]
        return joint(*parts)
    if isinstance(model, SessionRegime):
        rows = model.session_rows(table)
        return _held(smoothed_posterior(fitted(model, "regime_"), table.take(rows)), rows, table, np.nan)
    out = np.full((len(table), model.n_states), np.nan)
    for rows, loglik_TK in _runs(model, table):
        out[rows] = _smoothed(loglik_TK, fitted(model, "startprob_"), fitted(model, "transmat_"))
    return out


def viterbi_path(model: Regime, table: FeatureTable) -> Array:
    """State of the single most likely path through each run, int64 [R].

    Runs are unbroken; -1 where a column is not finite. It reads the future; never for trading. Source: Rabiner 1989,
    eqs. 32-35, in logarithms.
    """
    if isinstance(model, SupervisedRegime):
        market, macro = (viterbi_path(fitted(model, name), table) for name in ("market_", "macro_"))
        return np.where((market < 0) | (macro < 0), UNKNOWN, market * model.macro.n_states + macro)
    if isinstance(model, SessionRegime):
        rows = model.session_rows(table)
        return _held(viterbi_path(fitted(model, "regime_"), table.take(rows)), rows, table, UNKNOWN)
    out = np.full(len(table), UNKNOWN, dtype=np.int64)
    for rows, loglik_TK in _runs(model, table):
        out[rows] = _viterbi(loglik_TK, np.log(fitted(model, "startprob_")), np.log(fitted(model, "transmat_")))
    return out


def _held(values: Array, rows: Array, table: FeatureTable, unknown: float) -> Array:
    """Values of session rows [S, ...] at every row [R, ...] until the next session of the same segment."""
    last = np.searchsorted(rows, np.arange(len(table)), side="right") - 1
    there = (last >= 0) & (table.segment[rows[np.maximum(last, 0)]] == table.segment if len(rows) else last >= 0)
    out = np.full((len(table), *values.shape[1:]), unknown, dtype=values.dtype)
    out[there] = values[last[there]]
    return out


def _runs(model: HmmRegime, table: FeatureTable) -> list[tuple[Array, Array]]:
    """Rows and log densities [T, K] of every run of finite rows inside one segment."""
    source = table.select(model.columns)
    rows = np.flatnonzero(source.ready(1))
    if not len(rows):
        return []
    loglik = model.log_densities(source.values[rows])
    breaks = (np.diff(rows) != 1) | (np.diff(table.segment[rows]) != 0)
    cuts = np.flatnonzero(breaks) + 1
    return list(zip(np.split(rows, cuts), np.split(loglik, cuts), strict=True))


@compiled
def _smoothed(loglik_TK: Array, start_K: Array, transmat_KK: Array) -> Array:  # pragma: no cover - compiled
    n_rows, n_states = loglik_TK.shape
    seen_TK, later_K = np.empty((n_rows, n_states)), np.empty(n_states)
    ahead_K, behind_K = start_K.copy(), np.ones(n_states)
    for t in range(n_rows):
        _relative_density(loglik_TK[t], seen_TK[t])
        for k in range(n_states):
            seen_TK[t, k] *= ahead_K[k]
        _normalise(seen_TK[t])
        for j in range(n_states):
            ahead_K[j] = 0.0
            for i in range(n_states):
                ahead_K[j] += seen_TK[t, i] * transmat_KK[i, j]
    for t in range(n_rows - 2, -1, -1):
        _relative_density(loglik_TK[t + 1], later_K)
        for k in range(n_states):
            later_K[k] *= behind_K[k]
        for i in range(n_states):
            behind_K[i] = 0.0
            for j in range(n_states):
                behind_K[i] += transmat_KK[i, j] * later_K[j]
        _normalise(behind_K)
        for k in range(n_states):
            seen_TK[t, k] *= behind_K[k]
        _normalise(seen_TK[t])
    return seen_TK


@compiled
def _relative_density(loglik_K: Array, out_K: Array) -> None:  # pragma: no cover - compiled
    """Writes exp(log - max) to out_K."""
    top = loglik_K[_best(loglik_K)]
    for k in range(len(out_K)):
        out_K[k] = np.exp(loglik_K[k] - top)


@compiled
def _normalise(weight_K: Array) -> None:  # pragma: no cover - compiled
    """Divides the weights by their sum, in place."""
    mass = 0.0
    for k in range(len(weight_K)):
        mass += weight_K[k]
    for k in range(len(weight_K)):
        weight_K[k] /= mass


@compiled
def _best(score_K: Array) -> int:  # pragma: no cover - compiled
    """Position of the largest, the first of equals."""
    best = 0
    for k in range(1, len(score_K)):
        if score_K[k] > score_K[best]:
            best = k
    return best


@compiled
def _viterbi(loglik_TK: Array, logstart_K: Array, logtrans_KK: Array) -> Array:  # pragma: no cover - compiled
    n_rows, n_states = loglik_TK.shape
    came_from = np.zeros((n_rows, n_states), dtype=np.int64)
    best_TK, reach_K = np.empty((n_rows, n_states)), np.empty(n_states)
    for k in range(n_states):
        best_TK[0, k] = logstart_K[k] + loglik_TK[0, k]
    for t in range(1, n_rows):
        for j in range(n_states):
            for i in range(n_states):
                reach_K[i] = best_TK[t - 1, i] + logtrans_KK[i, j]
            came_from[t, j] = _best(reach_K)
            best_TK[t, j] = reach_K[came_from[t, j]] + loglik_TK[t, j]
    path = np.empty(n_rows, dtype=np.int64)
    path[-1] = _best(best_TK[-1])
    for t in range(n_rows - 2, -1, -1):
        path[t] = came_from[t + 1, path[t + 1]]
    return path
