"""Sparse look-ahead in features: hundreds of cuts, checked in a few queries.

A leak that shows in two rows of a hundred hides from a handful of cuts. Here the bars up to each of many moments are
placed as blocks of one frame, one warm-up long, so that one query checks a hundred cuts; a
difference is confirmed with all bars up to that moment before it is called a leak.
Legend: R rows of the full table, F features.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tradsys.core.errors import WarmUpError
from tradsys.core.tables import Array, FeatureTable
from tradsys.evidence.controls.causality import Finding
from tradsys.features.feature_set import FeatureSet
from tradsys.research.leakage.subject import FUTURE, AuditSubject, aware_key

LOG = logging.getLogger(__name__)
N_SPREAD, N_RUN, N_FIRST = 160, 24, 12  # cuts spread over time, in one dense run, at the first bars
N_PLACES, N_PER_COLUMN, N_SUSPECTS = 60, 8, 240  # at gaps and ties of the bars; where values look filled
PER_QUERY = 100
MARGIN = 8  # bars beyond the warm-up
# rounding of sums with another start; a difference is confirmed exactly
TOLERANCE = 1e-4
N_CONFIRMED = 4  # suspicious moments of a column that are checked again with all bars
# the calendar repeats: weekdays, leap days and hours of a block stay the same
REPEATS = timedelta(days=146_097)


def sparse_leak(s: AuditSubject) -> Finding | None:
    """The first feature value that changes with bars later than its own time, or None.

    See the module docstring.
    """
    features, bars = s.prepared.features, s.bars
    truth = features.table(bars)
    times = chosen_moments(truth, bars, np.random.default_rng([s.settings.seed, 2]))
    n_queries = -(-len(times) // PER_QUERY)
    LOG.info("features: %d cuts in %d queries", len(times), n_queries)
    rows_of: dict[int, list[tuple[int, np.datetime64]]] = {}
    for first in range(n_queries):  # early and late moments in each: a frame of short blocks alone would be refused
        for row, column in _differences(features, bars, truth, times[first::n_queries]):
            rows_of.setdefault(column, []).append((row, truth.time[row]))
    for column, places in rows_of.items():
        for row, moment in places[:N_CONFIRMED]:
            size = _confirmed(features, bars, truth, row, column)
            if size > 0:
                how = f"cut after {np.datetime_as_string(moment, unit='m').replace('T', ' ')}"
                return Finding("features", FUTURE, how, truth.names[column], aware_key(truth, row), size)
    return None


def chosen_moments(truth: FeatureTable, bars: pl.DataFrame, rng: np.random.Generator) -> list[np.datetime64]:
    """Moments of the cuts, rising.

    Spread, a dense run, first bars, gaps and ties of bars, values that look filled.
    """
    clock = np.unique(truth.time)
    n = len(clock)
    run = int(rng.integers(0, max(1, n - N_RUN)))
    spread = np.linspace(0, n - 1, min(n, N_SPREAD)).astype(int)
    spread = np.minimum(spread + rng.integers(0, max(1, n // N_SPREAD), len(spread)), n - 1)
    at = np.concatenate([spread, np.arange(run, min(n, run + N_RUN)), np.arange(min(n, N_FIRST))])
    places = np.concatenate([_of_bars(truth, bars, rng), _suspects(truth, rng)]).astype(int)
    return list(np.unique(np.concatenate([clock[at], truth.time[places]])))


def _of_bars(truth: FeatureTable, bars: pl.DataFrame, rng: np.random.Generator) -> Array:
    """Rows next to a gap of the bars, and rows whose close equals the previous one."""
    broken = np.flatnonzero(np.diff(truth.segment) != 0)
    edges = np.concatenate([broken, broken + 1, np.minimum(broken + 2, len(truth.segment) - 1)])
    close = bars["close"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    holes = np.flatnonzero(np.isnan(close))
    ties = np.flatnonzero(np.diff(close) == 0) + 1
    return np.concatenate([_some(rows, N_PLACES, rng) for rows in (edges, holes, ties)])


def _suspects(truth: FeatureTable, rng: np.random.Generator) -> Array:
    """Rows where a column equals its next value, or lies on the line between its neighbours: signs of filling."""
    found = []
    values = truth.values
    inside = (truth.segment[1:-1] == truth.segment[:-2]) & (truth.segment[1:-1] == truth.segment[2:])
    for k in range(values.shape[1]):
        before, now, after = values[:-2, k], values[1:-1, k], values[2:, k]
        step = np.abs(after - before)
        usual = np.nanmedian(step[inside]) if np.isfinite(step[inside]).any() else np.nan
        if not usual > 0:
            continue
        with np.errstate(invalid="ignore"):
            filled = (now == after) | (np.abs(now - (before + after) / 2) <= 1e-5 * usual)
        rows = np.flatnonzero(filled & inside) + 1
        if len(rows) < len(values) // 4:  # a column of few values repeats by nature
            found.append(_some(rows, N_PER_COLUMN, rng))
    return _some(np.concatenate(found), N_SUSPECTS, rng) if found else np.empty(0, dtype=int)


def _some(rows: Array, n: int, rng: np.random.Generator) -> Array:
    return rows if len(rows) <= n else rng.choice(rows, n, replace=False)


def _differences(
    features: FeatureSet, bars: pl.DataFrame, truth: FeatureTable, times: Sequence[np.datetime64]
) -> list[tuple[int, int]]:
    """Rows of `truth` at these moments, and columns, whose value differs without later bars."""
    parts, of_block = _blocks(features, bars, truth, times)
    table = features.table(parts)
    if len(table.time) != len(of_block):
        return []
    last = np.flatnonzero(of_block >= 0)
    rows = of_block[last]
    reported, known = table.values[last], truth.values[rows]
    with np.errstate(invalid="ignore"):
        near = np.abs(reported - known) <= TOLERANCE * (1 + np.abs(known))
    wrong = ~(near | (np.isnan(reported) & np.isnan(known)))
    return [(int(rows[i]), int(k)) for i, k in zip(*np.nonzero(wrong), strict=True)]


def _blocks(
    features: FeatureSet, bars: pl.DataFrame, truth: FeatureTable, times: Sequence[np.datetime64]
) -> tuple[pl.DataFrame, Array]:
    """Bars of all blocks, sorted by symbol and time; for each the row of `truth` it recomputes, -1 for history.

    A block's times are shifted by full cycles of the calendar, so that symbols of one block share times and blocks do
    not.
    """
    length = features.warmup + MARGIN
    rows, block, results = [], [], []
    for symbol in range(len(truth.symbols)):
        own = np.flatnonzero(truth.symbol == symbol)
        ends = np.searchsorted(truth.time[own], np.asarray(times), side="right")
        for number, (end, moment) in enumerate(zip(ends, times, strict=True)):
            taken = own[max(0, end - length) : end]
            if len(taken) and truth.time[taken[-1]] == moment:
                rows.append(taken)
                block.append(np.full(len(taken), number))
                results.append(np.append(np.full(len(taken) - 1, -1), taken[-1]))
    at, of_block = np.concatenate(rows), np.concatenate(block)
    frame = bars[at].with_columns(
        pl.col("time") + pl.Series(of_block.astype(np.int64)) * pl.lit(REPEATS),
        segment=pl.Series((of_block * (int(truth.segment.max()) + 1) + truth.segment[at]).astype(np.int64)),
    )
    return frame, np.concatenate(results)


def _confirmed(features: FeatureSet, bars: pl.DataFrame, truth: FeatureTable, row: int, column: int) -> float:
    """Distance of the value from the one computed with all bars up to its time and none later; 0 for equal bits."""
    moment: datetime = bars["time"][row]
    past = bars.filter(pl.col("time") <= moment)
    if column < len(features.features):  # alone, so that no other feature's warm-up refuses the first bars
        features = features.like([features.features[column]])
    try:
        table = features.table(past)
    except WarmUpError:
        return 0.0
    same = np.flatnonzero((table.symbol == truth.symbol[row]) & (table.time == truth.time[row]))
    old, new = truth.values[row, column], table.values[same[0], table.names.index(truth.names[column])]
    if old == new or (np.isnan(old) and np.isnan(new)):
        return 0.0
    return float(abs(old - new)) if np.isfinite(old) and np.isfinite(new) else float("inf")
