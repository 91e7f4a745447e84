"""What one bar can fill, compiled: the rule that simulators and labels share; in words in `portfolio.fills`."""

import numba
import numpy as np

from tradsys.core.tables import Array
from tradsys.market.tradable import MAX_PRINT_FACTOR

TAKE_PROFIT, STOP_LOSS, TIMEOUT = 0, 1, 2


@numba.njit(cache=True)
def confirmed(price: float, anchor: float) -> bool:
    """Whether a price lies within MAX_PRINT_FACTOR of an anchor; a NaN anchor confirms all."""
    return np.isnan(anchor) or anchor / MAX_PRINT_FACTOR <= price <= anchor * MAX_PRINT_FACTOR


@numba.njit(cache=True)
def fills_at_open(bars: tuple[Array, ...], j: int) -> bool:
    """Whether an order can fill at the open of bar j: something traded, at a price that the close before confirms."""
    return bars[4][j] > 0 and confirmed(bars[0][j], bars[5][j])


@numba.njit(cache=True)
def touch(
    bars: tuple[Array, ...], j: int, side: int, levels: tuple[float, float], state: tuple[bool, bool]
) -> tuple[int, float, bool, bool]:
    """Reason (-1 for none), raw price (0 where it cannot fill), whether at the open, `passed`: see `portfolio.fills`.

    bars: open, high, low, close, volume, close before, float64 [B] each.
    """
    open_, close, before = bars[0][j], bars[3][j], bars[5][j]
    target, stop = levels
    last, passed = state
    best, worst = (bars[1][j], bars[2][j]) if side > 0 else (bars[2][j], bars[1][j])
    reason, price, at_open = TIMEOUT if last else -1, 0.0, False
    if not bars[4][j] > 0:
        pass
    elif side * open_ <= side * stop:
        reason, price, at_open = STOP_LOSS, open_, True
    elif side * open_ >= side * target and confirmed(open_, before):
        reason, price, at_open = TAKE_PROFIT, target if passed else open_, True
    elif side * worst <= side * stop:
        reason, price = STOP_LOSS, stop
    elif side * best >= side * target:
        if confirmed(best, before) or (confirmed(open_, before) and confirmed(best, open_)):
            reason, price = TAKE_PROFIT, target
        else:
            passed = True
    elif last and (confirmed(close, before) or (confirmed(open_, before) and confirmed(close, open_))):
        price = close
    return reason, price, at_open, passed
