"""One model, one fold, one seed: what comparisons and sweeps are made of."""

import resource
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tradsys.core.protocols import Model
from tradsys.core.tables import Array, Samples
from tradsys.evidence.skill import LevelledLosses, levelled_losses, log_losses
from tradsys.models.ensembles.compose import Calibrated
from tradsys.models.ensembles.nested_copies import in_workdir, seeded
from tradsys.research.pipeline.dataset import Dataset
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.training import whole
from tradsys.samples.weights import class_rates


@dataclass(frozen=True, eq=False)
class FoldFit:
    """What one fit said about its fold's test samples.

    symbol, time, y [N]: which samples. proba_NC: calibrated. base_rate_C: class rates of the training rows.
    seconds: of the fit. peak_mb: of the whole process so far. n_parameters: of a net, None for other models.
    """

    symbol: Array
    time: Array
    y: Array
    proba_NC: Array
    base_rate_C: Array
    seconds: float
    peak_mb: float
    n_parameters: int | None

    @property
    def losses(self) -> Array:
        """Log-loss of each sample [N], nats."""
        return log_losses(self.proba_NC, self.y)

    @property
    def base_losses(self) -> Array:
        """Log-loss of always saying the training rates [N], nats."""
        return log_losses(np.broadcast_to(self.base_rate_C, self.proba_NC.shape), self.y)

    @cached_property
    def levelled(self) -> LevelledLosses:
        """Losses [N] of the forecast and of the best constant, both at the level of the test samples."""
        return levelled_losses(self.proba_NC, self.y)

    @property
    def skill(self) -> float:
        """Skill beyond the level, the headline measure; NaN where forecasts are not finite or one class occurs."""
        return self.levelled.skill

    @property
    def skill_over_base_rate(self) -> float:
        """1 - mean log-loss / mean log-loss of the training base rate."""
        return float(1 - self.losses.mean() / self.base_losses.mean())


def run_fit(experiment: Experiment, dataset: Dataset, fold: int, seed: int, workdir: Path | None = None) -> FoldFit:
    """Fits the experiment's model, scaled and calibrated, on one fold under one seed, and asks its test samples.

    workdir: lets a net's fit resume from its last checkpoint.
    """
    began = perf_counter()
    train, test = dataset.part(fold, "train"), dataset.part(fold, "test")
    own = replace(experiment, model=seeded(experiment.model, seed))
    done = fitted_on(own, train, dataset.part(fold, "valid"), workdir)
    seconds = perf_counter() - began
    return FoldFit(
        symbol=np.asarray(test.table.symbols)[test.table.symbol[test.rows]],
        time=test.time,
        y=test.y,
        proba_NC=done.predict_proba(test.table, test.rows),
        base_rate_C=class_rates(train, dataset.samples.n_classes),
        seconds=seconds,
        peak_mb=peak_mb(),
        n_parameters=n_parameters(done),
    )


def peak_mb() -> float:
    """Most memory this process ever held, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def n_parameters(model: Model) -> int | None:
    """Trained numbers of the nets inside a fitted model, None where there is no net."""
    nets = _nets(model)
    return sum(p.numel() for net in nets for p in net.parameters()) if nets else None


def _nets(part: Any) -> list[Any]:
    if getattr(part, "net_", None) is not None:
        return [part.net_]
    inner = [getattr(part, name, None) for name in ("model_", "members_")]
    flat = [m for each in inner if each is not None for m in (each.values() if isinstance(each, dict) else [each])]
    return [net for each in flat for net in _nets(each)]


def fitted_on(experiment: Experiment, train: Samples, valid: Samples, workdir: Path | None = None) -> Calibrated:
    """The experiment's model, scaled and calibrated, fitted on these samples.

    workdir: lets a net's fit resume from its last checkpoint.
    """
    model: Any = whole(experiment, experiment.model)
    fitted: Calibrated = (model if workdir is None else in_workdir(model, workdir)).fit(train, valid)
    return fitted
