"""The fits of one trial: each inner fold under each seed, kept on disk as it ends, so that a killed trial goes on."""

import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tradsys.core.errors import TrainingError
from tradsys.core.received import read_json, refused_in_one_line
from tradsys.core.runs import digest_json, write_json, written_atomically
from tradsys.core.tables import Array
from tradsys.evidence.skill import log_losses
from tradsys.models.ensembles.nested_copies import watched
from tradsys.research.pipeline.cross_validation import FoldFit, run_fit
from tradsys.research.pipeline.dataset import Dataset
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.sweeps.search_space import SweepError
from tradsys.samples.weights import class_rates

LOG = logging.getLogger(__name__)
BLOCKS_A_FOLD = 4  # stretches of a fold's test samples whose gains are kept: for the probability of overfitting
Watch = Callable[[int, float], None]


@dataclass(frozen=True)
class FitResult:
    """One fit: its skill beyond the level on the inner test samples, or why there is none.

    skill_over_base_rate: against the training rates. valid_skill: the best epoch's on validation samples, for nets.
    resumed: how many attempts found epochs of an earlier one in a checkpoint. block_gains: see `block_gains`.
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


def fit_result(
    experiment: Experiment,
    dataset: Dataset,
    fold: int,
    seed: int,
    folder: Path,
    identity: Mapping[str, Any],
    watch: Watch,
) -> FitResult:
    """Runs a fit, goes on where an earlier attempt stopped, or reads what a finished one left in `folder`.

    watch: called with (epoch, validation skill) of a net; what it raises comes out. A fit that fails, or whose
    forecasts are not finite, gives a result with `error`. Raises SweepError for files of another fit.
    """
    name = digest_json([identity, fold, seed])
    _check_identity(folder / "identity.json", name)
    done = folder / "fit.json"
    if done.exists():
        with refused_in_one_line(str(done), "delete its folder; the same command fits it again", SweepError):
            return FitResult(**read_json(done, "delete its folder; the same command fits it again", SweepError))
    attempts = folder / "attempts.jsonl"
    resumed_epochs = _epochs_kept(folder / "fit")
    _append(attempts, {"pid": os.getpid(), "epochs": resumed_epochs})
    watching = _Watching(folder / "epochs.jsonl", base_of(dataset, fold), watch)
    looked = replace(experiment, model=watched(experiment.model, watching))
    skill = over_rate = losses = error = gains = None
    seconds, megabytes, n_parameters = 0.0, 0.0, None
    try:
        fit = run_fit(looked, dataset, fold, seed, folder / "fit")
        seconds, megabytes, n_parameters = fit.seconds, fit.peak_mb, fit.n_parameters
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
        LOG.warning("fold %d, seed %d failed: %s", fold, seed, error)
    resumed = sum(json.loads(line)["epochs"] > 0 for line in attempts.read_text(encoding="utf-8").splitlines())
    best = watching.best if math.isfinite(watching.best) else None
    result = FitResult(fold, seed, skill, over_rate, error, best, seconds, megabytes, n_parameters, resumed, gains)
    if losses is not None and skill is not None:
        with written_atomically(folder / "losses.npy") as draft, draft.open("wb") as file:
            np.save(file, losses, allow_pickle=False)
    write_json(done, asdict(result))
    shutil.rmtree(folder / "fit", ignore_errors=True)
    return result


def block_gains(fit: FoldFit) -> list[float]:
    """Mean gain in log-loss over the best constant in each of BLOCKS_A_FOLD equal stretches of the test samples.

    Both at the level of the whole fold, as the headline skill is; nats. In time order, samples split evenly.
    """
    gain_N = (fit.levelled.constant - fit.levelled.forecast)[np.argsort(fit.time, kind="stable")]
    return [float(part.mean()) for part in np.array_split(gain_N, min(BLOCKS_A_FOLD, len(gain_N)))]


def base_of(dataset: Dataset, fold: int) -> float:
    """Mean log-loss on a fold's validation samples of their own best constant, weighted as the nets' loss is.

    The reference of skill beyond the level, against a loss whose level was not shifted: what the pruner sees is at most
    the headline measure.
    """
    valid = dataset.part(fold, "valid")
    rates = class_rates(valid, dataset.samples.n_classes)
    return float(
        np.average(log_losses(np.broadcast_to(rates, (len(valid), len(rates))), valid.y), weights=valid.weight)
    )


def stored_losses(folder: Path) -> Array | None:
    """Log-loss of each inner test sample [N] that a finished fit left, None of a failed one."""
    path = folder / "losses.npy"
    return np.load(path, allow_pickle=False) if path.exists() else None


class _Watching:
    """Turns a net's validation log-loss into skill, keeps the learning curve, and passes the best on."""

    def __init__(self, curve: Path, base_loss: float, watch: Watch) -> None:
        self.curve, self.base_loss, self.watch = curve, base_loss, watch
        self.best = -math.inf
        self.known = len(curve.read_text(encoding="utf-8").splitlines()) if curve.exists() else 0

    def __call__(self, epoch: int, loss: float) -> None:
        skill = 1 - loss / self.base_loss
        if epoch >= self.known:  # a resumed fit tells of its earlier epochs again
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
    """Whole epochs in the checkpoints of a fit; 0 where there is none."""
    if not (paths := sorted(folder.rglob("last.ckpt"))):
        return 0
    from tradsys.models.training.checkpoints import kept_state, read_checkpoint  # noqa: PLC0415 - imports Lightning

    found = [kept_state(read_checkpoint(path)) for path in paths]
    return sum(len(state.get("scores", ())) for state in found)


def _failures() -> tuple[type[Exception], ...]:
    """What a fit that fails raises; torch's own error only where a net has loaded it."""
    torch = sys.modules.get("torch")
    return (TrainingError,) if torch is None else (TrainingError, torch.OutOfMemoryError)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
