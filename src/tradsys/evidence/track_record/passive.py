"""Return beyond that of the strategy's own average exposure: the null of a verdict in a market that drifts."""

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array


def beyond_passive(returns: Array, exposure: Array, market_T: Array) -> Array:
    """Returns [T] or [T, K] less those of the average exposure held passively.

    The exposure is the average so far, held in the market. returns: per period, after costs, [T] or [T, K]. exposure:
    signed position over equity in the period, same shape. market_T: the market's return of the period [T]. The average
    runs over earlier periods only: where returns of the market cannot be predicted, the result has mean zero whatever
    the strategy's timing, also in a market that only rises. The first period has no average and stays as it is. Raises
    DataError on other shapes or values that are not finite.
    """
    own, held, market = (np.asarray(a, dtype=np.float64) for a in (returns, exposure, market_T))
    if own.shape != held.shape or own.shape[:1] != market.shape:
        raise DataError(
            f"beyond_passive: returns {own.shape}, exposure {held.shape}, market {market.shape}; one of each per "
            "period; align them first"
        )
    if not all(np.isfinite(a).all() for a in (own, held, market)):
        raise DataError("beyond_passive: values that are not finite; cut the record where all three are known")
    count = np.arange(1, len(own) + 1).reshape(-1, *[1] * (own.ndim - 1))
    average = np.concatenate([np.zeros_like(held[:1]), (np.cumsum(held, axis=0) / count)[:-1]])
    return own - average * market.reshape(count.shape)
