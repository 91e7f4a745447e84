"""One trial: draws parameters, composes its config, runs its fits, writes its run folder and ledger row."""

import contextlib
import logging
import shutil
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import optuna
from optuna.trial import TrialState

from tradsys.core.errors import CheckpointError, CombinationError, DamagedError
from tradsys.core.plain_data import Config, Json
from tradsys.core.runs import PACKAGE, digest_json, write_json, write_text
from tradsys.core.tables import Array
from tradsys.research.pipeline.dataset import Dataset, aware
from tradsys.research.pipeline.provenance import config_digest, config_text, override_lines
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger, run_identity
from tradsys.research.sweeps.fold_fits import STACKS, FitResult, FitsAhead, OpenFit, stored_losses
from tradsys.research.sweeps.inner_folds import dataset_key, shared_dataset
from tradsys.research.sweeps.search_space import SearchSpace, SweepError, overrides_of
from tradsys.research.sweeps.selection import lower_bound, out_of_race, spreads, stability
from tradsys.research.sweeps.settings import SweepSettings
from tradsys.research.sweeps.storage import RetryPolicy
from tradsys.research.sweeps.trial_queue import CURVE, DRAWN, Lease, attributes_of

LOG = logging.getLogger(__name__)
PURPOSE = "tune"


class Composed(NamedTuple):
    """Composed overrides: experiment, sweep settings and resolved config."""

    experiment: Experiment
    settings: SweepSettings
    config: Config


Compose = Callable[[Sequence[str]], Composed]


class RefusedError(SweepError):
    """A combination of parameters that the parts themselves refuse."""


@dataclass(frozen=True, eq=False)
class Score:
    """A trial's result. values: one per objective. attributes: stored with them."""

    values: tuple[float, ...]
    attributes: Json


@dataclass(frozen=True, eq=False)
class TrialRunner:
    """Runs trials of one study.

    base: overrides of the study's own config. folder: runs/tune/<study>. lookback: history that every sample has.
    uuid: of the study.
    """

    study: str
    compose: Compose
    base: Sequence[str]
    settings: SweepSettings
    space: SearchSpace
    folder: Path
    lookback: int
    patience: RetryPolicy
    uuid: str = ""
    datasets: dict[str, Dataset] = field(default_factory=dict)

    def run(self, trial: optuna.Trial, lease: Lease) -> "Generator[TrialFits, None, Score]":
        """Runs the trial at its slot.

        Yields its fits before each of them, so that their nets may be trained ahead. Raises optuna.TrialPruned where
        the pruner stops it, RefusedError or CombinationError where it is impossible.
        """
        began = perf_counter()
        values = self.patience(lambda: self.space.suggest(trial))
        self.patience(lambda: trial.set_user_attr(DRAWN, True))
        folder = self.folder / "trials" / f"{lease.place:05d}"
        overrides = overrides_of(values)
        with refused():
            composed = self.compose([*self.base, *overrides])
            dataset = self.dataset(composed)
            write_text(folder / "overrides.txt", override_lines([*self.base, *overrides]))
            write_text(folder / "config.yaml", config_text(composed.config))
            reports = _Reports(self, trial)
            fits = self.fits(composed, dataset, folder / "fits", self.settings.seeds, reports)
        about = {"study": self.study, "place": lease.place, "trial": trial.number, "overrides": overrides}
        results = fits.results
        try:
            with refused():
                while fits.is_due:
                    yield fits
                    fits.run_next()
        except optuna.TrialPruned:
            self._record(composed, dataset, folder, results)
            write_json(folder / "metrics.json", about | {"state": "pruned"} | self._summary(results, began))
            raise
        score = self._score(results, began, reports)
        self._record(composed, dataset, folder, results)
        write_json(folder / "metrics.json", about | {"state": "complete", "values": score.values} | score.attributes)
        return score

    def clean(self, lease: Lease) -> None:
        """Removes the checkpoints of a trial that ended; its results stay."""
        fits = self.folder / "trials" / f"{lease.place:05d}" / "fits"
        for kept in (*fits.glob("*/fit"), fits / STACKS):
            shutil.rmtree(kept, ignore_errors=True)

    def dataset(self, composed: Composed) -> Dataset:
        """The shared samples and folds for a composed config.

        Kept open, since most trials use the same.
        """
        key, lookback = self.place(composed).name, max(self.lookback, composed.experiment.lookback)
        if key not in self.datasets:
            self.datasets[key] = shared_dataset(
                composed.experiment, composed.config, self.settings.inner, self.folder / "shared", lookback
            )
        return self.datasets[key]

    def place(self, composed: Composed) -> Path:
        """The folder of the samples and folds for a composed config."""
        lookback = max(self.lookback, composed.experiment.lookback)
        return self.folder / "shared" / dataset_key(composed.config, self.settings.inner, lookback)

    def fits(
        self,
        composed: Composed,
        dataset: Dataset,
        folder: Path,
        seeds: Sequence[int],
        reports: "_Reports | None" = None,
    ) -> "TrialFits":
        """Every fold under every seed. folder: keeps finished ones."""
        learned = {name: composed.config.get(name) for name in ("transforms", "time_decay", "labels")}
        learned |= {"data": dataset.data_digest, "features": dataset.features.names}
        decides = learned | {name: composed.config.get(name) for name in ("model", "calibration")}
        fits = [
            OpenFit(composed.experiment, dataset, fold, seed, folder / f"fold_{fold}_seed_{seed}", decides)
            for fold in range(len(dataset.folds))
            for seed in seeds
        ]
        return TrialFits(
            fits, folder, n_epochs(composed.experiment), self.settings.stacked, reports, digest_json(learned)
        )

    def skills(self, results: Sequence[FitResult]) -> Array:
        """Skill [folds, seeds]; a failed fit counts as `failed_skill`."""
        flat = [self.settings.failed_skill if r.skill is None else r.skill for r in results]
        return np.array(flat).reshape(-1, len({r.seed for r in results}))

    def _score(self, results: Sequence[FitResult], began: float, reports: "_Reports") -> Score:
        skill_FS = self.skills(results)
        known = {"skill": float(skill_FS.mean())}
        if "stability" in self.settings.objectives:
            known["stability"] = stability(skill_FS)
        attributes = self._summary(results, began) | ({} if reports.are_compared else {CURVE: reports.curve})
        return Score(tuple(known[name] for name in self.settings.objectives), attributes)

    def _summary(self, results: Sequence[FitResult], began: float) -> Json:
        """Attributes stored with a trial; sums over the fits that ended."""
        is_complete = bool(results) and len(results) % len({r.seed for r in results}) == 0
        skill_FS = self.skills(results) if is_complete else None
        over_rate = [r.skill_over_base_rate for r in results if r.skill_over_base_rate is not None]
        over_folds, over_seeds = spreads(skill_FS) if skill_FS is not None else (None, None)
        return {
            "skills": None if skill_FS is None else skill_FS.tolist(),
            "block_gains": _block_gains(results) if is_complete else None,
            "mean_skill": None if skill_FS is None else float(skill_FS.mean()),
            "skill_over_base_rate": float(np.mean(over_rate)) if over_rate else None,
            "lower_bound": None if skill_FS is None else lower_bound(skill_FS, self.settings.confidence),
            "spread_folds": over_folds,
            "spread_seeds": over_seeds,
            "failed_share": sum(r.skill is None for r in results) / len(results) if results else None,
            "errors": sorted({r.error for r in results if r.error}),
            "fit_seconds": sum(r.seconds for r in results),
            "seconds": perf_counter() - began,
            "peak_mb": max((r.peak_mb for r in results), default=None),
            "n_parameters": max((r.n_parameters for r in results if r.n_parameters is not None), default=None),
            "checkpoints_used": sum(r.resumed for r in results),
        }

    def _record(self, composed: Composed, dataset: Dataset, folder: Path, results: Sequence[FitResult]) -> None:
        """Records this evaluation in the ledger, once, whichever of several attempts gets here."""
        ledger, run = TrialLedger(composed.config["paths"]["ledger"]), run_identity(folder, self.uuid)
        if any(
            row["purpose"] == PURPOSE and (row["run"], row["run_uuid"]) == (str(folder), self.uuid)
            for row in ledger.entries()
        ):
            return
        series = _losses(folder / "fits", results)
        tests = np.concatenate([np.asarray(fold.test) for fold in dataset.folds])
        times = dataset.samples.time[tests]
        entry = LedgerEntry(
            purpose=PURPOSE,
            subject=f"{self.study} {folder.name}",
            data_digest=dataset.data_digest,
            span_start=aware(times.min()),
            span_end=aware(times.max()),
            config_digest=config_digest(composed.config),
            run=run,
            measure=None if series is None else "loss",
        )
        ledger.append(entry, series)


class TrialFits:
    """The fits of a trial, one after another; `ahead` trains their nets before them.

    epochs: the most of one fit. reads: digest of its nets' training data. results: of the fits that ended.
    """

    def __init__(
        self,
        fits: Sequence[OpenFit],
        folder: Path,
        epochs: int,
        stacked: bool | None,
        reports: "_Reports | None",
        reads: str,
    ) -> None:
        self.fits, self.epochs, self.reports, self.reads = fits, epochs, reports, reads
        self.watches = [reports.of(k, epochs) if reports else _unwatched for k in range(len(fits))]
        self.ahead = FitsAhead(fits, folder / STACKS, stacked, self.watches[0])
        self.results: list[FitResult] = []

    @property
    def due(self) -> int:
        """Index of the next fit."""
        return len(self.results)

    @property
    def is_due(self) -> bool:
        """Whether a fit is left."""
        return self.due < len(self.fits)

    def run_next(self) -> None:
        """Runs the next fit. Raises optuna.TrialPruned where its report stops the trial."""
        result = self.fits[self.due].result(self.watches[self.due], self.ahead)
        if self.reports:
            self.reports.end(self.due, self.epochs, result)
        self.results.append(result)

    def run(self) -> list[FitResult]:
        """Runs all fits and returns their results."""
        while self.is_due:
            self.run_next()
        return self.results


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Turns tradsys' own ValueError into RefusedError, except CombinationError.

    A library's is a bug and passes. A damaged file is no fault of a combination, and passes as well.
    """
    try:
        yield
    except (SweepError, CombinationError, CheckpointError, DamagedError):
        raise
    except ValueError as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not frames or not Path(frames[-1].filename).is_relative_to(PACKAGE):
            raise
        raise RefusedError(str(error)) from error


def n_epochs(experiment: Experiment) -> int:
    """The most epochs of one fit; 1 for models without any."""
    return int(getattr(getattr(experiment.model, "trainer", None), "max_epochs", 1))


class _Reports:
    """Reports a trial's state to the pruner after each epoch: the mean over folds so far of the best skill.

    are_compared: whether a pruner or a sampler reads them while the trial runs, so that each is stored at once; else
    all of them are stored with the result. curve: step and value of all.
    """

    def __init__(self, runner: TrialRunner, trial: optuna.Trial) -> None:
        self.runner, self.trial = runner, trial
        self.silent = len(runner.settings.objectives) > 1
        self.are_compared = runner.settings.pruner != "none"
        self.ended: list[float] = []
        self.results: list[FitResult] = []
        self.values: dict[int, float] = {}

    @property
    def curve(self) -> list[list[float]]:
        """Step and value of every report, in order."""
        return [[step, value] for step, value in self.values.items()]

    def of(self, k: int, epochs: int) -> Callable[[int, float], None]:
        """The watch function of the k-th fit."""
        return lambda epoch, best: self._report(k * epochs + min(epoch, epochs - 1), [*self.ended, best])

    def end(self, k: int, epochs: int, result: FitResult) -> None:
        """Records the result of a finished fit for its trial.

        A net by its validation skill, another model by its skill, a failed fit as failed.
        """
        value = result.skill if result.valid_skill is None else result.valid_skill
        self.ended.append(self.runner.settings.failed_skill if value is None or result.skill is None else value)
        self._report((k + 1) * epochs - 1, self.ended)
        self.results.append(result)
        if self.runner.settings.pruner == "racing" and not self.silent:
            self._race()

    def _race(self) -> None:
        """Stops a trial after a fold in which it is clearly worse than the best finished one on the same folds."""
        n_seeds = len(self.runner.settings.seeds)
        if len(self.results) % n_seeds:
            return
        finished = self.runner.patience(
            lambda: self.trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        )
        tables = [attributes_of(trial).get("skills") for trial in finished]
        known = [np.asarray(table) for table in tables if table is not None]
        skill_FS = np.array(
            [self.runner.settings.failed_skill if r.skill is None else r.skill for r in self.results]
        ).reshape(-1, n_seeds)
        if not known or len(skill_FS) == len(known[0]):
            return  # no finished trial to compare with, or nothing left to save
        if out_of_race(skill_FS, max(known, key=np.mean), self.runner.settings.confidence):
            raise optuna.TrialPruned

    def _report(self, step: int, values: Sequence[float]) -> None:
        if self.silent or step in self.values:
            return
        value = self.values[step] = float(np.mean(values))
        if not self.are_compared:
            return
        self.runner.patience(lambda: self.trial.report(value, step))
        if self.runner.patience(self.trial.should_prune):
            raise optuna.TrialPruned


def _unwatched(epoch: int, skill: float) -> None:
    """Ignores the epoch: there is no watch."""


def _block_gains(results: Sequence[FitResult]) -> list[float] | None:
    """Gains over blocks of time, mean over seeds, fold after fold; None where a fit failed or stored none."""
    kept = [[r.block_gains for r in results if r.fold == fold] for fold in sorted({r.fold for r in results})]
    if any(gains is None for fold in kept for gains in fold):
        return None
    return [float(gain) for fold in kept for gain in np.mean(np.array(fold), axis=0)]


def _losses(folder: Path, results: Sequence[FitResult]) -> Array | None:
    """Log-loss of each inner test sample, mean over the seeds that did not fail, folds in order; None without any."""
    out = []
    for fold in sorted({r.fold for r in results}):
        known = [stored_losses(folder / f"fold_{fold}_seed_{r.seed}") for r in results if r.fold == fold]
        kept = [losses for losses in known if losses is not None]
        if kept:
            out.append(np.mean(kept, axis=0))
    series = np.concatenate(out) if out else None
    return series if series is not None and len(series) > 1 and bool(np.isfinite(series).all()) else None
