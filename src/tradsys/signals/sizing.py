"""How much of the sub-account a trade takes: pure functions to a share; NaN in, size 0."""

import numpy as np
from numpy.typing import ArrayLike

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array


def fixed(fraction: float, n: int) -> Array:
    """float64 [n]: the same fraction of equity for every trade. Source: Vince 1990."""
    _check_fraction("fixed", "fraction", fraction)
    return np.full(n, float(fraction))


def volatility_target(volatility: ArrayLike, target: float, cap: float = 1.0) -> Array:
    """float64 [N]: target / volatility, at most cap, so that every position risks about the same.

    volatility: of the asset's returns as known at the decision, > 0. target: that of the position, in the
    same unit and period. A volatility that is NaN, zero or negative sizes 0.
    Source: Moskowitz, Ooi and Pedersen 2012, eq. 5 (positions scaled by target / sigma_t).
    """
    if not target > 0:
        raise TradsysError(f"volatility_target: target={target}; it is > 0; state one")
    _check_fraction("volatility_target", "cap", cap)
    volatility_N = np.asarray(volatility, dtype=np.float64)
    sizes = np.divide(target, volatility_N, out=np.zeros(volatility_N.shape), where=volatility_N > 0)
    return np.minimum(sizes, cap)


def kelly_fraction(
    proba: ArrayLike, win: ArrayLike, loss: ArrayLike, *, fraction: float = 0.5, cap: float = 1.0
) -> Array:
    """float64 [N]: a fraction of the growth-optimal stake p / loss - (1 - p) / win, between 0 and cap.

    proba: calibrated probability of the win. win, loss: what the trade then gains or loses as a fraction of
    its notional, > 0, costs included. fraction: of full Kelly; estimated probabilities err, and beyond
    twice the optimum growth is negative. A NaN, or a win or loss <= 0, sizes 0. Source: Kelly 1956; Thorp
    2006 (maximises p ln(1 + f win) + (1 - p) ln(1 - f loss)).
    """
    _check_fraction("kelly_fraction", "fraction", fraction)
    _check_fraction("kelly_fraction", "cap", cap)
    p, b, a = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (proba, win, loss)))
    known = np.isfinite(p) & (a > 0) & (b > 0)
    share = np.divide(p, a, out=np.zeros(p.shape), where=known)
    share -= np.divide(1 - p, b, out=np.zeros(p.shape), where=known)
    return np.clip(fraction * share, 0.0, cap)


def _check_fraction(where: str, name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise TradsysError(f"{where}: {name}={value}; a share of equity is 0 < {name} <= 1; mend the profile")
