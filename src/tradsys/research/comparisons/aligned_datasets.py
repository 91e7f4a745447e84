"""Samples and folds that the arms of a comparison share, kept on disk so that worker processes map one copy.

Arms whose labels, side and decisions are the same are judged on the same rows: one lookback for all of them, and no
row that the features of any of them lack. An arm that asks another question (another label, side or data set) has
rows of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.protocols import Splitter
from tradsys.core.runs import digest_json
from tradsys.core.tables import Array, FeatureTable, Labels
from tradsys.features.feature_set import FeatureSet
from tradsys.market.bars import content_digest
from tradsys.research.pipeline.dataset import Panel, checked_folds, labels_of, learned_features, load_bars
from tradsys.research.pipeline.dataset_cache import PARTS, _digest, panel_digest
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.join import make_samples


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
