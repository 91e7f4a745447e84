"""Fits all parts of an experiment: primary, baselines, regime, auditor."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradsys.core.errors import TrainingError
from tradsys.core.tables import Array, Samples
from tradsys.labels.meta import pays
from tradsys.models.baseline import BaseRate
from tradsys.models.boosting import Xgboost
from tradsys.models.calibrators import Identity
from tradsys.models.ensembles.compose import Calibrated, scaled
from tradsys.models.ensembles.nested_copies import in_workdir
from tradsys.models.ensembles.out_of_fold import out_of_fold
from tradsys.models.ensembles.resampled import Decayed
from tradsys.models.supervisors.supervised import Regime
from tradsys.research.pipeline.dataset import Prepared
from tradsys.research.pipeline.requirements import LEAST_CANDIDATES, auditor_folds, check_fits
from tradsys.research.pipeline.settings import Experiment, Timings
from tradsys.samples.weights import class_rates
from tradsys.serving.bundle import auditor_columns

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Fitted parts.

    candidate_score: least out-of-fold score of the auditor's candidates; candidate_paid: share of candidates that were
    profitable after costs, under the weights of the fit (`class_rates`).
    """

    primary: Calibrated
    baselines: Mapping[str, Calibrated]
    regime: Regime | None
    auditor: Xgboost | None
    candidate_score: float | None = None
    candidate_paid: float = 0.5


def fit(experiment: Experiment, prepared: Prepared, checkpoints: Path, timings: Timings) -> Fitted:
    """Fits every part on training rows.

    Early stopping and calibration use validation rows, nothing uses test rows.
    """
    train, valid = prepared.train, prepared.valid
    check_fits(experiment, train, valid, prepared.samples)
    with timings.stage("regime"):  # first: it is the quickest and may refuse the data
        regime = experiment.regime.fit(train, valid) if experiment.regime else None
    with timings.stage("primary model"):
        primary = in_workdir(composed_model(experiment, experiment.model), checkpoints / "primary").fit(train, valid)
    baselines = {}
    with timings.stage("baselines"):
        for k, (name, model) in enumerate(experiment.baselines.items(), start=1):
            LOG.info("baseline %s, %d of %d", name, k, len(experiment.baselines))
            baselines[name] = composed_model(experiment, model).fit(train, valid)
    if experiment.auditor is None:
        return Fitted(primary, baselines, regime, None)
    with timings.stage("out-of-fold scores"):
        uncalibrated = uncalibrated_model(experiment, experiment.model)
        held_out = out_of_fold(uncalibrated, train, auditor_folds(experiment), valid, checkpoints / "out_of_fold")
    with timings.stage("auditor"):
        covered = held_out.proba_NC[held_out.covered_N, 1]
        least = float(np.quantile(covered, experiment.evaluation.candidate_quantile))
        trained = audit_samples(experiment, train, held_out.proba_NC, regime, least)
        checked = audit_samples(experiment, valid, primary.score(valid.table, valid.rows), regime, least)
        auditor = experiment.auditor.fit(trained, checked)
        LOG.info("auditor: %d candidates with score >= %.3f, %.1f %% paid", len(trained), least, 100 * trained.y.mean())
    return Fitted(primary, baselines, regime, auditor, least, float(class_rates(trained, 2)[1]))


def composed_model(experiment: Experiment, model: Any) -> Calibrated:
    """Scaler, model and calibrator as one model.

    Trees need no scaler, nor does the base rate.
    """
    if isinstance(model, BaseRate):
        return Calibrated(model, Identity())
    return Calibrated(uncalibrated_model(experiment, model), experiment.calibration)


def uncalibrated_model(experiment: Experiment, model: Any) -> Any:
    """The model behind its scaler, without calibration.

    Sample weights decay with age where configured.
    """
    aged: Any = model if experiment.time_decay == 1 else Decayed(model, experiment.time_decay)
    return scaled(experiment.transforms, aged)


def candidates(
    experiment: Experiment, samples: Samples, score_NC: Array, regime: Regime | None, least: float
) -> Samples:
    """The auditor's samples: candidates with score >= least.

    Features + score + regime, y = profitable after costs. A row without a score (NaN) is no candidate.
    """
    chosen = np.flatnonzero(score_NC[:, 1] >= least)
    samples = samples.take(chosen)
    columns = auditor_columns(samples.table, samples.rows, score_NC[chosen], regime)
    table, rows = samples.table.take(samples.rows, columns), np.arange(len(samples))
    y = pays(samples.ret, experiment.costs.log_round_trip)
    return Samples(table, rows, y, samples.weight, rows, rows, samples.ret)


def are_too_few(found: Samples) -> bool:
    """Whether these candidates are too few for the auditor, or all of one outcome."""
    return len(found) < LEAST_CANDIDATES or found.y.min() == found.y.max()


def audit_samples(
    experiment: Experiment, samples: Samples, score_NC: Array, regime: Regime | None, least: float
) -> Samples:
    """`candidates` for a fit; TrainingError where they are too few."""
    found = candidates(experiment, samples, score_NC, regime, least)
    if are_too_few(found):
        raise TrainingError(
            f"auditor: {len(found)} candidates with score >= {least:.3f}, {int(found.y.sum())} of "
            f"them profitable; it needs {LEAST_CANDIDATES} of both outcomes; load more bars, lower "
            "evaluation.candidate_quantile, or auditor=none"
        )
    return found
