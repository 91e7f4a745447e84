"""Drift between training and test rows, measured by a classifier that tries to separate them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.classification import auc

if TYPE_CHECKING:
    import lightgbm as lgb

N_TREES = 50
N_FOLDS = 5
MAX_ROWS = 20_000
MIN_ROWS_PER_BLOCK = 20


@dataclass(frozen=True)
class Drift:
    """How well training rows can be separated from test rows.

    auc: mean over held-out blocks; 0.5 means that both look alike, 1 that they are fully separable.
    interval: 95 % Student interval over the blocks, widened for their shared training rows, within [0, 1].
    importances: (column, share of the split gain), the largest first; shares sum to 1, or are all 0.
    """

    auc: float
    interval: tuple[float, float]
    importances: list[tuple[str, float]]


def adversarial_validation(
    train: Array,
    test: Array,
    names: Sequence[str],
    *,
    seed: int = 0,
    n_folds: int = N_FOLDS,
    max_rows: int = MAX_ROWS,
    n_trees: int = N_TREES,
    max_bin: int = 255,
) -> Drift:
    """Drift between two spans of features, by adversarial validation.

    A LightGBM classifier predicts which span a row comes from.
    train [N, F], test [M, F]: rows in time order (`Samples.in_time_order`); NaN is a value of its own.
    Each span is cut into `n_folds` contiguous blocks; a fold holds out one block of both, so that a row's
    neighbours in time never reveal its span. More than `max_rows` rows of a span are thinned to every k-th,
    which keeps the order. n_trees, max_bin: of the classifier.
    A trending level (a price) drifts by nature: read `importances` before concluding that the
    market changed.
    Raises DataError where shapes differ or a span is too short for its blocks.
    Source: two-sample test by classifier, Lopez-Paz and Oquab 2017, section 3; corrected resampled t, Nadeau
    and Bengio 2003, section 4.
    """
    train, test = np.asarray(train), np.asarray(test)
    _check_spans(train, test, names, n_folds)
    train, test = _thinned(train, max_rows), _thinned(test, max_rows)
    x = np.concatenate([train, test])
    is_test = np.repeat([0, 1], [len(train), len(test)])
    block = np.concatenate([_fold_codes(len(train), n_folds), _fold_codes(len(test), n_folds)])

    def held_out(k: int) -> tuple[float, Array]:
        """AUC on a block of both spans, and the gain [F] of trees fitted on the rest."""
        booster = _fit(x[block != k], is_test[block != k], seed, n_trees, max_bin)
        found = auc(np.asarray(booster.predict(x[block == k], num_threads=1)), is_test[block == k])
        assert found is not None  # both classes are in every block
        return found, booster.feature_importance("gain")

    import lightgbm  # noqa: F401, PLC0415 - loads scikit-learn; before the threads, which all need it

    with ThreadPoolExecutor(min(n_folds, os.cpu_count() or 1)) as pool:  # a fit has one thread and no lock
        folds = list(pool.map(held_out, range(n_folds)))
    aucs, gain = np.array([one for one, _ in folds]), np.sum([one for _, one in folds], axis=0)
    share = gain / gain.sum() if gain.sum() > 0 else gain
    order = np.argsort(-share, kind="stable")
    return Drift(float(aucs.mean()), _interval(aucs), [(names[i], float(share[i])) for i in order])


def _fit(x: Array, y: Array, seed: int, n_trees: int, max_bin: int) -> "lgb.Booster":
    import lightgbm as lgb  # noqa: PLC0415 - loads scikit-learn

    settings = {
        "objective": "binary",
        "is_unbalance": True,
        "learning_rate": 0.1,
        "num_leaves": 7,
        "max_bin": max_bin,
        "min_data_in_leaf": max(MIN_ROWS_PER_BLOCK, len(x) // 100),
        "feature_fraction": 0.8,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    return lgb.train(settings, lgb.Dataset(x, y), num_boost_round=n_trees)


def _interval(aucs: Array) -> tuple[float, float]:
    k = len(aucs)
    # folds share training rows, so 1/k alone is too narrow: Nadeau and Bengio 2003 add n_test/n_train =
    # 1/(k-1)
    half = float(special.stdtrit(k - 1, 0.975) * aucs.std(ddof=1) * np.sqrt(1 / k + 1 / (k - 1)))
    mean = float(aucs.mean())
    return max(mean - half, 0.0), min(mean + half, 1.0)


def _fold_codes(n_rows: int, n_folds: int) -> Array:
    return np.arange(n_rows) * n_folds // n_rows


def _thinned(x: Array, max_rows: int) -> Array:
    return x[:: -(-len(x) // max_rows)]


def check_rows(n_train: int, n_test: int, n_folds: int = N_FOLDS) -> None:
    """Raises DataError where a span is too short; a run checks it before fits."""
    least = n_folds * MIN_ROWS_PER_BLOCK
    if min(n_train, n_test) < least:
        raise DataError(
            f"drift: {n_train} training and {n_test} test rows for {n_folds} blocks; each block needs "
            f"{MIN_ROWS_PER_BLOCK} rows, {least} in all; take longer spans, by split= and its keys"
        )


def _check_spans(train: Array, test: Array, names: Sequence[str], n_folds: int) -> None:
    if n_folds < 2:
        raise ValueError(f"drift: n_folds={n_folds}; an interval needs at least 2")
    if not (train.ndim == test.ndim == 2 and train.shape[1] == test.shape[1] == len(names)):
        raise DataError(
            f"drift: train {train.shape}, test {test.shape}, {len(names)} names; both must be [rows, "
            "features] with a name each; pass the same feature set"
        )
    check_rows(len(train), len(test), n_folds)
