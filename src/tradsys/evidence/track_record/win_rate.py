"""Share of closed trades that won, with an interval that knows which trades were open together.

Seven coins bought at one hour rise and fall together: they are nearer to one trade than to seven. Legend: M trades.
"""

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.calibration import rate_bounds
from tradsys.evidence.multiple_testing import wilson_interval

Spans = tuple[Array, Array]


def win_rate(net_M: Array, spans: Spans | None = None, *, confidence: float = 0.95) -> Estimate:
    """Share of trades with a net result above zero, and its bounds.

    spans: decision and exit of each trade, datetime64 [M] each; None where no two trades were open together. Trades
    that were not have Wilson's interval. Otherwise their effective number is that of `calibration.rate_bounds`: trades
    decided at one time count together, and a label spans as many distinct decisions as fall within a trade on
    average. No trade has a reason and no value. Raises DataError for spans of another length or that end before they
    begin.
    """
    if not len(net_M):
        return Estimate(None, reason="no trade was closed")
    won_M = np.asarray(net_M) > 0
    if spans is None or not (within := decisions_within_a_trade(len(won_M), spans)):
        bounds = wilson_interval(int(won_M.sum()), len(won_M), confidence)
    else:
        one_bin, hit_M = np.zeros(len(won_M), dtype=np.int64), won_M.astype(np.float64)
        low_B, high_B = rate_bounds(one_bin, hit_M, spans[0], min_block=max(1.0, within), confidence=confidence)
        bounds = float(low_B[0]), float(high_B[0])
    return Estimate(float(won_M.mean()), *bounds)


def decisions_within_a_trade(n_trades: int, spans: Spans) -> float:
    """Distinct decisions from a trade's own until its exit, on average.

    0 where no two trades were open together. A trade that exits where another is decided does not overlap it.
    """
    start_M, end_M = (np.asarray(part) for part in spans)
    if not start_M.shape == end_M.shape == (n_trades,) or (end_M < start_M).any():
        raise DataError(
            f"win rate: decisions {start_M.shape} and exits {end_M.shape} of {n_trades} trades; one of each per trade, "
            "and no exit before its decision; take them from one ledger"
        )
    order = np.argsort(start_M, kind="stable")
    together = start_M[order][1:] < np.maximum.accumulate(end_M[order])[:-1]
    moments = np.unique(start_M)
    if not together.any() and len(moments) == n_trades:
        return 0.0
    return float((np.searchsorted(moments, end_M) - np.searchsorted(moments, start_M)).mean())
