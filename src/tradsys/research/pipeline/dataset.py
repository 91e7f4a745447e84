"""Builds datasets from bars, the same way for every command: checks, features, labels, samples, purged folds.

`build_dataset` runs all steps. `label_rows` is its first half, for callers that need the rows before they become
samples: a comparison that intersects the rows of its variants, a signal at one close. Fitted features (the d
of fractional differencing) are fitted on bars up to the last training label of the earliest fold, and nowhere else.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

import numpy as np
import polars as pl

from tradsys.core.bounds import is_within
from tradsys.core.clock import utc
from tradsys.core.errors import DataError
from tradsys.core.extensions import answer, is_own
from tradsys.core.protocols import Events, Splitter
from tradsys.core.tables import Array, FeatureTable, Fold, Labels, Samples
from tradsys.features.feature_set import FeatureSet
from tradsys.labels.carry import with_carry
from tradsys.labels.checked import checked_labels
from tradsys.labels.realised_range import path_targets
from tradsys.market.bars import check_bar_minutes, check_bars, mark_gaps, utc64_times
from tradsys.market.tradable import trailing_turnover
from tradsys.market.true_range import log_steps
from tradsys.market.universe import Members, market_span_note
from tradsys.research.pipeline.dataset_cache import DatasetCache
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.join import left_out, make_samples
from tradsys.samples.splits import check_fold, folds_of

LOG = logging.getLogger(__name__)
N_NAMED = 20  # symbols spelled out in the log
PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples on one feature table and their purged folds.

    Fits and their evaluation read nothing else.
    """

    data_digest: str
    features: FeatureSet
    samples: Samples
    folds: Sequence[Fold]

    def part(self, fold: int, name: str) -> Samples:
        """`train`, `valid` or `test` of a fold, weights of mean 1 within the part."""
        return part_of(self.samples, self.folds[fold], name)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Bars turned into purged samples of one fold.

    The feature set is fitted on training rows only.
    """

    bars: pl.DataFrame  # with segments
    data_digest: str
    features: FeatureSet
    table: FeatureTable
    resolved: Array  # bool [R], rows whose outcome is known
    samples: Samples
    fold: Fold

    @property
    def train(self) -> Samples:
        """Training samples."""
        return part_of(self.samples, self.fold, "train")

    @property
    def valid(self) -> Samples:
        """Samples for early stopping, calibration and thresholds; later than training."""
        return part_of(self.samples, self.fold, "valid")

    @property
    def test(self) -> Samples:
        """Test samples, evaluated once."""
        return part_of(self.samples, self.fold, "test")

    @property
    def test_start(self) -> datetime:
        """The first test decision, aware UTC."""
        return aware(self.test.time.min())


def of_mean_one(samples: Samples) -> Samples:
    """The samples with weights of mean 1 within their own part.

    So no part's scale leaks another's labels.
    """
    return replace(samples, weight=samples.weight / samples.weight.mean())


def part_of(samples: Samples, fold: Fold, name: str) -> Samples:
    """`train`, `valid` or `test` of a fold, weights of mean 1 within the part."""
    return of_mean_one(samples.take(getattr(fold, name)))


def load_bars(experiment: Experiment) -> pl.DataFrame:
    """The experiment's bars with their segments marked."""
    source = experiment.data["source"]
    bars: pl.DataFrame = answer(source, "bars", kind=pl.DataFrame)
    answer(source, "describe", kind=Mapping)  # every bundle and page needs it, after the fits
    if not is_own(type(source)):
        check_bars(bars)
    symbols = bars["symbol"].unique().sort().to_list()
    LOG.info("%d bars of %s", len(bars), ", ".join(symbols) if len(symbols) <= N_NAMED else f"{len(symbols)} symbols")
    _check_old_key(experiment, bars)
    if note := market_cut(experiment.features, bars):
        LOG.warning("data: %s", note)
    return mark_gaps(bars, experiment.max_gap)


def market_cut(features: FeatureSet, bars: pl.DataFrame) -> str:
    """`market_span_note` of the market that the features read.

    "" where they read none.
    """
    return market_span_note(bars, features.market_symbol) if features.reads_market else ""


def _check_old_key(experiment: Experiment, bars: pl.DataFrame) -> None:
    """Checks the removed key data.bar_minutes, where a config still has it, against the bars."""
    reported = experiment.data.get("bar_minutes")
    if reported is not None and not hasattr(experiment.data["source"], "bar_minutes"):  # a synthetic market has one
        LOG.warning("data.bar_minutes is measured from the bars now; remove the key from conf/data, it will be refused")
        if not is_within(reported, "(0, inf)"):
            raise DataError(f"data: bar_minutes={reported!r}; it is measured from the bars now; remove the key")
        check_bar_minutes(
            bars, float(reported), "data", "data.bar_minutes is measured from the bars now; remove the key"
        )


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Features and labels of all R bars, before rows are chosen as samples.

    events: bool [R], rows where a decision is taken; None for all. lookback: rows of a sample's window.
    """

    bars: pl.DataFrame
    data_digest: str
    features: FeatureSet
    table: FeatureTable
    labels: Labels
    events: Array | None
    lookback: int
    weighting: str

    @property
    def decidable(self) -> Array:
        """bool [R]: rows with a complete window at which a decision is taken.

        Whether the label is resolved or not.
        """
        ready = self.table.ready(self.lookback)
        return ready if self.events is None else ready & self.events

    def samples(self) -> Samples:
        """Samples at the decidable rows whose label is resolved; raises as `make_samples`."""
        return make_samples(
            self.table, self.labels, lookback=self.lookback, events=self.events, weighting=self.weighting
        )

    def dataset(self, splitter: Splitter, n_folds: int | None = None) -> Dataset:
        """The samples in the splitter's folds, the first n_folds or all.

        Raises LeakageError for a fold that leaks. DataError where time is too short for them; a market symbol that
        shortened it is named.
        """
        try:
            samples = self.samples()
            folds = tuple(islice(folds_of(splitter, samples), n_folds))
        except DataError as error:
            if note := market_cut(self.features, self.bars):
                raise DataError(f"{error}; {note}") from error
            raise
        for fold in folds:
            check_fold(samples, fold)
        return Dataset(self.data_digest, self.features, samples, folds)


def label_rows(
    experiment: Experiment,
    bars: pl.DataFrame,
    splitter: Splitter | None = None,
    *,
    lookback: int | None = None,
    labels: Labels | None = None,
    features: FeatureSet | None = None,
    cache: DatasetCache | None = None,
) -> LabelledRows:
    """Features and labels of all rows of the bars.

    bars: with segments, as `load_bars` returns them. splitter, lookback: the experiment's own where None. labels:
    where None, the experiment's. features: a fitted set; where None, the experiment's is fitted on bars up to the
    earliest fold's last training label. cache: of the same bars, with the values of other experiments.
    """
    cache = cache or DatasetCache(bars)
    lookback = experiment.lookback if lookback is None else lookback
    labels = labels_of(experiment, bars, cache) if labels is None else labels
    events = cache.mask(experiment.events)
    if features is None:
        features = learned_features(experiment, bars, labels, events, splitter or experiment.split, lookback)
    table = cache.table(features)
    assert len(table) == len(bars), (len(table), len(bars))
    return LabelledRows(bars, cache.digest, features, table, labels, events, lookback, experiment.weighting)


def build_dataset(
    experiment: Experiment,
    bars: pl.DataFrame,
    splitter: Splitter | None = None,
    *,
    lookback: int | None = None,
    cache: DatasetCache | None = None,
) -> Dataset:
    """Samples of the bars and the splitter's purged folds; arguments as `label_rows`.

    Raises DataError for a symbol without any sample, LeakageError for a part that overlaps its evaluation data.
    """
    rows = label_rows(experiment, bars, splitter, lookback=lookback, cache=cache)
    dataset = rows.dataset(splitter or experiment.split)
    check_symbols(dataset.samples, experiment.events, rows.events)
    return dataset


def prepare(experiment: Experiment, bars: pl.DataFrame, cache: DatasetCache | None = None) -> Prepared:
    """The dataset of the experiment's first fold, with bars and labels.

    `cache` keeps these.
    """
    rows = label_rows(experiment, bars, cache=cache)
    dataset = rows.dataset(experiment.split, n_folds=1)
    samples, fold = dataset.samples, dataset.folds[0]
    check_symbols(samples, experiment.events, rows.events)
    warn_of_absent(samples, fold)
    LOG.info(
        "%d samples: train %d, valid %d, test %d; rows left out: %s",
        len(samples),
        *(len(getattr(fold, part)) for part in PARTS),
        ", ".join(f"{why} {n:,}" for why, n in left_out(rows.table, rows.labels, rows.lookback, rows.events).items()),
    )
    if cache is not None:
        cache.keep()
    return Prepared(bars, rows.data_digest, rows.features, rows.table, rows.labels.resolved, samples, fold)


def learned_features(
    experiment: Experiment,
    bars: pl.DataFrame,
    labels: Labels,
    events: Array | None,
    splitter: Splitter,
    lookback: int,
) -> FeatureSet:
    """The feature set fitted on bars up to the earliest fold's last training label."""
    if not any(hasattr(feature, "fit") for feature in experiment.features.features):
        return experiment.features
    skeleton = make_samples(rows_only(bars), labels, lookback=lookback, events=events)
    return experiment.features.fit(bars, last_training_label(skeleton, folds_of(splitter, skeleton)))


def last_training_label(samples: Samples, folds: Iterable[Fold]) -> datetime:
    """When the last training label of the earliest fold resolves; aware UTC."""
    return aware(min(samples.table.time[samples.end[fold.train]].max() for fold in folds))


def check_symbols(samples: Samples, events: Events | None = None, mask: Array | None = None) -> None:
    """Raises DataError for symbols without any sample.

    mask: bool [R] of the events; a symbol that they never choose, such as a benchmark, is left out on purpose. Where
    the events are a universe, a symbol that never warms up is only a warning: among thousands some are always too
    young.
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


def warn_of_absent(samples: Samples, fold: Fold) -> None:
    """Warns of symbols that have samples but none in a part of the fold."""
    table = samples.table
    own = np.bincount(table.symbol[samples.rows], minlength=len(table.symbols))
    for part in PARTS:
        seen = np.bincount(table.symbol[samples.rows[getattr(fold, part)]], minlength=len(table.symbols))
        if missing := [s for k, s in enumerate(table.symbols) if seen[k] == 0 and own[k]]:
            LOG.warning("samples: the %s part holds none of %s; their history does not reach it", part, missing)


def labels_of(experiment: Experiment, bars: pl.DataFrame, cache: DatasetCache | None = None) -> Labels:
    """Labels [R] on the side of the feature set.

    On the label's own side where the set has none. `ret` includes the dividends, the funding and the borrow fee of the
    position, so that a label pays after costs where the simulator's trade does. Where samples are weighted by return or
    liquidity, the labels carry the required values of each bar; all carry what the path to each label's end did. cache:
    of the same bars.
    """
    side, weighting = experiment.features.side(bars), experiment.weighting

    def compute() -> Labels:
        labels = outcomes_on(experiment, bars, side)
        span, met = path_targets(bars, labels.end)
        labels = replace(labels, realised_range=span, mean_met=met)
        if weighting == "return":
            return replace(labels, step=log_steps(bars))
        return replace(labels, turnover=trailing_turnover(bars)) if weighting == "liquidity" else labels

    settings = {"borrow_per_year": experiment.costs.borrow_per_year, "weighting": weighting}
    return (cache or DatasetCache(bars)).labels(experiment.labels, settings, side, compute)


def outcomes_of(experiment: Experiment, bars: pl.DataFrame) -> Labels:
    """Labels [R] as of `labels_of`, without paths and without values for weights."""
    return outcomes_on(experiment, bars, experiment.features.side(bars))


def side_of_labels(experiment: Experiment, side: Array | None) -> int | Array:
    """The side of the positions that labels describe.

    That of the features; where they have none, the label's own.
    """
    return getattr(experiment.labels, "side", 1) if side is None else side


def outcomes_on(experiment: Experiment, bars: pl.DataFrame, side: Array | None) -> Labels:
    """Checked labels with their carry, on the given side.

    side: int8 [R] of the positions, None for the label's own.
    """
    own = side_of_labels(experiment, side)
    found = checked_labels(answer(experiment.labels, "label", bars, side, kind=Labels), experiment.labels, bars)
    return with_carry(found, bars, own, experiment.costs.borrow_per_year)


def rows_only(bars: pl.DataFrame) -> FeatureTable:
    """The rows of the feature table without features."""
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
