"""Falls of an account below its earlier high: the one rule of peak, trough, recovery and depth.

Periods are counted from 0, before the first return, at which the equity is 1. So a loss in the first period counts.
"""

from typing import NamedTuple, TypedDict

import numpy as np

from tradsys.core.tables import Array
from tradsys.evidence.sharpe import checked_returns

DUST = 1e-12  # of the peak: a product of returns comes back to it but for rounding


class DeepestFall(TypedDict):
    """The deepest fall of a record, as `performance` states it."""

    max_drawdown: float
    drawdown_periods: float
    drawdown_days: float
    drawdown_recovered: bool


class Fall(NamedTuple):
    """One fall below a peak.

    peak: the last period at it. trough: the lowest. end: the first back at the peak, or the record's last period while
    the fall lasts. depth: in (0, 1].
    """

    peak: int
    trough: int
    end: int
    recovered: bool
    depth: float


def equity_curve(returns_T: Array) -> Array:
    """Compounded equity [T + 1] from 1; 0 from a loss of all or more on."""
    returns = checked_returns(returns_T, "equity_curve", least=0)
    return np.concatenate([[1.0], np.cumprod(np.maximum(1 + returns, 0))])


def falls(returns_T: Array) -> list[Fall]:
    """Every fall of simple returns [T] below the highest equity, in order."""
    equity = equity_curve(returns_T)
    under = equity < np.maximum.accumulate(equity) * (1 - DUST)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], under.astype(int), [0]])))
    found = []
    for start, end in edges.reshape(-1, 2).tolist():
        peak, trough, is_over = start - 1, start + int(equity[start:end].argmin()), end < len(equity)
        depth = float(1 - equity[trough] / equity[peak])
        found.append(Fall(peak, trough, end if is_over else len(equity) - 1, is_over, depth))
    return found


def drawdown_span(returns_T: Array) -> tuple[float, int, int, bool]:
    """Depth, peak, end and recovery of the deepest fall of returns [T].

    The earliest of equals. No fall gives (0, 0, 0, True).
    """
    deepest = max(falls(returns_T), key=lambda one: one.depth, default=None)
    return (0.0, 0, 0, True) if deepest is None else (deepest.depth, deepest.peak, deepest.end, deepest.recovered)
