"""Samples and folds that the variants of a comparison share, on disk so that worker processes map one copy.

Variants whose labels, side and decisions are the same are evaluated on the same rows: one lookback for all of them,
and no row that the features of any of them lack. A variant that asks another question (another label, side or data
set) has rows of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.protocols import Splitter
from tradsys.core.runs import digest_json
from tradsys.core.tables import Array
from tradsys.research.pipeline.dataset import PARTS, Dataset, LabelledRows, check_symbols, label_rows, load_bars
from tradsys.research.pipeline.dataset_cache import DatasetCache
from tradsys.research.pipeline.dataset_store import dataset_digest, digest_arrays
from tradsys.research.pipeline.settings import Experiment


@dataclass(frozen=True, eq=False)
class Aligned:
    """A dataset, its digest, and the digest of the question that its rows ask (labels, decisions, bars)."""

    dataset: Dataset
    digest: str
    question: str


def aligned_datasets(
    variants: Mapping[str, tuple[Experiment, Mapping[str, object]]], splitter: Splitter
) -> dict[str, Aligned]:
    """One dataset for every variant; variants of one data set, feature set and question share the very same object.

    variants: the experiment and its resolved config, from which equal choices are recognised. The lookback is the
    longest of all variants. Raises DataError where a part of a fold holds one class only, with the variant and the
    fold.
    """
    lookback = max(experiment.model.lookback for experiment, _ in variants.values())
    chosen = {name: _choice(config) for name, (_, config) in variants.items()}
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
    questions = {key: _question(rows) for key, rows in sources.items()}
    ready: dict[str, Array] = {}
    for key, rows in sources.items():
        ready[questions[key]] = ready.get(questions[key], True) & rows.decidable
    aligned = {}
    for key, rows in sources.items():
        dataset = replace(rows, events=ready[questions[key]]).dataset(splitter)
        check_symbols(dataset.samples, of_choice[key].events, rows.events)
        aligned[key] = Aligned(dataset, dataset_digest(dataset), questions[key])
    for name, key in chosen.items():
        check_classes(name, aligned[key].dataset)
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


def _choice(config: Mapping[str, object]) -> str:
    """Digest of what decides table, labels and weights."""
    return digest_json({name: config[name] for name in ("data", "features", "labels", "events", "weighting")})


def _question(rows: LabelledRows) -> str:
    """Digest of bars, outcomes and decisions, whatever the features."""
    events = np.empty(0) if rows.events is None else rows.events
    return digest_json([rows.data_digest, digest_arrays(rows.labels.y, rows.labels.end, events)])
