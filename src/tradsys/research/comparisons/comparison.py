"""Runs a comparison: every variant on every fold under every seed, one file per fit, then one paired table.

A fit's files are complete or absent, so an interrupted comparison loses only the fits under way. A net's fit loses
nothing: its checkpoints stay in the comparison's folder until the fit is done.
"""

import contextlib
import importlib
import logging
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
from filelock import FileLock, Timeout
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from tradsys.core.endings.stops import EndingWithCaller, deaf_to_interrupts, end_with_caller, held_back
from tradsys.core.errors import DataError, TradsysError
from tradsys.core.masking import masked_text
from tradsys.core.plain_data import Json
from tradsys.core.progress.bars import bar
from tradsys.core.received import read_json, refused_in_one_line
from tradsys.core.runs import code_sha, digest_json, link_latest, write_json, written_atomically
from tradsys.market.bars import bar_length, utc_series
from tradsys.market.parquet import read_parquet
from tradsys.reports.comparison.page import write_comparison
from tradsys.research.comparisons.aligned_datasets import Aligned, aligned_datasets
from tradsys.research.comparisons.settings import ComparisonSettings, Variant
from tradsys.research.comparisons.table import ComparisonTable, VariantFits, comparison_table, enter_trials
from tradsys.research.pipeline.cross_validation import FoldFit, PlannedFit, StackedFits, fits_per_stack, run_fit
from tradsys.research.pipeline.dataset import Dataset
from tradsys.research.pipeline.dataset_store import fold_spans, load_dataset, save_dataset
from tradsys.research.pipeline.provenance import config_text, logged_in
from tradsys.research.pipeline.requirements import check_part
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.single_thread import single_threads
from tradsys.research.pipeline.trial_ledger import check_ledger

LOG = logging.getLogger(__name__)
LARGE = ("pytorch_lightning",)  # training library of nets; loaded in the caller where a variant is one


@dataclass(frozen=True, eq=False)
class Job:
    """One fit to run: paths of its dataset, results and checkpoints."""

    variant: str
    experiment: Experiment
    fold: int
    seed: int
    dataset: Path
    target: Path
    workdir: Path
    about: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Unit:
    """Fits of one variant that one process runs, as one stack if several.

    stack: folder of that stack's checkpoint.
    """

    jobs: Sequence[Job]
    stack: Path
    stacked: bool | None


def compare_study(
    variants: Sequence[Variant], settings: ComparisonSettings, config: Mapping[str, Any], overrides: Sequence[str]
) -> ComparisonTable:
    """Runs the missing fits and writes the tables and the page; returns the table.

    The folder is runs/compare/<study>_<digest of the reference's samples and folds>, so that other seeds, other
    variants and other settings of one variant reuse the fits that stay the same. config: resolved, of the command line,
    whose overrides are saved next to it; its `paths` give the folders of runs and the ledger.
    """
    check_ledger(config["paths"]["ledger"], config["paths"]["runs"], writes=True)
    runs = Path(config["paths"]["runs"])
    aligned = aligned_datasets(
        {v.name: (v.experiment, v.config) for v in variants}, settings.splitter, settings.tested_symbols
    )
    _check_means(variants, aligned)
    for variant in variants:
        _check_fits(variant, aligned[variant.name].dataset)
    place = runs / "compare" / f"{settings.name}_{aligned[settings.reference].digest[:12]}"
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place), logged_in(place, config_text(dict(config)), overrides):
        for one in aligned.values():
            save_dataset(one.dataset, _dataset_folder(place, one))
        fitted = [v for v in variants if not v.mean_of]
        jobs = {v.name: _jobs(v, aligned[v.name], place) for v in fitted}
        _run([unit for each in jobs.values() for unit in _units(each, settings.stacked)], settings)
        fits = {v.name: _variant_fits(v, jobs[v.name], aligned) for v in fitted}
        done = {v.name: fits.get(v.name) or _mean_fits(v, fits, aligned) for v in variants}
        enter_trials(done, place, config)
        table = comparison_table(done, settings, config)
        table["folder"] = str(place)
        table["command"] = masked_text(shlex.join(["python", "-m", "tradsys.compare", *overrides]))
        write_comparison(table, place)
    link_latest(place)
    return table


def _check_fits(variant: Variant, dataset: Dataset) -> None:
    """Raises what any fit of the variant would raise about its training samples, with variant and fold."""
    for fold in range(len(dataset.folds)):
        try:
            check_part("model", variant.experiment.model, dataset.part(fold, "train"))
        except TradsysError as error:
            raise type(error)(f"compare: variant {variant.name!r}, fold {fold}: {error}") from error


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Locks the folder for one process: two would write each other's checkpoints."""
    lock = FileLock(place / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TradsysError(
            f"compare: another process works in {place}; one process may work there at a time; wait for it, "
            "or give it more study.n_jobs"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _dataset_folder(place: Path, aligned: Aligned) -> Path:
    return place / "datasets" / aligned.digest[:12]


def _jobs(variant: Variant, aligned: Aligned, place: Path) -> list[Job]:
    """The variant's fits, seed by seed."""
    digest = variant.digest(aligned.digest)
    about = {"variant": variant.name, "digest": digest, "panel": aligned.digest, "code_sha": code_sha()}
    name = f"{variant.name}_{digest[:8]}"
    return [
        Job(
            variant=variant.name,
            experiment=variant.experiment,
            fold=fold,
            seed=seed,
            dataset=_dataset_folder(place, aligned),
            target=place / "fits" / name / f"fold_{fold}_seed_{seed}.json",
            workdir=place / "work" / name / f"fold_{fold}_seed_{seed}",
            about=about,
        )
        for seed in variant.seeds
        for fold in range(len(aligned.dataset.folds))
    ]


def _units(jobs: Sequence[Job], stacked: bool | None) -> list[Unit]:
    """The missing fits of a variant, in units that depend on all of its fits, done or not."""
    todo = [job for job in jobs if not _is_done(job.target)]
    if not todo:
        return []
    try:
        size = fits_per_stack(_planned(todo[0], load_dataset(todo[0].dataset)), stacked, len(jobs))
    except TradsysError:  # the fit itself raises it, with variant, fold and seed
        size = 1
    units = [
        Unit(jobs[low : low + size], jobs[low].workdir.with_name(f"stack_{low}"), stacked)
        for low in range(0, len(jobs), size)
    ]
    return [unit for unit in units if not all(_is_done(job.target) for job in unit.jobs)]


def _planned(job: Job, dataset: Dataset) -> PlannedFit:
    return PlannedFit(job.experiment, dataset, job.fold, job.seed, job.workdir, _is_done(job.target))


def _is_done(target: Path) -> bool:
    # the JSON is written last
    return target.is_file() and target.with_suffix(".parquet").is_file()


def _run(todo: Sequence[Unit], settings: ComparisonSettings) -> None:
    # first seeds of all variants first, so that an interrupted comparison has results of every variant
    todo = sorted(todo, key=lambda unit: (unit.jobs[0].seed, unit.jobs[0].fold))
    total = sum(not _is_done(job.target) for unit in todo for job in unit.jobs)
    LOG.info("%d fits to go", total)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with single_threads(), bar(*columns) as shown:
        fits = shown.add_task("fits", total=total)
        for done in run_jobs(run_unit, todo, settings.n_jobs, settings.backend):
            shown.advance(fits, len(done))


def run_jobs(work: Callable[[Any], Any], todo: Sequence[Any], n_jobs: int, backend: str) -> Iterator[Any]:
    """Yields results as they finish, in any order; ray yields them at the end."""
    if backend == "sequential" or (n_jobs == 1 and backend != "ray") or not todo:
        yield from map(work, todo)
        return
    if backend == "ray":
        _register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=n_jobs):
            yield from joblib.Parallel()(joblib.delayed(work)(one) for one in todo)
        return
    loaded = tuple(name for name in LARGE if name in sys.modules)
    begun = {"initializer": _begin_worker, "initargs": (os.getpid(), loaded)} if backend == "loky" else {}
    parallel = joblib.Parallel(n_jobs, backend=backend, return_as="generator_unordered", batch_size=1, **begun)
    with warnings.catch_warnings():
        # loky replaces a worker whose memory has grown by 300 MB since its first job, with a warning; where warnings
        # are errors, that would end its managing thread and the comparison would wait forever
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        own = joblib.delayed(EndingWithCaller(work))
        with held_back():  # a terminal sends Ctrl-C to the workers as well, which would end with tracebacks
            results = parallel(own(one) for one in todo)
        yield from results


def _begin_worker(caller: int, modules: Sequence[str]) -> None:
    """Prepares a worker before its first job: watches its caller, and loads modules that would grow its memory later.

    The interrupt of a terminal is handled by the caller, which ends the worker.

    A worker that watched only after loading its first job would outlive a caller that ends meanwhile. One that loads
    torch after its first job has grown so much that loky replaces it.
    """
    deaf_to_interrupts()
    end_with_caller(caller)
    for name in modules:
        importlib.import_module(name)


def _register_ray() -> None:
    """Makes `ray` a backend of joblib; only then is ray imported."""
    try:
        importlib.import_module("ray.util.joblib").register_ray()
    except ModuleNotFoundError as error:
        raise TradsysError(
            f"compare: study.backend=ray needs the module {error.name}, which is not installed; "
            "pip install 'ray[default]', or use study.backend=loky"
        ) from error


def run_unit(unit: Unit) -> list[Path]:
    """Runs the unit's missing fits; returns their files."""
    dataset = load_dataset(unit.jobs[0].dataset)
    planned = [_planned(job, dataset) for job in unit.jobs]
    ahead = StackedFits(planned, unit.stack, stacked=unit.stacked if len(planned) > 1 else False)
    due = [(k, job) for k, job in enumerate(unit.jobs) if not planned[k].is_done]
    done = [run_job(job, planned[k], ahead.ready(k)) for k, job in due]
    shutil.rmtree(unit.stack, ignore_errors=True)
    return done


def run_job(job: Job, planned: PlannedFit, seconds: float) -> Path:
    """Runs one fit, writes its two files (the JSON last), drops checkpoints.

    seconds: that its nets took before, in a stack.
    """
    try:
        fit = run_fit(planned.experiment, planned.dataset, planned.fold, planned.seed, planned.workdir)
    except TradsysError as error:
        raise type(error)(f"compare: variant {job.variant!r}, fold {job.fold}, seed {job.seed}: {error}") from error
    fit = replace(fit, seconds=fit.seconds + seconds)
    with written_atomically(job.target.with_suffix(".parquet")) as draft:
        _fit_frame(fit).write_parquet(draft)
    kept = {name: getattr(fit, name) for name in ("seconds", "peak_mb", "n_parameters")}
    about = {**job.about, "fold": job.fold, "seed": job.seed, "base_rate": fit.base_rate_C.tolist()}
    write_json(job.target, about | kept)
    shutil.rmtree(job.workdir, ignore_errors=True)
    return job.target


def _fit_frame(fit: FoldFit) -> pl.DataFrame:
    shape = pl.Array(pl.Float64, fit.proba_NC.shape[1])
    proba = pl.Series("proba", np.ascontiguousarray(fit.proba_NC, dtype=np.float64), dtype=shape)
    return pl.DataFrame({"symbol": fit.symbol.astype(str), "time": fit.time, "y": fit.y, "proba": proba})


def read_fit(target: Path) -> tuple[FoldFit, Json]:
    """The fit that `run_job` wrote, and its JSON."""
    fix = "delete both of its files and run the same command again"
    about = read_json(target, fix, DataError)
    frame = read_parquet(target.with_suffix(".parquet"), fix, lists=True)
    with refused_in_one_line(f"compare: fit {target}", fix, DataError):
        fit = FoldFit(
            symbol=frame["symbol"].to_numpy(),
            time=frame["time"].to_numpy(),
            y=frame["y"].to_numpy(),
            proba_NC=frame["proba"].to_numpy(),
            base_rate_C=np.asarray(about["base_rate"]),
            seconds=about["seconds"],
            peak_mb=about["peak_mb"],
            n_parameters=about["n_parameters"],
        )
    return fit, about


def _horizon(variant: Variant, own: Aligned) -> np.timedelta64:
    """The label's horizon in time, by the measured length of the bars."""
    table = own.dataset.samples.table
    length = bar_length(pl.DataFrame({"symbol": table.symbol, "time": utc_series(table.time)}))
    return np.timedelta64(variant.experiment.labels.horizon_bars * length, "m")


def _variant_fits(variant: Variant, jobs: Sequence[Job], aligned: Mapping[str, Aligned]) -> VariantFits:
    own = aligned[variant.name]
    read = [read_fit(job.target) for job in jobs]
    n_folds = len(own.dataset.folds)
    return VariantFits(
        name=variant.name,
        seeds=variant.seeds,
        fits=[[fit for fit, _ in read[k : k + n_folds]] for k in range(0, len(read), n_folds)],
        code=sorted({about["code_sha"] for _, about in read}),
        digest=variant.digest(own.digest),
        data_digest=own.dataset.data_digest,
        data={**variant.experiment.data["source"].describe(), "digest": own.dataset.data_digest},
        horizon=_horizon(variant, own),
        fold_spans=fold_spans(own.dataset),
        against=variant.against,
        own_rows=own.question != aligned[variant.against or variant.name].question,
    )


def _mean_fits(variant: Variant, fits: Mapping[str, VariantFits], aligned: Mapping[str, Aligned]) -> VariantFits:
    """A variant that averages others: the mean of their calibrated probabilities, each first averaged over its seeds.

    The base rate is the first one's: the others may differ in training data, but not in test data.
    """
    sources = [fits[name] for name in variant.mean_of]
    means = [
        replace(
            of_fold[0][0],
            proba_NC=np.mean([np.mean([fit.proba_NC for fit in seeds], axis=0) for seeds in of_fold], axis=0),
            seconds=sum(fit.seconds for seeds in of_fold for fit in seeds),
            n_parameters=_total([fit.n_parameters for seeds in of_fold for fit in seeds]),
        )
        for of_fold in zip(*(zip(*source.fits, strict=True) for source in sources), strict=True)
    ]
    digests = [digest_json([source.digest, "mean over seeds", source.seeds]) for source in sources]
    return replace(
        sources[0],
        name=variant.name,
        seeds=(0,),
        fits=[means],
        code=sorted({code for source in sources for code in source.code}),
        digest=digests[0] if len(digests) == 1 else digest_json(["mean over variants", digests]),
        against=variant.against,
        own_rows=aligned[variant.name].question != aligned[variant.against or variant.name].question,
    )


def _total(counts: Sequence[int | None]) -> int | None:
    """The sum; None where every count is None."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _check_means(variants: Sequence[Variant], aligned: Mapping[str, Aligned]) -> None:
    """Raises before any fit where a mean is of variants that are tested on different rows."""
    for variant in variants:
        tasks = {name: aligned[name].question for name in variant.mean_of}
        if len(set(tasks.values())) > 1:
            first, other = variant.mean_of[0], next(n for n, q in tasks.items() if q != tasks[variant.mean_of[0]])
            raise TradsysError(
                f"compare: variant {variant.name!r} is the mean of {first!r} and {other!r}, which are different tasks "
                "(label, side, prices or decisions); a mean is of one task; set study.variants"
            )
