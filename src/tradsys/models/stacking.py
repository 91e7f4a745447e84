"""Out-of-fold probabilities: what a second model may learn from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tradsys.core.errors import LeakageError, TrainingError
from tradsys.core.protocols import Model, Splitter
from tradsys.core.tables import Array, Samples
from tradsys.models.compose import in_workdir
from tradsys.samples.splits import check_fold


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Each training sample's probabilities from a model that never saw it.

    proba_NC: float64 [N, C], NaN where no fold tested the sample. covered_N: bool [N], True where one did.
    """

    proba_NC: Array
    covered_N: Array


def out_of_fold(
    model: Model, samples: Samples, splitter: Splitter, valid: Samples, workdir: Path | None = None
) -> OutOfFold:
    """Predicts each purged fold of the training samples by a fresh model fitted on the rest.

    samples: training samples, already purged from `valid`, on which every copy stops early and which lies
    later in time. workdir: each copy writes below its own `fold_<k>`. A sample tested by several folds keeps
    their mean. Raises LeakageError when a fold's training spans touch its test spans, or a training label
    resolves on or after the first validation decision; TrainingError when a fold's training part lacks a
    class.
    """
    _check_later(samples, valid)
    n_classes = max(samples.n_classes, valid.n_classes)
    total_NC, hits_N = np.zeros((len(samples), n_classes)), np.zeros(len(samples), dtype=np.int64)
    for k, fold in enumerate(splitter.split(samples)):
        check_fold(samples, fold, 0)
        fresh = model if workdir is None else in_workdir(model, workdir / f"fold_{k}")
        done = fresh.fit(samples.take(fold.train), valid)
        proba_NC = done.predict_proba(samples.table, samples.rows[fold.test])
        if proba_NC.shape[1] != n_classes:
            raise TrainingError(
                f"out of fold: fold {k} returned {proba_NC.shape[1]} classes of {n_classes}; each fold must "
                "see all; use fewer folds or a longer span"
            )
        total_NC[fold.test] += proba_NC
        hits_N[fold.test] += 1
    covered_N = hits_N > 0
    return OutOfFold(np.where(covered_N[:, None], total_NC / np.maximum(hits_N, 1)[:, None], np.nan), covered_N)


def _check_later(samples: Samples, valid: Samples) -> None:
    """Training labels must be known before the first validation decision."""
    if not (len(samples) and len(valid)):
        return
    first = valid.time.min()
    late = int((samples.table.time[samples.end] >= first).sum())
    if late:
        raise LeakageError(
            f"out of fold: {late} of {len(samples)} training labels resolve on or after the first validation "
            f"decision {first}; validation lies later; purge the training samples from it first"
        )
