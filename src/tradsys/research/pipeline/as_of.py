"""A fold as of one moment: training rows with labels resolved by then, and nothing later."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import polars as pl

from tradsys.core.clock import utc64
from tradsys.core.errors import DataError
from tradsys.core.tables import Fold, Labels, Samples
from tradsys.market.bars import utc64_times
from tradsys.samples.splits import check_fold, purge, span_bars


def as_of_fold(samples: Samples, at: datetime, valid_bars: int) -> Fold:
    """The training data as of `at`: labels resolved by then.

    The last `valid_bars` decision times of them validate. Training is purged against validation by spans; the test part
    is empty. Raises DataError where a part is.
    """
    known = np.flatnonzero(samples.table.time[samples.end] <= utc64(at))
    start, decision, end = span_bars(samples)
    moments = np.unique(decision[known])
    if len(moments) <= valid_bars:
        raise DataError(
            f"refit check: {len(moments)} decision times have outcomes by {at:%Y-%m-%d}; {valid_bars} validate and "
            "some must be left to train on; choose a later date or fewer validation bars"
        )
    late = decision[known] >= moments[-valid_bars]
    valid = known[late]
    fold = Fold(purge(known[~late], valid, start, end), valid, np.empty(0, dtype=np.int64))
    if not len(fold.train):
        raise DataError(f"refit check: no training sample is left by {at:%Y-%m-%d} after purging; choose a later date")
    check_fold(samples, fold)
    return fold


@dataclass(frozen=True)
class AsOf:
    """The split of a refit at a date: `as_of_fold`, once."""

    at: datetime
    valid_bars: int

    def split(self, samples: Samples) -> Iterator[Fold]:
        """The one fold, without a test part."""
        yield as_of_fold(samples, self.at, self.valid_bars)


def known_by(labels: Labels, bars: pl.DataFrame, at: datetime) -> Labels:
    """The labels with every outcome after `at` unresolved."""
    time = utc64_times(bars)
    late = (labels.end >= 0) & (time[np.maximum(labels.end, 0)] > utc64(at))
    return replace(
        labels,
        y=np.where(late, -1, labels.y),
        end=np.where(late, -1, labels.end),
        ret=np.where(late, np.nan, labels.ret),
        weight=np.where(late, 0.0, labels.weight),
    )
