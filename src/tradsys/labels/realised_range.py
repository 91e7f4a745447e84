"""Realised range between a label's entry and its end: an auxiliary target, never a feature."""

import numpy as np
import polars as pl

from tradsys.core.tables import Array


def realised_range(bars: pl.DataFrame, end: Array) -> Array | None:
    """Log of the highest high over the lowest low of the bars from entry (row + 1) to `end`, float64 [R].

    bars: the rows of the labels. end: int64 [R], row where the label resolves, -1 never. NaN where `end` is not after
    the row, or a price in between is missing. None where the bars have no highs and lows. It reads the future exactly
    as far as the label does, so that purging by `end` covers it. Source: Parkinson 1980, the range of one period.
    """
    if not {"high", "low"} <= set(bars.columns):
        return None
    top, bottom = (bars[name].to_numpy().astype(np.float64) for name in ("high", "low"))
    rows = np.flatnonzero(end > np.arange(len(end)))
    first, last = rows + 1, end[rows]
    level = np.frexp(last - first + 1)[1] - 1  # the largest power of two within the span
    out = np.full(len(end), np.nan)
    for k in range(int(level.max(initial=-1)) + 1):
        at, step = level == k, 1 << k
        left, right = first[at], last[at] - step + 1  # two spans of 2^k bars, overlapping, that cover it
        with np.errstate(invalid="ignore", divide="ignore"):
            out[rows[at]] = np.log(np.maximum(top[left], top[right]) / np.minimum(bottom[left], bottom[right]))
        top[:-step] = np.maximum(top[:-step], top[step:])
        bottom[:-step] = np.minimum(bottom[:-step], bottom[step:])
    return out
