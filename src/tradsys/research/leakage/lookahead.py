"""First check of every part: whether later data change its result.

Each check returns the Finding, None where there is none, or a text that states why the part cannot be checked.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.clock import utc64
from tradsys.core.protocols import Feature
from tradsys.core.tables import Array, FeatureTable, Labels
from tradsys.evidence.controls.causality import (
    WAYS,
    Finding,
    changed_bars,
    changed_table,
    first_difference,
    frame_difference,
    lifted_bars,
)
from tradsys.features.feature_set import FeatureSet
from tradsys.market.bars import utc_series
from tradsys.research.leakage.dense_cuts import sparse_leak
from tradsys.research.leakage.subject import FUTURE, AuditSubject, aware_key
from tradsys.research.pipeline import dataset
from tradsys.research.pipeline.as_of import known_times
from tradsys.research.pipeline.settings import Experiment
from tradsys.serving.bundle import audited, auditor_columns

Outcome = Finding | str | None
Check = Callable[[AuditSubject], Outcome]
KEYS = ("symbol", "time")
NET = 1e-6  # allowed rounding of a net, or of a sum with another start
N_ROWS = 200  # decision rows compared at each cut
WAYS_WITHOUT_NAN = ("cut", "shuffle", "scale")  # for parts that refuse NaN, or would have no samples left


def future_checks(s: AuditSubject) -> dict[str, Check]:
    """The checks by part; those of serving are in `serving_parity`."""
    models = classifiers(s)
    return {
        "source": _source,
        "features": _features,
        "events": _events,
        "labels": _labels,
        "samples": _samples,
        "transforms": _transforms,
        "regime": _regime,
        **{part: partial(_model, part=part, pick=pick) for part, pick in models.items()},
        "calibrator": _calibrator,
        "auditor": _auditor,
    }


def classifiers(s: AuditSubject) -> dict[str, Callable[[AuditSubject], Any]]:
    """Functions that return each fitted classifier, by part.

    The primary and its baselines.
    """
    primary: dict[str, Callable[[AuditSubject], Any]] = {"primary": lambda s: s.fitted.primary}
    return primary | {f"baseline {name}": partial(_baseline, name=name) for name in s.experiment.baselines}


def _baseline(s: AuditSubject, name: str) -> Any:
    return s.fitted.baselines[name]


# ------------------------------------------------------------------ bars in, one frame out


def unmoved(
    s: AuditSubject,
    part: str,
    answer: Callable[[pl.DataFrame, datetime], pl.DataFrame],
    ways: Sequence[str] = WAYS,
    tolerance: float = 0.0,
    n_cuts: int | None = None,
) -> Outcome:
    """Compares `answer` up to t before and after later data change.

    All of it, in each way. Its frames have unique (symbol, time); a row counts as known at `known`, where it has that
    column, else at its time.
    """
    rng = s.rng()
    for t in s.cuts(n_cuts):
        truth = _known_until(answer(s.bars, t), t)
        for how in ways:
            reported = _known_until(answer(changed_bars(s.bars, t, how, rng), t), t)
            if found := frame_difference(truth, reported, KEYS, tolerance):
                return Finding(
                    part, FUTURE, f"{how} after {t:%Y-%m-%d %H:%M}", found[0].column, found[1], found[0].size
                )
    return None


def _known_until(frame: pl.DataFrame, t: datetime) -> pl.DataFrame:
    return frame.filter(pl.col("known" if "known" in frame.columns else "time") <= t)


def _source(s: AuditSubject) -> Outcome:
    """The source's bars up to t, with and without later ones in it."""
    source = s.experiment.data["source"]
    for t in s.cuts():
        reported = known_at(source, t)
        if reported is None:
            return "the source has no state as of t (no known_at, no end)"
        found = frame_difference(s.all_bars.drop("segment").filter(pl.col("time") <= t), reported.bars(), KEYS)
        if found:
            return Finding("source", FUTURE, f"known at {t:%Y-%m-%d %H:%M}", found[0].column, found[1], found[0].size)
    return None


def known_at(part: Any, t: datetime) -> Any | None:
    """The part with only what was published by `t`.

    Its own `known_at(t)`, else a copy with `end` = t. None where it has neither.
    """
    if hasattr(part, "known_at"):
        return part.known_at(t)
    if is_dataclass(part) and not isinstance(part, type) and "end" in {f.name for f in fields(part)}:
        return replace(part, end=t)
    return None


def columns_of(bars: pl.DataFrame, columns: dict[str, Array]) -> pl.DataFrame:
    """Symbol and time of the bars, with these columns."""
    return bars.select(KEYS).with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def _table_frame(features: FeatureSet, bars: pl.DataFrame) -> pl.DataFrame:
    table = features.table(bars)
    return columns_of(bars, dict(zip(table.names, table.values.T, strict=True)))


def _features(s: AuditSubject) -> Outcome:
    """Every column to the bit, at many cuts; data that a feature brings along are cut by their publication."""
    features = s.prepared.features
    outcome = unmoved(s, "features", lambda bars, _: _table_frame(features, bars)) or sparse_leak(s)
    own = [f for f in features.features if hasattr(f, "known_at")]
    if outcome is not None or not own:
        return outcome
    truth = _table_frame(features, s.bars)
    for t in s.cuts():
        dated: list[Feature] = [f.known_at(t) if f in own else f for f in features.features]  # type: ignore[attr-defined]
        reported = _table_frame(features.like(dated), s.bars)
        if found := frame_difference(_known_until(truth, t), _known_until(reported, t), KEYS):
            return Finding("features", FUTURE, f"known at {t:%Y-%m-%d %H:%M}", found[0].column, found[1], found[0].size)
    return None


def _events(s: AuditSubject) -> Outcome:
    events = s.experiment.events
    if not events:
        return "every bar is an event"
    return unmoved(s, "events", lambda bars, _: columns_of(bars, {"event": events.mask(bars)}))


def _labels(s: AuditSubject) -> Outcome:
    """A resolved label depends on nothing later than its end; entered after t, on no price level up to t.

    The side, and the band that an expansion is compared with, are decided at t and may use that level.
    """
    found = unmoved(
        s, "labels", lambda bars, _: label_frame(s.experiment, bars, s.label(bars)), n_cuts=10 * s.settings.n_cuts
    )
    if found is not None:
        return found
    side = s.experiment.features.side(s.bars)
    decided = ["y"] if s.experiment.labels.card()["kind"] == "expansion" else []
    truth = label_frame(s.experiment, s.bars, s.label(s.bars)).drop(decided)
    by = 0.05 * pl.col("close").fill_nan(None).min().over("symbol")  # a larger step would be an unconfirmed print
    for t in s.cuts(10 * s.settings.n_cuts):
        lifted = dataset.outcomes_on(s.experiment, lifted_bars(s.bars, t, by), side)
        reported = label_frame(s.experiment, s.bars, lifted).drop(decided)
        at = [frame.filter(pl.col("time") == t) for frame in (truth, reported)]
        if moved := frame_difference(at[0], at[1], KEYS, 1e-9):
            how = f"prices up to {t:%Y-%m-%d %H:%M}, the decision, moved by a constant"
            return Finding("labels", FUTURE, how, moved[0].column, moved[1], moved[0].size)
    return None


def label_frame(experiment: Experiment, bars: pl.DataFrame, labels: Labels) -> pl.DataFrame:
    """Resolved labels, with the time at which they were known (`known_times`)."""
    rows = np.flatnonzero(labels.resolved)
    known = utc_series(known_times(experiment, bars, labels)[rows])
    columns = {"y": labels.y[rows], "ret": labels.ret[rows], "weight": labels.weight[rows]}
    return columns_of(bars[rows], columns).with_columns(known=known)


def _samples(s: AuditSubject) -> Outcome:
    """Rows, labels and every column of the table that models read. Weights depend on all samples by design."""

    def answer(bars: pl.DataFrame, _: datetime) -> pl.DataFrame:
        labelled = dataset.label_rows(s.experiment, bars, features=s.prepared.features)
        samples = labelled.samples()
        table, rows = samples.table, samples.rows
        columns = {"y": samples.y, "ret": samples.ret, "reads": rows - samples.start}
        values = dict(zip(table.names, table.values[rows].T, strict=True))
        known = utc_series(known_times(s.experiment, bars, labelled.labels)[rows])
        return columns_of(bars[rows], columns | values).with_columns(known=known)

    return unmoved(s, "samples", answer, ways=WAYS_WITHOUT_NAN)


# ------------------------------------------------------------------ table in, one array out


def _table_unmoved(
    s: AuditSubject, part: str, answer: Callable[[FeatureTable, Array], dict[str, Array]], tolerance: float
) -> Outcome:
    """Compares `answer` at rows up to t, before and after the later rows of the table are changed."""
    rng = s.rng()
    for t in s.cuts():
        moment = utc64(t)
        rows = rows_until(s, moment)
        truth = answer(s.table, rows)
        for how in WAYS:
            changed, place = changed_table(s.table, moment, how, rng)
            if found := first_difference(truth, answer(changed, place[rows]), tolerance):
                at = aware_key(s.table, rows[found.row])
                return Finding(part, FUTURE, f"{how} after {t:%Y-%m-%d %H:%M}", found.column, at, found.size)
    return None


def rows_until(s: AuditSubject, t: np.datetime64) -> Array:
    """Ready rows up to `t`: the latest ones and some spread over time."""
    ready = np.flatnonzero(s.table.ready(s.experiment.lookback) & (s.table.time <= t))
    late = ready[np.argsort(s.table.time[ready], kind="stable")][-N_ROWS // 2 :]
    spread = ready[:: max(1, len(ready) // (N_ROWS // 2))]
    return np.union1d(late, spread)


def named(proba_NC: Array, names: Sequence[str] | None = None) -> dict[str, Array]:
    """Probabilities [N, C] by column."""
    columns = names or [f"P({k})" for k in range(proba_NC.shape[1])]
    return {name: proba_NC[:, k] for k, name in enumerate(columns)}


def _transforms(s: AuditSubject) -> Outcome:
    scaler = s.experiment.transforms.fit(s.table, s.prepared.train.rows)
    return _table_unmoved(
        s, "transforms", lambda table, rows: named(scaler.apply(table).values[rows], table.names), 0.0
    )


def _regime(s: AuditSubject) -> Outcome:
    regime = s.fitted.regime
    if regime is None:
        return "no regime is configured"
    return _table_unmoved(s, "regime", lambda table, rows: named(regime.predict_proba(table, rows), regime.names), 0.0)


def _model(s: AuditSubject, part: str, pick: Callable[[AuditSubject], Any]) -> Outcome:
    model = pick(s)
    return _table_unmoved(s, part, lambda table, rows: named(model.predict_proba(table, rows)), NET)


def _calibrator(s: AuditSubject) -> Outcome:
    """Each score is mapped independently: later scores in the batch change nothing."""
    rows = rows_until(s, s.table.time.max())
    score = s.fitted.primary.score(s.table, rows)
    apply, half = s.fitted.primary.calibrator_.apply, len(rows) // 2  # type: ignore[union-attr]
    other = np.concatenate([score[:half], s.rng().dirichlet(np.ones(score.shape[1]), len(rows) - half)])
    found = first_difference(named(apply(score)[:half]), named(apply(other)[:half]))
    if found is None:
        return None
    return Finding(
        "calibrator",
        FUTURE,
        "other scores after",
        found.column,
        aware_key(s.table, rows[found.row]),
        found.size,
    )


def _auditor(s: AuditSubject) -> Outcome:
    if s.fitted.auditor is None:
        return "no auditor is configured"
    regime, primary, auditor = s.fitted.regime, s.fitted.primary, s.fitted.auditor

    def answer(table: FeatureTable, rows: Array) -> dict[str, Array]:
        columns = auditor_columns(table, rows, primary.score(table, rows), regime)
        return named(audited(auditor, table, rows, columns))

    return _table_unmoved(s, "auditor", answer, NET)
