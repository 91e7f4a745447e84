"""Look-ahead check of a panel by refitting: the data are cut at a date, everything is computed and fitted again.

Both sides compute features, labels, members and samples, fit scaler, model and calibrator, and predict
the date's names; one side has only bars up to the date, the other all of them and leaves out labels that had not
resolved by then. Any influence of the future shows as a difference.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from tradsys.core.clock import utc64
from tradsys.core.errors import DataError
from tradsys.core.tables import Array, FeatureTable
from tradsys.evidence.controls.causality import Columns, Finding, first_difference
from tradsys.research.leakage.subject import aware_key
from tradsys.research.pipeline.as_of import AsOf, known_by
from tradsys.research.pipeline.cross_validation import fitted_on
from tradsys.research.pipeline.dataset import label_rows, labels_of
from tradsys.research.pipeline.dataset_cache import DatasetCache
from tradsys.research.pipeline.settings import Experiment

LOG = logging.getLogger(__name__)
QUESTION = "a refit on data cut at the date gives the same"
VALID_BARS = 126  # where the experiment's split has none


@dataclass(frozen=True, eq=False)
class Refit:
    """One side of the check: the result of each stage, as columns.

    In the order of the rows that the cut side has.
    """

    table: FeatureTable
    stages: Mapping[str, Columns]
    rows: Mapping[str, Array]  # of the table, by stage


def refit_check(
    experiments: Mapping[str, Experiment], bars: pl.DataFrame, at: datetime, *, tolerance: float = 0.0
) -> list[Finding]:
    """The first stage of each horizon that later bars change; empty if none.

    Later bars are those after `at`. bars: with segments, as `dataset.load_bars` returns them. at: a close of the bars,
    with enough before it to fit. The model is fitted on labels resolved by `at`, calibrated and stopped on the last
    `valid_bars` decision days of the split (126 where it has none). Stages, in order: features (every row up to `at`),
    labels (resolved by `at`), samples (rows, weights), prediction (raw score and probability of every member at `at`).
    tolerance: relative, as of `causality.first_difference`; 0 requires equal bits, which lines and trees on equal
    inputs give; 1e-6 for nets. Raises DataError where no bar closes at `at`, nothing lies after it, or no name can be
    predicted at it.
    """
    later = bars.filter(pl.col("time") > at).height
    if not later or bars.filter(pl.col("time") == at).is_empty():
        raise DataError(
            f"refit check: {later} bars lie after {at:%Y-%m-%d %H:%M} and "
            f"{bars.filter(pl.col('time') == at).height} close then; it cuts at a close with later data; choose another"
        )
    full, cut = DatasetCache(bars), DatasetCache(bars.filter(pl.col("time") <= at))
    findings = []
    for name, experiment in experiments.items():
        side = _refit(experiment, full, at)
        if not len(side.rows["prediction"]):
            raise DataError(f"refit check: no member has a full window at {at:%Y-%m-%d %H:%M}; choose another date")
        found = _first_finding(name, side, _refit(experiment, cut, at), at, tolerance)
        LOG.info("%s: %s", name, "differs at " + found.part if found else "the refit on cut data gives the same")
        findings += [found] if found else []
    return findings


def _refit(experiment: Experiment, cache: DatasetCache, at: datetime) -> Refit:
    """Everything computed and fitted from the cached bars, as of `at`."""
    bars, splitter = cache.bars, AsOf(at, getattr(experiment.split, "valid_bars", None) or VALID_BARS)
    labels = known_by(experiment, bars, labels_of(experiment, bars), at)
    rows = label_rows(experiment, bars, splitter, labels=labels, cache=cache)
    dataset, table = rows.dataset(splitter), rows.table
    model = fitted_on(experiment, dataset.part(0, "train"), dataset.part(0, "valid"))
    now = utc64(at)
    past = np.flatnonzero(table.time <= now)
    decided = np.flatnonzero(rows.decidable & (table.time == now))
    score = model.score(table, decided)
    samples = dataset.samples
    used = samples.rows
    stages = {
        "features": {name: table.values[past, k] for k, name in enumerate(table.names)},
        "labels": {"y": labels.y[past], "ret": labels.ret[past], "weight": labels.weight[past]},
        "samples": {**_row_names(table, used), "weight": samples.weight, "y": samples.y},
        "prediction": {
            **_row_names(table, decided),
            "score": score[:, 1],
            "probability": model.calibrator_.apply(score)[:, 1],  # type: ignore[union-attr]
        },
    }
    return Refit(table, stages, {"features": past, "labels": past, "samples": used, "prediction": decided})


def _first_finding(name: str, full: Refit, cut: Refit, at: datetime, tolerance: float) -> Finding | None:
    """The first stage at which the two sides differ."""
    for stage, before in full.stages.items():
        if found := first_difference(before, cut.stages[stage], tolerance):
            rows = full.rows[stage]
            row = aware_key(full.table, int(rows[found.row])) if 0 <= found.row < len(rows) else "all"
            return Finding(f"{name} {stage}", QUESTION, f"cut after {at:%Y-%m-%d %H:%M}", found.column, row, found.size)
    return None


def _row_names(table: FeatureTable, rows: Array) -> Columns:
    """Symbol and time of each row; codes may differ where the cut side lacks a symbol."""
    return {"symbol": table.symbols_of(rows), "time": table.time[rows]}
