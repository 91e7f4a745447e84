"""Position sizes as a share of the sub-account's equity: pure functions; NaN in, size 0."""

import numpy as np
from numpy.typing import ArrayLike

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array


def fixed(fraction: float, n: int) -> Array:
    """float64 [n]: the same fraction of equity for every trade. Source: Vince 1990."""
    _check_fraction("fixed", "fraction", fraction)
    return np.full(n, float(fraction))


def volatility_target(volatility: ArrayLike, target: float, cap: float = 1.0) -> Array:
    """Position size target / volatility, at most cap, float64 [N].

    So every position risks about the same.
    volatility: of the asset's returns, point in time, > 0. target: that of the position, in the same unit and
    period. The size is 0 where the volatility is NaN, zero or negative.
    Source: Moskowitz, Ooi and Pedersen 2012, eq. 5 (positions scaled by target / sigma_t).
    """
    if not target > 0:
        raise TradsysError(f"volatility_target: target={target}; it must be above 0; set sizing.target")
    _check_fraction("volatility_target", "cap", cap)
    volatility_N = np.asarray(volatility, dtype=np.float64)
    sizes = np.divide(target, volatility_N, out=np.zeros(volatility_N.shape), where=volatility_N > 0)
    return np.minimum(sizes, cap)


def _check_fraction(where: str, name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise TradsysError(f"{where}: {name}={value}; a share of equity is 0 < {name} <= 1; fix the profile")
