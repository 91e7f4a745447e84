"""Fits of one model, one fold, one seed, as used by comparisons and sweeps, with nets in stacks where possible."""

import logging
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tradsys.core.errors import TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import Array, Samples
from tradsys.evidence.skill import LevelledLosses, levelled_losses, log_losses
from tradsys.models.ensembles.compose import Calibrated
from tradsys.models.ensembles.nested_copies import in_workdir, seeded
from tradsys.models.net_fits import NetFit, NetFits
from tradsys.research.pipeline.dataset import Dataset
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.training import composed_model
from tradsys.samples.weights import class_rates

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FoldFit:
    """Predictions of one fit on its fold's test samples.

    symbol, time, y [N]: of the samples. proba_NC: calibrated. base_rate_C: class rates of the training rows.
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
        """Log-loss of always predicting the training rates [N], nats."""
        return log_losses(np.broadcast_to(self.base_rate_C, self.proba_NC.shape), self.y)

    @cached_property
    def levelled(self) -> LevelledLosses:
        """Losses [N] of the forecast and of the best constant.

        Both at the level of the test samples.
        """
        return levelled_losses(self.proba_NC, self.y)

    @property
    def skill(self) -> float:
        """Skill beyond the level, the headline metric.

        NaN where forecasts are not finite or one class occurs.
        """
        return self.levelled.skill

    @property
    def skill_over_base_rate(self) -> float:
        """1 - mean log-loss / mean log-loss of the training base rate."""
        return float(1 - self.losses.mean() / self.base_losses.mean())


def run_fit(experiment: Experiment, dataset: Dataset, fold: int, seed: int, workdir: Path | None = None) -> FoldFit:
    """Fits the experiment's model on a fold and predicts its test samples.

    Scaled and calibrated, under one seed. workdir: lets a net's fit resume from its last checkpoint.
    """
    began = perf_counter()
    train, test = dataset.part(fold, "train"), dataset.part(fold, "test")
    own = replace(experiment, model=seeded(experiment.model, seed))
    done = fitted_on(own, train, dataset.part(fold, "valid"), workdir)
    seconds = perf_counter() - began
    return FoldFit(
        symbol=test.table.symbols_of(test.rows),
        time=test.time,
        y=test.y,
        proba_NC=done.predict_proba(test.table, test.rows),
        base_rate_C=class_rates(train, dataset.samples.n_classes),
        seconds=seconds,
        peak_mb=peak_mb(),
        n_parameters=n_parameters(done),
    )


def peak_mb() -> float:
    """Peak memory of this process, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def n_parameters(model: Model) -> int | None:
    """Number of trained parameters of a model's nets; None without a net."""
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
    model: Any = composed_model(experiment, experiment.model)
    fitted: Calibrated = (model if workdir is None else in_workdir(model, workdir)).fit(train, valid)
    return fitted


@dataclass(frozen=True, eq=False)
class PlannedFit:
    """A fit that `run_fit` will run with these arguments.

    is_done: an earlier attempt already ended it.
    """

    experiment: Experiment
    dataset: Dataset
    fold: int
    seed: int
    workdir: Path
    is_done: bool = False


@dataclass(frozen=True, eq=False)
class SharedSamples:
    """Objects shared by planned fits whose nets share one stack, each computed once.

    parts: training and validation samples by dataset and fold. made: nets, loaders and digests, a `together.Made`.
    n_plans: plans that the stack holds at once.
    """

    made: Any
    n_plans: int = 1
    found: NetFits = field(default_factory=NetFits)
    parts: dict[Any, tuple[Samples, Samples]] = field(default_factory=dict)


class StackedFits:
    """Planned fits whose nets train as stacks.

    Each stack trains when the first of its fits is due.
    folder: takes the checkpoints of running stacks. stacked: None decides by speed (see `stacks.gain`),
    True stacks wherever it is possible, False never. watch: of the first fit's first net, as of
    `SequenceModel`; its exceptions stop the stack. Which nets form a stack depends on the plan alone, so a
    restarted plan has the same stacks. shared: with other plans; all nets of a shape then train together.
    """

    def __init__(
        self,
        planned: Sequence[PlannedFit],
        folder: Path,
        *,
        stacked: bool | None = None,
        watch: Any = None,
        shared: SharedSamples | None = None,
    ) -> None:
        self.planned, self.folder, self.stacked, self.watch, self.shared = planned, folder, stacked, watch, shared
        self.fits: list[tuple[int, NetFit]] = []  # index of the planned fit, and one of its nets
        self.stacks: list[list[int]] = []
        self.done: set[int] = set()
        self.seconds = dict.fromkeys(range(len(planned)), 0.0)
        if stacked is not False and len(planned) > 0:
            try:
                self._plan()
            except TrainingError as error:  # its own fit raises it again, or succeeds
                LOG.info("nets are trained one by one: %s", error)

    def ready(self, k: int) -> float:
        """Trains the stacks with nets of the k-th fit, where not done.

        Returns its share of their seconds.
        """
        for number, places in enumerate(self.stacks):
            if number in self.done or k not in {self.fits[place][0] for place in places}:
                continue
            self.done.add(number)
            self._train(number, places)
        return self.seconds[k]

    def _plan(self) -> None:
        shared = self.shared or SharedSamples(None)
        first = next(self._nets_of(self.planned[0], shared), None)
        if first is None:
            return
        from tradsys.models.training.stacks.together import stacks_of, worth_stacking  # noqa: PLC0415 - imports torch

        if not worth_stacking(first):
            return
        self.fits = [(k, fit) for k, one in enumerate(self.planned) for fit in self._nets_of(one, shared)]
        if self.watch is not None:
            self.fits[0] = (0, replace(first, model=replace(first.model, watch=self.watch)))
        most = None if self.shared is None else len(self.fits)
        self.stacks = stacks_of([fit for _, fit in self.fits], shared.made, most=most, copies=shared.n_plans)

    def _nets_of(self, one: PlannedFit, shared: SharedSamples) -> Iterator[NetFit]:
        for fit in nets_of(one, shared.found, shared.parts):
            yield replace(fit, stacked=self.stacked or fit.stacked)

    def _train(self, number: int, places: Sequence[int]) -> None:
        from tradsys.models.training.stacks.together import train_ahead  # noqa: PLC0415

        began = perf_counter()
        due = [self.fits[place] for place in places]
        try:
            train_ahead([fit for k, fit in due if not self.planned[k].is_done], self.folder / str(number))
        except TrainingError as error:
            LOG.warning("nets that were to train as one stack are trained one by one: %s", error)
        share = (perf_counter() - began) / len(places)
        for place in places:
            self.seconds[self.fits[place][0]] += share


def nets_of(one: PlannedFit, found: NetFits, parts: dict[Any, tuple[Samples, Samples]]) -> Iterator[NetFit]:
    """The nets that a planned fit trains.

    parts: training and validation samples by dataset and fold, cached.
    """
    model: Any = composed_model(one.experiment, seeded(one.experiment.model, one.seed))
    key = (id(one.dataset), one.fold)
    if key not in parts:
        parts[key] = one.dataset.part(one.fold, "train"), one.dataset.part(one.fold, "valid")
    yield from found.of(in_workdir(model, one.workdir), *parts[key])


def fits_per_stack(one: PlannedFit, stacked: bool | None, n_fits: int) -> int:
    """How many of `n_fits` fits like this one share a stack.

    1 where they are fitted one by one.
    """
    nets = (
        []
        if stacked is False
        else [replace(fit, stacked=stacked or fit.stacked) for fit in nets_of(one, NetFits(), {})]
    )
    if not nets:
        return 1
    from tradsys.models.training.stacks.together import most_nets, worth_stacking  # noqa: PLC0415 - imports torch

    first = replace(nets[0], stacked=stacked or nets[0].stacked)
    most = most_nets(first.model)
    return max(1, most // len(nets)) if worth_stacking(first, min(most, n_fits * len(nets))) else 1
