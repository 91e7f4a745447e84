"""Bars to purged samples, with whatever features learn learned on training rows only."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.bounds import is_within
from tradsys.core.clock import utc
from tradsys.core.errors import DataError
from tradsys.core.protocols import Events, Splitter
from tradsys.core.tables import Array, FeatureTable, Fold, Labels, Samples
from tradsys.features.feature_set import FeatureSet
from tradsys.market.bars import check_bar_minutes, content_digest, mark_gaps, utc64_times
from tradsys.market.true_range import log_steps
from tradsys.market.universe import Members
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.join import left_out, make_samples
from tradsys.samples.splits import check_fold

LOG = logging.getLogger(__name__)
N_NAMED = 20  # symbols spelled out in the log


@dataclass(frozen=True, eq=False)
class Prepared:
    """Bars turned into purged samples; the feature set is fitted on training rows only."""

    bars: pl.DataFrame  # with segments
    data_digest: str
    features: FeatureSet
    table: FeatureTable
    labels: Labels
    samples: Samples
    fold: Fold

    @property
    def train(self) -> Samples:
        """Training samples."""
        return of_mean_one(self.samples.take(self.fold.train))

    @property
    def valid(self) -> Samples:
        """Samples for early stopping, calibration and thresholds; later than training."""
        return of_mean_one(self.samples.take(self.fold.valid))

    @property
    def test(self) -> Samples:
        """Samples read once."""
        return of_mean_one(self.samples.take(self.fold.test))

    @property
    def test_start(self) -> datetime:
        """The first test decision, aware UTC."""
        return aware(self.test.time.min())


def of_mean_one(samples: Samples) -> Samples:
    """The samples with weights of mean 1 within their own part, so that no part's scale tells of another's labels."""
    return replace(samples, weight=samples.weight / samples.weight.mean())


def load_bars(experiment: Experiment) -> pl.DataFrame:
    """The experiment's bars with their segments marked."""
    bars = experiment.data["source"].bars()
    symbols = bars["symbol"].unique().sort().to_list()
    LOG.info("%d bars of %s", len(bars), ", ".join(symbols) if len(symbols) <= N_NAMED else f"{len(symbols)} symbols")
    _check_old_key(experiment, bars)
    return mark_gaps(bars, experiment.max_gap)


def _check_old_key(experiment: Experiment, bars: pl.DataFrame) -> None:
    """data.bar_minutes restated the data: where a config of one's own still has it, it must agree with the bars."""
    told = experiment.data.get("bar_minutes")
    if told is not None and not hasattr(experiment.data["source"], "bar_minutes"):  # a market that is made has one
        LOG.warning("data.bar_minutes is measured from the bars now; remove the key from conf/data, it will be refused")
        if not is_within(told, "(0, inf)"):
            raise DataError(f"data: bar_minutes={told!r}; it is measured from the bars now; remove the key")
        check_bar_minutes(bars, float(told), "data", "data.bar_minutes is measured from the bars now; remove the key")


class Shelf:
    """What experiments on the same bars share, each thing made once: digest, masks of events, tables of features.

    bars: with segments, as `load_bars` gives them.
    """

    def __init__(self, bars: pl.DataFrame) -> None:
        self.bars = bars
        self._masks: list[tuple[Events, Array]] = []
        self._tables: list[tuple[FeatureSet, FeatureTable]] = []

    @cached_property
    def digest(self) -> str:
        """Of the bars' content."""
        return content_digest(self.bars)

    def mask(self, events: Events | None) -> Array | None:
        """Where these events decide, bool [R]; None for none."""
        if events is None:
            return None
        if not (known := [mask for other, mask in self._masks if other == events]):
            known = [events.mask(self.bars)]
            self._masks.append((events, known[0]))
        return known[0]

    def table(self, features: FeatureSet) -> FeatureTable:
        """The table of a fitted feature set; one for all sets that compute the same."""
        if not (known := [table for other, table in self._tables if _rules(other) == _rules(features)]):
            known = [features.table(self.bars)]
            self._tables.append((features, known[0]))
        return known[0]


def _rules(features: FeatureSet) -> tuple[Any, ...]:
    """All that decides a feature set's table: its features with their parameters, its ranks, its gap, its market."""
    return tuple(features.features), features.names, features.max_gap_minutes, features.market_symbol


def prepare(experiment: Experiment, bars: pl.DataFrame, shelf: Shelf | None = None) -> Prepared:
    """Features, labels, samples and one purged fold.

    The fold's dates come first, from rows and labels alone, so that what features learn (the d of fractional
    differencing) is learned on bars up to the last training label and nowhere else. shelf: of the same bars, with
    what other experiments have made already.
    """
    shelf = shelf or Shelf(bars)
    labels, events = labels_of(experiment, bars), shelf.mask(experiment.events)
    features = learned_features(experiment, bars, labels, events, experiment.split, experiment.lookback)
    table = shelf.table(features)
    assert len(table) == len(bars), (len(table), len(bars))
    samples = make_samples(table, labels, lookback=experiment.lookback, events=events, weighting=experiment.weighting)
    fold = next(iter(experiment.split.split(samples)))
    check_fold(samples, fold, 0)
    check_symbols(samples, fold, experiment.events, events)
    LOG.info(
        "%d samples: train %d, valid %d, test %d; rows left out: %s",
        len(samples),
        *(len(getattr(fold, p)) for p in ("train", "valid", "test")),
        ", ".join(f"{why} {n:,}" for why, n in left_out(table, labels, experiment.lookback, events).items()),
    )
    return Prepared(bars, shelf.digest, features, table, labels, samples, fold)


def learned_features(
    experiment: Experiment,
    bars: pl.DataFrame,
    labels: Labels,
    events: Array | None,
    splitter: Splitter,
    lookback: int,
) -> FeatureSet:
    """The feature set with whatever it learns learned on bars up to the first fold's last training label."""
    if not any(hasattr(feature, "fit") for feature in experiment.features.features):
        return experiment.features
    skeleton = make_samples(rows_only(bars), labels, lookback=lookback, events=events)
    ends = [skeleton.table.time[skeleton.end[fold.train]].max() for fold in splitter.split(skeleton)]
    return experiment.features.fit(bars, aware(min(ends)))


def check_symbols(samples: Samples, fold: Fold, events: Events | None = None, mask: Array | None = None) -> None:
    """Raises DataError for symbols without any sample; warns of those that a part of the fold lacks.

    mask: bool [R] of the events; a symbol that they never choose, such as a benchmark, is left out on purpose. Where
    the events are a universe, a symbol that never warms up is a warning: among thousands some always are too young.
    """
    table = samples.table
    wanted = np.ones(len(table), dtype=bool) if mask is None else mask
    chosen = np.bincount(table.symbol[wanted], minlength=len(table.symbols)) > 0
    own = np.bincount(table.symbol[samples.rows], minlength=len(table.symbols))
    if (short := chosen & (own == 0)).any():
        absent = {s: int((table.symbol == k).sum()) for k, s in enumerate(table.symbols) if short[k]}
        words = (
            f"samples: {', '.join(f'{s} ({n:,} bars)' for s, n in absent.items())} gave no sample; a symbol needs "
            "bars for the warm-up, a whole window and an outcome; load more of it or leave it out of the symbols"
        )
        if not isinstance(events, Members):
            raise DataError(words)
        LOG.warning(words)
    for part in ("train", "valid", "test"):
        seen = np.bincount(table.symbol[samples.rows[getattr(fold, part)]], minlength=len(table.symbols))
        if missing := [s for k, s in enumerate(table.symbols) if seen[k] == 0 and own[k]]:
            LOG.warning("samples: the %s part holds none of %s; their history does not reach it", part, missing)


def labels_of(experiment: Experiment, bars: pl.DataFrame) -> Labels:
    """Labels [R] along the side that the feature set names, or along the label's own where it names none.

    Where samples are weighted by return, the labels carry each bar's own.
    """
    labels = experiment.labels.label(bars, experiment.features.side(bars))
    return replace(labels, step=log_steps(bars)) if experiment.weighting == "return" else labels


def rows_only(bars: pl.DataFrame) -> FeatureTable:
    """The rows of the feature table without a feature."""
    symbols = bars["symbol"].unique().sort().to_list()
    codes = bars["symbol"].replace_strict(symbols, range(len(symbols)), return_dtype=pl.Int32)
    return FeatureTable(
        symbol=codes.to_numpy(),
        time=utc64_times(bars),
        segment=bars["segment"].cast(pl.Int32).to_numpy(),
        values=np.empty((len(bars), 0), dtype=np.float32),
        names=(),
        symbols=tuple(symbols),
    )


def aware(time: np.datetime64) -> datetime:
    """A table's time as an aware datetime in UTC."""
    return utc(time)


@dataclass(frozen=True, eq=False)
class Panel:
    """What all cells of one data set share: samples on one table, and the purged folds of them."""

    data_digest: str
    features: FeatureSet
    samples: Samples
    folds: Sequence[Fold]

    def part(self, fold: int, name: str) -> Samples:
        """`train`, `valid` or `test` of a fold, weights of mean 1 within the part."""
        return of_mean_one(self.samples.take(getattr(self.folds[fold], name)))


def make_panel(experiment: Experiment, bars: pl.DataFrame, splitter: Splitter, shelf: Shelf | None = None) -> Panel:
    """Samples and the splitter's folds; what features learn, they learn before the first training part ends.

    bars: with segments, as `preparing.load_bars` gives them. shelf: of these bars, with what others made already.
    """
    shelf = shelf or Shelf(bars)
    labels, events = labels_of(experiment, bars), shelf.mask(experiment.events)
    features = learned_features(experiment, bars, labels, events, splitter, experiment.lookback)
    samples = make_samples(
        shelf.table(features), labels, lookback=experiment.lookback, events=events, weighting=experiment.weighting
    )
    return Panel(shelf.digest, features, samples, checked_folds(samples, splitter))


def checked_folds(samples: Samples, splitter: Splitter) -> tuple[Fold, ...]:
    """The splitter's folds; LeakageError where a part of one could know what it is judged on."""
    folds = tuple(splitter.split(samples))
    for fold in folds:
        check_fold(samples, fold)
    return folds
