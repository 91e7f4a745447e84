"""The straight-line rival every deep model is shown beside."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from scipy.linalg import LinAlgWarning
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as SklearnLogistic

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.baseline import class_weights_seen
from tradsys.models.transforms import fitted, with_fitted


@dataclass(frozen=True, eq=False)
class LogisticRegression:
    """L2-penalised (multinomial) logistic regression on the decision row's features.

    C: inverse penalty, inf for none; per standard deviation of each feature over the training rows and per
    row of average weight, so that it depends on neither unit. max_iter: Newton steps before TrainingError.
    lookback: rows demanded, so that rivals judge the same samples; the last one is read.
    Fitted: coef_ float64 [1, F] for two classes, else [C, F]; intercept_ [1] or [C]; both in raw units;
    names_.
    """

    C: float = 1.0
    max_iter: int = 200
    lookback: int = 1
    coef_: Array | None = field(init=False, default=None)
    intercept_: Array | None = field(init=False, default=None)
    names_: tuple[str, ...] | None = field(init=False, default=None)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Fits `train` by its weights; `valid` is not read beyond its class count.

        Raises TrainingError for one class only or no convergence, DataError for a NaN feature.
        """
        class_weights_seen("logistic", train, valid)
        x_NF = train.table.values[train.rows].astype(np.float64)
        bad = [train.table.names[i] for i in np.flatnonzero(~np.isfinite(x_NF).all(axis=0))]
        if bad:
            raise DataError(
                f"logistic: NaN or infinite training values in {bad}; a linear model has no missing value; "
                "keep only rows where table.ready(lookback) holds"
            )
        center_F, spread_F = x_NF.mean(axis=0), x_NF.std(axis=0)
        spread_F = np.where(spread_F > 0, spread_F, 1.0)
        estimator = self._solved((x_NF - center_F) / spread_F, train.y, train.weight / train.weight.mean())
        coef = estimator.coef_ / spread_F
        state = {
            "coef_": coef,
            "intercept_": estimator.intercept_ - (coef * center_F).sum(axis=1),
            "names_": train.table.names,
        }
        return with_fitted(self, state)

    def _solved(self, z_NF: Array, y_N: Array, weight_N: Array) -> SklearnLogistic:
        estimator = SklearnLogistic(C=self.C, solver="newton-cholesky", max_iter=self.max_iter)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            # collinear columns: the solver says that it goes on by lbfgs, which still has to converge
            warnings.simplefilter("ignore", LinAlgWarning)
            try:
                return estimator.fit(z_NF, y_N, sample_weight=weight_N)
            except ConvergenceWarning as cause:
                raise TrainingError(
                    f"logistic: no convergence within {self.max_iter} steps at C={self.C} ({cause}); the "
                    "optimum must be reached; lower C or raise max_iter"
                ) from cause

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C]; NaN where a feature is NaN. Raises DataError when a fitted column is missing."""
        coef, intercept, names = (fitted(self, name) for name in ("coef_", "intercept_", "names_"))
        source = table if table.names == names else table.select(names)
        x_NF = source.values[rows].astype(np.float64)
        # row by row sums: a matrix product may round one row otherwise alone than in a batch
        logits = np.stack([(x_NF * w).sum(axis=1) + b for w, b in zip(coef, intercept, strict=True)], axis=1)
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        return softmax(logits, axis=1)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` turns back into the same numbers."""
        return {
            "C": self.C,
            "max_iter": self.max_iter,
            "lookback": self.lookback,
            "names": list(fitted(self, "names_")),
            "coef": fitted(self, "coef_").tolist(),
            "intercept": fitted(self, "intercept_").tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted model that `to_json` wrote."""
        state = {
            "names_": tuple(value["names"]),
            "coef_": np.asarray(value["coef"], dtype=np.float64),
            "intercept_": np.asarray(value["intercept"], dtype=np.float64),
        }
        return with_fitted(cls(C=value["C"], max_iter=value["max_iter"], lookback=value["lookback"]), state)
