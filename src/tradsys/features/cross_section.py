"""Cross-sectional ranks: where a symbol's feature value stands among all symbols of the same time."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from tradsys.core.tables import Array

RANK = "_rank"  # suffix of a rank's column name


def with_ranks(
    values: pl.DataFrame, keys: pl.DataFrame, ranks: Sequence[str], market_symbol: str | None
) -> pl.DataFrame:
    """The values with `<name>_rank` on the right, float32 in (0, 1).

    (average rank - 1/2) / n within one time. values: float32 columns [R], NaN or null where missing. keys: `symbol` and
    `time` [R] of the same rows. The n symbols ranked at a time are those with a finite value there, without the market
    symbol; ties share their average rank, so the mean over any time is 1/2. All other rows are NaN.
    """
    if not ranks:
        return values
    time_R = keys["time"].rank("dense").to_numpy().astype(np.uint64)
    member_R = (keys["symbol"] != market_symbol).to_numpy() if market_symbol else np.True_
    columns = []
    for name in ranks:
        value_R = values[name].to_numpy()
        rows = np.flatnonzero(np.isfinite(value_R) & member_R)
        share_R = np.full(len(value_R), np.nan, dtype=np.float32)
        share_R[rows] = _rank_shares(value_R[rows], time_R[rows])
        columns.append(pl.Series(name + RANK, share_R))
    return values.hstack(columns)


def ranks_at_one_time(values_NK: Array, member_N: Array) -> Array:
    """`with_ranks` of K columns at one time: float32 [N, K].

    member_N: rows to rank, all but the market symbol.
    """
    share_NK = np.full(values_NK.shape, np.nan, dtype=np.float32)
    for k in range(values_NK.shape[1]):
        rows = np.flatnonzero(np.isfinite(values_NK[:, k]) & member_N)
        share_NK[rows, k] = _rank_shares(values_NK[rows, k], np.zeros(len(rows), dtype=np.uint64))
    return share_NK


def _rank_shares(value_N: Array, time_N: Array) -> Array:
    """float64 [N]: (average rank - 1/2) / n of each finite float32 value within its time, a number below 2^32.

    One sort for all times: an integer holds the time above the value's bits. The bits of floats sort as their
    values do once the sign bit of positive ones is set and all bits of negative ones are flipped.
    """
    bits = (value_N + np.float32(0)).view(np.uint32)  # minus zero becomes zero
    flipped = (bits.view(np.int32) >> 31).view(np.uint32) | np.uint32(1 << 31)
    key_N = (time_N << np.uint64(32)) | (bits ^ flipped)
    order = np.argsort(key_N)
    sorted_N = key_N[order]
    tie, n_ties = _runs_of_equals(sorted_N)
    first, n = _runs_of_equals((sorted_N >> np.uint64(32)).astype(np.uint32))
    middle_N = np.repeat(tie + n_ties / 2, n_ties)
    share_N = np.empty(len(value_N))
    share_N[order] = (middle_N - np.repeat(first, n)) / np.repeat(n, n)
    return share_N


def _runs_of_equals(sorted_N: Array) -> tuple[Array, Array]:
    """Positions at which the runs of equal elements start, and their lengths."""
    starts = np.flatnonzero(np.append(True, sorted_N[1:] != sorted_N[:-1])[: len(sorted_N)])
    return starts, np.diff(starts, append=len(sorted_N))
