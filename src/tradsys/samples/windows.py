"""Windows cut from one resident table by row number, from arrays or tensors, without importing torch.

Shapes: R rows, N samples, T window (lookback), F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tradsys.core.tables import Array

if TYPE_CHECKING:
    from torch import Tensor


def gather(values_RF: Array, rows_N: Array, lookback: int) -> Array:
    """Windows [N, T, F] of `lookback` rows that end at each row, the row included.

    values_RF: any dtype, kept; NaN is copied as it stands. rows_N: row numbers, in any order, repeats
    allowed. Symbol borders are not checked here: `rows_N` comes from `FeatureTable.ready(lookback)`.
    """
    _assert_rows(rows_N, len(values_RF), lookback)
    window_RTF = np.lib.stride_tricks.as_strided(
        values_RF,
        (max(len(values_RF) - lookback + 1, 0), lookback, values_RF.shape[1]),
        (values_RF.strides[0], *values_RF.strides),
        writeable=False,
    )
    return window_RTF[np.asarray(rows_N) - (lookback - 1)]


def window_view(table_RF: Tensor, lookback: int) -> Tensor:
    """Every window of the table as a view [R-T+1, T, F] that shares its memory.

    Entry i ends at row i+T-1. `index_select` on it copies T*F numbers in one run per sample: several times faster than
    N*T rows. Never write to it, and never make it contiguous: that is the N*T*F of memory which this package avoids.
    """
    n_rows, n_features = table_RF.shape
    assert table_RF.is_contiguous(), "the table must be contiguous: its strides become the windows'"
    size = (max(n_rows - lookback + 1, 0), lookback, n_features)
    return table_RF.as_strided(size, (n_features, n_features, 1))


def _assert_rows(rows_N: Array | Tensor, n_rows: int, lookback: int) -> None:
    assert lookback >= 1, lookback
    if len(rows_N):
        low, high = int(rows_N.min()), int(rows_N.max())
        assert lookback - 1 <= low, f"row {low} has no {lookback} rows of past in the table"
        assert high < n_rows, f"row {high} lies beyond the table's {n_rows}"
