"""Skill beyond the level: the information of a forecast apart from how often each class occurs.

The headline metric of every command. It compares the forecast with the best constant after both are shifted to the
level of the rows they are evaluated on:

    skill_beyond_level = 1 - min_a loss(softmax(log p + a)) / loss(observed rates)

a [C] is one shift of all logits of one fit. Three properties follow, and the tests check them:
- any constant forecast has exactly 0, and a shift of the logits changes nothing: a market that rises or falls as a
  whole earns nothing, and no choice of level can be rewarded;
- at the best shift the mean forecast equals the observed rates, so the reference is also the mean of the forecast;
- a forecast shuffled at random over the rows has an expected skill of at most 0, since -log is convex (Jensen).

A model that times the market is rewarded for a higher forecast before better stretches of the evaluated span and
a lower one before worse ones, never for the mean of the span. A model that orders names is rewarded for the order.
Legend: N samples, C classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from tradsys.core.tables import Array
from tradsys.evidence.calibration import checked_forecast

# the loss of a forecast of exactly 0 that comes true is minus the log of this, not infinity
SMALLEST = float(np.finfo(np.float64).eps)


def log_losses(proba: Array, y: Array) -> Array:
    """Minus the log of the probability of the realised class, [N], in nats.

    proba: [N] of class 1 or [N, C]; below 2e-16 counts as that. The mean is the log-loss.
    """
    proba_NC, y_N = checked_forecast(proba, y, "log_losses")
    return -np.log(np.clip(proba_NC[np.arange(len(y_N)), y_N], SMALLEST, 1.0))


@dataclass(frozen=True, eq=False)
class LevelledLosses:
    """Log-losses [N] of a forecast and of the best constant.

    Both at the observed level.
    """

    forecast: Array
    constant: Array

    @property
    def skill(self) -> float:
        """1 - mean forecast / mean constant; NaN where the rows hold one class."""
        reference = self.constant.mean()
        return float(1 - self.forecast.mean() / reference) if reference > 0 else float("nan")


def levelled_losses(
    proba: Array, y: Array, weight_N: Array | None = None, fold_N: Array | None = None
) -> LevelledLosses:
    """Losses of a forecast shifted to the observed level, and of that level.

    The shift is one constant on its logits. proba: [N] of class 1 or [N, C]. weight_N: of each sample in the level, by
    default 1. fold_N: code of the fit that forecast each row; each fit has its own level, since fits were trained on
    different rates. Where the rows of a fit hold a single class, both losses are 0, their limit at that level.
    """
    proba_NC, y_N = checked_forecast(proba, y, "levelled_losses")
    weight = np.ones(len(y_N)) if weight_N is None else np.asarray(weight_N, dtype=np.float64)
    forecast, constant = np.empty(len(y_N)), np.empty(len(y_N))
    fold = np.zeros(len(y_N)) if fold_N is None else fold_N
    for code in np.unique(fold):
        rows = np.flatnonzero(fold == code)
        forecast[rows], constant[rows] = _of_fit(proba_NC[rows], y_N[rows], weight[rows])
    return LevelledLosses(forecast, constant)


def _of_fit(proba_NC: Array, y_N: Array, weight_N: Array) -> tuple[Array, Array]:
    mass_C = np.bincount(y_N, weights=weight_N, minlength=proba_NC.shape[1])
    seen = mass_C > 0
    if seen.sum() < 2:
        return np.zeros(len(y_N)), np.zeros(len(y_N))
    rate_C = mass_C / mass_C.sum()
    constant = log_losses(np.broadcast_to(rate_C, proba_NC.shape), y_N)
    logits_NC = np.log(np.clip(proba_NC, SMALLEST, 1.0))
    if not np.ptp(logits_NC, axis=0).any():  # a constant's best shift is the rate, exact without the solver
        return constant, constant
    shift_C = np.full(len(rate_C), -np.inf)
    shift_C[seen] = _best_shift(logits_NC[:, seen], rate_C[seen], weight_N / weight_N.sum())
    log_p_NC = special.log_softmax(logits_NC + shift_C, axis=1)
    # rows of a class without weight count in no mean
    return np.where(seen[y_N], -log_p_NC[np.arange(len(y_N)), y_N], constant), constant


def _best_shift(logits_NC: Array, rate_C: Array, share_N: Array) -> Array:
    """Shift [C] of all logits with the least log-loss, last class 0: mean forecasts then equal the rates.

    The loss is convex in the shift, with gradient mean(p) - rate and Hessian diag(mean p) - p'p.
    """
    from scipy import optimize  # noqa: PLC0415 - takes a second to import

    if len(rate_C) == 2:
        score_N, wanted = logits_NC[:, 0] - logits_NC[:, 1], special.logit(rate_C[0])
        inside = wanted - score_N.max() - 1e-6, wanted - score_N.min() + 1e-6  # mean forecast below, above the rate
        shift = optimize.brentq(lambda a: share_N @ special.expit(score_N + a) - rate_C[0], *inside, xtol=1e-13)
        return np.array([shift, 0.0])

    def loss_and_slope(shift: Array) -> tuple[float, Array]:
        logits_NC_ = logits_NC + np.append(shift, 0.0)
        p_NC = special.softmax(logits_NC_, axis=1)
        loss = share_N @ special.logsumexp(logits_NC_, axis=1) - rate_C[:-1] @ shift
        return float(loss), (share_N @ p_NC - rate_C)[:-1]

    def curvature(shift: Array) -> Array:
        p_NK = special.softmax(logits_NC + np.append(shift, 0.0), axis=1)[:, :-1]
        weighted = p_NK * share_N[:, None]
        return np.diag(weighted.sum(axis=0)) - p_NK.T @ weighted

    mean_C = np.maximum(share_N @ special.softmax(logits_NC, axis=1), SMALLEST)
    start = np.log(rate_C / mean_C)
    how: Any = {"jac": True, "hess": curvature, "method": "trust-exact", "options": {"gtol": 1e-12}}
    return np.append(optimize.minimize(loss_and_slope, (start - start[-1])[:-1], **how).x, 0.0)
