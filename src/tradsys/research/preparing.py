"""Bars to purged samples, with whatever features learn learned on training rows only."""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import FeatureTable, Fold, Labels, Samples
from tradsys.features.feature_set import FeatureSet
from tradsys.market.bars import content_digest, mark_gaps
from tradsys.research.parts import Experiment
from tradsys.samples.join import make_samples
from tradsys.samples.splits import check_fold

LOG = logging.getLogger(__name__)


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
    LOG.info("%d bars of %s", len(bars), ", ".join(bars["symbol"].unique().sort().to_list()))
    return mark_gaps(bars, experiment.max_gap)


def prepare(experiment: Experiment, bars: pl.DataFrame) -> Prepared:
    """Features, labels, samples and one purged fold.

    The fold's dates come first, from rows and labels alone, so that what features learn (the d of fractional
    differencing) is learned on bars up to the last training label and nowhere else.
    """
    labels = labels_of(experiment, bars)
    events = experiment.events.mask(bars) if experiment.events else None
    skeleton = make_samples(rows_only(bars), labels, lookback=experiment.lookback, events=events)
    first = next(iter(experiment.split.split(skeleton)))
    until = aware(skeleton.table.time[skeleton.end[first.train]].max())
    features = experiment.features.fit(bars, until)
    table = features.table(bars)
    assert len(table) == len(bars), (len(table), len(bars))
    samples = make_samples(table, labels, lookback=experiment.lookback, events=events)
    fold = next(iter(experiment.split.split(samples)))
    check_fold(samples, fold, 0)
    check_symbols(samples, fold)
    learned = samples.table.time[samples.end[fold.train]].max()
    if aware(learned) < until:
        LOG.info("training labels end %s; features were fitted on bars up to %s", learned, until)
    LOG.info(
        "%d samples: train %d, valid %d, test %d",
        len(samples),
        *(len(getattr(fold, p)) for p in ("train", "valid", "test")),
    )
    return Prepared(bars, content_digest(bars), features, table, labels, samples, fold)


def check_symbols(samples: Samples, fold: Fold) -> None:
    """Raises DataError for symbols without any sample; warns of those that a part of the fold lacks."""
    table = samples.table
    own = np.bincount(table.symbol[samples.rows], minlength=len(table.symbols))
    if (own == 0).any():
        absent = {s: int((table.symbol == k).sum()) for k, s in enumerate(table.symbols) if own[k] == 0}
        raise DataError(
            f"samples: {', '.join(f'{s} ({n:,} bars)' for s, n in absent.items())} gave no sample; a symbol needs "
            "bars for the warm-up, a whole window and an outcome; load more of it or leave it out of the symbols"
        )
    for part in ("train", "valid", "test"):
        seen = np.bincount(table.symbol[samples.rows[getattr(fold, part)]], minlength=len(table.symbols))
        if missing := [s for k, s in enumerate(table.symbols) if seen[k] == 0]:
            LOG.warning("samples: the %s part holds none of %s; their history does not reach it", part, missing)


def labels_of(experiment: Experiment, bars: pl.DataFrame) -> Labels:
    """Labels [R] along the side that the feature set names, or along the label's own where it names none."""
    return experiment.labels.label(bars, experiment.features.side(bars))


def rows_only(bars: pl.DataFrame) -> FeatureTable:
    """The rows of the feature table without a feature."""
    symbols = bars["symbol"].unique().sort().to_list()
    codes = bars["symbol"].replace_strict(symbols, range(len(symbols)), return_dtype=pl.Int32)
    return FeatureTable(
        symbol=codes.to_numpy(),
        time=bars["time"].dt.replace_time_zone(None).to_numpy(),
        segment=bars["segment"].cast(pl.Int32).to_numpy(),
        values=np.empty((len(bars), 0), dtype=np.float32),
        names=(),
        symbols=tuple(symbols),
    )


def aware(time: np.datetime64) -> datetime:
    """A table's time as an aware datetime in UTC."""
    return time.astype("datetime64[us]").item().replace(tzinfo=UTC)
