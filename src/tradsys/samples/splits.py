"""Purged folds of samples over time. All symbols are split together, and `purge` exists once.

A sample is the closed span of bars from the first of its window to the one where its label resolves.
Bars are counted on the common clock: the dense rank of the table's distinct times, so that one bar is one
moment for every symbol. A sample belongs to the part of time that holds its decision bar.
Source: Lopez de Prado 2018, chapters 7 (purging, embargo) and 12 (combinatorial paths).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from tradsys.core.clock import utc64
from tradsys.core.errors import DataError, LeakageError
from tradsys.core.extensions import answer
from tradsys.core.protocols import Splitter
from tradsys.core.tables import Array, Fold, Samples

Spans = tuple[Array, Array, Array]


def span_bars(samples: Samples) -> Spans:
    """First, decision and last bar of each sample on the common clock, int64 [N] each."""
    bar = np.unique(samples.table.time, return_inverse=True)[1].astype(np.int64)
    return bar[samples.start], bar[samples.rows], bar[samples.end]


def purge(
    train: Array, test: Array, start_bar: Array, end_bar: Array, embargo_bars: int = 0, *, gap_bars: int = 0
) -> Array:
    """The training positions that share no bar with a test span, in the order given.

    train, test: integer positions into start_bar and end_bar [N], closed spans on the common clock. A
    training sample is dropped where its span touches any test span, where it starts within `embargo_bars` after
    the end of a block of test spans, or where it ends within `gap_bars` before a block begins. A block is a
    run of bars that test spans cover, so that separate test groups are purged separately.
    """
    train, test = np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)
    if len(train) == 0 or len(test) == 0:
        return train
    n_bars = int(end_bar.max()) + 1
    opened = np.bincount(start_bar[test], minlength=n_bars + 1)
    closed = np.bincount(end_bar[test] + 1, minlength=n_bars + 1)
    covered = np.cumsum(opened - closed)[:n_bars] > 0
    covered_before = np.concatenate([[0], np.cumsum(covered)])
    low = np.maximum(start_bar[train] - embargo_bars, 0)
    high = np.minimum(end_bar[train] + gap_bars, n_bars - 1)
    return train[covered_before[high + 1] == covered_before[low]]


def folds_of(splitter: Splitter, samples: Samples) -> Iterator[Fold]:
    """The folds of a splitter, each checked to be a Fold.

    Raises DataError where there is none.
    """
    is_empty = True
    for fold in answer(splitter, "split", samples, kind=Iterable):
        if not isinstance(fold, Fold):
            raise DataError(
                f"split: {type(splitter).__name__}.split() returned a {type(fold).__name__}; it must return "
                "Fold(train, valid, test) with positions of the samples; see tradsys.core.tables"
            )
        yield fold
        is_empty = False
    if is_empty:
        raise DataError(
            f"split: {type(splitter).__name__} made no fold of {len(samples)} samples; a split needs at least "
            "one; change its settings"
        )


def check_fold(samples: Samples, fold: Fold, embargo_bars: int = 0) -> None:
    """Raises LeakageError where training data overlap later parts.

    Shares no code with `purge`. Training spans must touch no validation or test span and validation spans no test span,
    nor start within `embargo_bars` after one ends; every validation decision lies later than every training decision.
    """
    start, decision, end = span_bars(samples)
    clock = np.unique(samples.table.time)
    parts = {"training": fold.train, "validation": fold.valid, "test": fold.test}
    for early, late in (("training", "test"), ("training", "validation"), ("validation", "test")):
        first, second = parts[early], parts[late]
        if len(first) == 0 or len(second) == 0:
            continue
        wrong = _touches(start[first], end[first], start[second], end[second])
        if wrong.any():
            raise LeakageError(_touching(early, late, clock[decision[first][wrong]], clock[start[second].min()]))
        if (soon := _follows(start[first], end[second], embargo_bars)).any():
            raise LeakageError(
                f"split: {int(soon.sum())} {early} samples start within {embargo_bars} bars after a {late} "
                "label ends; the embargo keeps them apart; purge them with samples.splits.purge"
            )
    if len(fold.valid) and len(fold.train) and decision[fold.valid].min() <= decision[fold.train].max():
        raise LeakageError(
            f"split: validation begins {_day(clock[decision[fold.valid].min()])}, before training ends "
            f"{_day(clock[decision[fold.train].max()])}; validation lies later than training; cut by time"
        )


@dataclass(frozen=True)
class PurgedKFold:
    """Each of `n_folds` blocks of time is the test once.

    The rest, purged, is the training set.
    Blocks hold equally many distinct decision bars. embargo_bars: bars after a test block's last label end in
    which no training sample may start. valid_fraction: share of the training samples, the latest in time,
    that becomes validation (training is purged against it as well); 0 leaves validation empty.
    Source: Lopez de Prado 2018, section 7.4.
    """

    n_folds: int = 5
    embargo_bars: int = 0
    valid_fraction: float = 0.0

    def __post_init__(self) -> None:
        _check_counts(self.n_folds, self.embargo_bars, self.valid_fraction)

    def split(self, samples: Samples) -> Iterator[Fold]:
        """`n_folds` folds in time order. DataError where a part is empty after purging."""
        group, spans = time_groups(samples, self.n_folds), span_bars(samples)
        for k in range(self.n_folds):
            yield _outside_in(spans, group == k, self.embargo_bars, self.valid_fraction, f"PurgedKFold fold {k}")


@dataclass(frozen=True)
class CombinatorialPurged:
    """Every choice of `n_test_groups` blocks of time is the test once.

    Out of `n_groups` blocks. C(n_groups, n_test_groups) folds in lexical order, which recombine into C(n_groups - 1,
    n_test_groups - 1) backtest paths. Parameters as of `PurgedKFold`; runs of adjacent test groups are purged as one
    block. Source: Lopez de Prado 2018, section 12.4.
    """

    n_groups: int = 6
    n_test_groups: int = 2
    embargo_bars: int = 0
    valid_fraction: float = 0.0

    def __post_init__(self) -> None:
        _check_counts(self.n_groups, self.embargo_bars, self.valid_fraction)
        if not 1 <= self.n_test_groups < self.n_groups:
            raise ValueError(f"split: n_test_groups={self.n_test_groups}; needs 1 <= it < n_groups={self.n_groups}")

    @property
    def test_groups(self) -> Array:
        """Groups that each fold tests, int64 [n_folds, n_test_groups]."""
        return np.array(list(combinations(range(self.n_groups), self.n_test_groups)), dtype=np.int64)

    def paths(self) -> Array:
        """Fold that supplies each group of each path, int64 [n_paths, n_groups].

        Each pair occurs once. Path p of group g takes the p-th fold that tests g. The samples of a group:
        `groups(samples) == g`.
        """
        chosen = self.test_groups
        columns = [np.flatnonzero((chosen == g).any(axis=1)) for g in range(self.n_groups)]
        return np.stack(columns, axis=1)

    def groups(self, samples: Samples) -> Array:
        """Group of each sample, int64 [N], in time order."""
        return time_groups(samples, self.n_groups)

    def split(self, samples: Samples) -> Iterator[Fold]:
        """One fold per row of `test_groups`.

        Raises DataError where a part is empty after purging.
        """
        group, spans = self.groups(samples), span_bars(samples)
        for k, chosen in enumerate(self.test_groups):
            name = f"CombinatorialPurged fold {k}"
            yield _outside_in(spans, np.isin(group, chosen), self.embargo_bars, self.valid_fraction, name)


@dataclass(frozen=True)
class WalkForward:
    """Trains on the past, validates on the next part, tests on the one after.

    Then moves on by a test block. All in bars of the common clock, laid out so that the last test block ends with the
    last decision. train_bars: None expands from the first decision; a number keeps a rolling span. valid_bars,
    test_bars: None for both cuts the time of all decisions into n_folds + 2 equal blocks, one each. embargo_bars: bars
    left free between a part's last label and the first bar that the next part's windows read.
    """

    n_folds: int = 5
    train_bars: int | None = None
    valid_bars: int | None = None
    test_bars: int | None = None
    embargo_bars: int = 0

    def __post_init__(self) -> None:
        _check_counts(self.n_folds, self.embargo_bars, 0.0, least=1)
        if (self.valid_bars is None) != (self.test_bars is None):
            raise ValueError(f"split: valid_bars={self.valid_bars}, test_bars={self.test_bars}; give both or neither")
        for name in ("train_bars", "valid_bars", "test_bars"):
            if (bars := getattr(self, name)) is not None and bars < 1:
                raise ValueError(f"split: {name}={bars}; needs at least 1 bar, or None")

    def split(self, samples: Samples) -> Iterator[Fold]:
        """`n_folds` folds in time order.

        Raises DataError where time is too short or a purged part is empty.
        """
        spans = span_bars(samples)
        first, stop = _bounds(spans[1])
        block = max((stop - first) // (self.n_folds + 2), 1)
        valid_bars, test_bars = self.valid_bars or block, self.test_bars or block
        needed = (self.train_bars or 1) + valid_bars + self.n_folds * test_bars
        if needed > stop - first:
            raise DataError(
                f"split: WalkForward needs {self.train_bars or 1} training + {valid_bars} validation + "
                f"{self.n_folds} x {test_bars} test = {needed} bars but the decisions span {stop - first}; "
                "use fewer or shorter parts: n_folds, valid_bars, test_bars"
            )
        for k in range(self.n_folds):
            test_from = stop - (self.n_folds - k) * test_bars
            valid_from = test_from - valid_bars
            train_from = first if self.train_bars is None else valid_from - self.train_bars
            cuts = (train_from, valid_from, test_from, test_from + test_bars)
            yield _in_order(spans, cuts, self.embargo_bars, f"WalkForward fold {k}")


@dataclass(frozen=True)
class Holdout:
    """One fold: training, then validation, then test.

    train_until, valid_until, test_until: ISO dates or times, UTC where no zone is given. A bar that closes at
    that moment still belongs to the earlier part; a bare date is its midnight. Where the first two are
    None, the common clock's bars from the first to the last decision (or to test_until) are divided by
    fractions instead, and the test takes what train_fraction and valid_fraction leave.
    embargo_bars: as of `WalkForward`.
    """

    train_until: str | None = None
    valid_until: str | None = None
    test_until: str | None = None
    train_fraction: float = 0.6
    valid_fraction: float = 0.2
    embargo_bars: int = 0

    def __post_init__(self) -> None:
        if (self.train_until is None) != (self.valid_until is None):
            raise ValueError(
                f"split: train_until={self.train_until}, valid_until={self.valid_until}; give both dates or neither"
            )
        train, valid = self.train_fraction, self.valid_fraction
        if not (train > 0 and valid > 0 and train + valid < 1):
            raise ValueError(
                f"split: train_fraction={train} + valid_fraction={valid}; both must be positive and leave a test"
            )
        _check_counts(1, self.embargo_bars, 0.0, least=1)
        dates = [
            utc64(d, "split: date") for d in (self.train_until, self.valid_until, self.test_until) if d is not None
        ]
        if any(b <= a for a, b in pairwise(dates)):
            raise ValueError(
                f"split: dates {[str(d) for d in dates]} must rise: train_until < valid_until < test_until"
            )

    def split(self, samples: Samples) -> Iterator[Fold]:
        """The one fold. DataError where a part is empty after purging."""
        spans = span_bars(samples)
        yield _in_order(spans, self._cuts(samples, spans[1]), self.embargo_bars, "Holdout")

    def _cuts(self, samples: Samples, decision: Array) -> tuple[int, int, int, int]:
        clock = np.unique(samples.table.time)
        first, stop = _bounds(decision)
        if self.test_until is not None:
            stop = min(stop, _bars_until(clock, self.test_until))
        if self.train_until is not None and self.valid_until is not None:
            return first, _bars_until(clock, self.train_until), _bars_until(clock, self.valid_until), stop
        n_train = round(self.train_fraction * (stop - first))
        n_valid = round(self.valid_fraction * (stop - first))
        return first, first + n_train, first + n_train + n_valid, stop


def time_groups(samples: Samples, n_groups: int) -> Array:
    """Group 0..n_groups-1 of each sample in time order, int64 [N].

    Equally many distinct decision bars each. Samples of one moment share a group, whatever their symbol. DataError with
    fewer moments than groups.
    """
    moments, which = np.unique(samples.time, return_inverse=True)
    if len(moments) < n_groups:
        raise DataError(
            f"split: {len(samples)} samples at {len(moments)} distinct times for {n_groups} groups; each "
            "group needs one; use fewer groups or more data"
        )
    sizes = [len(part) for part in np.array_split(moments, n_groups)]
    return np.repeat(np.arange(n_groups), sizes)[which]


def _outside_in(spans: Spans, in_test: Array, embargo_bars: int, valid_fraction: float, name: str) -> Fold:
    """Test in the middle of time, training around it."""
    start, decision, end = spans
    test, rest = np.flatnonzero(in_test), np.flatnonzero(~in_test)
    train = purge(rest, test, start, end, embargo_bars)
    valid = np.empty(0, dtype=np.int64)
    if valid_fraction > 0 and len(train):
        cut = np.quantile(decision[train], 1 - valid_fraction, method="lower")
        valid = train[decision[train] > cut]
        train = purge(train[decision[train] <= cut], valid, start, end, embargo_bars)
    fold = Fold(train=train, valid=valid, test=test)
    sizes = {"training": len(rest), "test": len(test)}
    _check_filled(fold, sizes | ({"validation": len(valid)} if valid_fraction > 0 else {}), spans, name)
    return fold


def _in_order(spans: Spans, cuts: tuple[int, int, int, int], embargo_bars: int, name: str) -> Fold:
    """Training, validation, test between four cuts of the clock, each purged against what follows."""
    start, decision, end = spans
    train, valid, test = (np.flatnonzero((decision >= low) & (decision < high)) for low, high in pairwise(cuts))
    sizes = {"training": len(train), "validation": len(valid), "test": len(test)}
    valid = purge(valid, test, start, end, gap_bars=embargo_bars)
    train = purge(train, np.concatenate([valid, test]), start, end, gap_bars=embargo_bars)
    fold = Fold(train=train, valid=valid, test=test)
    _check_filled(fold, sizes, spans, name)
    return fold


def _check_filled(fold: Fold, sizes: dict[str, int], spans: Spans, name: str) -> None:
    """DataError where a configured part is empty, with its size before the purge."""
    left = {"training": len(fold.train), "validation": len(fold.valid), "test": len(fold.test)}
    empty = [part for part in sizes if left[part] == 0]
    if not empty:
        return
    longest = int((spans[2] - spans[0]).max()) + 1
    raise DataError(
        f"split: {name} has no {' and no '.join(empty)} samples after purging (before: "
        f"{', '.join(f'{n} {part}' for part, n in sizes.items())}; the longest span is {longest} bars); "
        "spans of different parts may not touch; use fewer or longer parts, a shorter lookback or horizon, "
        "or more data"
    )


def _check_counts(n: int, embargo_bars: int, valid_fraction: float, least: int = 2) -> None:
    if n < least or embargo_bars < 0 or not 0 <= valid_fraction < 1:
        raise ValueError(
            f"split: {n} groups or folds, embargo_bars={embargo_bars}, valid_fraction={valid_fraction}; "
            f"needs at least {least}, embargo_bars >= 0 and 0 <= valid_fraction < 1"
        )


def _bounds(decision: Array) -> tuple[int, int]:
    """First decision bar and one past the last."""
    if len(decision) == 0:
        raise DataError("split: no samples; a fold needs some; see samples.join.make_samples")
    return int(decision.min()), int(decision.max()) + 1


def _bars_until(clock: Array, date: str) -> int:
    """Bars of the clock that close at or before that moment."""
    return int(np.searchsorted(clock, utc64(date, "split: date"), side="right"))


def _day(time: np.datetime64) -> str:
    return str(time.astype("datetime64[D]"))


def _touches(start: Array, end: Array, other_start: Array, other_end: Array) -> Array:
    """True where [start, end] touches another: of those that start by `end`, does one reach back?"""
    order = np.argsort(other_start, kind="stable")
    last_end = np.maximum.accumulate(other_end[order])
    n_begun = np.searchsorted(other_start[order], end, side="right")
    return (n_begun > 0) & (last_end[np.maximum(n_begun - 1, 0)] >= start)


def _follows(start: Array, other_end: Array, embargo_bars: int) -> Array:
    """True where a span starts 1..embargo_bars after some other span's end."""
    ends = np.sort(other_end)
    n_over = np.searchsorted(ends, start, side="left")
    return (n_over > 0) & (start - ends[np.maximum(n_over - 1, 0)] <= embargo_bars)


def _touching(early: str, late: str, decided: Array, late_from: np.datetime64) -> str:
    """Error text for spans that touch. decided: decision times of the offending samples of the early part."""
    if decided.max() < late_from:
        what = f"{early} labels resolve on or after {late} start {_day(late_from)}"
    else:
        what = f"{early} spans touch a {late} span, the first decided {_day(decided.min())}"
    return f"split: {len(decided)} {what}; purge them with samples.splits.purge"
