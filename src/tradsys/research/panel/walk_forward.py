"""Panels over several horizons: one experiment each, on one table, walked forward over purged folds.

A walk forward predicts every member on every test day, also those whose label never resolves: a book
of only resolved names would foresee delistings. Legend: N rows, C classes.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from tradsys.core.protocols import Splitter
from tradsys.core.tables import Array, FeatureTable, Labels
from tradsys.market.bars import utc_series
from tradsys.models.ensembles.compose import Calibrated
from tradsys.portfolio.ledger import UTC_TIME
from tradsys.research.pipeline.cross_validation import fitted_on
from tradsys.research.pipeline.dataset import Dataset, LabelledRows, Prepared, label_rows, prepare
from tradsys.research.pipeline.dataset_cache import DatasetCache
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.weights import class_rates

LOG = logging.getLogger(__name__)
PREDICTIONS_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "symbol": pl.String,
    "time": UTC_TIME,
    "horizon": pl.String,
    "fold": pl.Int32,
    "score": pl.Float64,
    "probability": pl.Float64,
    "base_rate": pl.Float64,
    "y": pl.Int64,
    "ret": pl.Float64,
}


def prepared_in_turn(experiments: Mapping[str, Experiment], bars: pl.DataFrame) -> Iterator[tuple[str, Prepared]]:
    """Each experiment prepared on the same bars once it is asked for.

    Equal feature sets share one table, equal universes one mask. bars: with segments, as `dataset.load_bars` returns
    them. Raises as `dataset.prepare`.
    """
    cache = DatasetCache(bars)
    for name, experiment in experiments.items():
        LOG.info("preparing %s", name)
        yield name, prepare(experiment, bars, cache)


def walk_forward(
    experiments: Mapping[str, Experiment],
    bars: pl.DataFrame,
    splitter: Splitter | None = None,
    workdir: Path | None = None,
) -> pl.DataFrame:
    """Predictions of each horizon's model on every fold's test days.

    For every member; as PREDICTIONS_SCHEMA. splitter: None is each experiment's own. workdir: lets a net's fit resume.
    score: raw P(1), for order within a day and fold; probability: calibrated on the fold's validation rows; base_rate:
    of the fold's training rows; y and ret are null where the label is unresolved. Sorted by horizon as given, fold,
    symbol, time; (symbol, time) is unique within a horizon. Raises as `dataset.label_rows`.
    """
    cache = DatasetCache(bars)
    parts = []
    for name, experiment in experiments.items():
        labelled = label_rows(experiment, bars, splitter, cache=cache)
        dataset = labelled.dataset(splitter or experiment.split)
        for k in range(len(dataset.folds)):
            folder = None if workdir is None else workdir / name / f"fold_{k}"
            model = fitted_on(experiment, dataset.part(k, "train"), dataset.part(k, "valid"), folder)
            rows = _rows_of_test_days(labelled, dataset, k)
            rate = float(class_rates(dataset.part(k, "train"))[1])
            predicted = predictions_with_outcomes(model, labelled.table, rows, labelled.labels, rate)
            parts.append(predicted.with_columns(horizon=pl.lit(name), fold=pl.lit(k)))
            LOG.info("%s fold %d: %d rows on %d days", name, k, len(rows), predicted["time"].n_unique())
    return pl.concat(part.select(*PREDICTIONS_SCHEMA).cast(PREDICTIONS_SCHEMA) for part in parts)  # type: ignore[arg-type]


def predictions_with_outcomes(
    model: Calibrated, table: FeatureTable, rows: Array, labels: Labels, rate: float
) -> pl.DataFrame:
    """Scores and calibrated probabilities of these rows [N].

    Y and ret are null where the label is unresolved.
    """
    score_NC = model.score(table, rows)
    known = labels.resolved[rows]
    return pl.DataFrame(
        {
            "symbol": table.symbols_of(rows),
            "time": utc_series(table.time[rows]),
            "score": score_NC[:, 1],
            "probability": model.calibrator_.apply(score_NC)[:, 1],  # type: ignore[union-attr]
            "base_rate": np.full(len(rows), rate),
            "y": pl.Series(labels.y[rows]).set(pl.Series(~known), None),
            "ret": pl.Series(labels.ret[rows]).set(pl.Series(~known), None),
        }
    )


def _rows_of_test_days(labelled: LabelledRows, dataset: Dataset, fold: int) -> Array:
    """Rows of a fold's test days on which a member has a complete window, its label resolved or not."""
    days, time = dataset.part(fold, "test").time, labelled.table.time
    return np.flatnonzero(labelled.decidable & (time >= days.min()) & (time <= days.max()))
