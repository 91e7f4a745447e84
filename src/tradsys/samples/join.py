"""Rows that a model may learn from: warmed up, labelled, and at an event where events are given."""

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array, FeatureTable, Labels, Samples
from tradsys.samples.weights import average_uniqueness, liquidity_weights, return_attribution

WEIGHTINGS = ("uniqueness", "return", "liquidity", "none")


def make_samples(
    table: FeatureTable,
    labels: Labels,
    *,
    lookback: int,
    events: Array | None = None,
    weighting: str = "uniqueness",
) -> Samples:
    """Samples at the rows whose window is complete and whose label is resolved.

    labels: one entry per table row. lookback: rows of the window, the decision row included.
    events: bool [R], rows where a decision is taken at all; None means every row.
    weighting: "uniqueness" multiplies the label's weight by its average uniqueness over the bars it is open (row+1,
    where it enters, to its end); "return" by the absolute return attributed to it (`return_attribution`, from
    the labels' `step`); "liquidity" by uniqueness and by the name's relative turnover (`liquidity_weights`);
    "none" keeps the label's weight. Weights are not rescaled here: a mean over all samples would leak test labels into
    training.
    In a sample, `start` is the first row of the window and `end` the row where the label resolves.
    Raises DataError where no row is left (with the count by cause), where all labels agree, or where a
    label ends before its entry; ValueError for a bad lookback or weighting.
    """
    if lookback < 1 or weighting not in WEIGHTINGS:
        raise ValueError(
            f"samples: lookback={lookback}, weighting={weighting!r}; lookback must be at least 1 and weighting "
            f"one of {WEIGHTINGS}; set both"
        )
    _check_lengths(table, labels, events)
    ready = table.ready(lookback)
    labelled = labels.resolved
    wanted = np.ones(len(table), dtype=bool) if events is None else np.asarray(events)
    rows = np.flatnonzero(ready & labelled & wanted)
    if len(rows) == 0:
        raise DataError(_why_none(table, lookback, ready, labelled, wanted))
    y, end = labels.y[rows].astype(np.int64, copy=False), labels.end[rows].astype(np.int64, copy=False)
    _check_labels(rows, y, end)
    return Samples(
        table=table,
        rows=rows,
        y=y,
        weight=_weights(labels, rows, end, weighting, table.time[rows]),
        start=rows - (lookback - 1),
        end=end,
        ret=labels.ret[rows].astype(np.float64, copy=False),
        realised_range=None if labels.realised_range is None else labels.realised_range[rows],
        mean_met=None if labels.mean_met is None else labels.mean_met[rows],
    )


def _weights(labels: Labels, rows: Array, end: Array, weighting: str, time: Array) -> Array:
    weight = labels.weight[rows].astype(np.float64)
    if weighting == "return":
        if labels.step is None:
            raise ValueError("samples: weighting='return' needs the labels' step, the log return of each bar")
        weight = weight * return_attribution(rows + 1, end, labels.step)
    if weighting in ("uniqueness", "liquidity"):
        weight = weight * average_uniqueness(rows + 1, end)
    if weighting == "liquidity":
        if labels.turnover is None:
            raise ValueError("samples: weighting='liquidity' needs the labels' turnover, of each bar's last week")
        weight = weight * liquidity_weights(labels.turnover[rows], time)
    if not (np.isfinite(weight).all() and weight.min() >= 0 and weight.sum() > 0):
        raise DataError(
            f"samples: label weights run from {weight.min()} to {weight.max()} over {len(weight)} samples; "
            "they must be finite, >= 0 and not all 0; check the labels' weights"
        )
    return weight


def _check_lengths(table: FeatureTable, labels: Labels, events: Array | None) -> None:
    if len(labels) != len(table):
        raise DataError(
            f"samples: {len(labels)} labels for {len(table)} table rows; one label per row; make both from "
            "the same bars"
        )
    if events is not None and (len(events) != len(table) or np.asarray(events).dtype != bool):
        raise DataError(
            f"samples: events are {np.asarray(events).dtype} [{len(events)}] for {len(table)} table rows; "
            "they must be one bool per row; make both from the same bars"
        )


def _check_labels(rows: Array, y: Array, end: Array) -> None:
    if (early := end <= rows).any():
        i = int(np.argmax(early))
        raise DataError(
            f"samples: {int(early.sum())} labels end at or before their decision row, first row {rows[i]} "
            f"with end {end[i]}; a label enters at the next bar; use end = -1 where the outcome is unknown"
        )
    if y.min() == y.max():
        raise DataError(
            f"samples: all {len(y)} labels are class {y[0]}; a model needs two classes; "
            "widen or narrow the barriers, or load a longer span"
        )


def _why_none(table: FeatureTable, lookback: int, ready: Array, labelled: Array, wanted: Array) -> str:
    if not ready.any():
        return _too_short(table, lookback)
    counts = ", ".join(f"{name} {n}" for name, n in _causes(table, lookback, ready, labelled, wanted).items())
    return (
        f"samples: none of {len(table)} rows is left ({counts}); a sample needs a complete window, an "
        "outcome and an event; load a longer span, shorten lookback or horizon, or loosen the event filter"
    )


def left_out(table: FeatureTable, labels: Labels, lookback: int, events: Array | None = None) -> dict[str, int]:
    """Rows that are no samples, counted by first cause.

    No event, not warmed up, gap, no label.
    """
    wanted = np.ones(len(table), dtype=bool) if events is None else np.asarray(events)
    labelled = labels.resolved
    ready = table.ready(lookback)
    no_event = int((~wanted).sum())
    causes = _causes(table, lookback, ready | ~wanted, labelled | ~wanted, np.ones(len(table), dtype=bool))
    return {"no event": no_event} | {cause: n for cause, n in causes.items() if cause != "no event"}


def _causes(table: FeatureTable, lookback: int, ready: Array, labelled: Array, wanted: Array) -> dict[str, int]:
    bars_in_symbol, bars_in_segment = _position(table.symbol), _position(table.segment)
    gap = ~ready & (bars_in_segment < lookback) & (bars_in_symbol >= lookback)
    causes = {
        "not warmed up": ~ready & ~gap,
        "window spans a gap": gap,
        "unlabelled": ready & ~labelled,
        "no event": ready & labelled & ~wanted,
    }
    return {name: int(mask.sum()) for name, mask in causes.items()}


def _too_short(table: FeatureTable, lookback: int) -> str:
    """Error for too few bars: names the longest symbol and its slowest feature to warm up."""
    if len(table) == 0:
        return "samples: the table has no rows; a sample needs a bar; load bars first"
    code = int(np.bincount(table.symbol).argmax())
    symbol, values = table.symbols[code], table.values[table.symbol == code]
    n_bars, run = len(values), int(table.run_length().max())
    finite = np.isfinite(values)
    leading = np.where(finite.any(axis=0), finite.argmax(axis=0), n_bars)
    slowest = int(leading.argmax()) if len(table.names) else 0
    warmup = int(leading[slowest]) if len(table.names) else 0
    if warmup == n_bars:
        return (
            f"samples: {table.names[slowest]!r} is never finite in the {n_bars} bars of {symbol}; every "
            "feature must warm up; shorten its span or load earlier data"
        )
    if warmup + lookback > n_bars:
        slow = f" after {warmup} bars of warm-up of {table.names[slowest]!r}" if warmup else ""
        return (
            f"samples: a lookback of {lookback}{slow} needs {warmup + lookback} bars but {symbol}, the "
            f"longest, has {n_bars}; shorten lookback or the span, or load earlier data"
        )
    return (
        f"samples: a lookback of {lookback} needs as many finite bars in a row but the longest run has {run} "
        f"({symbol} has {n_bars} bars); gaps and missing values end a run; shorten lookback or allow longer "
        "gaps"
    )


def _position(group: Array) -> Array:
    """1-based position [R] of each row in its run of equal values."""
    rows = np.arange(len(group))
    first = np.ones(len(group), dtype=bool)
    first[1:] = group[1:] != group[:-1]
    return rows - np.maximum.accumulate(np.where(first, rows, 0)) + 1
