"""A fold as of one moment: training rows with labels resolved by then, and nothing later."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.clock import utc64
from tradsys.core.errors import DataError
from tradsys.core.tables import Array, Fold, Labels, Samples
from tradsys.market.bars import utc64_times
from tradsys.market.tradable import death_known_at
from tradsys.research.pipeline.dataset import outcomes_of
from tradsys.research.pipeline.settings import Experiment
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


def known_times(experiment: Experiment, bars: pl.DataFrame, labels: Labels) -> Array:
    """Moment at which each label [R] is known, datetime64[us]; NaT where never.

    The close of its last bar. A label that only a delisting ended is known when the delisting is
    (`market.tradable.death_known_at`), which is later than the symbol's last bar. labels: of these bars.
    """
    time = utc64_times(bars)
    known = np.where(labels.resolved, time[np.maximum(labels.end, 0)], np.datetime64("NaT"))
    patience = int(getattr(experiment.labels, "dead_after_bars", None) or 0)
    death = death_known_at(bars, patience) if patience else np.full(len(labels), -1)
    if not (death >= 0).any():
        return known
    undying: Any = replace(experiment.labels, dead_after_bars=bars.height + 1)  # type: ignore[type-var]
    alive = outcomes_of(replace(experiment, labels=undying), bars)
    ended = labels.resolved & (death[np.maximum(labels.end, 0)] >= 0) & (alive.end != labels.end)
    known[ended] = np.unique(time)[death[labels.end[ended]]]
    return known


def known_by(experiment: Experiment, bars: pl.DataFrame, labels: Labels, at: datetime) -> Labels:
    """The labels with every outcome that is known after `at` unresolved."""
    late = known_times(experiment, bars, labels) > utc64(at)
    return replace(
        labels,
        y=np.where(late, -1, labels.y),
        end=np.where(late, -1, labels.end),
        ret=np.where(late, np.nan, labels.ret),
        weight=np.where(late, 0.0, labels.weight),
    )
