"""Rows that a diagnosis may use: their labels resolved before the first test decision."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.extensions import answer
from tradsys.core.tables import Array, FeatureTable, Labels, Samples
from tradsys.features.feature_set import FeatureSet
from tradsys.research.pipeline.dataset import aware, labels_of, last_training_label, rows_only
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.join import make_samples
from tradsys.samples.splits import folds_of


@dataclass(frozen=True, eq=False)
class KnownOutcomes:
    """Rows with a label that resolved before the first test decision.

    N of the table's R rows. rows [N]; event bool [N]: class 1. members bool [R], None for all. test_start: the first
    test decision. train_rate, valid_rate: share of events in the first fold's parts, among rows with all features
    finite.
    """

    bars: pl.DataFrame
    table: FeatureTable
    labels: Labels
    features: FeatureSet
    members: Array | None
    rows: Array
    test_start: datetime
    train_rate: float
    valid_rate: float

    @property
    def event(self) -> Array:
        """bool [N]: rows of class 1."""
        return self.labels.y[self.rows] == 1

    @property
    def time(self) -> Array:
        """Decision times [N], datetime64[us]."""
        return self.table.time[self.rows]

    @property
    def symbol(self) -> Array:
        """Symbol codes [N]."""
        return self.table.symbol[self.rows]


def known_outcomes(experiment: Experiment, bars: pl.DataFrame) -> KnownOutcomes:
    """Features of all rows, and the rows whose labels a diagnosis may use.

    A row need not have all its features: each column is evaluated where it is finite, so that one empty column does not
    hide the others. bars: with segments. Raises DataError where the split finds no fold, or its test comes first.
    """
    labels = labels_of(experiment, bars)
    members = answer(experiment.events, "mask", bars, kind=np.ndarray) if experiment.events else None
    skeleton = make_samples(rows_only(bars), labels, lookback=experiment.lookback, events=members)
    folds = list(folds_of(experiment.split, skeleton))
    test_start = min(skeleton.time[fold.test].min() for fold in folds)
    features = experiment.features.fit(bars, last_training_label(skeleton, folds))
    table = features.table(bars)
    clock = np.unique(skeleton.table.time)
    # a delisting is known some bars after the label's end; the split's embargo states how many
    late = np.searchsorted(clock, skeleton.table.time[skeleton.end]) + getattr(experiment.split, "embargo_bars", 0)
    before = late < np.searchsorted(clock, test_start)
    if not before.any():
        raise DataError(
            f"diagnose: none of {len(skeleton)} labels resolves before the first test decision, {test_start}; a "
            "diagnosis reads no test span, so training must lie before it; use split=daily or split=holdout"
        )
    return KnownOutcomes(
        bars=bars,
        table=table,
        labels=labels,
        features=features,
        members=members,
        rows=skeleton.rows[before],
        test_start=aware(test_start),
        train_rate=_rate(table, skeleton.take(folds[0].train)),
        valid_rate=_rate(table, skeleton.take(folds[0].valid)),
    )


def _rate(table: FeatureTable, samples: Samples) -> float:
    """Share of events among the samples with a complete window; among all of them where there is none."""
    ready = table.ready(1)[samples.rows]
    return float((samples.y[ready if ready.any() else slice(None)] == 1).mean())
