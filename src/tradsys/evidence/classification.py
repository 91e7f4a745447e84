"""How good probabilities are against always saying the training base rate, with intervals that know time.

Labels overlap and symbols move together, so samples are drawn in blocks of times (see `bootstrap`). Every
metric of a draw comes from the same draw, so skills are paired. Legend: N samples, C classes, T distinct
times, d draws.
"""

from typing import Any

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap
from tradsys.evidence.calibration import (
    bin_codes,
    binary_view,
    brier_losses,
    checked_base_rate,
    checked_forecast,
)

N_BINS = 10
# a forecast of exactly 0 that comes true costs this much, not infinity
SMALLEST = float(np.finfo(np.float64).eps)


def log_losses(proba: Array, y: Array) -> Array:
    """Minus the log of the probability given to what happened, [N], in nats.

    proba: [N] of class 1 or [N, C]; below 2e-16 counts as that. The mean is the log-loss.
    """
    proba_NC, y_N = checked_forecast(proba, y, "log_losses")
    return -np.log(np.clip(proba_NC[np.arange(len(y_N)), y_N], SMALLEST, 1.0))


def auc(proba: Array, y: Array, weight: Array | None = None) -> float | None:
    """Probability that a positive scores above a negative, ties half.

    proba: [N] of class 1 or [N, C] (three or more: mean of one-vs-rest). weight: [N] >= 0.
    None where some class has no sample, since it is undefined. Source: Mann & Whitney 1947.
    """
    proba_NC, y_N = checked_forecast(proba, y, "auc")
    weight_N = np.ones(len(y_N)) if weight is None else np.asarray(weight, dtype=np.float64)
    value = _Auc(proba_NC, y_N).of(weight_N[None, :])[0]
    return float(value) if np.isfinite(value) else None


def evaluate(
    proba_NC: Array,
    y_N: Array,
    base_rate_C: Array,
    *,
    time_N: Array,
    weight_N: Array | None = None,
    min_block: float = 1.0,
    n_draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics of one set of forecasts, ready for JSON: numbers or None, never NaN.

    proba_NC: [N, C] (or [N] of class 1). base_rate_C: class rates [C] of the TRAINING rows (or the rate of
    class 1). time_N: decision time or its code; rows of one time are drawn together. weight_N: sample
    weights >= 0. min_block: shortest mean block in distinct times, at least the label's horizon in bars,
    since labels overlap. Each metric is {value, low, high, reason}: log_loss, base_log_loss, skill (1 -
    log_loss / base_log_loss), auc, brier, brier_skill, ece, ece_equal_mass. Beside them n, n_times,
    base_rate [C], observed_rate [C], block_length, confidence, n_draws. Intervals are percentiles of a
    stationary block bootstrap; None, with the reason, where the record holds fewer than 10 blocks. Raises
    DataError on malformed input.
    """
    proba, y = checked_forecast(proba_NC, y_N, "evaluate")
    rate_C = checked_base_rate(base_rate_C, proba.shape[1], "evaluate")
    weight = _checked_weight(weight_N, len(y))
    if np.shape(time_N) != y.shape:
        raise DataError(f"evaluate: {np.shape(time_N)} times for {len(y)} samples; give one time per sample")
    order, first = bootstrap.time_groups(time_N)
    metrics = _Metrics(proba, y, rate_C, weight, order=order, first=first)
    n_times = len(first) - 1
    loss_T = bootstrap.mean_per_time(log_losses(proba, y), order, first)
    block_length = bootstrap.automatic_block_length(loss_T, min_block)
    reason = bootstrap.too_few_blocks(n_times, block_length)
    draws = None
    if reason is None:
        draws = bootstrap.bootstrap_draws(metrics.of, n_times, block_length, n_draws, seed=seed, cells_per_draw=len(y))
    with_interval = {
        name: bootstrap.estimate(value, None if draws is None else draws[:, k], confidence, reason).as_dict()
        for k, (name, value) in enumerate(zip(_Metrics.names, metrics.of(np.ones((1, n_times)))[0], strict=True))
    }
    return with_interval | {
        "n": len(y),
        "n_times": n_times,
        "base_rate": rate_C.tolist(),
        "observed_rate": (np.bincount(y, weights=weight, minlength=proba.shape[1]) / weight.sum()).tolist(),
        "block_length": block_length,
        "confidence": confidence,
        "n_draws": n_draws,
    }


class _Auc:
    """AUC of many weightings of the same scores: sorted once, then one cumulative sum each."""

    def __init__(self, proba_NC: Array, y_N: Array) -> None:
        classes = [1] if proba_NC.shape[1] == 2 else range(proba_NC.shape[1])
        self.parts = [self._sorted(proba_NC[:, c], y_N == c) for c in classes]

    @staticmethod
    def _sorted(score_N: Array, positive_N: Array) -> tuple[Array, Array, Array, Array]:
        order = np.argsort(score_N, kind="stable")
        score, positive = score_N[order], positive_N[order]
        up, down = np.flatnonzero(positive), np.flatnonzero(~positive)
        # negatives strictly below each positive, and those below or tied: half of their sum counts ties half
        below = np.searchsorted(score[down], score[up], side="left")
        below_or_tied = np.searchsorted(score[down], score[up], side="right")
        return order[up], order[down], below, below_or_tied

    def of(self, weight_dN: Array) -> Array:
        """AUC [d] of each weighting; NaN where a class has no weight."""
        return np.mean([self._one(weight_dN, *part) for part in self.parts], axis=0)

    @staticmethod
    def _one(weight_dN: Array, up: Array, down: Array, below: Array, tied: Array) -> Array:
        if not len(up) or not len(down):
            return np.full(len(weight_dN), np.nan)
        cumulative = np.zeros((len(weight_dN), len(down) + 1))
        np.cumsum(weight_dN[:, down], axis=1, out=cumulative[:, 1:])
        weight_up = weight_dN[:, up]
        beaten = cumulative[:, below] + cumulative[:, tied]
        pairs = weight_up.sum(axis=1) * cumulative[:, -1]
        wins = np.einsum("dn,dn->d", weight_up, beaten) / 2
        return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


class _Metrics:
    """All metrics of many draws at once, from sums per time; `of` maps counts [d, T] to [d, M]."""

    names = ("log_loss", "base_log_loss", "skill", "auc", "brier", "brier_skill", "ece", "ece_equal_mass")

    def __init__(self, proba: Array, y: Array, rate_C: Array, weight: Array, *, order: Array, first: Array) -> None:
        constant = np.broadcast_to(rate_C, proba.shape)
        score, hit = binary_view(proba, y)
        losses = [
            log_losses(proba, y),
            log_losses(constant, y),
            brier_losses(proba, y),
            brier_losses(constant, y),
        ]
        gaps = [np.eye(N_BINS)[bin_codes(score, N_BINS, mass)] * (score - hit)[:, None] for mass in ("width", "equal")]
        columns = np.column_stack([np.ones(len(y)), *losses, *gaps]) * weight[:, None]
        self.sums_TM = bootstrap.sum_per_time(columns, order, first)
        self.auc = _Auc(proba[order], y[order])
        self.weight_N = weight[order]
        self.time_of_N = np.repeat(np.arange(len(first) - 1), np.diff(first))

    def of(self, counts_dT: Array) -> Array:
        """Metrics [d, M] in the order of `names`; NaN where a draw does not define one."""
        sums = counts_dT @ self.sums_TM
        total = sums[:, 0]
        log_loss, base, brier, base_brier = np.divide(
            sums[:, 1:5], total[:, None], out=np.full((len(sums), 4), np.nan), where=total[:, None] > 0
        ).T
        width, equal = sums[:, 5 : 5 + N_BINS], sums[:, 5 + N_BINS :]
        eces = [np.abs(gap).sum(axis=1) / np.where(total > 0, total, np.nan) for gap in (width, equal)]
        auc_d = self.auc.of(counts_dT[:, self.time_of_N] * self.weight_N)
        return np.column_stack([log_loss, base, _skill(log_loss, base), auc_d, brier, _skill(brier, base_brier), *eces])


def _skill(loss: Array, reference: Array) -> Array:
    return 1 - np.divide(loss, reference, out=np.full_like(loss, np.nan), where=reference > 0)


def _checked_weight(weight_N: Array | None, n: int) -> Array:
    weight = np.ones(n) if weight_N is None else np.asarray(weight_N, dtype=np.float64)
    if weight.shape != (n,) or not (weight >= 0).all() or not np.isfinite(weight).all() or weight.sum() == 0:
        raise DataError(f"evaluate: weights of shape {weight.shape} for {n} samples; finite, >= 0, not all zero")
    return weight
