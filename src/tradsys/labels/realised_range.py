"""What the prices between a label's entry and its end did: auxiliary targets, never features."""

import numpy as np
import polars as pl

from tradsys.core.tables import Array
from tradsys.market.true_range import trailing_mean

MEAN_BARS = 24
Extremes = tuple[Array, Array]


def path_targets(bars: pl.DataFrame, end: Array) -> tuple[Array | None, Array | None]:
    """`realised_range` and `mean_met` of the labels, from one pass over the paths."""
    extremes = path_extremes(bars, end)
    return realised_range(bars, end, extremes), mean_met(bars, end, extremes)


def realised_range(bars: pl.DataFrame, end: Array, extremes: Extremes | None = None) -> Array | None:
    """ln(highest high / lowest low) from entry to `end`, float64 [R].

    Entry is at row + 1. bars: the rows of the labels. end: int64 [R], row where the label resolves, -1 never. NaN where
    `end` is not after the row, or a price in between is missing. None where the bars have no highs and lows. It reads
    the future exactly as far as the label does, so that purging by `end` covers it. Source: Parkinson 1980, the range
    of one period.
    """
    extremes = path_extremes(bars, end) if extremes is None else extremes
    if extremes is None:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(extremes[0] / extremes[1])


def mean_met(bars: pl.DataFrame, end: Array, extremes: Extremes | None = None) -> Array | None:
    """1 where bars from entry to `end` trade at the decision's mean, else 0.

    The mean is the one known at the decision bar; float32 [R]. The mean is that of the last MEAN_BARS closes at the
    decision. bars, end, None: as in `realised_range`. NaN: as there, and where the mean is not known yet.
    """
    extremes = path_extremes(bars, end) if extremes is None else extremes
    if extremes is None or "close" not in bars.columns:
        return None
    mean = trailing_mean(bars, MEAN_BARS)
    met = (extremes[0] >= mean) & (extremes[1] <= mean)
    return np.where(np.isnan(extremes[0] + extremes[1] + mean), np.nan, met).astype(np.float32)


def path_extremes(bars: pl.DataFrame, end: Array) -> Extremes | None:
    """Highest high and lowest low of the bars from entry to `end`, float64 [R] each.

    NaN and None as above.
    """
    if not {"high", "low"} <= set(bars.columns):
        return None
    top, bottom = (bars[name].to_numpy().astype(np.float64) for name in ("high", "low"))
    rows = np.flatnonzero(end > np.arange(len(end)))
    first, last = rows + 1, end[rows]
    level = np.frexp(last - first + 1)[1] - 1  # the largest power of two within the span
    high, low = np.full(len(end), np.nan), np.full(len(end), np.nan)
    for k in range(int(level.max(initial=-1)) + 1):
        at, step = level == k, 1 << k
        left, right = first[at], last[at] - step + 1  # two spans of 2^k bars, overlapping, that cover it
        high[rows[at]] = np.maximum(top[left], top[right])
        low[rows[at]] = np.minimum(bottom[left], bottom[right])
        top[:-step] = np.maximum(top[:-step], top[step:])
        bottom[:-step] = np.minimum(bottom[:-step], bottom[step:])
    return high, low
