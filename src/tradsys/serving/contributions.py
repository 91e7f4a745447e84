"""Feature contributions to a bundle's score of a row, in log odds, member by member.

Trees: exact Shapley values of the raw score (Lundberg et al. 2018, algorithm 2, as LightGBM and XGBoost compute them),
against the mean over training rows. All other models: each feature alone is set to its median over reference rows,
which for a logistic regression is its coefficient times the value's distance from that median. A pool's contributions
are summed by its weights: the pool mixes probabilities, not log odds, so the sum is close near 0.5 and less so
elsewhere. Calibrators are left out: they are monotone and move all features of a row alike.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tradsys.core.errors import BundleError
from tradsys.core.tables import Array, FeatureTable
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.ensembles.compose import Calibrated
from tradsys.serving.bundle import Boosted, Bundle
from tradsys.serving.ensemble import ServedEnsemble, ServedPool

SMALLEST = 1e-6  # a probability of 0 has no log odds
METHOD = (
    "Trees by exact Shapley values, all other models by setting one feature at a time to its median over training rows "
    "(for a logistic regression: coefficient times distance from the median); members summed by their weights in log "
    "odds, which is close to, but not equal to, the effect in a mean of probabilities."
)


def contributions(bundle: Bundle, table: FeatureTable, rows: Array, reference_F: Array) -> Array:
    """Contribution of each column to each row's score, float64 [N, F].

    The unit is log odds; the columns are those of the table.
    reference_F: the neutral value of each column, its median over training rows.
    Raises BundleError for a bundle that reads windows of more than one row.
    """
    if bundle.lookback > 1:
        raise BundleError(
            f"bundle {bundle.folder}: it reads windows of {bundle.lookback} rows; feature contributions need a model "
            "of "
            "one row; leave them out"
        )
    small = FeatureTable(
        symbol=table.symbol[rows], time=table.time[rows], segment=table.segment[rows], values=table.values[rows],
        names=table.names, symbols=table.symbols,
    )  # fmt: skip
    return _of(bundle.primary, small, np.asarray(reference_F, dtype=np.float32))


def _of(part: Any, table: FeatureTable, reference_F: Array) -> Array:
    inner = _inside(part)
    if isinstance(inner, ServedPool) and inner.regime is None:
        weights = np.asarray(inner.weights)[: len(inner.members)]  # the base rate, the last member, has no contribution
        each = [_of(member, table, reference_F) for member in inner.members.values()]
        return np.einsum("k,knf->nf", weights, np.stack(each))
    if isinstance(inner, LightGbm):
        reported = inner.booster().predict(table.select(inner.names_).values, pred_contrib=True)  # type: ignore[arg-type]
        return _placed(np.asarray(reported)[:, :-1], inner.names_, table)
    if isinstance(inner, Xgboost):
        import xgboost  # noqa: PLC0415 - loads scikit-learn

        matrix = xgboost.DMatrix(table.select(inner.names_).values)  # type: ignore[arg-type]
        return _placed(inner.booster().predict(matrix, pred_contribs=True)[:, :-1], inner.names_, table)  # type: ignore[union-attr]
    return _one_at_a_time(_scorer(inner), table, reference_F)


def _inside(part: Any) -> Any:
    """The scoring part without its calibrator."""
    if isinstance(part, ServedEnsemble):
        return _inside(part.pool)
    if isinstance(part, Boosted):
        return _inside(part.model)
    return _inside(part.model_) if isinstance(part, Calibrated) else part


def _placed(values_NK: Array, names: Any, table: FeatureTable) -> Array:
    """The model's columns at their places in the table; 0 for a column that it does not read."""
    out = np.zeros((len(table), len(table.names)))
    out[:, [table.names.index(name) for name in names]] = values_NK
    return out


def _one_at_a_time(score: Callable[[FeatureTable], Array], table: FeatureTable, reference_F: Array) -> Array:
    """Log odds of each row less those with one feature at its reference, [N, F]."""
    base_score = score(table)
    out = np.empty((len(table), len(table.names)))
    for k in range(len(table.names)):
        values = table.values.copy()
        values[:, k] = reference_F[k]
        out[:, k] = base_score - score(table.with_values(values))
    return out


def _scorer(part: Any) -> Callable[[FeatureTable], Array]:
    """Log odds [N] of class 1 of every row of a table, before calibration."""

    def log_odds(table: FeatureTable) -> Array:
        rows = np.arange(len(table))
        proba = part.predict_proba(table, rows) if hasattr(part, "predict_proba") else part.predict(table, rows)[0]
        p = np.clip(proba[:, 1].astype(np.float64), SMALLEST, 1 - SMALLEST)
        return np.log(p / (1 - p))

    return log_odds
