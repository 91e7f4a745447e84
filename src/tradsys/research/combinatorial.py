"""Whole out-of-sample paths of a cheap model: combinatorial purged cross-validation over all of a run's samples.

The folds read every span, the test span included, so each path's daily returns enter the ledger (purpose "cpcv") and
deflate the Sharpe ratios that are judged on that span. A sequence model is too dear to be refitted for every choice of
test groups; the logistic baseline then stands in, and the section says so.
"""

import logging
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.protocols import Model
from tradsys.core.tables import Array, Fold, Samples
from tradsys.market.calendars import periods_per_year
from tradsys.models.compose import scaled
from tradsys.models.linear import LogisticRegression
from tradsys.models.sequence import SequenceModel
from tradsys.research.ledger import LedgerEntry, TrialLedger
from tradsys.research.parts import Experiment
from tradsys.research.paths import Paths, path_returns
from tradsys.research.preparing import Prepared, aware
from tradsys.samples.splits import CombinatorialPurged

LOG = logging.getLogger(__name__)
TOP = 0.9  # a path is long where the score reaches this quantile of its own fold's validation scores
VALID_FRACTION = 0.2  # of a fold's training samples, the latest: early stopping and the quantile read them


def cpcv_paths(
    experiment: Experiment, prepared: Prepared, ledger: TrialLedger, source: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """The report's section `paths`: `Paths.as_dict` with model, stands_in (for the primary), rule, n_fits, n_groups,
    n_test_groups. Every path is written into the ledger before this returns. Raises as `path_returns` and as fits do.
    """
    judged = experiment.evaluation
    splitter = CombinatorialPurged(
        judged.cpcv_groups, judged.cpcv_test_groups, experiment.labels.horizon_bars, VALID_FRACTION
    )
    name, model = cheap_model(experiment)
    samples = prepared.samples
    positions = [_positions(experiment, model, samples, fold) for fold in splitter.split(samples)]
    paths = path_returns(
        splitter,
        samples,
        positions,
        round_trip_cost=experiment.costs.round_trip,
        periods_per_year=_days_per_year(samples),
    )
    _record(paths, name, prepared, ledger, source, folder)
    LOG.info("cpcv: %d fits of %s, %d paths", len(positions), name, len(paths.sharpe_P))
    return paths.as_dict() | {
        "model": name,
        "stands_in": name != "primary",
        "rule": f"{_side_in_words(samples)} where the score is at least the {TOP:g} quantile of its own fold's "
        "validation scores",
        "n_fits": len(positions),
        "n_groups": splitter.n_groups,
        "n_test_groups": splitter.n_test_groups,
    }


def cheap_model(experiment: Experiment) -> tuple[str, Model]:
    """The primary where no part of it is a sequence model, else the logistic baseline; with its name."""
    if not _holds_sequence(experiment.model):
        return "primary", experiment.model
    return "logistic", experiment.baselines.get("logistic") or LogisticRegression()


def _holds_sequence(part: object) -> bool:
    """Whether a model, or one that it is made of, is a sequence model."""
    if isinstance(part, SequenceModel):
        return True
    if isinstance(part, tuple | list):
        return any(_holds_sequence(item) for item in part)
    if isinstance(part, dict):
        return any(_holds_sequence(item) for item in part.values())
    if is_dataclass(part):
        return any(_holds_sequence(getattr(part, field.name)) for field in fields(part) if field.init)
    return False


def _positions(experiment: Experiment, model: Model, samples: Samples, fold: Fold) -> Array:
    """0 or 1 for each test sample of a fold, from a model fitted on the rest; 1 is a position on the label's side.

    Returns of labels are in their own direction, so a short counts as 1, too. A row with side 0 takes none.
    """
    done = scaled(experiment.transforms, model).fit(samples.take(fold.train), samples.take(fold.valid))
    valid, test = (done.predict_proba(samples.table, samples.rows[part])[:, 1] for part in (fold.valid, fold.test))
    side = samples.table.side()
    wanted = np.ones(len(test), dtype=bool) if side is None else side[samples.rows[fold.test]] != 0
    return ((test >= np.quantile(valid, TOP)) & wanted).astype(np.float64)


def _side_in_words(samples: Samples) -> str:
    """What a path takes, in words."""
    return "long" if samples.table.side() is None else "on the bundle's own side, long or short,"


def _days_per_year(samples: Samples) -> float:
    """365 or 252, as the table's bars show."""
    day = (np.unique(samples.table.time) - np.timedelta64(1, "us")).astype("datetime64[D]").astype("datetime64[us]")
    frame = pl.DataFrame({"time": pl.Series(np.unique(day)).dt.replace_time_zone("UTC")})
    return periods_per_year(frame.with_columns(symbol=pl.lit("days")).select("symbol", "time"))


def _record(
    paths: Paths, name: str, prepared: Prepared, ledger: TrialLedger, source: dict[str, Any], folder: Path
) -> None:
    samples = prepared.samples
    outcomes = samples.table.time[samples.end]
    for p in range(len(paths.sharpe_P)):
        entry = LedgerEntry(
            purpose="cpcv",
            subject=f"{name}, path {p + 1}",
            data_digest=prepared.data_digest,
            span_start=aware(outcomes.min()),
            span_end=aware(outcomes.max()),
            config_digest=source["config_digest"],
            run=str(folder),
            measure="return",
            periods_per_year=paths.periods_per_year,
            code_sha=source["code_sha"],
        )
        ledger.append(entry, paths.returns_DP[:, p])
