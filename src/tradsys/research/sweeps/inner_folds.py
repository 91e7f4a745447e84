"""Samples and inner folds of a sweep: built once, memory-mapped by every worker."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from tradsys.core.errors import DataError
from tradsys.core.protocols import Splitter
from tradsys.core.runs import digest_json
from tradsys.core.tables import Fold, Samples
from tradsys.research.pipeline.dataset import PARTS, Dataset, build_dataset, load_bars
from tradsys.research.pipeline.dataset_store import ABOUT, load_dataset, save_dataset
from tradsys.research.pipeline.provenance import code_digest
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.splits import folds_of

LOG = logging.getLogger(__name__)
# keys that determine samples and folds; trials that differ in others share the same files
DECIDING = ("data", "features", "labels", "events", "weighting", "split")


@dataclass(frozen=True)
class InnerFolds:
    """Folds of the outer split's training and validation samples alone.

    Its test samples are in no part of any.
    """

    outer: Splitter
    inner: Splitter

    def split(self, samples: Samples) -> Iterator[Fold]:
        """Positions into all samples, as any splitter returns them."""
        first = next(folds_of(self.outer, samples))
        kept = np.sort(np.concatenate([first.train, first.valid]))
        for fold in folds_of(self.inner, samples.take(kept)):
            yield Fold(train=kept[fold.train], valid=kept[fold.valid], test=kept[fold.test])


def dataset_key(config: Mapping[str, Any], inner: Splitter, lookback: int) -> str:
    """Name of the shared folder of a config's samples and folds.

    Configs of one name, under the same code, have the same ones. The code is that of tradsys and of registered
    packages: an edited label or feature never reads older files.
    """
    parts = {name: config.get(name) for name in DECIDING}
    inside = [ABOUT, code_digest(), parts, type(inner).__name__, sorted(vars(inner).items()), lookback]
    return digest_json(inside)[:16]


def shared_dataset(
    experiment: Experiment, config: Mapping[str, Any], inner: Splitter, folder: Path, lookback: int
) -> Dataset:
    """The dataset under `folder`/<key>, its arrays memory-mapped.

    Built by the first worker. lookback: rows of history that every sample must have, the longest of the space, so that
    all trials are evaluated on the same samples. Raises DataError where a fold lacks a part that fitting needs.
    """
    place = folder / dataset_key(config, inner, lookback)
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{place.name}.lock"):
            if not place.exists():
                LOG.info("building features, labels and folds in %s", place)
                splitter = InnerFolds(experiment.split, inner)
                dataset = build_dataset(experiment, load_bars(experiment), splitter, lookback=lookback)
                _check_parts(dataset)
                save_dataset(dataset, place)
    return load_dataset(place)


def _check_parts(dataset: Dataset) -> None:
    for k, fold in enumerate(dataset.folds):
        for name in PARTS:
            if not len(getattr(fold, name)):
                raise DataError(
                    f"sweep: inner fold {k} has no {name} samples; early stopping and calibration need validation; use "
                    "WalkForward, or PurgedKFold with valid_fraction above 0, in sweep.inner"
                )
