"""Gradient-boosted trees: LightGBM as a baseline of the nets, XGBoost as the auditor of their signals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from tradsys.core.bounds import check_bounds, is_within
from tradsys.core.errors import BundleError, DataError
from tradsys.core.received import parse_json, read_text, refused_in_one_line
from tradsys.core.runs import write_text, written_atomically
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.baseline import ClassWeight, check_class_weight, class_weighted, class_weights_seen
from tradsys.models.transforms import fitted, with_fitted
from tradsys.models.trees.files import FIX, check_xgboost, sound_lightgbm
from tradsys.models.trees.walk import Trees

if TYPE_CHECKING:
    import lightgbm
    import xgboost

MARK = "tradsys:"
BOUNDS = {
    "n_estimators": "whole [1, inf)",
    "learning_rate": "(0, inf)",
    "subsample": "(0, 1]",
    "colsample": "(0, 1]",
    "l2": "[0, inf)",
    "early_stopping_rounds": "whole [0, inf)",
    "lookback": "whole [1, inf)",
}
# a depth of -1 or 0 sets LightGBM no limit
LIGHTGBM_BOUNDS = BOUNDS | {
    "max_depth": "whole [-1, inf)",
    "num_leaves": "whole [2, 131072]",
    "min_child_samples": "whole [0, inf)",
}
XGBOOST_BOUNDS = BOUNDS | {"max_depth": "whole [0, inf)", "min_child_weight": "[0, inf)", "gamma": "[0, inf)"}


def _parameters(model: LightGbm | LightGbmRegressor | Xgboost) -> dict[str, Any]:
    return {f.name: getattr(model, f.name) for f in fields(model) if f.init}


def _last_rows(table: FeatureTable, names: Sequence[str], rows: Array) -> Array:
    """float32 [N, F] of the decision rows, in the order of `names`; DataError when one is missing."""
    source = table if table.names == tuple(names) else table.select(names)
    are_all = len(rows) == len(source) and np.array_equal(rows, np.arange(len(source)))  # no second copy of a table
    return np.ascontiguousarray(source.values if are_all else source.values[rows])


def _both_classes(proba: Array) -> Array:
    """float64 [N, C] rows that sum to one, from a booster's float32 [N, C] or P(class 1) [N]."""
    wide = proba.astype(np.float64)
    if wide.ndim == 1:
        return np.stack([1 - wide, wide], axis=1)
    return wide / wide.sum(axis=1, keepdims=True)


def _shares(names: Sequence[str], gains: Array) -> dict[str, float]:
    total = float(gains.sum())
    return {name: float(gain / total) if total else 0.0 for name, gain in zip(names, gains, strict=True)}


def _fitted_trees(
    model: LightGbm | LightGbmRegressor,
    parameters: dict[str, Any],
    train: Samples,
    reported: Array,
    valid: Samples,
    held: Array,
) -> lightgbm.Booster:
    """Trees fitted to `reported` [N] of the training rows, stopped on `held` [M]; the best rounds only."""
    import lightgbm  # noqa: PLC0415 - takes two seconds; only boosting needs it

    settings = {
        **parameters,
        "learning_rate": model.learning_rate,
        "max_depth": model.max_depth,
        "num_leaves": model.num_leaves,
        "min_child_samples": model.min_child_samples,
        "bagging_fraction": model.subsample,
        "bagging_freq": 1,
        "feature_fraction": model.colsample,
        "lambda_l2": model.l2,
        "seed": model.seed,
        "num_threads": model.n_threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(train.table.values[train.rows], label=reported, weight=train.weight)
    stops = bool(len(valid) and model.early_stopping_rounds)
    later = [lightgbm.Dataset(valid.table.values[valid.rows], label=held, weight=valid.weight, reference=data)]
    grown = lightgbm.train(
        settings,
        data,
        num_boost_round=model.n_estimators,
        valid_sets=later if stops else None,
        callbacks=[lightgbm.early_stopping(model.early_stopping_rounds, verbose=False)] if stops else None,
    )
    # through text, so that the model in memory equals the one in the file
    return lightgbm.Booster(model_str=grown.model_to_string(num_iteration=grown.best_iteration))


def _read_note(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fitted fields and note (JSON) of a file that a LightGBM part wrote, both checked; BundleError without one.

    kind: `classifier` or `regressor`.
    """
    where = f"lightgbm {path.name}"
    text, mark, tail = read_text(path, FIX).rpartition(f"\n{MARK}")
    if not mark:
        raise BundleError(f"{where}: no line {MARK!r} at its end; only files written by `save` are read; {FIX}")
    about = _checked_note(parse_json(tail, f"{where}: its note", FIX), where, is_classifier=kind == "classifier")
    with refused_in_one_line(where, FIX):
        n_classes = about.get("n_classes", 1)
        sound = sound_lightgbm(text, len(about["names"]), n_classes, where)
        trees = Trees.of_lightgbm(sound, n_classes if n_classes > 2 else 1)
        return {"text_": sound, "trees_": trees, "names_": tuple(about["names"])}, about


def _checked_note(about: dict[str, Any], where: str, *, is_classifier: bool) -> dict[str, Any]:
    """Parameters, names and number of classes that `save` notes; BundleError where they are not that."""
    if ("n_classes" in about) != is_classifier:
        found = ("classifier", "regressor") if "n_classes" in about else ("regressor", "classifier")
        raise BundleError(f"{where}: it holds a {found[0]}, not a {found[1]}; {FIX}")
    names, classes = about.get("names"), about.get("n_classes", 2)
    sound = isinstance(names, list) and names and all(isinstance(n, str) for n in names)
    if not sound or not is_within(classes, "whole [2, 10000]") or not isinstance(about.get("params"), dict):
        raise BundleError(f"{where}: its note lacks parameters, names or classes; {FIX}")
    return about


@dataclass(frozen=True, eq=False)
class _LightGbmFields:
    """Parameters and fitted fields shared by LightGbm and LightGbmRegressor."""

    reads_raw: ClassVar[bool] = True
    n_estimators: int = 300
    learning_rate: float = 0.05
    max_depth: int = 4
    num_leaves: int = 15
    min_child_samples: int = 50
    subsample: float = 0.8
    colsample: float = 0.8
    l2: float = 1.0
    early_stopping_rounds: int = 30
    seed: int = 0
    n_threads: int = 0
    lookback: int = 1
    booster_: lightgbm.Booster | None = field(init=False, default=None)
    names_: tuple[str, ...] | None = field(init=False, default=None)
    text_: str | None = field(init=False, default=None)
    trees_: Trees | None = field(init=False, default=None)

    def booster(self) -> lightgbm.Booster:
        """LightGBM's own object, for its API; a model from a file predicts without it."""
        if self.text_ is None:
            return fitted(self, "booster_")
        import lightgbm  # noqa: PLC0415 - takes two seconds; only boosting needs it

        with refused_in_one_line("lightgbm", FIX):
            return lightgbm.Booster(model_str=self.text_)

    def importance_gain(self) -> dict[str, float]:
        """Share of the total split gain per feature; all zero without a split."""
        return _shares(fitted(self, "names_"), self.booster().feature_importance("gain"))


@dataclass(frozen=True, eq=False)
class LightGbm(_LightGbmFields):
    """LightGBM on the decision row's features, stopped on validation log-loss.

    early_stopping_rounds: rounds without a better weighted log-loss on `valid` before it stops at the best
    one; 0, or an empty `valid`, runs all n_estimators. subsample, colsample: shares of rows and columns per
    tree. l2: leaf penalty. n_threads: 0 takes all cores. lookback: rows required, so that all models are evaluated on
    the same samples; only the last one is read. A NaN feature counts as missing. Same seed and data, same trees.
    class_weight: "balanced" weights all classes equally; see `class_weighted`.
    Fitted: booster_; names_ [F]; n_classes_.
    """

    class_weight: ClassWeight = None
    n_classes_: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_bounds("lightgbm", self, LIGHTGBM_BOUNDS, "model")
        check_class_weight("lightgbm", self.class_weight)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy fitted on `train` and stopped on `valid`."""
        mass_C = class_weights_seen("lightgbm", train, valid)
        n_classes, binary = len(mass_C), len(mass_C) == 2
        train, valid = class_weighted(train, valid, mass_C, self.class_weight)
        objective = {"objective": "binary"} if binary else {"objective": "multiclass", "num_class": n_classes}
        settings = {**objective, "metric": "binary_logloss" if binary else "multi_logloss"}
        booster = _fitted_trees(self, settings, train, train.y, valid, valid.y)
        return with_fitted(self, {"booster_": booster, "names_": train.table.names, "n_classes_": n_classes})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C]. Raises DataError when a fitted column is missing."""
        names = fitted(self, "names_")
        if not len(rows):
            return np.empty((0, fitted(self, "n_classes_")))
        grown, values = self.trees_, _last_rows(table, names, rows)
        return _both_classes(np.asarray(self.booster().predict(values)) if grown is None else grown.proba(values))

    def save(self, path: Path) -> None:
        """Writes LightGBM's text, with names and parameters as JSON in a last line."""
        about = {"params": _parameters(self), "names": fitted(self, "names_"), "n_classes": self.n_classes_}
        write_text(path, f"{self.booster().model_to_string()}\n{MARK}{json.dumps(about)}\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """The model that `save` wrote; BundleError for any other file."""
        state, about = _read_note(path, "classifier")
        with refused_in_one_line(f"lightgbm {path.name}", FIX):
            return with_fitted(cls(**about["params"]), state | {"n_classes_": about["n_classes"]})


@dataclass(frozen=True, eq=False)
class LightGbmRegressor(_LightGbmFields):
    """LightGBM for the label's log return, stopped on validation RMSE.

    Parameters as of LightGbm. `fit` reads `samples.ret`, so other targets are learned from samples whose `ret` holds
    them. It is no `Model`: it predicts a number, not probabilities.
    Fitted: booster_; names_ [F].
    """

    def __post_init__(self) -> None:
        check_bounds("lightgbm regressor", self, LIGHTGBM_BOUNDS, "model")

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy fitted on `train`, stopped on `valid`; DataError for bad returns."""
        bad = [int((~np.isfinite(part.ret)).sum()) for part in (train, valid)]
        if any(bad) or not len(train):
            raise DataError(
                f"lightgbm regressor: {bad[0]} of {len(train)} training returns and {bad[1]} of {len(valid)} "
                "validation returns are not finite; every sample needs its return; drop unlabelled rows"
            )
        booster = _fitted_trees(self, {"objective": "regression", "metric": "rmse"}, train, train.ret, valid, valid.ret)
        return with_fitted(self, {"booster_": booster, "names_": train.table.names})

    def predict(self, table: FeatureTable, rows: Array) -> Array:
        """Expected log return, float64 [N]; DataError for a missing column."""
        names = fitted(self, "names_")
        if not len(rows):
            return np.empty(0)
        values = _last_rows(table, names, rows)
        found = np.asarray(self.booster().predict(values)) if self.trees_ is None else self.trees_.scores(values)[:, 0]
        return found.astype(np.float64)

    def save(self, path: Path) -> None:
        """Writes LightGBM's text, with names and parameters as JSON in a last line."""
        about = {"params": _parameters(self), "names": fitted(self, "names_")}
        write_text(path, f"{self.booster().model_to_string()}\n{MARK}{json.dumps(about)}\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """The model that `save` wrote; BundleError for a file of another kind."""
        state, about = _read_note(path, "regressor")
        with refused_in_one_line(f"lightgbm {path.name}", FIX):
            return with_fitted(cls(**about["params"]), state)


@dataclass(frozen=True, eq=False)
class Xgboost:
    """XGBoost on the decision row's features, stopped on validation log-loss.

    min_child_weight: least sum of hessians in a leaf, about four times fewer than rows of weight 1. gamma:
    least gain of a split. l2: leaf penalty. The other fields as in LightGbm. A NaN feature counts as missing.
    Fitted: booster_; names_ [F]; n_classes_.
    """

    reads_raw: ClassVar[bool] = True
    n_estimators: int = 200
    learning_rate: float = 0.05
    max_depth: int = 3
    min_child_weight: float = 10.0
    subsample: float = 0.8
    colsample: float = 0.8
    gamma: float = 0.0
    l2: float = 1.0
    early_stopping_rounds: int = 20
    seed: int = 0
    n_threads: int = 0
    lookback: int = 1
    booster_: xgboost.Booster | None = field(init=False, default=None)
    names_: tuple[str, ...] | None = field(init=False, default=None)
    n_classes_: int | None = field(init=False, default=None)
    text_: str | None = field(init=False, default=None)
    trees_: Trees | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_bounds("xgboost", self, XGBOOST_BOUNDS, "model")

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy fitted on `train` and stopped on `valid`."""
        import xgboost  # noqa: PLC0415 - takes two seconds; only boosting needs it

        n_classes = len(class_weights_seen("xgboost", train, valid))
        stops = bool(len(valid) and self.early_stopping_rounds)
        booster = xgboost.train(
            self._training(n_classes),
            self._matrix(train, xgboost.QuantileDMatrix),
            num_boost_round=self.n_estimators,
            evals=[(self._matrix(valid, xgboost.DMatrix), "valid")] if stops else None,
            callbacks=[xgboost.callback.EarlyStopping(rounds=self.early_stopping_rounds, save_best=True)]
            if stops
            else None,
            verbose_eval=False,
        )
        return with_fitted(self, {"booster_": booster, "names_": train.table.names, "n_classes_": n_classes})

    def _matrix(self, samples: Samples, kind: type[xgboost.DMatrix]) -> xgboost.DMatrix:
        """The rows as XGBoost holds them; binned ones give the same trees and take a byte a value, others eight."""
        values = _last_rows(samples.table, samples.table.names, samples.rows)
        return kind(values, label=samples.y, weight=samples.weight, nthread=self.n_threads)

    def _training(self, n_classes: int) -> dict[str, Any]:
        binary = n_classes == 2
        objective = (
            {"objective": "binary:logistic"} if binary else {"objective": "multi:softprob", "num_class": n_classes}
        )
        return {
            **objective,
            "eval_metric": "logloss" if binary else "mlogloss",
            "tree_method": "hist",
            "learning_rate": self.learning_rate,
            "max_depth": self.max_depth,
            "min_child_weight": self.min_child_weight,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample,
            "gamma": self.gamma,
            "reg_lambda": self.l2,
            "seed": self.seed,
            "nthread": self.n_threads,
            "verbosity": 0,
        }

    def booster(self) -> xgboost.Booster:
        """XGBoost's own object, for its API; a model from a file predicts without it."""
        if self.text_ is None:
            return fitted(self, "booster_")
        import xgboost  # noqa: PLC0415 - takes two seconds; only boosting needs it

        with refused_in_one_line("xgboost", FIX):
            booster = xgboost.Booster()
            booster.load_model(bytearray(self.text_.encode()))
            return booster

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C]. Raises DataError when a fitted column is missing."""
        names = fitted(self, "names_")
        if not len(rows):
            return np.empty((0, fitted(self, "n_classes_")))
        values = _last_rows(table, names, rows)
        if self.trees_ is not None:
            return _both_classes(self.trees_.proba(values))
        import xgboost  # noqa: PLC0415 - takes two seconds; only boosting needs it

        return _both_classes(self.booster().predict(xgboost.DMatrix(values, nthread=self.n_threads)))

    def importance_gain(self) -> dict[str, float]:
        """Share of the total split gain per feature; all zero without a split."""
        names = fitted(self, "names_")
        score = self.booster().get_score(importance_type="total_gain")
        return _shares(names, np.array([score.get(f"f{i}", 0.0) for i in range(len(names))]))

    def save(self, path: Path) -> None:
        """Writes XGBoost's JSON, with names and parameters as an attribute."""
        about = {"params": _parameters(self), "names": fitted(self, "names_"), "n_classes": self.n_classes_}
        booster = self.booster().copy()
        booster.set_attr(tradsys=json.dumps(about))
        with written_atomically(path) as draft:
            draft.write_bytes(booster.save_raw(raw_format="json"))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The model that `save` wrote; BundleError without its attribute."""
        where, text = f"xgboost {path.name}", read_text(path, FIX)
        learner = check_xgboost(text, where)["learner"]
        if "tradsys" not in learner["attributes"]:
            raise BundleError(f"{where}: no attribute 'tradsys'; only files written by `save` are read; {FIX}")
        note = parse_json(learner["attributes"]["tradsys"], f"{where}: its note", FIX)
        about = _checked_note(note, where, is_classifier=True)
        fitted_on = learner["learner_model_param"]
        if (fitted_on["num_feature"], int(fitted_on["num_class"]) or 2) != (
            str(len(about["names"])),
            about["n_classes"],
        ):
            raise BundleError(f"{where}: its note and its trees differ in features or classes; {FIX}")
        with refused_in_one_line(where, FIX):
            state = {"text_": text, "trees_": Trees.of_xgboost(learner), "names_": tuple(about["names"])}
            return with_fitted(cls(**about["params"]), state | {"n_classes_": about["n_classes"]})
