"""The copy of an experiment that an audit examines: its own objects, on few bars, with short fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array, FeatureTable, Fold, Labels, Samples
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.ensembles.compose import SeedAverage
from tradsys.models.ensembles.stacked import Stacked
from tradsys.models.regime import HmmRegime
from tradsys.models.training.pretraining import SelfSupervised
from tradsys.models.training.trainer import TrainerSettings
from tradsys.research.pipeline.bundle_export import export_bundle
from tradsys.research.pipeline.dataset import Prepared, labels_of, load_bars, prepare
from tradsys.research.pipeline.settings import Experiment, Timings
from tradsys.research.pipeline.training import Fitted, fit
from tradsys.samples.splits import Holdout
from tradsys.serving.bundle import Bundle

QUESTIONS = {
    "future": "the future does not matter",
    "past": "the distant past does not matter",
    "sealed": "the folds are sealed",
}
FUTURE, PAST, SEALED = QUESTIONS
CUT_FROM, CUT_TO = 0.45, 0.97  # of the clock: range of the checked moments


@dataclass(frozen=True)
class AuditSettings:
    """Size of the audited copy, and the parts and checks to run.

    n_rows: bars in all, the latest, of at most n_symbols symbols. n_samples: at most, in each part of the fold.
    n_cuts: moments t at which a part is checked.
    max_epochs, n_estimators, n_seeds, max_iter: of nets, of boosted trees, of the regime's starts and their EM.
    n_oof_folds: of the auditor's out-of-fold scores. train_fraction, valid_fraction: of the copy's one fold.
    parts, questions: which to check; None for all. Raises TradsysError out of range.
    """

    n_rows: int = 7200
    n_symbols: int = 3
    n_samples: int = 600
    n_cuts: int = 4
    max_epochs: int = 1
    n_estimators: int = 20
    n_seeds: int = 1
    max_iter: int = 20
    n_oof_folds: int = 2
    train_fraction: float = 0.5
    valid_fraction: float = 0.25
    seed: int = 0
    parts: Sequence[str] | None = None
    questions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        counts = (
            "n_rows",
            "n_symbols",
            "n_samples",
            "n_cuts",
            "max_epochs",
            "n_estimators",
            "n_seeds",
            "max_iter",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise TradsysError(f"audit: {name}={getattr(self, name)}; it counts from 1; set audit.{name}")
        if unknown := sorted(set(self.questions or ()) - set(QUESTIONS)):
            raise TradsysError(f"audit: unknown questions {unknown}; known are {list(QUESTIONS)}; name one of these")


@dataclass(eq=False)
class AuditSubject:
    """Inputs of the checks, each computed on first use.

    experiment: as composed. folder: takes checkpoints and bundles. config: the resolved config, for the card.
    trained_on, states, aucs: results of fits, so that no check repeats the fit of another.
    """

    experiment: Experiment
    settings: AuditSettings
    folder: Path
    config: Mapping[str, Any]
    trained_on: list[Samples] = field(default_factory=list)
    states: dict[str, dict[str, dict[str, Array]]] = field(default_factory=dict)
    aucs: dict[int, dict[str, float]] = field(default_factory=dict)

    @cached_property
    def all_bars(self) -> pl.DataFrame:
        """All bars of the experiment's source, with segments."""
        return load_bars(self.experiment)

    @cached_property
    def bars(self) -> pl.DataFrame:
        """The latest bars of few symbols, the market's among them."""
        chosen, market = self.settings, self.experiment.data.get("market_symbol")
        symbols = sorted(self.all_bars["symbol"].unique(), key=lambda s: (s != market, s))[: chosen.n_symbols]
        kept = self.all_bars.filter(pl.col("symbol").is_in(symbols))
        each = chosen.n_rows // len(symbols)
        return kept.group_by("symbol", maintain_order=True).tail(each).select(self.all_bars.columns)

    @cached_property
    def small(self) -> Experiment:
        """The experiment with short fits and one fold by fractions; nothing else differs."""
        e, s = self.experiment, self.settings
        evaluation = replace(
            e.evaluation,
            n_oof_folds=s.n_oof_folds,
            candidate_quantile=min(e.evaluation.candidate_quantile, 0.1),
        )
        split = Holdout(
            train_fraction=s.train_fraction,
            valid_fraction=s.valid_fraction,
            embargo_bars=getattr(e.split, "embargo_bars", 0),
        )
        return replace(
            e,
            split=split,
            evaluation=evaluation,
            model=_shortened(e.model, s),
            baselines={name: _shortened(model, s) for name, model in e.baselines.items()},
            regime=_shortened(e.regime, s),
            auditor=_shortened(e.auditor, s),
        )

    @cached_property
    def prepared(self) -> Prepared:
        """Features, labels, samples and the fold of the copy, its parts thinned evenly."""
        prepared, n = prepare(self.small, self.bars), self.settings.n_samples
        fold = Fold(*(_thinned(getattr(prepared.fold, part), n) for part in ("train", "valid", "test")))
        return replace(prepared, fold=fold)

    @cached_property
    def labels(self) -> Labels:
        """Outcomes of the copy's bars."""
        return labels_of(self.small, self.bars)

    @property
    def table(self) -> FeatureTable:
        """The copy's features."""
        return self.prepared.table

    @cached_property
    def fitted(self) -> Fitted:
        """Every part fitted; `trained_on` then holds the auditor's training samples."""
        return self.fit_again(self.small, self.prepared, "fitted", self.trained_on)

    @cached_property
    def bundle(self) -> Bundle:
        """The fitted copy, exported and loaded."""
        return self.export(self.prepared, self.fitted, "fitted")

    def export(self, prepared: Prepared, fitted: Fitted, name: str) -> Bundle:
        """A bundle of these parts in a folder of that name."""
        return export_bundle(self.small, prepared, fitted, self.folder / name / "bundle", dict(self.config))

    def fit_again(
        self, experiment: Experiment, prepared: Prepared, name: str, trained_on: list[Samples] | None = None
    ) -> Fitted:
        """All parts fitted by the package's own `fit`.

        `trained_on` receives the auditor's training samples.
        """
        listener = None if experiment.auditor is None else Listener(experiment.auditor, [])
        fitted = fit(replace(experiment, auditor=listener), prepared, self.folder / name, Timings())  # type: ignore[arg-type]
        if listener is None:
            return fitted
        if trained_on is not None:
            trained_on.extend(listener.trained_on)
        return replace(fitted, auditor=fitted.auditor.auditor)  # type: ignore[union-attr]

    @property
    def clock(self) -> list[datetime]:
        """Distinct closes of the copy, rising."""
        return self.bars["time"].unique().sort().to_list()

    def cuts(self, n_cuts: int | None = None) -> list[datetime]:
        """Moments to check, spread over the later part of the clock.

        Evenly, each moved a little by the seed.
        """
        n, clock = n_cuts or self.settings.n_cuts, self.clock
        edges = np.linspace(CUT_FROM * len(clock), CUT_TO * len(clock), n + 1)
        rng = np.random.default_rng(self.settings.seed)
        at = edges[:-1] + rng.random(n) * np.diff(edges)
        return [clock[int(i)] for i in at]

    def rng(self) -> np.random.Generator:
        """A generator with the same draws for every check."""
        return np.random.default_rng([self.settings.seed, 1])

    def label(self, bars: pl.DataFrame) -> Labels:
        """The experiment's labels of these bars."""
        return labels_of(self.experiment, bars)


@dataclass(frozen=True, eq=False)
class Listener:
    """An auditor that records its training samples.

    Everything else is passed on to the auditor that it wraps.
    """

    auditor: Any
    trained_on: list[Samples]

    def fit(self, train: Samples, valid: Samples) -> "Listener":
        """Records `train` and fits the auditor inside."""
        self.trained_on.append(train)
        return replace(self, auditor=self.auditor.fit(train, valid))

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Probabilities of the auditor inside."""
        return self.auditor.predict_proba(table, rows)


def aware_key(table: FeatureTable, row: int) -> str:
    """Symbol and time of a row, as text."""
    return f"{table.symbols[table.symbol[row]]} {np.datetime_as_string(table.time[row], unit='m')}"


def _thinned(positions: Array, n: int) -> Array:
    """At most n of them, evenly spread."""
    return positions[np.unique(np.linspace(0, len(positions) - 1, n).astype(int))] if len(positions) > n else positions


def _shortened(part: Any, s: AuditSettings) -> Any:
    """A copy with few epochs, trees and starts and two seeds of an average, at any depth inside the part."""
    if isinstance(part, list | tuple | dict):
        if not isinstance(part, dict):
            return type(part)(_shortened(p, s) for p in part)
        part = {name: _shortened(p, s) for name, p in part.items()}
    if not is_dataclass(part) or isinstance(part, type):
        return part
    if isinstance(part, TrainerSettings):
        return replace(part, max_epochs=min(part.max_epochs, s.max_epochs), progress_bar=False, loggers=())
    if isinstance(part, LightGbm | Xgboost):
        return replace(part, n_estimators=min(part.n_estimators, s.n_estimators))
    if isinstance(part, HmmRegime):
        return replace(part, n_seeds=min(part.n_seeds, s.n_seeds), max_iter=min(part.max_iter, s.max_iter))
    inner = {f.name: getattr(part, f.name) for f in fields(part) if f.init}
    if isinstance(part, SelfSupervised):
        inner["epochs"] = min(part.epochs, s.max_epochs)
    if isinstance(part, SeedAverage):
        inner["n_seeds"] = min(part.n_seeds, 2)
    if isinstance(part, Stacked):
        inner["n_folds"] = min(part.n_folds, s.n_oof_folds)
    return replace(part, **{name: _shortened(value, s) for name, value in inner.items()})
