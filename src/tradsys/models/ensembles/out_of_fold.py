"""Out-of-fold probabilities, from which a second model may learn, and the skills of a pool's members on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from tradsys.core.errors import LeakageError, TrainingError
from tradsys.core.progress.stages import counted
from tradsys.core.protocols import Model, Splitter
from tradsys.core.tables import Array, Samples
from tradsys.models.ensembles.nested_copies import in_workdir
from tradsys.models.ensembles.pool_weights import Skill, pool_weights, skill, time_batches
from tradsys.samples.splits import check_fold, span_bars
from tradsys.samples.weights import average_uniqueness


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
    """Predicts each purged fold of the training samples by a new fit on the rest.

    samples: training samples, already purged from `valid`; every copy stops early on `valid`, which lies
    later in time. workdir: each copy writes below its own `fold_<k>`. A sample tested by several folds has
    their mean. Raises LeakageError when a fold's training spans touch its test spans, or a training label
    resolves on or after the first validation decision; TrainingError when a fold's training part lacks a
    class.
    """
    _check_later(samples, valid)
    n_classes = max(samples.n_classes, valid.n_classes)
    total_NC, hits_N = np.zeros((len(samples), n_classes)), np.zeros(len(samples), dtype=np.int64)
    for k, fold in enumerate(counted("out-of-fold fits", list(splitter.split(samples)))):
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


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Out-of-fold results of a pool's members on the training rows.

    likelihood_NK: each member's probability of the realised class, the base rate last. gated_K: True where the
    complete interval of a skill lies below zero, so that the member's weight is 0. skills: per member. rows, weight_N,
    uniqueness_N [N]: of the samples; uniqueness is on the common clock, all symbols together.
    """

    likelihood_NK: Array
    gated_K: Array
    skills: Mapping[str, Skill]
    rows: Array
    weight_N: Array
    uniqueness_N: Array

    @classmethod
    def of(cls, samples: Samples, likelihood_NK: Array, names: tuple[str, ...], confidence: float) -> Self:
        """Skills over batches of time, and the members gated by them.

        Each batch is at least four times the longest label.
        """
        _, decision, end = span_bars(samples)
        batch_N = time_batches(decision, int((end - decision).max()))
        loss_NK = -np.log(likelihood_NK)
        skills = {
            name: skill(loss_NK[:, k], loss_NK[:, -1], samples.weight, batch_N, confidence)
            for k, name in enumerate(names)
        }
        gated_K = np.array([*(one.high < 0 for one in skills.values()), False])
        uniqueness_N = average_uniqueness(np.minimum(decision + 1, end), end)
        return cls(likelihood_NK, gated_K, skills, samples.rows, samples.weight, uniqueness_N)

    def weights(self, weight_N: Array) -> Array:
        """Best pool weights [K] of the members that are not gated.

        The loss is weighted by these sample weights.
        """
        out_K = np.zeros(self.likelihood_NK.shape[1])
        if not weight_N.sum() > 0:  # a state that never occurred has no weights of its own
            out_K[-1] = 1.0
            return out_K
        open_K = ~self.gated_K
        out_K[open_K] = pool_weights(self.likelihood_NK[:, open_K], weight_N)
        return out_K


def _check_later(samples: Samples, valid: Samples) -> None:
    """LeakageError unless training labels resolve before the first validation decision."""
    if not (len(samples) and len(valid)):
        return
    first = valid.time.min()
    late = int((samples.table.time[samples.end] >= first).sum())
    if late:
        raise LeakageError(
            f"out of fold: {late} of {len(samples)} training labels resolve on or after the first validation "
            f"decision {first}; validation lies later; purge the training samples from it first"
        )
