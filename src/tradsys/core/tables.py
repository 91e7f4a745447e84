"""The types that all stages exchange: arrays of numpy and nothing else.

Shapes: R rows of the table, N samples, F features. Rows are sorted by (symbol, time).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradsys.core.errors import DataError

Array = NDArray[Any]
SIDE = "side"  # the feature column with the side on which a position would be taken
TRAIT = "trait_"  # begins the names of columns that hold the codes of a slow trait's classes; see `trait_classes`
ROWS_AT_ONCE = 65_536  # looked at together, where the table may be most of the memory
OF_CLASSES = "_of_"  # stands before the number of classes that ends such a name


def trait_classes(names: Sequence[str]) -> dict[int, int]:
    """Position of each trait's column -> its number of classes n, in order.

    Such a column, `trait_<what>_of_<n>`, holds whole numbers: the class 1..n, 0 where it is unknown. Scalers
    leave it unchanged.
    """
    found = {at: name.rpartition(OF_CLASSES)[2] for at, name in enumerate(names) if name.startswith(TRAIT)}
    return {at: int(n) for at, n in found.items() if n.isdecimal()}


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """One resident table of features that every model reads by row number.

    symbol: int32 codes [R] into `symbols`. time: datetime64[us] [R], the bar's close in UTC.
    segment: int32 [R], a run of bars of one symbol without a gap longer than the limit; windows stay inside.
    values: float32 [R, F]; NaN where a feature is not warmed up. names: F feature names.
    """

    symbol: Array
    time: Array
    segment: Array
    values: Array
    names: tuple[str, ...]
    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        n_rows = len(self.time)
        assert self.values.shape == (n_rows, len(self.names)), (self.values.shape, n_rows, len(self.names))
        assert len(self.symbol) == len(self.segment) == n_rows
        assert self.values.dtype == np.float32, self.values.dtype
        if len(set(self.names)) != len(self.names):
            twice = sorted({n for n in self.names if self.names.count(n) > 1})
            raise DataError(f"features: names appear twice: {twice}; every column needs its own; rename one")

    def __len__(self) -> int:
        return len(self.time)

    def run_length(self) -> Array:
        """Rows [R] of unbroken finite history that end at each row, inside its segment.

        0 where not finite.
        """
        rows = np.arange(len(self))
        starts = np.ones(len(self), dtype=bool)
        starts[1:] = self.segment[1:] != self.segment[:-1]
        finite = np.empty(len(self), dtype=bool)
        for k in range(0, len(self), ROWS_AT_ONCE):
            finite[k : k + ROWS_AT_ONCE] = np.isfinite(self.values[k : k + ROWS_AT_ONCE]).all(axis=1)
        # the last row before the run: a segment's predecessor, or a row that is not finite
        before = np.maximum.accumulate(np.where(~finite, rows, np.where(starts, rows - 1, -1)))
        return np.where(finite, rows - before, 0)

    def ready(self, lookback: int) -> Array:
        """True [R] where the window of `lookback` rows that ends here is complete.

        Complete: finite and inside one segment.
        """
        return self.run_length() >= lookback

    def column(self, name: str) -> Array:
        """The float32 [R] column of that name.

        Raises DataError, with the existing names, without one.
        """
        if name not in self.names:
            raise DataError(f"features: no column {name!r} among {list(self.names)}; add it to the feature set")
        return self.values[:, self.names.index(name)]

    def symbols_of(self, rows: Array | slice) -> Array:
        """Names of the symbols of these rows, str [N]."""
        return np.asarray(self.symbols, dtype=np.str_)[self.symbol[rows]]

    def side(self) -> Array | None:
        """int8 [R] from the column `side`: +1 long, -1 short, 0 no candidate.

        0 also in its warm-up; None without such a column.
        """
        if SIDE not in self.names:
            return None
        return np.sign(np.nan_to_num(self.column(SIDE))).astype(np.int8)

    def select(self, names: Sequence[str]) -> "FeatureTable":
        """The same rows with these columns only, in this order."""
        columns = [self.column(name) for name in names]
        values = np.stack(columns, axis=1) if columns else np.empty((len(self), 0), dtype=np.float32)
        return replace(self, values=values, names=tuple(names))

    def take(self, rows_N: Array, added: Mapping[str, Array] | None = None) -> "FeatureTable":
        """A table of these rows alone, with `added` [N] columns on the right.

        Consecutive rows in it need not be consecutive in time.
        """
        added = added or {}
        n_old = len(self.names)
        values = np.empty((len(rows_N), n_old + len(added)), dtype=np.float32)
        for k in range(0, len(rows_N), ROWS_AT_ONCE):  # a second copy of all rows would be the peak of a large fit
            values[k : k + ROWS_AT_ONCE, :n_old] = self.values[rows_N[k : k + ROWS_AT_ONCE]]
        for k, column in enumerate(added.values(), start=n_old):
            values[:, k] = column
        return replace(
            self,
            symbol=self.symbol[rows_N],
            time=self.time[rows_N],
            segment=self.segment[rows_N],
            values=values,
            names=(*self.names, *added),
        )

    def with_values(self, values: Array) -> "FeatureTable":
        """The same rows and names with other numbers, as a transform returns them."""
        return replace(self, values=np.ascontiguousarray(values, dtype=np.float32))


@dataclass(frozen=True, eq=False)
class Labels:
    """Outcomes of a position entered after each row.

    The only type with values from the future.
    y: int64 class codes [R], -1 where unlabelled. end: int64 [R], row at which the label resolves, -1 never.
    ret: float64 [R], realised log return from entry to exit, NaN where unlabelled. weight: float64 [R] >= 0.
    step: float64 [R], log return of each bar itself, close to close; None where no weighting needs it. turnover:
    float64 [R], see `market.tradable.trailing_turnover`, likewise.
    left: int64 [R], row of the exit where it may come before `end`; None: it is `end`.
    realised_range: float64 [R], mean_met: float32 [R], see `labels.realised_range`; None where the bars have no
    highs and lows.
    """

    y: Array
    end: Array
    ret: Array
    weight: Array
    step: Array | None = None
    turnover: Array | None = None
    left: Array | None = None
    realised_range: Array | None = None
    mean_met: Array | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def resolved(self) -> Array:
        """bool [R]: rows whose outcome is known."""
        return (self.end >= 0) & (self.y >= 0)


@dataclass(frozen=True, eq=False)
class Samples:
    """Row numbers into one table, with their labels.

    A sample is a row number, never a tensor. rows [N]: decision rows. y int64 [N]. weight float64 [N]. ret float64 [N]:
    realised log return of the label. start [N]: first row the window reads. end [N]: row at which the label resolves.
    realised_range [N]: log of the highest high over the lowest low from entry to `end`; mean_met [N]: 1 where that path
    trades at the trailing mean, else 0: for auxiliary targets in training; None without one.
    """

    table: FeatureTable
    rows: Array
    y: Array
    weight: Array
    start: Array
    end: Array
    ret: Array
    realised_range: Array | None = None
    mean_met: Array | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Array) -> "Samples":
        """The samples at these positions (integers or a mask), on the same table."""
        names = ("rows", "y", "weight", "start", "end", "ret", "realised_range", "mean_met")
        picked = {name: values[index] for name in names if (values := getattr(self, name)) is not None}
        return replace(self, **picked)

    def in_time_order(self, most: int) -> "Samples":
        """Every k-th sample in time order, at most `most`.

        Samples of several symbols lie one symbol after the other, so that a block of them would be a symbol.
        """
        order = np.argsort(self.time, kind="stable")
        return self.take(order[:: max(1, -(-len(order) // most))])

    def on(self, table: FeatureTable) -> "Samples":
        """The same samples on a transformed table of the same rows."""
        assert len(table) == len(self.table), (len(table), len(self.table))
        return replace(self, table=table)

    @property
    def time(self) -> Array:
        """Decision times [N], datetime64[us]."""
        return self.table.time[self.rows]

    @property
    def n_classes(self) -> int:
        """Highest class code plus one."""
        return int(self.y.max()) + 1 if len(self) else 0


@dataclass(frozen=True, eq=False)
class Fold:
    """Positions into one Samples: train, then valid, then test.

    valid is for early stopping, calibration and thresholds.
    """

    train: Array
    valid: Array
    test: Array
