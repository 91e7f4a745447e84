"""The fits of one trial: each inner fold under each seed, saved as it ends, so that a killed trial resumes."""

import contextlib
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tradsys.core.errors import CheckpointError, TrainingError
from tradsys.core.received import read_json, refused_in_one_line
from tradsys.core.runs import digest_json, write_json, written_atomically
from tradsys.core.tables import Array
from tradsys.evidence.skill import log_losses
from tradsys.models.ensembles.nested_copies import watched
from tradsys.research.pipeline.cross_validation import FoldFit, PlannedFit, SharedSamples, StackedFits, run_fit
from tradsys.research.pipeline.dataset import Dataset
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.sweeps.search_space import SweepError
from tradsys.samples.weights import class_rates

LOG = logging.getLogger(__name__)
REDO = "delete its folder; the same command fits it again"
STACKS = "stacks"  # folder next to the fits of a trial: checkpoints of nets that train together
BLOCKS_A_FOLD = 4  # stretches of a fold's test samples with separate gains: for the probability of overfitting
Watch = Callable[[int, float], None]


@dataclass(frozen=True)
class FitResult:
    """One fit: its skill beyond the level, or why there is none.

    The skill is measured on the inner test samples. skill_over_base_rate: against the training rates. valid_skill:
    the best epoch's on
    validation samples, for nets. resumed: number of attempts that found epochs of an earlier one in a checkpoint.
    block_gains: see `block_gains`.
    """

    fold: int
    seed: int
    skill: float | None
    skill_over_base_rate: float | None
    error: str | None
    valid_skill: float | None
    seconds: float
    peak_mb: float
    n_parameters: int | None
    resumed: int
    block_gains: list[float] | None = None


@dataclass(frozen=True, eq=False)
class OpenFit:
    """A fit of a trial and its folder of results.

    identity: of the trial, digest of what determines its fits. Raises SweepError where the folder holds another fit.
    """

    experiment: Experiment
    dataset: Dataset
    fold: int
    seed: int
    folder: Path
    identity: Mapping[str, Any]

    def __post_init__(self) -> None:
        _check_identity(self.folder / "identity.json", digest_json([self.identity, self.fold, self.seed]))

    @property
    def done(self) -> Path:
        """The file of a finished fit."""
        return self.folder / "fit.json"

    @property
    def planned(self) -> PlannedFit:
        """The fit as `run_fit` will run it."""
        return PlannedFit(self.experiment, self.dataset, self.fold, self.seed, self.folder / "fit", self.done.exists())

    def watching(self, watch: Watch) -> "_Watching":
        """Stores the learning curve and passes skill on."""
        return _Watching(self.folder / "epochs.jsonl", base_of(self.dataset, self.fold), watch)

    def result(self, watch: Watch, ahead: "FitsAhead") -> FitResult:
        """Runs the fit, resumes an earlier attempt, or loads a finished one.

        watch: called with (epoch, validation skill) of a net; its exceptions pass through. ahead: trains its nets
        first, with others. A fit that fails, or whose forecasts are not finite, gives a result with `error`; one whose
        checkpoint is damaged begins anew, for that is no fault of its settings.
        """
        if self.done.exists():
            with refused_in_one_line(str(self.done), REDO, SweepError):
                return FitResult(**read_json(self.done, REDO, SweepError))
        attempts = self.folder / "attempts.jsonl"
        _append(attempts, {"pid": os.getpid(), "epochs": ahead.epochs_kept[self]})
        seconds = ahead.ready(self)
        watching = self.watching(watch)
        observed = replace(self.experiment, model=watched(self.experiment.model, watching))
        skill = over_rate = losses = error = gains = None
        megabytes, n_parameters = 0.0, None
        try:
            fit = _run_fit(observed, self, self.folder / "fit")
            seconds, megabytes, n_parameters = seconds + fit.seconds, fit.peak_mb, fit.n_parameters
            losses = fit.losses
            skill = fit.skill if math.isfinite(fit.skill) else None
            over_rate = fit.skill_over_base_rate if skill is not None else None
            gains = block_gains(fit) if skill is not None else None
            error = None if skill is not None else "its test samples hold one class, so that no skill is defined"
        except _failures() as failure:
            # a checkpoint of other settings is no failed fit: it would be scored, and hide that folders were mixed
            if "belongs to fingerprint" in str(failure):
                raise SweepError(f"sweep: {failure}") from failure
            error = str(failure).splitlines()[0]
            LOG.warning("fold %d, seed %d failed: %s", self.fold, self.seed, error)
        resumed = _n_resumed(attempts)
        best = watching.best if math.isfinite(watching.best) else None
        result = FitResult(
            self.fold, self.seed, skill, over_rate, error, best, seconds, megabytes, n_parameters, resumed, gains
        )
        if losses is not None and skill is not None:
            with written_atomically(self.folder / "losses.npy") as draft, draft.open("wb") as file:
                np.save(file, losses, allow_pickle=False)
        write_json(self.done, asdict(result))
        shutil.rmtree(self.folder / "fit", ignore_errors=True)
        return result


class FitsAhead:
    """The fits of a trial that are still to do.

    Their nets train as stacks as the fits become due. watch: of the first fit, called for its first net while the stack
    trains, so that a trial is pruned no later than fit by fit; the fits themselves then report every epoch, in their
    order.
    """

    def __init__(self, fits: Sequence[OpenFit], folder: Path, stacked: bool | None, watch: Watch) -> None:
        self.fits, self.folder, self.stacked, self.watch = fits, folder, stacked, watch
        in_stacks = _epochs_in_stacks(folder)
        self.epochs_kept = {fit: _epochs_kept(fit.folder / "fit") + in_stacks for fit in fits}  # by earlier attempts
        self.stacks: StackedFits | None = None
        self.is_new = False  # the first fit's curve comes only from the stack so far

    def plan(self, shared: SharedSamples | None = None) -> StackedFits:
        """Assigns nets to stacks; with `shared`, to one stack with those of other trials."""
        watch = None if self.fits[0].done.exists() else self.fits[0].watching(self.watch)
        planned = [each.planned for each in self.fits]
        return StackedFits(planned, self.folder, stacked=self.stacked, watch=watch, shared=shared)

    def follow(self, stacks: StackedFits) -> None:
        """Uses this plan, of which no net was trained yet."""
        self.stacks, self.is_new = stacks, not self._curve.exists()

    def ready(self, fit: OpenFit) -> float:
        """Trains the stacks that the fit's nets are in.

        Returns the fit's share of their seconds.
        """
        if self.stacks is None:
            self.follow(self.plan())
        assert self.stacks is not None
        place = list(self.fits).index(fit)
        try:
            seconds = self.stacks.ready(place)
        except CheckpointError as error:
            _begin_anew(self.folder, error)
            seconds = self.stacks.ready(place)
        if self.is_new:  # the fit itself reports every epoch again
            self._curve.unlink(missing_ok=True)
            self.is_new = False
        return seconds

    @property
    def _curve(self) -> Path:
        return self.fits[0].folder / "epochs.jsonl"


def block_gains(fit: FoldFit) -> list[float]:
    """Mean gain in log-loss over the best constant, by stretch of time.

    There are BLOCKS_A_FOLD equal stretches of the test samples. Both at the level of the complete fold, as the
    headline skill
    is; nats. In time order, samples split evenly.
    """
    gain_N = (fit.levelled.constant - fit.levelled.forecast)[np.argsort(fit.time, kind="stable")]
    return [float(part.mean()) for part in np.array_split(gain_N, min(BLOCKS_A_FOLD, len(gain_N)))]


def base_of(dataset: Dataset, fold: int) -> float:
    """Mean log-loss of a fold's best constant on validation samples.

    Weighted as the nets' loss is. The reference of skill beyond the level, for a loss whose level was not shifted: the
    pruner's value is at most the headline metric.
    """
    valid = dataset.part(fold, "valid")
    rates = class_rates(valid, dataset.samples.n_classes)
    return float(
        np.average(log_losses(np.broadcast_to(rates, (len(valid), len(rates))), valid.y), weights=valid.weight)
    )


def stored_losses(folder: Path) -> Array | None:
    """Log-loss of each inner test sample [N] of a fit; None if it failed."""
    path = folder / "losses.npy"
    if not path.exists():
        return None
    with refused_in_one_line(str(path), REDO, SweepError):
        losses: Array = np.load(path, allow_pickle=False)
    return losses


class _Watching:
    """Turns a net's validation log-loss into skill, stores the learning curve, and passes the best value on."""

    def __init__(self, curve: Path, base_loss: float, watch: Watch) -> None:
        self.curve, self.base_loss, self.watch = curve, base_loss, watch
        self.best = -math.inf
        self.known = curve.read_bytes().count(b"\n") if curve.exists() else 0

    def __call__(self, epoch: int, loss: float) -> None:
        skill = 1 - loss / self.base_loss
        if epoch >= self.known:  # a resumed fit reports its earlier epochs again
            _append(self.curve, {"epoch": epoch, "skill": skill if math.isfinite(skill) else None, "pid": os.getpid()})
        if math.isfinite(skill):
            self.best = max(self.best, skill)
            self.watch(epoch, self.best)

    def __repr__(self) -> str:
        return "watching"


def _check_identity(path: Path, name: str) -> None:
    if not path.exists():
        write_json(path, name)
    elif (found := str(read_json(path, "delete its folder", SweepError, str))) != name:
        raise SweepError(
            f"sweep: {path.parent} holds the fit {found[:12]}, this one is {name[:12]}: another model, data or seed; "
            "a study's folder belongs to one study; give study= another name or move the folder away"
        )


def _epochs_kept(folder: Path) -> int:
    """Complete epochs of a fit's nets, of finished ones and of those with a checkpoint; 0 where there is none."""
    done = {path.parent: _scores_kept(path) for path in sorted(folder.rglob("finished.json"))}
    paths = [path for path in sorted(folder.rglob("last.ckpt")) if path.parent not in done]
    return sum(done.values()) + sum(_scores_kept(path) for path in paths)


def _scores_kept(path: Path) -> int:
    """Epochs that a finished.json or a last.ckpt holds; a damaged one goes, and its net begins anew."""
    try:
        if path.suffix == ".json":
            return len(read_json(path, REDO, CheckpointError).get("scores", []))
        from tradsys.models.training.checkpoints import kept_state, read_checkpoint  # noqa: PLC0415 - imports Lightning

        return len(kept_state(read_checkpoint(path)).get("scores", ()))
    except CheckpointError as error:
        _begin_anew(path.parent, error)
        return 0


def _run_fit(experiment: Experiment, fit: OpenFit, workdir: Path) -> FoldFit:
    """The fit; from its beginning where what an earlier attempt left cannot be used."""
    try:
        return run_fit(experiment, fit.dataset, fit.fold, fit.seed, workdir)
    except CheckpointError as error:
        _begin_anew(workdir, error)
    return run_fit(experiment, fit.dataset, fit.fold, fit.seed, workdir)


def _begin_anew(folder: Path, error: CheckpointError) -> None:
    """Removes a folder of checkpoints of which one is damaged, and says so."""
    LOG.warning("%s; %s is removed and its fit begins anew", str(error).rpartition("; ")[0], folder)
    shutil.rmtree(folder)


def _n_resumed(attempts: Path) -> int:
    """Attempts that found epochs of an earlier one; a line that was torn or damaged is none."""
    n = 0
    for line in attempts.read_bytes().splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            n += json.loads(line)["epochs"] > 0
    return n


def _epochs_in_stacks(folder: Path) -> int:
    """Complete epochs in the checkpoints of a trial's stacks; 0 where there is none."""
    if not (places := sorted(path.parent for path in folder.rglob("last.ckpt"))):
        return 0
    from tradsys.models.training.stacks.fit import epochs_kept  # noqa: PLC0415 - imports Lightning

    n = 0
    for place in places:
        try:
            n += epochs_kept(place)
        except CheckpointError as error:
            _begin_anew(place, error)
    return n


def _failures() -> tuple[type[Exception], ...]:
    """Exceptions of a failing fit; torch's own error only where a net has imported it."""
    torch = sys.modules.get("torch")
    return (TrainingError,) if torch is None else (TrainingError, torch.OutOfMemoryError)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
