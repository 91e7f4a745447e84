"""Stateful steps: a new value from each symbol's last rows. State is held for S symbols, of which n have a new row.

A ring of width W holds each symbol's last W values at position (rows seen) mod W, so that most windows are read in
place, in any order. Rings begin as NaN: an incomplete window has no value.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from tradsys.core.tables import Array
from tradsys.features.fracdiff import relative_weights
from tradsys.features.live.operations import Value, equal, greater

SPARE = 16  # symbols for which memory is added at a time


class Cursor:
    """Which symbols have a new row, and where each one's next value goes.

    at: int [n], indices of those symbols. count: int64 [n], rows that each has had before.
    """

    def __init__(self, at: Array, count: Array, n_symbols: int) -> None:
        self.at, self.count = at, count
        self.all_symbols = len(at) == n_symbols and bool((at == np.arange(n_symbols)).all())
        self.together = bool((count == count[0]).all())
        self.rows: Any = slice(0, n_symbols) if self.all_symbols else at
        self.cells: Any = self.rows if self.all_symbols and self.together else at
        self._slots: dict[int, Any] = {}

    def slot(self, width: int) -> Any:
        """Index of the new value in a ring of this width: one for all, or [n]."""
        if width not in self._slots:
            self._slots[width] = int(self.count[0] % width) if self.together else self.count % width
        return self._slots[width]


class Grown:
    """Arrays [S, ...] that gain rows as symbols appear."""

    def __init__(self) -> None:
        self._fills: dict[str, tuple[float, int | None]] = {}

    def _hold(self, name: str, fill: float, width: int | None = None) -> None:
        self._fills[name] = (fill, width)
        setattr(self, name, np.empty((0,) if width is None else (0, width)))

    def grow(self, n_symbols: int) -> None:
        """Adds memory up to this number of symbols."""
        for name, (fill, width) in self._fills.items():
            held = getattr(self, name)
            if len(held) < n_symbols:
                shape = (n_symbols + SPARE,) if width is None else (n_symbols + SPARE, width)
                grown = np.full(shape, fill)
                grown[: len(held)] = held
                setattr(self, name, grown)


class Ring(Grown):
    """The last `width` values of each symbol.

    Shared by all steps that read the same window of one value. old: values [n] that the newest ones replaced, `width`
    rows before them, where a step reads them (`shows_old`).
    """

    values: Array
    old: Array

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.shows_old = width, False
        self._hold("values", np.nan, width)

    def push(self, x: Value, cursor: Cursor) -> None:
        """Adds new values [n]."""
        slot = cursor.slot(self.width)
        if self.shows_old:
            self.old = self.values[cursor.cells, slot].copy()
        self.values[cursor.cells, slot] = x

    def window(self, cursor: Cursor) -> Array:
        """The values [n, width] of the symbols with a new row, in the ring's own order."""
        found: Array = self.values[cursor.rows]
        return found

    def aligned(self, by_age: Array, cursor: Cursor) -> Array:
        """by_age [width], newest first, in the ring's order: [width] or [n, width]."""
        place = np.arange(self.width)
        slot = cursor.slot(self.width)
        return by_age[(slot - place) % self.width if cursor.together else (slot[:, None] - place) % self.width]


class Step(Protocol):
    """A stateful step: its new value from its input's, which its ring already holds."""

    def __call__(self, x: Value, cursor: Cursor) -> Array:
        """The step's new value, float64 [n]."""


class Shift:
    """The value of a fixed number of rows before."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        ring.shows_old = True

    def __call__(self, x: Value, cursor: Cursor) -> Array:  # noqa: ARG002 - one protocol
        """The shifted value, float64 [n]."""
        return self.ring.old


class Window:
    """A function of the last values of each symbol.

    `by_age`: weights, the newest value's first.
    """

    def __init__(self, ring: Ring, function: Callable[[Array], Array], by_age: Array | None = None) -> None:
        self.ring, self.function, self.by_age = ring, function, by_age

    def __call__(self, x: Value, cursor: Cursor) -> Array:  # noqa: ARG002 - one protocol
        """The function of each window, float64 [n]."""
        window = self.ring.window(cursor)
        if self.by_age is None:
            return self.function(window)
        weights = self.ring.aligned(self.by_age, cursor)
        return window @ weights if weights.ndim == 1 else np.einsum("nw,nw->n", window, weights)


class Rank:
    """Average rank of the newest value among the last ones, 1..W.

    NaN ranks above every number.
    """

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def __call__(self, x: Value, cursor: Cursor) -> Array:
        """The rank of the newest value, float64 [n]."""
        window, own = self.ring.window(cursor), np.asarray(x)[:, None]
        ranked: Array = greater(own, window).sum(axis=1) + (equal(own, window).sum(axis=1) + 1) / 2
        return ranked


class SeededMean(Grown):
    """The recursion of `features.smoothing`, one row at a time.

    The same operations in the same order.
    """

    seen: Array
    total: Array
    mean: Array

    def __init__(self, *, alpha: float, n_seed: int, n_skip: int, late: int) -> None:
        super().__init__()
        self.alpha, self.n_seed, self.n_skip, self.late = alpha, n_seed, n_skip, late
        for name in ("seen", "total", "mean"):
            self._hold(name, 0.0)

    def __call__(self, x: Value, cursor: Cursor) -> Array:
        """The recursion's new value, float64 [n]."""
        rows = cursor.rows
        known = x == x  # noqa: PLR0124 - a NaN alone differs from itself
        begun = self.n_skip + self.n_seed + self.late
        if known.all() and self.seen[rows].min() > begun:  # shortcut for the general case below
            self.seen[rows] += 1
            self.mean[rows] = mean = self.mean[rows] + self.alpha * (x - self.mean[rows])
            return mean
        seen = np.where(known, self.seen[rows] + 1, 0.0)
        seeding = (seen > self.n_skip) & (seen <= self.n_skip + self.n_seed)
        total, mean = self.total[rows], self.mean[rows]
        total = np.where(known, np.where(seeding, total + x, total), 0.0)
        after = seen > self.n_skip + self.n_seed
        seeded = np.where(seeding, total / (self.n_seed + self.late), mean)
        mean = np.where(after, mean + self.alpha * (x - mean), seeded)
        self.seen[rows], self.total[rows], self.mean[rows] = seen, total, mean
        return np.where(seen >= begun, mean, np.nan)


def mean_of_finite(window: Array) -> Array:
    """Mean [n] of each window [n, W]; NaN where one value is missing or infinite."""
    mean = np.add.reduce(window, axis=1) / window.shape[1]
    return np.where(np.isfinite(mean), mean, np.nan)


def variance(window: Array, ddof: int) -> Array:
    """Variance [n] of each window [n, W] about its own mean.

    In two passes, so that a past spike leaves no noise.
    """
    size = window.shape[1]
    centred = window - (np.add.reduce(window, axis=1) / size)[:, None]
    found: Array = np.einsum("nw,nw->n", centred, centred) / (size - ddof)
    return found


def deviation(window: Array, ddof: int) -> Array:
    """Standard deviation [n] of each window [n, W]."""
    return np.sqrt(variance(window, ddof))


def moment(order: int, window: Array) -> Array:
    """Standardised central moment [n] of each window [n, W].

    Without correction for bias.
    """
    size = window.shape[1]
    centred = window - (np.add.reduce(window, axis=1) / size)[:, None]
    squared = centred * centred
    higher = np.einsum("nw,nw->n", squared, centred if order == 3 else squared) / size
    found: Array = higher / (np.add.reduce(squared, axis=1) / size) ** (order / 2)
    return found


def width_of(op: str, params: tuple[Any, ...]) -> int | None:
    """Number of its input's last values that a step reads.

    None where it keeps running sums instead.
    """
    if op != "kernel":
        return int(params[0])
    parameters = dict(params[1])
    if params[0] == "window_mean":
        return int(parameters["bars"])
    return len(relative_weights(**parameters)) if params[0] == "fracdiff" else None


def stateful(op: str, params: tuple[Any, ...], ring: Ring | None) -> Step:
    """The stateful step of that name.

    ring: of `width_of` its input's last values. KeyError for an unknown name.
    """
    if op == "kernel" and params[0] == "seeded_mean":
        return SeededMean(**dict(params[1]))
    assert ring is not None, op
    name = params[0] if op == "kernel" else op
    return MAKERS[name](ring, dict(params[1]) if op == "kernel" else params)


MAKERS: dict[str, Callable[[Ring, Any], Step]] = {
    "shift": lambda ring, _: Shift(ring),
    "rank": lambda ring, _: Rank(ring),
    "std": lambda ring, params: Window(ring, partial(deviation, ddof=params[1])),
    "var": lambda ring, params: Window(ring, partial(variance, ddof=params[1])),
    "sum": lambda ring, params: Window(
        ring, partial(np.add.reduce, axis=1), None if params[1] is None else np.array(params[1][::-1])
    ),
    "max": lambda ring, _: Window(ring, partial(np.maximum.reduce, axis=1)),
    "min": lambda ring, _: Window(ring, partial(np.minimum.reduce, axis=1)),
    "skew": lambda ring, _: Window(ring, partial(moment, 3)),
    "kurtosis": lambda ring, _: Window(ring, lambda window: moment(4, window) - 3),
    "window_mean": lambda ring, _: Window(ring, mean_of_finite),
    "fracdiff": lambda ring, parameters: Window(ring, mean_of_finite, relative_weights(**parameters)),
}
