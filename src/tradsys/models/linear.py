"""Linear models: logistic regression, the baseline of every deep model, and ridge regression as a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import softmax

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import DataError, TrainingError
from tradsys.core.plain_data import Json
from tradsys.core.tables import ROWS_AT_ONCE, Array, FeatureTable, Samples
from tradsys.models.baseline import ClassWeight, check_class_weight, class_weighted, class_weights_seen
from tradsys.models.solvers.newton import STEEPEST, Standardised, logistic_optimum
from tradsys.models.transforms import fitted, with_fitted

LINK_C = 1e4  # penalty of a ridge's link slope: negligible for data, but bounds it where classes are separable


def standardised(where: str, train: Samples) -> Standardised:
    """The training rows standardised.

    Raises DataError for a NaN feature.
    """
    rows = Standardised.of(train)
    bad = [train.table.names[i] for i in np.flatnonzero(np.isnan(rows.center_F))]
    if bad:
        raise DataError(
            f"{where}: NaN or infinite training values in {bad}; a linear model has no missing value; "
            "keep only rows where table.ready(lookback) holds"
        )
    return rows


@dataclass(frozen=True, eq=False)
class LogisticRegression:
    """L2-penalised (multinomial) logistic regression on the decision row's features.

    C: inverse penalty, inf for none; per standard deviation of each feature over the training rows and per
    row of average weight, so that it depends on neither unit. max_iter: Newton steps before TrainingError.
    lookback: rows required, so that all models are evaluated on the same samples; only the last one is read.
    class_weight: "balanced" weights all classes equally; see `class_weighted`.
    Fitted: coef_ float64 [1, F] for two classes, else [C, F]; intercept_ [1] or [C]; both in raw units;
    names_.
    """

    reads_row: ClassVar[bool] = True
    C: float = 1.0
    max_iter: int = 200
    lookback: int = 1
    class_weight: ClassWeight = None
    coef_: Array | None = field(init=False, default=None)
    intercept_: Array | None = field(init=False, default=None)
    names_: tuple[str, ...] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_bounds("logistic", self, {"C": "(0, inf]", "max_iter": "whole [1, inf)"}, "model")
        check_class_weight("logistic", self.class_weight)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy fitted on `train` by its weights; `valid` only counts the classes.

        Raises TrainingError for one class only or no convergence, DataError for a NaN feature.
        """
        mass_C = class_weights_seen("logistic", train, valid)
        train, _ = class_weighted(train, valid, mass_C, self.class_weight)
        rows = standardised("logistic", train)
        coef, intercept = self._optimum(rows, train.weight / train.weight.mean(), len(mass_C))
        coef = coef / rows.spread_F
        state = {
            "coef_": coef,
            "intercept_": intercept - (coef * rows.center_F).sum(axis=1),
            "names_": train.table.names,
        }
        return with_fitted(self, state)

    def _optimum(self, rows: Standardised, weight_N: Array, n_classes: int) -> tuple[Array, Array]:
        """Coefficients [1 or C, F] per spread, and intercepts; TrainingError without convergence."""
        found = logistic_optimum(rows, weight_N, n_classes=n_classes, C=self.C, max_iter=self.max_iter)
        if not found.reached:
            raise TrainingError(
                f"logistic: no convergence within {self.max_iter} steps at C={self.C} (gradient of the mean loss "
                f"{found.slope:.1e}, {STEEPEST:g} counts as an optimum); the optimum must be reached; lower C or raise "
                "max_iter"
            )
        return found.coef_CF, found.intercept_C

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C]; NaN where a feature is NaN.

        Raises DataError when a fitted column is missing.
        """
        coef, intercept, names = (fitted(self, name) for name in ("coef_", "intercept_", "names_"))
        source = table if table.names == names else table.select(names)
        logits = np.empty((len(rows), len(coef)))
        for k in range(0, len(rows), ROWS_AT_ONCE):
            x_NF = source.values[rows[k : k + ROWS_AT_ONCE]].astype(np.float64)
            # row by row sums: a matrix product may round a single row differently from a batch
            for c, (w, b) in enumerate(zip(coef, intercept, strict=True)):
                logits[k : k + ROWS_AT_ONCE, c] = (x_NF * w).sum(axis=1) + b
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        return softmax(logits, axis=1)

    def to_json(self) -> Json:
        """A JSON value that `from_json` turns back into the same numbers."""
        return {
            "C": self.C,
            "max_iter": self.max_iter,
            "lookback": self.lookback,
            "class_weight": self.class_weight,
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
        params: dict[str, Any] = {name: value.get(name) for name in ("C", "max_iter", "lookback", "class_weight")}
        return with_fitted(cls(**params), state)


@dataclass(frozen=True, eq=False)
class Ridge:
    """Ridge regression on classes -1 and +1, with a logistic curve on top.

    The curve maps its score to a probability.
    The line minimises sum_i v_i (t_i - w z_i - b)^2 + alpha |w|^2 on standardised features, v of mean 1; unlike a
    logistic regression it does not follow the few rows that lie far on the wrong side. The curve 1 / (1 + exp(-(a f +
    c))) is fitted to the training scores f: two numbers that keep the order, useful where scores are averaged; it
    needs a calibrator like any other. alpha: > 0 or 0. class_weight, lookback: as of LogisticRegression.
    Fitted: line_, the logistic regression that line and curve together are.
    Source: Hoerl and Kennard 1970 (ridge); Platt 1999 (the curve).
    """

    reads_row: ClassVar[bool] = True
    alpha: float = 1.0
    lookback: int = 1
    class_weight: ClassWeight = None
    line_: LogisticRegression | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_bounds("ridge", self, {"alpha": "[0, inf)", "lookback": "whole [1, inf)"}, "model")
        check_class_weight("ridge", self.class_weight)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy fitted on `train` by its weights; `valid` only counts the classes.

        Raises TrainingError for other than two classes, DataError for a NaN feature.
        """
        from sklearn.linear_model import Ridge as SklearnRidge  # noqa: PLC0415 - only fitting needs it

        mass_C = class_weights_seen("ridge", train, valid)
        if len(mass_C) != 2:
            raise TrainingError(f"ridge: {len(mass_C)} classes; it separates two; use model=logistic for more")
        train, _ = class_weighted(train, valid, mass_C, self.class_weight)
        rows = standardised("ridge", train)
        z_NF = rows.whole()
        weight_N = train.weight / train.weight.mean()
        line = SklearnRidge(alpha=self.alpha, solver="cholesky").fit(z_NF, 2.0 * train.y - 1, sample_weight=weight_N)
        slope, offset = _link(z_NF @ line.coef_ + line.intercept_, train.y, weight_N)
        coef = slope * line.coef_ / rows.spread_F
        state = {
            "coef_": coef[None, :],
            "intercept_": np.array([slope * line.intercept_ + offset - (coef * rows.center_F).sum()]),
            "names_": train.table.names,
        }
        return with_fitted(self, {"line_": with_fitted(LogisticRegression(lookback=self.lookback), state)})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, 2]; NaN where a feature is NaN.

        Raises DataError when a fitted column is missing.
        """
        return fitted(self, "line_").predict_proba(table, rows)

    def to_json(self) -> Json:
        """A JSON value that `from_json` turns back into the same numbers."""
        params = {name: getattr(self, name) for name in ("alpha", "lookback", "class_weight")}
        return {**params, "line": fitted(self, "line_").to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted model that `to_json` wrote."""
        params: dict[str, Any] = {name: value[name] for name in ("alpha", "lookback", "class_weight")}
        return with_fitted(cls(**params), {"line_": LogisticRegression.from_json(value["line"])})


def _link(score_N: Array, y_N: Array, weight_N: Array) -> tuple[float, float]:
    """Slope and offset of the logistic curve from scores to log-odds; flat at the base rate for equal scores."""
    from sklearn.linear_model import LogisticRegression as SklearnLogistic  # noqa: PLC0415 - only fitting needs it

    center, spread = float(score_N.mean()), float(score_N.std())
    if not spread > 1e-12 * max(1.0, abs(center)):
        rate = float((weight_N * y_N).sum() / weight_N.sum())
        return 0.0, float(np.log(rate / (1 - rate)))
    curve = SklearnLogistic(C=LINK_C, solver="newton-cholesky", max_iter=200, tol=1e-8)
    curve.fit(((score_N - center) / spread)[:, None], y_N, sample_weight=weight_N)
    slope = float(curve.coef_[0, 0]) / spread
    return slope, float(curve.intercept_[0]) - slope * center
