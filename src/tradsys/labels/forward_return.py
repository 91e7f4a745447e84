"""Whether a position held for a fixed time gains."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Labels
from tradsys.market.ranges import price_matrix, segment_starts


def forward_return(bars: pl.DataFrame, *, horizon_bars: int) -> Labels:
    """Outcome [R] of buying at open[t+1] and selling at close[t+H].

    y: 1 where the log return is above zero, else 0. end: row t+H. ret: that log return. weight: 1.
    Unlabelled (y -1, end -1, ret NaN, weight 0): the segment ends before t+H, or one of the two prices
    is NaN; a NaN between them does not matter. Raises TradsysError where horizon_bars < 1.
    """
    if not horizon_bars >= 1:
        raise TradsysError(
            f"forward_return: horizon_bars={horizon_bars}; a position lasts horizon_bars >= 1; use 24, say"
        )
    n_rows = bars.height
    open_, close = price_matrix(bars, ("open", "close")).T
    segment = np.cumsum(segment_starts(bars))
    rows = np.arange(max(n_rows - horizon_bars, 0))
    log_return = np.full(n_rows, np.nan)
    inside = segment[rows] == segment[rows + horizon_bars]
    held = rows[inside]
    log_return[held] = np.log(close[held + horizon_bars] / open_[held + 1])
    known = np.isfinite(log_return)
    return Labels(
        y=np.where(known, (log_return > 0).astype(np.int64), -1),
        end=np.where(known, np.arange(n_rows) + horizon_bars, -1),
        ret=np.where(known, log_return, np.nan),
        weight=known.astype(np.float64),
    )


@dataclass(frozen=True)
class ForwardReturn:
    """Parameters of `forward_return`, as a config group holds them."""

    horizon_bars: int = 24

    def label(self, bars: pl.DataFrame) -> Labels:
        """Labels [R] of these bars; see `forward_return`."""
        return forward_return(bars, horizon_bars=self.horizon_bars)
