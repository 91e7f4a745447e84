"""Samples and folds shared by the variants of a comparison, on disk so that worker processes map one copy.

Variants with the same labels, side and decisions are evaluated on the same rows: one lookback for all of them,
and no row where a feature of any of them is missing. A variant of another task (another label or side, other
prices) has rows of its own. Columns joined to the bars, and symbols that are not tested, only add training
data: they do not change the task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.protocols import Splitter
from tradsys.core.runs import digest_json
from tradsys.core.tables import Array
from tradsys.market.bars import COLUMNS, content_digest
from tradsys.research.pipeline.dataset import PARTS, Dataset, LabelledRows, check_symbols, label_rows, load_bars
from tradsys.research.pipeline.dataset_cache import DatasetCache
from tradsys.research.pipeline.dataset_store import dataset_digest, digest_arrays
from tradsys.research.pipeline.settings import Experiment


@dataclass(frozen=True, eq=False)
class Aligned:
    """A dataset, its digest, and the digest of its task (labels, decisions, bars)."""

    dataset: Dataset
    digest: str
    question: str


def aligned_datasets(
    variants: Mapping[str, tuple[Experiment, Mapping[str, object]]], splitter: Splitter, tested: Sequence[str] = ()
) -> dict[str, Aligned]:
    """One dataset for every variant.

    Variants with one data set, feature set and task share the same object. variants: the experiment and its resolved
    config, from which equal choices are recognised. The lookback is the longest of all variants. tested: symbols whose
    rows are tested, all where empty; a variant's other data are its own. Raises DataError where a part of a fold holds
    one class only, or where variants of one task would be tested on other rows, with the variant and the fold.
    """
    lookback = max(experiment.model.lookback for experiment, _ in variants.values())
    chosen = {name: _data_digest(config) for name, (_, config) in variants.items()}
    caches: dict[str, DatasetCache] = {}
    sources: dict[str, LabelledRows] = {}
    of_choice: dict[str, Experiment] = {}
    for name, (experiment, config) in variants.items():
        if chosen[name] not in sources:
            data = digest_json(config["data"])
            if data not in caches:
                caches[data] = DatasetCache(load_bars(experiment))
            cache = caches[data]
            of_choice[chosen[name]] = experiment
            sources[chosen[name]] = label_rows(experiment, cache.bars, splitter, lookback=lookback, cache=cache)
    shared = {key: _tested_rows(rows, tested) for key, rows in sources.items()}
    tasks = {key: _task_digest(rows, shared[key]) for key, rows in sources.items()}
    ready: dict[str, Array] = {}
    for key, rows in sources.items():
        ready[tasks[key]] = ready.get(tasks[key], True) & rows.decidable[shared[key]]
    aligned = {}
    for key, rows in sources.items():
        decided = rows.decidable.copy()
        decided[shared[key]] = ready[tasks[key]]
        dataset = replace(rows, events=decided).dataset(splitter)
        check_symbols(dataset.samples, of_choice[key].events, rows.events)
        aligned[key] = Aligned(dataset, dataset_digest(dataset), tasks[key])
    first: dict[str, str] = {}  # of each task, its first variant
    for name, key in chosen.items():
        check_classes(name, aligned[key].dataset)
        other = first.setdefault(tasks[key], name)
        _check_same_tests(name, aligned[key].dataset, other, aligned[chosen[other]].dataset)
    return {name: aligned[key] for name, key in chosen.items()}


def check_classes(variant: str, dataset: Dataset) -> None:
    """Raises DataError where a part of a fold holds fewer than two classes."""
    for k, fold in enumerate(dataset.folds):
        for part in PARTS:
            found = np.unique(dataset.samples.y[getattr(fold, part)])
            if len(found) < 2:
                raise DataError(
                    f"compare: variant {variant!r}, fold {k}: all {len(getattr(fold, part))} {part} samples are class "
                    f"{found.tolist()}; a fold needs two classes in every part; use fewer or longer folds, or other "
                    "barriers"
                )


def _check_same_tests(variant: str, own: Dataset, other: str, theirs: Dataset) -> None:
    """Raises DataError where a fold of two variants of one task tests different rows."""
    for k, (a, b) in enumerate(zip(own.folds, theirs.folds, strict=True)):
        mine, others = own.samples.take(a.test), theirs.samples.take(b.test)
        symbols, their_symbols = (one.table.symbols_of(one.rows) for one in (mine, others))
        if not (np.array_equal(mine.time, others.time) and np.array_equal(symbols, their_symbols)):
            raise DataError(
                f"compare: variants {variant!r} and {other!r} are tested on the same symbols, but fold {k} tests "
                f"{len(mine)} and {len(others)} samples: the decisions of further names move the cuts in time; decide "
                "at fixed hours (events=clock) and give the split valid_bars and test_bars"
            )


def _data_digest(config: Mapping[str, object]) -> str:
    """Digest of the settings that determine table, labels and weights."""
    return digest_json({name: config[name] for name in ("data", "features", "labels", "events", "weighting")})


def _tested_rows(rows: LabelledRows, tested: Sequence[str]) -> Array:
    """True [R] where a row is of a tested symbol."""
    return np.isin(np.asarray(rows.table.symbols), list(tested) or rows.table.symbols)[rows.table.symbol]


def _task_digest(rows: LabelledRows, shared: Array) -> str:
    """Digest of the shared rows' prices, outcomes and decisions, whatever the features and the other rows."""
    prices = content_digest(rows.bars.select(COLUMNS).filter(pl.Series(shared)))
    labels, table = rows.labels, rows.table
    resolved = np.where(labels.resolved, table.time[labels.end], np.datetime64("NaT"))
    events = np.empty(0) if rows.events is None else rows.events[shared]
    return digest_json([prices, digest_arrays(labels.y[shared], resolved[shared], events)])
