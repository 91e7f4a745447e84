"""Look-ahead checks: change the future of bars or tables, and find the first difference in what was computed.

Legend: R rows of a table, N rows of one column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array, FeatureTable

PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume")
FACTOR = 1.7  # of `scale`: far beyond any bar's range
WAYS = ("cut", "shuffle", "nan", "scale")

Columns = Mapping[str, Array]


@dataclass(frozen=True)
class Difference:
    """The first difference between two results that should be equal.

    column: its name, in the order of the columns. row: index in the compared rows, -1 where a complete column
    or row is missing. size: absolute difference there; infinite where it is no number, or missing on one side.
    """

    column: str
    row: int
    size: float


@dataclass(frozen=True)
class Finding:
    """A look-ahead: a part whose result depends on later data.

    part, question: the part and the check. how: the change that revealed it. column: the first offending one.
    row: the compared row, such as a symbol and a time. size: absolute difference, infinite for no number.
    """

    part: str
    question: str
    how: str
    column: str
    row: str
    size: float


def changed_bars(bars: pl.DataFrame, t: datetime, how: str, rng: np.random.Generator) -> pl.DataFrame:
    """The bars with everything after `t` cut, shuffled, set to NaN or scaled.

    Bars up to `t` are unchanged. bars: long form, sorted by (symbol, time); columns joined right of `volume` are
    changed as prices are, others such as `segment` stay. how: one of WAYS. A shuffle deals whole bars to other times,
    all symbols together, and scales nothing. DataError for another how.
    """
    past = pl.col("time") <= t
    if how == "cut":
        return bars.filter(past)
    numbers = [name for name, kind in bars.schema.items() if name in NUMBERS or kind.is_float()]
    if how == "scale":
        return bars.with_columns(pl.when(past).then(pl.col(c)).otherwise(pl.col(c) * FACTOR) for c in numbers)
    if how == "nan":
        return bars.with_columns(pl.when(past).then(pl.col(c)).otherwise(np.nan) for c in numbers)
    if how == "shuffle":
        order = _dealt((bars["time"] <= t).to_numpy(), rng)
        return bars.with_columns(bars[c].gather(order) for c in numbers)
    raise DataError(f"causality: unknown way {how!r} to change the future; known are {list(WAYS)}; use one")


def changed_table(
    table: FeatureTable, t: np.datetime64, how: str, rng: np.random.Generator
) -> tuple[FeatureTable, Array]:
    """The table with everything after `t` changed as in `changed_bars`.

    Also returns the new row [R] of each old one. The row is -1 where it was cut.
    """
    past = table.time <= t
    rows = np.arange(len(table))
    if how == "cut":
        return table.take(np.flatnonzero(past)), np.where(past, np.cumsum(past) - 1, -1)
    values = table.values.copy()
    if how == "scale":
        values[~past] *= np.float32(FACTOR)
    elif how == "nan":
        values[~past] = np.nan
    elif how == "shuffle":
        values = values[_dealt(past, rng)]
    else:
        raise DataError(f"causality: unknown way {how!r} to change the future; known are {list(WAYS)}; use one")
    return table.with_values(values), rows


def lifted_bars(bars: pl.DataFrame, t: datetime, by: float | pl.Expr) -> pl.DataFrame:
    """The bars with `by` added to every price up to and at `t`.

    by: price units, a number or an expression. Differences of prices up to `t`, such as a true range, stay; so must
    everything about a position that is entered later than `t`.
    """
    past = pl.col("time") <= t
    return bars.with_columns(pl.when(past).then(pl.col(c) + by).otherwise(pl.col(c)) for c in PRICES)


def first_difference(before: Columns, after: Columns, tolerance: float = 0.0) -> Difference | None:
    """The first column, and its first row, that differ; None if none does.

    They differ by more than tolerance * (1 + |before|). before, after: columns [N] by name. NaN equals NaN and nothing
    else. tolerance 0 requires equal bits, as non-numeric columns always do. A column on one side only, or of another
    length, differs completely.
    """
    for name in [*before, *(n for n in after if n not in before)]:
        if name not in before or name not in after:
            return Difference(name, -1, np.inf)
        old, new = np.asarray(before[name]), np.asarray(after[name])
        if old.shape != new.shape:
            return Difference(name, min(len(old), len(new)), np.inf)
        size = _sizes(old, new)
        allowed = tolerance * (1 + np.abs(old)) if tolerance and old.dtype.kind in "fiub" else 0.0
        if (wrong := np.isinf(size) | ((size > 0) & ~(size <= allowed))).any():
            row = int(np.argmax(wrong))
            return Difference(name, row, float(size[row]))
    return None


def frame_difference(
    before: pl.DataFrame, after: pl.DataFrame, keys: Sequence[str], tolerance: float = 0.0
) -> tuple[Difference, str] | None:
    """The first difference between two frames, with that row's key as text.

    Keys are unique. Rows are matched by `keys`; a row that only one side has is a difference in the column "row".
    """
    joined = (
        before.select(keys)
        .with_columns(old=True)
        .join(after.select(keys).with_columns(new=True), on=list(keys), how="full", coalesce=True)
    )
    lonely = joined.filter(pl.col("old").is_null() | pl.col("new").is_null()).sort(keys)
    if lonely.height:
        return Difference("row", -1, np.inf), _key(lonely, 0, keys)
    old = before.sort(keys)
    found = first_difference(_arrays_of(old), _arrays_of(after.sort(keys)), tolerance)
    if found is None:
        return None
    return found, _key(old, found.row, keys) if found.row >= 0 else "all"


def covered(start: Array, end: Array, n_bars: int) -> Array:
    """True [n_bars] where a closed span [start, end] lies, by a loop over the spans."""
    out = np.zeros(n_bars, dtype=bool)
    for first, last in zip(start.tolist(), end.tolist(), strict=True):
        out[first : last + 1] = True
    return out


def touching(start: Array, end: Array, taken: Array, before: int = 0, after: int = 0) -> Array:
    """True [N] where a widened span has a bar in `taken` [n_bars].

    Spans are widened by that many bars before and after.
    """
    widened = zip(np.maximum(start - before, 0).tolist(), (end + after).tolist(), strict=True)
    return np.array([taken[first : last + 1].any() for first, last in widened], dtype=bool)


def null_auc_error(y_N: Array) -> float:
    """Standard error of the AUC of uninformative scores; NaN for one class.

    Source: Hanley and McNeil 1982 / Mann and Whitney 1947: sqrt((n1 + n0 + 1) / (12 n1 n0)).
    """
    n1 = int((np.asarray(y_N) == 1).sum())
    n0 = len(y_N) - n1
    return float(np.sqrt((n1 + n0 + 1) / (12 * n1 * n0))) if n1 and n0 else float("nan")


def _dealt(past: Array, rng: np.random.Generator) -> Array:
    """Row numbers [R] with those after the cut shuffled."""
    order = np.arange(len(past))
    order[~past] = rng.permutation(order[~past])
    return order


def _sizes(old: Array, new: Array) -> Array:
    if old.dtype.kind not in "fiub" or new.dtype.kind not in "fiub":
        return np.where(old == new, 0.0, np.inf)
    a, b = old.astype(np.float64), new.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        size = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isnan(size), np.inf, size)


def _arrays_of(frame: pl.DataFrame) -> dict[str, Array]:
    return {name: frame[name].to_numpy() for name in frame.columns}


def _key(frame: pl.DataFrame, row: int, keys: Sequence[str]) -> str:
    parts = frame.select(keys).row(row)
    return " ".join(p.strftime("%Y-%m-%d %H:%M") if isinstance(p, datetime) else str(p) for p in parts)
