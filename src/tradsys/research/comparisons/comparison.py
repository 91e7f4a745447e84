"""Arms side by side: every arm on every fold under every seed, each cell a file, then one paired table.

A cell is whole or absent, so an interrupted comparison loses the cells in hand and nothing else, and of a net's fit
not even those: its checkpoints lie in the comparison's folder until the cell is done.
"""

import contextlib
import importlib
import json
import logging
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import yaml
from filelock import FileLock, Timeout
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from tradsys.core.errors import TradsysError
from tradsys.core.masking import masked
from tradsys.core.progress.bars import bar
from tradsys.core.runs import code_sha, digest_json, link_latest, write_json, written_atomically
from tradsys.market.bars import bar_length, utc_series
from tradsys.reports.comparison.page import write_comparison
from tradsys.research.comparisons.aligned_datasets import Aligned, aligned_datasets
from tradsys.research.comparisons.settings import Arm, ComparisonSettings
from tradsys.research.comparisons.table import ArmCells, comparison_table, enter_looks
from tradsys.research.pipeline.cross_validation import Cell, run_cell
from tradsys.research.pipeline.dataset_store import fold_spans, load_dataset, save_dataset
from tradsys.research.pipeline.provenance import logged_in
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.single_thread import single_threads
from tradsys.research.pipeline.trial_ledger import check_ledger

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Job:
    """One cell to run: where its dataset lies, where its two files go, where a net keeps checkpoints meanwhile."""

    arm: str
    experiment: Experiment
    fold: int
    seed: int
    dataset: Path
    target: Path
    workdir: Path
    about: Mapping[str, Any]


def compare_study(
    arms: Sequence[Arm], settings: ComparisonSettings, config: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """Runs every cell that is not there yet and writes table.json, table.md and report.html; returns the table.

    The folder is runs/compare/<study>_<digest of the reference's samples and folds>, so that other seeds, other arms
    and other settings of one arm find the cells that stay the same. config: resolved, of the command line, whose
    overrides are kept beside it; its `paths` say where runs and the ledger lie.
    """
    check_ledger(config["paths"]["ledger"], config["paths"]["runs"])
    runs = Path(config["paths"]["runs"])
    judged = aligned_datasets({arm.name: (arm.experiment, arm.config) for arm in arms}, settings.splitter)
    place = runs / "compare" / f"{settings.name}_{judged[settings.reference].digest[:12]}"
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place), logged_in(place, yaml.safe_dump(masked(dict(config)), sort_keys=False), overrides):
        for one in judged.values():
            save_dataset(one.dataset, _dataset_folder(place, one))
        jobs = {arm.name: _jobs(arm, judged[arm.name], place) for arm in arms if arm.mean_of is None}
        _run([job for job in _in_turn(jobs.values()) if not _is_done(job.target)], settings, jobs)
        fits = {arm.name: _arm_cells(arm, jobs[arm.name], judged) for arm in arms if arm.mean_of is None}
        done = {arm.name: fits[arm.name] if arm.mean_of is None else _mean_cells(arm, fits, judged) for arm in arms}
        enter_looks(done, place, config)
        table = comparison_table(done, settings, config) | {
            "folder": str(place),
            "command": shlex.join(["python", "-m", "tradsys.compare", *overrides]),
        }
        write_comparison(table, place)
    link_latest(place)
    return table


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process at a time per folder: two would write each other's checkpoints."""
    lock = FileLock(place / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TradsysError(
            f"compare: another process works in {place}; one at a time; wait for it, or give it more study.n_jobs"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _dataset_folder(place: Path, judged: Aligned) -> Path:
    return place / "datasets" / judged.digest[:12]


def _jobs(arm: Arm, judged: Aligned, place: Path) -> list[Job]:
    """The arm's cells, seed by seed."""
    digest = arm.digest(judged.digest)
    about = {"arm": arm.name, "digest": digest, "panel": judged.digest, "code_sha": code_sha()}
    name = f"{arm.name}_{digest[:8]}"
    return [
        Job(
            arm=arm.name,
            experiment=arm.experiment,
            fold=fold,
            seed=seed,
            dataset=_dataset_folder(place, judged),
            target=place / "cells" / name / f"fold_{fold}_seed_{seed}.json",
            workdir=place / "work" / name / f"fold_{fold}_seed_{seed}",
            about=about,
        )
        for seed in arm.seeds
        for fold in range(len(judged.dataset.folds))
    ]


def _in_turn(lists: Iterable[list[Job]]) -> list[Job]:
    """First seeds of all arms first, so that an interrupted comparison has touched every arm."""
    every = [job for jobs in lists for job in jobs]
    return sorted(every, key=lambda job: (job.seed, job.fold))


def _is_done(target: Path) -> bool:
    # the JSON is written last
    return target.is_file() and target.with_suffix(".parquet").is_file()


def _run(todo: Sequence[Job], settings: ComparisonSettings, jobs: Mapping[str, Sequence[Job]]) -> None:
    total = sum(map(len, jobs.values()))
    LOG.info("%d of %d cells to go: %d arms", len(todo), total, len(jobs))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with single_threads(), bar(*columns) as shown:
        fits = shown.add_task("cells", total=total, completed=total - len(todo))
        for _ in run_jobs(run_job, todo, settings.n_jobs, settings.backend):
            shown.advance(fits)


def run_jobs(work: Callable[[Any], Any], todo: Sequence[Any], n_jobs: int, backend: str) -> Iterator[Any]:
    """Results as they finish, in any order; ray hands them over all at once. One job runs in this process."""
    if backend == "sequential" or (n_jobs == 1 and backend != "ray") or not todo:
        yield from map(work, todo)
        return
    if backend == "ray":
        _register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=n_jobs):
            yield from joblib.Parallel()(joblib.delayed(work)(one) for one in todo)
        return
    parallel = joblib.Parallel(n_jobs, backend=backend, return_as="generator_unordered", batch_size=1)
    with warnings.catch_warnings():
        # loky replaces a worker whose memory has grown by 300 MB, as loading torch alone does, and says so; where
        # warnings are errors, that would end its managing thread and the comparison would wait for ever
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        yield from parallel(joblib.delayed(work)(one) for one in todo)


def _register_ray() -> None:
    """Makes `ray` a backend of joblib; only then is ray looked for."""
    try:
        importlib.import_module("ray.util.joblib").register_ray()
    except ModuleNotFoundError as error:
        raise TradsysError(
            f"compare: study.backend=ray needs the module {error.name}, which is not installed; "
            "pip install 'ray[default]', or use study.backend=loky"
        ) from error


def run_job(job: Job) -> Path:
    """Runs one cell and writes its two files whole, the JSON last; then its checkpoints are thrown away."""
    try:
        cell = run_cell(job.experiment, load_dataset(job.dataset), job.fold, job.seed, job.workdir)
    except TradsysError as error:
        raise type(error)(f"compare: arm {job.arm!r}, fold {job.fold}, seed {job.seed}: {error}") from error
    with written_atomically(job.target.with_suffix(".parquet")) as draft:
        _fit_frame(cell).write_parquet(draft)
    kept = {name: getattr(cell, name) for name in ("seconds", "peak_mb", "n_parameters")}
    about = {**job.about, "fold": job.fold, "seed": job.seed, "base_rate": cell.base_rate_C.tolist()}
    write_json(job.target, about | kept)
    shutil.rmtree(job.workdir, ignore_errors=True)
    return job.target


def _fit_frame(cell: Cell) -> pl.DataFrame:
    shape = pl.Array(pl.Float64, cell.proba_NC.shape[1])
    proba = pl.Series("proba", np.ascontiguousarray(cell.proba_NC, dtype=np.float64), dtype=shape)
    return pl.DataFrame({"symbol": cell.symbol.astype(str), "time": cell.time, "y": cell.y, "proba": proba})


def read_cell(target: Path) -> tuple[Cell, dict[str, Any]]:
    """The cell that `run_job` wrote, and what its JSON says of it."""
    about = json.loads(target.read_text(encoding="utf-8"))
    frame = pl.read_parquet(target.with_suffix(".parquet"))
    cell = Cell(
        symbol=frame["symbol"].to_numpy(),
        time=frame["time"].to_numpy(),
        y=frame["y"].to_numpy(),
        proba_NC=frame["proba"].to_numpy(),
        base_rate_C=np.asarray(about["base_rate"]),
        seconds=about["seconds"],
        peak_mb=about["peak_mb"],
        n_parameters=about["n_parameters"],
    )
    return cell, about


def _horizon(arm: Arm, own: Aligned) -> np.timedelta64:
    """The label's horizon in time, by the measured length of the bars."""
    table = own.dataset.samples.table
    length = bar_length(pl.DataFrame({"symbol": table.symbol, "time": utc_series(table.time)}))
    return np.timedelta64(arm.experiment.labels.horizon_bars * length, "m")


def _arm_cells(arm: Arm, jobs: Sequence[Job], judged: Mapping[str, Aligned]) -> ArmCells:
    own = judged[arm.name]
    read = [read_cell(job.target) for job in jobs]
    n_folds = len(own.dataset.folds)
    return ArmCells(
        name=arm.name,
        seeds=arm.seeds,
        cells=[[cell for cell, _ in read[k : k + n_folds]] for k in range(0, len(read), n_folds)],
        code=sorted({about["code_sha"] for _, about in read}),
        digest=arm.digest(own.digest),
        data_digest=own.dataset.data_digest,
        data={**arm.experiment.data["source"].describe(), "digest": own.dataset.data_digest},
        horizon=_horizon(arm, own),
        fold_spans=fold_spans(own.dataset),
        against=arm.against,
        own_rows=own.question != judged[arm.against or arm.name].question,
    )


def _mean_cells(arm: Arm, fits: Mapping[str, ArmCells], judged: Mapping[str, Aligned]) -> ArmCells:
    """The arm as one forecast: the mean over another arm's seeds of their calibrated probabilities."""
    assert arm.mean_of is not None
    source = fits[arm.mean_of]
    cells = [
        replace(
            folds[0],
            proba_NC=np.mean([cell.proba_NC for cell in folds], axis=0),
            seconds=sum(cell.seconds for cell in folds),
            n_parameters=None if folds[0].n_parameters is None else sum(cell.n_parameters or 0 for cell in folds),
        )
        for folds in zip(*source.cells, strict=True)
    ]
    return replace(
        source,
        name=arm.name,
        seeds=(0,),
        cells=[cells],
        digest=digest_json([source.digest, "mean over seeds", source.seeds]),
        against=arm.against,
        own_rows=judged[arm.name].question != judged[arm.against or arm.name].question,
    )
