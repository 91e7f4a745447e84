"""Panels over several horizons: one experiment each, on one table, walked forward over purged folds.

A walk forward says what was known of every member on every test day, also of those whose outcome never came: a book
that held only names with an outcome would know who dies. Legend: N rows, C classes.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from tradsys.core.protocols import Splitter
from tradsys.core.tables import Array, FeatureTable, Labels
from tradsys.market.bars import utc_series
from tradsys.models.ensembles.compose import Calibrated
from tradsys.portfolio.ledger import UTC_TIME
from tradsys.research.pipeline.cross_validation import fitted_on
from tradsys.research.pipeline.dataset import Panel, Prepared, Shelf, labels_of, make_panel, prepare
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


def prepare_horizons(experiments: Mapping[str, Experiment], bars: pl.DataFrame) -> dict[str, Prepared]:
    """Every experiment prepared on the same bars; equal feature sets share one table, equal universes one mask.

    bars: with segments, as `preparing.load_bars` gives them. Raises as `preparing.prepare`, the horizon named before.
    """
    shelf = Shelf(bars)
    out = {}
    for name, experiment in experiments.items():
        LOG.info("preparing %s", name)
        out[name] = prepare(experiment, bars, shelf)
    return out


def walk_forward(
    experiments: Mapping[str, Experiment],
    bars: pl.DataFrame,
    splitter: Splitter | None = None,
    workdir: Path | None = None,
) -> pl.DataFrame:
    """What each horizon's model said of every member on every test day of every fold, columns as PREDICTIONS_SCHEMA.

    splitter: None is each experiment's own. workdir: lets a net's fit resume. score: raw P(1), for order within a day
    and fold; probability: calibrated on the fold's validation rows; base_rate: of the fold's training rows; y and ret
    are null where the outcome is not known. Sorted by horizon as given, fold, symbol, time; no (symbol, time) stands
    twice within a horizon. Raises as `cells.make_panel`.
    """
    shelf = Shelf(bars)
    parts = []
    for name, experiment in experiments.items():
        panel = make_panel(experiment, bars, splitter or experiment.split, shelf)
        asked = _askable(experiment, panel, shelf)
        labels = labels_of(experiment, bars)
        for k in range(len(panel.folds)):
            folder = None if workdir is None else workdir / name / f"fold_{k}"
            model = fitted_on(experiment, panel.part(k, "train"), panel.part(k, "valid"), folder)
            rows = asked[k]
            said = told(model, panel.samples.table, rows, labels, float(class_rates(panel.part(k, "train"))[1]))
            parts.append(said.with_columns(horizon=pl.lit(name), fold=pl.lit(k)))
            LOG.info("%s fold %d: %d rows on %d days", name, k, len(rows), said["time"].n_unique())
    return pl.concat(part.select(*PREDICTIONS_SCHEMA).cast(PREDICTIONS_SCHEMA) for part in parts)  # type: ignore[arg-type]


def told(model: Calibrated, table: FeatureTable, rows: Array, labels: Labels, rate: float) -> pl.DataFrame:
    """What a fitted model says of these rows [N], and what became of them: null where that is not known."""
    score_NC = model.score(table, rows)
    known = labels.y[rows] >= 0
    return pl.DataFrame(
        {
            "symbol": np.asarray(table.symbols)[table.symbol[rows]],
            "time": utc_series(table.time[rows]),
            "score": score_NC[:, 1],
            "probability": model.calibrator_.apply(score_NC)[:, 1],  # type: ignore[union-attr]
            "base_rate": np.full(len(rows), rate),
            "y": pl.Series(labels.y[rows]).set(pl.Series(~known), None),
            "ret": pl.Series(labels.ret[rows]).set(pl.Series(~known), None),
        }
    )


def _askable(experiment: Experiment, panel: Panel, shelf: Shelf) -> list[Array]:
    """Rows of each fold's test days on which a member has a full window, its outcome known or not."""
    table, mask = panel.samples.table, shelf.mask(experiment.events)
    ready = table.ready(experiment.lookback) if mask is None else table.ready(experiment.lookback) & mask
    out = []
    for k in range(len(panel.folds)):
        days = panel.part(k, "test").time
        out.append(np.flatnonzero(ready & (table.time >= days.min()) & (table.time <= days.max())))
    return out
