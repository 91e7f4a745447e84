"""Meta-labels for the auditor: whether acting on a signal paid."""

import numpy as np

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array


def pays(ret_N: Array, cost: float) -> Array:
    """1 where a realised log return exceeds the costs, 0 where not, int64 [N].

    The costs are of a round trip; -1 where unresolved.
    ret_N: log returns in the trade's direction, before costs. cost: fees and slippage of entry and exit
    together, as a log return (30 bps: 0.003); a return equal to it does not pay. NaN: not resolved, -1.
    Raises TradsysError where cost is negative or not finite.
    Source: meta-labelling, Lopez de Prado 2018, section 3.6.
    """
    if not 0 <= cost < np.inf:
        raise TradsysError(f"meta: cost={cost}; a round trip costs 0 <= cost < inf as a log return; 30 bps are 0.003")
    ret_N = np.asarray(ret_N, dtype=np.float64)
    return np.where(np.isnan(ret_N), -1, (ret_N > cost).astype(np.int64))
