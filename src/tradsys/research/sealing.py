"""The third question: are the folds sealed? Test rows are changed; what training learned may not move."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from tradsys.core.tables import Array, FeatureTable, Fold, Labels, Samples
from tradsys.evidence.causality import FACTOR, Finding, covered, first_difference, null_auc_error, touching
from tradsys.evidence.classification import auc
from tradsys.features.feature_set import FeatureSet
from tradsys.research import preparing
from tradsys.research.fitting import Fitted
from tradsys.research.foresight import NET, Ask, Outcome, classifiers
from tradsys.research.parts import Experiment
from tradsys.research.preparing import Prepared
from tradsys.research.specimen import Specimen, aware_key
from tradsys.samples import join
from tradsys.samples.splits import Holdout, PurgedKFold, WalkForward, span_bars

SEALED = "sealed"
CARD = ("candidate_score", "valid_score_quantiles", "history", "label")
N_REPEATS = 3  # shuffles that must agree before an AUC is a finding


def sealed_asks(s: Specimen) -> dict[str, Ask]:
    """The question by part."""
    states = ("transforms", "regime", *classifiers(s), "calibrator", "auditor", "thresholds")
    return {
        "split": _split,
        "features": _features,
        "samples": _samples,
        **{part: partial(_state, part=part) for part in states},
        "calibrator rows": _calibrator_rows,
        "auditor scores": _auditor_scores,
        **{f"{part} on shuffled labels": partial(_knows_nothing, part=part) for part in classifiers(s)},
    }


# ------------------------------------------------------------------ folds


def _split(s: Specimen) -> Outcome:
    """Every fold of the whole data, and of the auditor's out-of-fold scores, span by span."""
    e, bars = s.experiment, s.whole
    table = e.features.fit(bars).table(bars)  # for its rows alone: what features learn is asked elsewhere
    events = e.events.mask(bars) if e.events else None
    samples = join.make_samples(table, s.label(bars), lookback=e.lookback, events=events)
    keys = table.symbol[samples.rows].astype(np.int64) * len(table) + span_bars(samples)[1]
    if len(np.unique(keys)) < len(keys):
        return Finding("split", SEALED, "one decision is two samples", "samples", "all", float(len(keys)))
    for k, fold in enumerate(e.split.split(samples)):
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
    """The first training or validation sample that shares a row, a bar or the embargo with what judges it."""
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
            return Finding(
                "split", SEALED, how, f"{early}~{late}", aware_key(samples.table, row), float(wrong.sum())
            )
    if len(fold.valid) and len(fold.train) and decision[fold.valid].min() <= decision[fold.train].max():
        row = int(samples.rows[fold.valid[np.argmin(decision[fold.valid])]])
        how = f"{name}: validation begins before training ends"
        return Finding("split", SEALED, how, "train~valid", aware_key(samples.table, row), np.inf)
    return None


@dataclass(frozen=True)
class LastSeen:
    """A feature that says up to when it was allowed to learn: `until` is the last bar `fit` was given."""

    name: str = "last_bar_learned_from"
    warmup: int = 0
    until: Any = None

    def fit(self, bars: pl.DataFrame) -> Self:
        """Keeps the last time."""
        return replace(self, until=bars["time"].max())

    def expr(self) -> pl.Expr:
        """Zero everywhere."""
        return pl.col("close") * 0


def _features(s: Specimen) -> Outcome:
    """What features learn, they learn before the first bar of any validation or test span."""
    e = s.experiment
    watched = FeatureSet(
        [*e.features.features, LastSeen()],
        max_gap_minutes=e.features.max_gap_minutes,
        market_symbol=e.features.market_symbol,
    )
    prepared = preparing.prepare(replace(e, features=watched), s.whole)
    held = np.concatenate([prepared.fold.valid, prepared.fold.test])
    first = prepared.table.time[prepared.samples.start[held]].min()
    until = np.datetime64(prepared.features.features[-1].until.replace(tzinfo=None), "us")  # type: ignore[attr-defined]
    if until < first:
        return None
    late = float((until - first) / np.timedelta64(1, "s"))
    learners = [f.name for f in e.features.features if hasattr(f, "fit")]
    if not learners:
        return "no feature learns"
    how = f"fitted on bars up to {until}, into held-out spans, by that many seconds"
    return Finding("features", SEALED, how, learners[0], str(first), late)


# ------------------------------------------------------------------ test rows changed


def tampered(s: Specimen) -> Prepared:
    """The copy with test windows, and labels of all samples whose span touches a test span, changed.

    Values are mirrored and scaled, labels turned, returns turned, weights tripled; spans and folds stay.
    """
    p = s.prepared
    start, _, end = span_bars(p.samples)
    test = p.fold.test
    taken = covered(start[test], end[test], int(end.max()) + 1)
    rows = covered(p.samples.start[test], p.samples.rows[test], len(p.table))
    values = p.table.values.copy()
    values[rows] = -FACTOR * values[rows] + np.nanstd(values, axis=0)
    touched = p.samples.rows[touching(start, end, taken)]
    labels = _turned(p.labels, touched)
    bars = p.bars.with_columns(
        pl.when(pl.Series(rows)).then(pl.col(c) * FACTOR).otherwise(pl.col(c))
        for c in ("open", "high", "low", "close")
    )
    return _with(s, replace(p, bars=bars, table=p.table.with_values(values)), labels)


def _turned(labels: Labels, rows: Array) -> Labels:
    """The labels with the outcome of these rows turned around and their weight tripled; ends stay."""
    y, ret, weight = labels.y.copy(), labels.ret.copy(), labels.weight.copy()
    y[rows] = labels.y.max() - y[rows]
    ret[rows] = -ret[rows] - 0.01
    weight[rows] *= 3
    return replace(labels, y=y, ret=ret, weight=weight)


def _with(s: Specimen, prepared: Prepared, labels: Labels) -> Prepared:
    """The same rows and folds with other labels, by the house's own `make_samples`."""
    e = s.experiment
    events = e.events.mask(s.bars) if e.events else None
    samples = join.make_samples(prepared.table, labels, lookback=e.lookback, events=events)
    assert np.array_equal(samples.rows, prepared.samples.rows), "the change of labels moved samples"
    return replace(prepared, labels=labels, samples=samples, table=samples.table)


def _samples(s: Specimen) -> Outcome:
    """Rows, labels and weights of the training side."""
    before, after = s.prepared, tampered(s)
    for part in ("train", "valid"):
        old, new = getattr(before, part), getattr(after, part)
        if part == "valid":  # its labels may touch nothing of the test either
            old, new = before.valid, after.valid
        columns = [{n: getattr(x, n) for n in ("y", "weight", "ret", "start", "end")} for x in (old, new)]
        if found := first_difference(*columns):
            row = aware_key(old.table, int(old.rows[found.row]))
            return Finding("samples", SEALED, f"test rows changed, {part}", found.column, row, found.size)
    return None


def _state(s: Specimen, part: str) -> Outcome:
    """What was fitted, before and after the test rows changed."""
    if part == "auditor" and s.experiment.auditor is None:
        return "no auditor is configured"
    before, after = _states(s, "fitted")[part], _states(s, "tampered")[part]
    if found := first_difference(before, after, NET if part == "primary" else 0.0):
        return Finding(part, SEALED, "test rows changed", found.column, f"entry {found.row}", found.size)
    return None


def _states(s: Specimen, name: str) -> dict[str, dict[str, Array]]:
    """Every fitted state of the training side as columns of numbers, by part; kept on the specimen."""
    kept: dict[str, Any] = s.__dict__.setdefault("states", {})
    if name not in kept:
        changed = name == "tampered"
        prepared = tampered(s) if changed else s.prepared
        fitted = s.fit_again(s.small, prepared, name) if changed else s.fitted
        card = s.export(prepared, fitted, name).card if changed else s.bundle.card
        kept[name] = _collected(s.small, prepared, fitted, card)
    return kept[name]


def _collected(
    e: Experiment, prepared: Prepared, fitted: Fitted, card: Mapping[str, Any]
) -> dict[str, dict[str, Array]]:
    train = prepared.train
    parts = {
        "transforms": e.transforms.fit(train.table, train.rows),
        "regime": fitted.regime,
        "primary": fitted.primary.model_,
        "calibrator": fitted.primary.calibrator_,
        "auditor": fitted.auditor,
        "thresholds": {name: card[name] for name in CARD},
        **{f"baseline {name}": model for name, model in fitted.baselines.items()},
    }
    return {name: dict(_flat(part, "")) for name, part in parts.items()}


def _flat(part: Any, path: str) -> list[tuple[str, Array]]:
    """Everything that was learned, however deep, as named flat arrays."""
    if part is None:
        return []
    if hasattr(part, "state_dict"):
        part = {name: tensor.detach().cpu().numpy() for name, tensor in part.state_dict().items()}
    if hasattr(part, "model_to_string"):  # LightGBM
        part = part.model_to_string().splitlines()
    if hasattr(part, "save_raw"):  # XGBoost
        part = bytes(part.save_raw(raw_format="json")).decode().split("}")
    if is_dataclass(part) and not isinstance(part, type):
        learned = [f.name for f in fields(part) if f.name.endswith("_")]
        part = {name: getattr(part, name) for name in learned or [f.name for f in fields(part)]}
    if isinstance(part, Mapping):
        return [
            pair
            for name, value in part.items()
            for pair in _flat(value, f"{path}.{name}" if path else str(name))
        ]
    if isinstance(part, list | tuple) and any(not isinstance(v, str | int | float) for v in part):
        return [pair for i, value in enumerate(part) for pair in _flat(value, f"{path}[{i}]")]
    return [(path or "state", np.atleast_1d(np.asarray(part)).ravel())]


# ------------------------------------------------------------------ who may learn from whom


@dataclass(frozen=True, eq=False)
class Deaf:
    """Stands in for a regime where none is needed."""

    def fit(self, train: Samples, valid: Samples) -> Self:  # noqa: ARG002
        """Learns nothing."""
        return self


@dataclass(frozen=True, eq=False)
class Gauge:
    """A stand-in model that no label can move: P(1) rises with the first column of the row."""

    lookback: int

    def fit(self, train: Samples, valid: Samples) -> Self:  # noqa: ARG002
        """Learns nothing."""
        return self

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, 2]."""
        up = 0.5 + 0.4 * np.tanh(table.values[rows, 0].astype(np.float64))
        return np.stack([1 - up, up], axis=1)


def _bare(e: Experiment, **changes: Any) -> Experiment:
    """The experiment without what a question does not need."""
    return replace(e, **{"auditor": None, "regime": Deaf(), "baselines": {}, **changes})


def _calibrator_rows(s: Specimen) -> Outcome:
    """With a model that labels cannot move, training labels cannot move its calibrator."""
    p, fitted = s.prepared, []
    first = p.table.values[p.train.rows, 0]
    for sign in (1, -1):
        y = p.samples.y.copy()
        y[p.fold.train] = (sign * (first - np.median(first)) > 0).astype(np.int64)
        changed = replace(p, samples=replace(p.samples, y=y))
        e = _bare(s.small, model=Gauge(s.experiment.model.lookback))
        fitted.append(s.fit_again(e, changed, f"gauge{sign}").primary.calibrator_)
    columns = [dict(_flat(c, "")) for c in fitted]
    if found := first_difference(*columns):
        return Finding(
            "calibrator", SEALED, "training labels turned", found.column, f"entry {found.row}", found.size
        )
    return None


def _auditor_scores(s: Specimen) -> Outcome:
    """The scores an auditor is taught do not know the labels of their own rows."""
    if s.experiment.auditor is None:
        return "no auditor is configured"
    assert s.fitted is not None
    p, e = s.prepared, s.small
    moments = np.unique(p.train.time)
    one = len(moments) / e.evaluation.n_oof_folds  # a stretch in the middle of the first fold
    block = moments[int(0.45 * one) : int(0.55 * one) + 1]
    turned = p.train.rows[np.isin(p.train.time, block)]
    heard: list[Samples] = []
    s.fit_again(replace(e, baselines={}), _with(s, p, replace_weightless(p.labels, turned)), "turned", heard)
    keys = {"symbol": pl.Int64, "time": pl.Datetime("us")}
    frames = []
    for taught in (s.heard[0], heard[0]):
        inside = np.isin(taught.time, block)
        t, rows = taught.table, taught.rows[inside]
        columns = {
            "symbol": t.symbol[rows].astype(np.int64),
            "time": t.time[rows],
            "score": t.column("score")[rows],
        }
        frames.append(pl.DataFrame(columns, schema_overrides=keys))
    both = frames[0].join(frames[1], on=["symbol", "time"], suffix="_turned", maintain_order="left")
    found = first_difference(
        {"score": both["score"].to_numpy()}, {"score": both["score_turned"].to_numpy()}, NET
    )
    if found is None:
        return None
    row = f"{p.table.symbols[both['symbol'][found.row]]} {both['time'][found.row]}"
    return Finding("auditor", SEALED, "labels of one out-of-fold block turned", "score", row, found.size)


def replace_weightless(labels: Labels, rows: Array) -> Labels:
    """Labels turned at these rows, weights as they were."""
    return replace(_turned(labels, rows), weight=labels.weight)


def _knows_nothing(s: Specimen, part: str) -> Outcome:
    """On shuffled labels the out-of-sample AUC is 0.5 within two standard errors; a miss is asked twice more."""
    aucs: list[float] = []
    error = null_auc_error(s.prepared.test.y)
    for repeat in range(N_REPEATS):
        aucs.append(_shuffled_aucs(s, repeat)[part])
        if abs(np.mean(aucs) - 0.5) <= 2 * error / np.sqrt(len(aucs)):
            return None
    how = f"mean AUC of {N_REPEATS} refits on shuffled labels, allowed 0.5 +/- {2 * error / np.sqrt(N_REPEATS):.3f}"
    return Finding(part, SEALED, how, "auc", f"{len(s.prepared.test)} test rows", float(np.mean(aucs)))


def _shuffled_aucs(s: Specimen, repeat: int) -> dict[str, float]:
    kept: dict[str, Any] = s.__dict__.setdefault("shuffled", {})
    if repeat not in kept:
        p = s.prepared
        rows = np.flatnonzero(p.labels.end >= 0)
        dealt = np.random.default_rng([s.settings.seed, 2, repeat]).permutation(rows)
        y, ret, weight = p.labels.y.copy(), p.labels.ret.copy(), p.labels.weight.copy()
        y[rows], ret[rows], weight[rows] = y[dealt], ret[dealt], weight[dealt]
        changed = _with(s, p, replace(p.labels, y=y, ret=ret, weight=weight))
        fitted = s.fit_again(_bare(s.small, baselines=s.small.baselines), changed, f"shuffled{repeat}")
        models = {"primary": fitted.primary} | {f"baseline {n}": m for n, m in fitted.baselines.items()}
        kept[repeat] = {name: _auc(model, changed.test) for name, model in models.items()}
    return kept[repeat]


def _auc(model: Any, test: Samples) -> float:
    up = model.predict_proba(test.table, test.rows)[:, 1]
    value = auc(np.stack([1 - up, up], axis=1), (test.y == 1).astype(np.int64))
    return 0.5 if value is None else value
