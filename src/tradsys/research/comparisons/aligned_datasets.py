"""Samples and folds that the arms of a comparison share, kept on disk so that worker processes map one copy.

Arms whose labels, side and decisions are the same are judged on the same rows: one lookback for all of them, and no
row that the features of any of them lack. An arm that asks another question (another label, side or data set) has
rows of its own.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.protocols import Splitter
from tradsys.core.runs import digest_json, write_json, written_whole
from tradsys.core.tables import Array, FeatureTable, Fold, Labels, Samples
from tradsys.features.feature_set import FeatureSet
from tradsys.market.bars import content_digest
from tradsys.research.pipeline.cross_validation import Panel, checked_folds
from tradsys.research.pipeline.dataset import labels_of, learned_features, load_bars
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.join import make_samples

PARTS = ("train", "valid", "test")
COLUMNS = ("symbol", "time", "segment")
OF_SAMPLES = ("rows", "y", "weight", "start", "end", "ret")


@dataclass(frozen=True, eq=False)
class Judged:
    """A panel, its digest, and the digest of the question that its rows ask (labels, decisions, bars)."""

    panel: Panel
    digest: str
    question: str


@dataclass(frozen=True, eq=False)
class _Source:
    """What one choice of data, features, labels, events and weighting gives before arms agree on rows."""

    data_digest: str
    features: FeatureSet
    table: FeatureTable
    labels: Labels
    events: Array | None
    weighting: str
    question: str


def judged_panels(arms: Mapping[str, tuple[Experiment, Mapping[str, object]]], splitter: Splitter) -> dict[str, Judged]:
    """One panel for every arm; arms of one data set, feature set and question share the very same object.

    arms: the experiment and its resolved config, from which equal choices are told. The lookback is the longest of
    all arms. Raises DataError where a part of a fold holds one class only, with the arm and the fold.
    """
    lookback = max(experiment.model.lookback for experiment, _ in arms.values())
    chosen = {name: _choice(config) for name, (_, config) in arms.items()}
    bars: dict[str, pl.DataFrame] = {}
    sources: dict[str, _Source] = {}
    for name, (experiment, config) in arms.items():
        if chosen[name] not in sources:
            data = digest_json(config["data"])
            if data not in bars:
                bars[data] = load_bars(experiment)
            sources[chosen[name]] = _source(experiment, bars[data], splitter, lookback)
    ready: dict[str, Array] = {}
    for source in sources.values():
        ready[source.question] = ready.get(source.question, True) & source.table.ready(lookback)
    panels = {key: _judged(source, ready[source.question], splitter, lookback) for key, source in sources.items()}
    judged = {name: panels[key] for name, key in chosen.items()}
    for name, one in judged.items():
        check_classes(name, one.panel)
    return judged


def check_classes(arm: str, panel: Panel) -> None:
    """Raises DataError where a part of a fold holds fewer than two classes."""
    for k, fold in enumerate(panel.folds):
        for part in PARTS:
            found = np.unique(panel.samples.y[getattr(fold, part)])
            if len(found) < 2:
                raise DataError(
                    f"compare: arm {arm!r}, fold {k}: all {len(getattr(fold, part))} {part} samples are class "
                    f"{found.tolist()}; a fold needs two classes in every part; use fewer or longer folds, or other "
                    "barriers"
                )


def _choice(config: Mapping[str, object]) -> str:
    """Digest of what decides table, labels and weights."""
    return digest_json({name: config[name] for name in ("data", "features", "labels", "events", "weighting")})


def _source(experiment: Experiment, bars: pl.DataFrame, splitter: Splitter, lookback: int) -> _Source:
    labels = labels_of(experiment, bars)
    events = experiment.events.mask(bars) if experiment.events else None
    features = learned_features(experiment, bars, labels, events, splitter, lookback)
    data_digest = content_digest(bars)
    asked = [data_digest, _digest(labels.y, labels.end, np.empty(0) if events is None else events)]
    table = features.table(bars)
    return _Source(data_digest, features, table, labels, events, experiment.weighting, digest_json(asked))


def _judged(source: _Source, ready: Array, splitter: Splitter, lookback: int) -> Judged:
    rows = ready if source.events is None else ready & source.events
    samples = make_samples(source.table, source.labels, lookback=lookback, events=rows, weighting=source.weighting)
    panel = Panel(source.data_digest, source.features, samples, checked_folds(samples, splitter))
    return Judged(panel, panel_digest(panel), source.question)


def panel_digest(panel: Panel) -> str:
    """Digest of all numbers of a panel that a fit or its judgement can see."""
    table, samples = panel.samples.table, panel.samples
    arrays = [getattr(table, name) for name in COLUMNS] + [getattr(samples, name) for name in OF_SAMPLES]
    folds = [getattr(fold, part) for fold in panel.folds for part in PARTS]
    return digest_json([table.names, table.symbols, len(panel.folds), _digest(table.values, *arrays, *folds)])


def _digest(*arrays: Array) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(repr((array.shape, array.dtype.str)).encode())
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def save_panel(panel: Panel, folder: Path) -> None:
    """Writes the panel whole into `folder`, which `load_panel` maps into memory; nothing where it stands already."""
    if folder.is_dir():
        return
    samples = panel.samples
    arrays = {name: getattr(samples.table, name) for name in COLUMNS} | {n: getattr(samples, n) for n in OF_SAMPLES}
    arrays |= {f"{part}_{k}": getattr(fold, part) for k, fold in enumerate(panel.folds) for part in PARTS}
    with written_whole(folder) as draft:
        draft.mkdir()
        np.save(draft / "values.npy", samples.table.values)
        np.savez(draft / "arrays.npz", allow_pickle=False, **arrays)
        about = {"names": samples.table.names, "symbols": samples.table.symbols, "n_folds": len(panel.folds)}
        write_json(
            draft / "about.json", about | {"data_digest": panel.data_digest, "features": panel.features.to_json()}
        )


@lru_cache(maxsize=2)
def load_panel(folder: Path) -> Panel:
    """The panel that `save_panel` wrote. Its values are pages of the file, shared by all processes that map it.

    Copy on write: a model that scales in place changes pages of its own process, never the file.
    """
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    with np.load(folder / "arrays.npz") as kept:
        arrays = {name: kept[name] for name in kept.files}
    table = FeatureTable(
        values=np.asarray(np.load(folder / "values.npy", mmap_mode="c")),
        names=tuple(about["names"]),
        symbols=tuple(about["symbols"]),
        **{name: arrays[name] for name in COLUMNS},
    )
    folds = tuple(_fold(arrays, k) for k in range(about["n_folds"]))
    samples = Samples(table=table, **{name: arrays[name] for name in OF_SAMPLES})
    return Panel(about["data_digest"], FeatureSet.from_json(about["features"]), samples, folds)


def _fold(arrays: Mapping[str, Array], k: int) -> Fold:
    return Fold(**{part: arrays[f"{part}_{k}"] for part in PARTS})


def fold_spans(panel: Panel) -> Sequence[tuple[np.datetime64, np.datetime64]]:
    """First and last test decision of every fold."""
    times = [panel.samples.time[fold.test] for fold in panel.folds]
    return [(time.min(), time.max()) for time in times]
