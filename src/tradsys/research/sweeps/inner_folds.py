"""Samples and inner folds of a sweep: built once, memory-mapped by every worker."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from tradsys.core.errors import DataError
from tradsys.core.protocols import Splitter
from tradsys.core.runs import digest_json, write_json, written_atomically
from tradsys.core.tables import FeatureTable, Fold, Samples
from tradsys.market.bars import content_digest
from tradsys.research.pipeline.dataset import Panel, checked_folds, labels_of, learned_features, load_bars
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.join import make_samples

LOG = logging.getLogger(__name__)
# what decides samples and folds; whatever else a trial changes, it reads the same files
DECIDING = ("data", "features", "labels", "events", "weighting", "split")
TABLE, SAMPLES, PARTS = (
    ("symbol", "time", "segment", "values"),
    ("rows", "y", "weight", "start", "end", "ret"),
    (
        "train",
        "valid",
        "test",
    ),
)


@dataclass(frozen=True)
class InnerFolds:
    """Folds of the outer split's training and validation samples alone; its test samples are in no part of any."""

    outer: Splitter
    inner: Splitter

    def split(self, samples: Samples) -> Iterator[Fold]:
        """Positions into all samples, as any splitter gives them."""
        first = next(iter(self.outer.split(samples)))
        kept = np.sort(np.concatenate([first.train, first.valid]))
        for fold in self.inner.split(samples.take(kept)):
            yield Fold(train=kept[fold.train], valid=kept[fold.valid], test=kept[fold.test])


def panel_digest(config: Mapping[str, Any], inner: Splitter, lookback: int) -> str:
    """Name of the shared folder: two configs with the same one have the same samples and folds."""
    parts = {name: config.get(name) for name in DECIDING}
    return digest_json([parts, type(inner).__name__, sorted(vars(inner).items()), lookback])[:16]


def shared_panel(
    experiment: Experiment, config: Mapping[str, Any], inner: Splitter, folder: Path, lookback: int
) -> Panel:
    """The panel under `folder`/<digest>, built by whoever comes first, its arrays memory-mapped and read-only.

    lookback: rows of history that every sample must have, the longest of the space, so that all trials are judged on
    the same samples. Raises DataError where a fold lacks a part that fitting needs.
    """
    place = folder / panel_digest(config, inner, lookback)
    done = place / "panel.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{place.name}.lock"):
            if not done.exists():
                LOG.info("building features, labels and folds in %s", place)
                panel = _built(experiment, InnerFolds(experiment.split, inner), lookback)
                _check_parts(panel)
                with written_atomically(place) as draft:
                    _write(panel, draft)
    return _read(place, experiment)


def _built(experiment: Experiment, splitter: Splitter, lookback: int) -> Panel:
    bars = load_bars(experiment)
    labels = labels_of(experiment, bars)
    events = experiment.events.mask(bars) if experiment.events else None
    features = learned_features(experiment, bars, labels, events, splitter, lookback)
    samples = make_samples(
        features.table(bars), labels, lookback=lookback, events=events, weighting=experiment.weighting
    )
    return Panel(content_digest(bars), features, samples, checked_folds(samples, splitter))


def _check_parts(panel: Panel) -> None:
    for k, fold in enumerate(panel.folds):
        for name in PARTS:
            if not len(getattr(fold, name)):
                raise DataError(
                    f"sweep: inner fold {k} has no {name} samples; early stopping and calibration need validation; use "
                    "WalkForward, or PurgedKFold with valid_fraction above 0, in sweep.inner"
                )


def _write(panel: Panel, folder: Path) -> None:
    folder.mkdir(parents=True)
    samples = panel.samples
    for name in TABLE:
        np.save(folder / f"table_{name}.npy", getattr(samples.table, name), allow_pickle=False)
    for name in SAMPLES:
        np.save(folder / f"{name}.npy", getattr(samples, name), allow_pickle=False)
    for k, fold in enumerate(panel.folds):
        for name in PARTS:
            np.save(folder / f"fold_{k}_{name}.npy", getattr(fold, name), allow_pickle=False)
    about = {"names": samples.table.names, "symbols": samples.table.symbols, "n_folds": len(panel.folds)}
    write_json(folder / "panel.json", about | {"data_digest": panel.data_digest})


def _read(folder: Path, experiment: Experiment) -> Panel:
    about = json.loads((folder / "panel.json").read_text(encoding="utf-8"))

    def mapped(name: str) -> Any:
        return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    table = FeatureTable(
        **{name: mapped(f"table_{name}") for name in TABLE},
        names=tuple(about["names"]),
        symbols=tuple(about["symbols"]),
    )
    samples = Samples(table=table, **{name: mapped(name) for name in SAMPLES})
    folds = [Fold(**{name: mapped(f"fold_{k}_{name}") for name in PARTS}) for k in range(about["n_folds"])]
    return Panel(about["data_digest"], experiment.features, samples, tuple(folds))
