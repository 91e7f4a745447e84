"""Checks of folds that need no refit: whether folds are separate, and features are fitted early enough."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import numpy as np
import polars as pl

from tradsys.core.clock import utc64
from tradsys.core.tables import Fold, Samples
from tradsys.evidence.controls.causality import Finding, covered, touching
from tradsys.market.bars import span
from tradsys.research.leakage.lookahead import Outcome
from tradsys.research.leakage.subject import SEALED, AuditSubject, aware_key
from tradsys.research.pipeline import dataset
from tradsys.samples.splits import Holdout, PurgedKFold, WalkForward, folds_of, span_bars


def split_spans(s: AuditSubject) -> Outcome:
    """Checks the span of every fold, and of the auditor's scores.

    Folds of the complete data; the scores are out of fold.
    """
    e, bars = s.experiment, s.all_bars
    # for the rows alone: fitted features are checked elsewhere
    samples = dataset.label_rows(e, bars, features=e.features.fit(bars)).samples()
    table = samples.table
    keys = table.symbol[samples.rows].astype(np.int64) * len(table) + span_bars(samples)[1]
    if len(np.unique(keys)) < len(keys):
        return Finding("split", SEALED, "one decision is two samples", "samples", "all", float(len(keys)))
    for k, fold in enumerate(folds_of(e.split, samples)):
        if finding := _open_fold(samples, fold, e.split, f"fold {k}"):
            return finding
        if e.auditor is not None and k == 0:
            train = samples.take(fold.train)
            folds = PurgedKFold(e.evaluation.n_oof_folds, embargo_bars=e.labels.horizon_bars)
            for j, inner in enumerate(folds.split(train)):
                if finding := _open_fold(train, inner, folds, f"out-of-fold {j}"):
                    return finding
    return None


def _open_fold(samples: Samples, fold: Fold, split: Any, name: str) -> Finding | None:
    """The first training or validation sample that shares a row, a bar or the embargo with a later part."""
    start, decision, end = span_bars(samples)
    embargo = getattr(split, "embargo_bars", 0)
    after = embargo if isinstance(split, Holdout | WalkForward) else 0
    parts = {"train": fold.train, "valid": fold.valid, "test": fold.test}
    for early, late in (("train", "test"), ("train", "valid"), ("valid", "test")):
        first, second = parts[early], parts[late]
        taken = covered(start[second], end[second], int(end.max()) + embargo + 2)
        wrong = np.isin(first, second) | touching(start[first], end[first], taken, embargo, after)
        if wrong.any():
            how = f"{name}: {int(wrong.sum())} {early} samples share a row, a bar or the embargo with {late}"
            row = int(samples.rows[first[wrong][0]])
            return Finding("split", SEALED, how, f"{early}~{late}", aware_key(samples.table, row), float(wrong.sum()))
    if len(fold.valid) and len(fold.train) and decision[fold.valid].min() <= decision[fold.train].max():
        row = int(samples.rows[fold.valid[np.argmin(decision[fold.valid])]])
        how = f"{name}: validation begins before training ends"
        return Finding("split", SEALED, how, "train~valid", aware_key(samples.table, row), np.inf)
    return None


@dataclass(frozen=True)
class LastSeen:
    """A feature that records the last bar passed to `fit`, as `until`."""

    name: str = "last_bar_learned_from"
    warmup: int = 0
    until: datetime | None = None

    def fit(self, bars: pl.DataFrame) -> Self:
        """Stores the time of the last bar in `until`."""
        return replace(self, until=span(bars)[1])

    def expr(self) -> pl.Expr:
        """A feature that is zero everywhere."""
        return pl.col("close") * 0


def features_learn_early(s: AuditSubject) -> Outcome:
    """Checks that features are fitted before any validation or test bar."""
    e = s.experiment
    watched = e.features.like([*e.features.features, LastSeen()])
    prepared = dataset.prepare(replace(e, features=watched), s.all_bars)
    held = np.concatenate([prepared.fold.valid, prepared.fold.test])
    first = prepared.table.time[prepared.samples.start[held]].min()
    last = prepared.features.features[-1]
    assert isinstance(last, LastSeen)
    assert last.until is not None
    until = utc64(last.until)
    if until < first:
        return None
    late = float((until - first) / np.timedelta64(1, "s"))
    learners = [f.name for f in e.features.features if hasattr(f, "fit")]
    if not learners:
        return "no feature is fitted"
    how = f"fitted on bars up to {until}, into held-out spans, by that many seconds"
    return Finding("features", SEALED, how, learners[0], str(first), late)
