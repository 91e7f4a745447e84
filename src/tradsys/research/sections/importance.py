"""Permutation importance of columns and drift of the features between training and test."""

from typing import TypedDict

import numpy as np

from tradsys.core.headline import NamedValue
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.evidence.controls.drift import MAX_ROWS, adversarial_validation
from tradsys.evidence.skill import log_losses
from tradsys.research.pipeline.dataset import Prepared
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.training import Fitted
from tradsys.serving.bundle import Bundle

PERMUTED_WINDOWS = 400


class Permutation(NamedValue):
    """Mean rise of the loss over repeats, with the smallest and the largest."""

    low: float
    high: float


class Importance(TypedDict):
    """Importance of columns, the largest first.

    permutation: of the model's. auditor_gain: of the auditor's.
    """

    permutation: list[Permutation]
    auditor_gain: list[NamedValue]


class DriftRow(TypedDict):
    """AUC of separating test from training rows, and the columns behind it.

    The AUC has its interval.
    """

    auc: float
    interval: tuple[float | None, float | None]
    importances: list[NamedValue]


def _importance(experiment: Experiment, prepared: Prepared, fitted: Fitted, bundle: Bundle) -> Importance:
    """Permutation importance on validation windows, and the auditor's gain by column."""
    permutation = permutation_importance(
        bundle, prepared.valid, experiment.evaluation.n_permutations, seed=experiment.seed
    )
    gain = fitted.auditor.importance_gain() if fitted.auditor else {}
    ranked = sorted(gain.items(), key=lambda item: -item[1])
    return {"permutation": permutation, "auditor_gain": [{"name": n, "value": v} for n, v in ranked]}


def permutation_importance(bundle: Bundle, valid: Samples, n_repeats: int, *, seed: int) -> list[Permutation]:
    """Rise of validation log-loss when one feature's windows are shuffled.

    Among samples; largest first. Up to 400 evenly spaced samples; value is the mean over repeats, spread its range.
    Values that a model reads from the market's own bars, by time, are not shuffled. Source: Breiman 2001.
    """
    picked = valid.take(np.unique(np.linspace(0, len(valid) - 1, min(PERMUTED_WINDOWS, len(valid))).astype(int)))
    lookback = bundle.primary.lookback
    values = valid.table.values[picked.rows[:, None] + np.arange(1 - lookback, 1)]
    n_windows = len(picked)
    rows = np.arange(n_windows) * lookback + lookback - 1
    block, beside = _windows(valid.table, picked.rows, lookback, bundle.features.market_symbol)

    def loss(values_NTF: Array) -> float:
        table = block.with_values(np.concatenate([values_NTF.reshape(n_windows * lookback, -1), beside]))
        return float(log_losses(bundle.primary.predict(table, rows)[1], picked.y).mean())

    rng = np.random.default_rng(seed)
    base_loss = loss(values)
    out: list[Permutation] = []
    for k, name in enumerate(valid.table.names):
        rises = []
        for _ in range(n_repeats):
            dealt = values.copy()
            dealt[:, :, k] = dealt[rng.permutation(n_windows), :, k]
            rises.append(loss(dealt) - base_loss)
        out.append({"name": name, "value": float(np.mean(rises)), "low": min(rises), "high": max(rises)})
    return sorted(out, key=lambda row: -row["value"])


def _windows(table: FeatureTable, rows: Array, lookback: int, market: str | None) -> tuple[FeatureTable, Array]:
    """The windows of these rows as segments of their own, then the market's bars; and the values of those bars."""
    at = (rows[:, None] + np.arange(1 - lookback, 1)).ravel()
    code = table.symbols.index(market) if market in table.symbols else -1
    market_rows = np.flatnonzero(table.symbol == code)
    reported = np.concatenate([at, market_rows])
    # windows of market bars would have duplicate times; no symbol's name is an input
    symbol = np.where(table.symbol[at] == code, -2, table.symbol[at])
    own = np.repeat(np.arange(len(rows)), lookback)
    block = FeatureTable(
        symbol=np.concatenate([symbol, table.symbol[market_rows]]).astype(np.int32),
        time=np.concatenate([np.repeat(table.time[rows], lookback), table.time[market_rows]]),
        segment=np.concatenate([own, len(rows) + table.segment[market_rows]]).astype(np.int32),
        values=table.values[reported],
        names=table.names,
        symbols=table.symbols,
    )
    return block, table.values[market_rows]


def _drift(prepared: Prepared, seed: int) -> DriftRow:
    """How far test rows can be separated from training rows, and by which columns."""
    train, test = (samples.in_time_order(MAX_ROWS) for samples in (prepared.train, prepared.test))
    values, names = prepared.table.values, prepared.table.names
    drift = adversarial_validation(values[train.rows], values[test.rows], names, seed=seed)
    importances: list[NamedValue] = [{"name": n, "value": v} for n, v in drift.importances]
    return {"auc": drift.auc, "interval": drift.interval, "importances": importances}
