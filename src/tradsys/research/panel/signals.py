"""The panel's signals: predictions for every member at a close, and their quality on held-out folds.

Held-out folds also train on later data, so they measure how well the two models order and size outcomes, not
what could have been earned: a walk-forward does that. The table of a close is fitted on data up to that close.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl

from tradsys.core.bounds import check_bounds
from tradsys.core.clock import utc64
from tradsys.core.errors import DataError
from tradsys.core.protocols import Splitter
from tradsys.core.runs import written_atomically
from tradsys.core.tables import Array, Samples
from tradsys.evidence.classification import auc
from tradsys.features.feature_set import FeatureSet
from tradsys.market.calendars import session_dates, session_of
from tradsys.models.boosting import LightGbm, LightGbmRegressor
from tradsys.research.pipeline.as_of import AsOf, known_by
from tradsys.research.pipeline.cross_validation import fitted_on
from tradsys.research.pipeline.dataset import build_dataset, label_rows, labels_of
from tradsys.research.pipeline.settings import Experiment

LOG = logging.getLogger(__name__)
COLUMNS = ("date", "symbol", "probability", "expected_return", "rank")
PRICES_ALONE = "prices and volumes"


@dataclass(frozen=True)
class SignalSettings:
    """Settings of a signals table in addition to its experiment.

    split: purged folds on which both models are evaluated. regressor: of the label's log return. valid_bars: decision
    days that stop and calibrate the models of a close. sources: columns of the bars by their source. bar: the
    probability from which a name triggers an alert; None for no alerts.
    """

    split: Splitter
    regressor: LightGbmRegressor
    valid_bars: int = 126
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    bar: float | None = None

    def __post_init__(self) -> None:
        check_bounds("signals", self, {"bar": "null or (0, 1)"}, "signals")


class FoldScores(TypedDict):
    """Both models on one fold.

    auc: of raw scores. rmse: of log returns. rmse_base: of the training mean.
    """

    first: str
    last: str
    n: int
    auc: float | None
    rmse: float
    rmse_base: float


class Spread(TypedDict):
    """Mean, standard deviation (ddof 1), minimum and maximum over folds.

    Of the folds with a value; None without any.
    """

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


class ShareOfGain(TypedDict):
    """A feature's share of the split gain."""

    name: str
    share: float


class GainShares(TypedDict):
    """Shares of split gain by source and by feature, the largest first."""

    by_source: dict[str, float]
    by_feature: list[ShareOfGain]


class SignalMetrics(TypedDict):
    """Metrics of both models over folds, see `evaluate_signals`."""

    folds: list[FoldScores]
    auc: Spread
    rmse: Spread
    rmse_base: Spread
    rmse_ratio: Spread
    importance: GainShares | None


def signals_at(
    experiment: Experiment, settings: SignalSettings, bars: pl.DataFrame, at: datetime | None = None
) -> pl.DataFrame:
    """One row per member with a full window at a close.

    date, symbol, probability, expected_return, rank. at: a close of the bars, by default the last; nothing later is
    read. date: of the session, UTC. probability: calibrated P(the label is 1). expected_return: simple, of the label's
    position, exp(mean log return) - 1. rank: 1 is the highest probability, then the highest expected return, then the
    name. Raises DataError where no member has a complete window then, or too few labels have resolved for a fit.
    """
    moment = bars["time"].max() if at is None else at
    assert isinstance(moment, datetime)
    past, splitter = bars.filter(pl.col("time") <= moment), AsOf(moment, settings.valid_bars)
    labels = known_by(experiment, past, labels_of(experiment, past), moment)
    rows = label_rows(experiment, past, splitter, labels=labels)
    table = rows.table
    now = table.time == utc64(moment)
    decided = np.flatnonzero(rows.decidable & now)
    if not len(decided):
        raise DataError(
            f"signals: of {int(now.sum())} bars at {moment:%Y-%m-%d %H:%M} none is a member's with a full window; a "
            "signal needs both; choose a close that the data have, or load a longer history"
        )
    dataset = rows.dataset(splitter)
    train, valid = dataset.part(0, "train"), dataset.part(0, "valid")
    probability = fitted_on(experiment, train, valid).predict_proba(table, decided)[:, 1]
    expected = np.expm1(settings.regressor.fit(train, valid).predict(table, decided))
    signals = pl.DataFrame(
        {
            "date": [session_of(moment)] * len(decided),
            "symbol": table.symbols_of(decided),
            "probability": probability,
            "expected_return": expected,
        }
    ).sort(["probability", "expected_return", "symbol"], descending=[True, True, False])
    return signals.with_columns(rank=pl.int_range(1, pl.len() + 1)).select(COLUMNS)


def newly_above(bar: float | None, before: pl.DataFrame | None, table: pl.DataFrame) -> list[str]:
    """Symbols newly at or above the threshold, the highest first.

    In the previous table they were below it, or absent. before: None without a previous table; then none is new.
    """
    if bar is None or before is None:
        return []
    known = set(before.filter(pl.col("probability") >= bar)["symbol"].to_list())
    passed = table.filter(pl.col("probability") >= bar).sort("rank")["symbol"].to_list()
    return [name for name in passed if name not in known]


def write_signals(table: pl.DataFrame, path: Path) -> None:
    """Writes the table as parquet, atomically."""
    with written_atomically(path) as draft:
        table.write_parquet(draft)


def evaluate_signals(experiment: Experiment, settings: SignalSettings, bars: pl.DataFrame) -> SignalMetrics:
    """Metrics of both models on every fold of the settings' split, ready for JSON.

    folds: first, last, n, auc (of raw scores), rmse (of log returns), rmse_base (of always predicting the training
    mean). A fold of one class has no auc. auc, rmse, rmse_base: mean, sd (ddof 1), low and high (minimum and maximum)
    over folds; rmse_ratio: the same of rmse / rmse_base, below one where the regressor has skill. importance: share of
    the classifier's split gain by source, mean over folds, and by feature, the largest first; None where the model has
    no gain.
    """
    dataset = build_dataset(experiment, bars, settings.split)
    folds, gains = [], []
    for k in range(len(dataset.folds)):
        train, valid, test = (dataset.part(k, part) for part in ("train", "valid", "test"))
        model = fitted_on(experiment, train, valid)
        score = model.score(test.table, test.rows)[:, 1]
        expected = settings.regressor.fit(train, valid).predict(test.table, test.rows)
        folds.append(_fold(test, score, expected, float(np.average(train.ret, weights=train.weight))))
        if isinstance(model.model_, LightGbm):
            gains.append(model.model_.importance_gain())
        one = folds[-1]
        LOG.info("fold %d: AUC %s, RMSE %.4f", k, "n/a" if one["auc"] is None else f"{one['auc']:.4f}", one["rmse"])
    ratio = [fold["rmse"] / fold["rmse_base"] for fold in folds]
    return {
        "folds": folds,
        "auc": _spread_of_folds([fold["auc"] for fold in folds]),
        "rmse": _spread_of_folds([fold["rmse"] for fold in folds]),
        "rmse_base": _spread_of_folds([fold["rmse_base"] for fold in folds]),
        "rmse_ratio": _spread_of_folds(ratio),
        "importance": _mean_importance(gains, dataset.features, settings.sources) if gains else None,
    }


def _fold(test: Samples, score: Array, expected: Array, mean: float) -> FoldScores:
    days = session_dates(test.time)
    return {
        "first": str(days.min()),
        "last": str(days.max()),
        "n": len(test),
        "auc": auc(score, test.y),
        "rmse": float(np.sqrt(np.mean((test.ret - expected) ** 2))),
        "rmse_base": float(np.sqrt(np.mean((test.ret - mean) ** 2))),
    }


def _spread_of_folds(values: Sequence[float | None]) -> Spread:
    array = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(array):
        return {"mean": None, "sd": None, "low": None, "high": None}
    deviation = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return {"mean": float(array.mean()), "sd": deviation, "low": float(array.min()), "high": float(array.max())}


def _mean_importance(
    gains: Sequence[Mapping[str, float]], features: FeatureSet, sources: Mapping[str, Sequence[str]]
) -> GainShares:
    """Mean shares of gain over folds, by source and by feature."""
    mean = {name: float(np.mean([gain[name] for gain in gains])) for name in gains[0]}
    of_column = {column: source for source, columns in sources.items() for column in columns}
    reads = {feature.name: getattr(feature, "columns", ()) for feature in features.features}
    by_source = dict.fromkeys((PRICES_ALONE, *sources), 0.0)
    for name, share in mean.items():
        read = reads.get(name, ())
        source = of_column.get(read[0], read[0]) if read else PRICES_ALONE
        by_source[source] = by_source.get(source, 0.0) + share
    ranked = sorted(mean.items(), key=lambda item: -item[1])
    return {"by_source": by_source, "by_feature": [{"name": n, "share": share} for n, share in ranked]}
