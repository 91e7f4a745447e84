"""Third check: train/test isolation. Test rows are changed; fitted parts must not change."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import polars as pl

from tradsys.core.tables import Array, FeatureTable, Labels, Samples
from tradsys.evidence.classification import auc
from tradsys.evidence.controls.causality import FACTOR, Finding, covered, first_difference, null_auc_error, touching
from tradsys.research.leakage.fold_boundaries import features_learn_early, split_spans
from tradsys.research.leakage.lookahead import NET, Check, Outcome, classifiers
from tradsys.research.leakage.pretraining_corpus import corpus_checks
from tradsys.research.leakage.subject import SEALED, AuditSubject, aware_key
from tradsys.research.pipeline.dataset import Prepared
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.training import Fitted
from tradsys.samples import join
from tradsys.samples.splits import span_bars

CARD = ("candidate_score", "valid_score_quantiles", "history", "label")
FRESH = (1, 2)  # further shuffles where the first one fails


def sealed_checks(s: AuditSubject) -> dict[str, Check]:
    """The checks by part."""
    states = ("transforms", "regime", *classifiers(s), "calibrator", "auditor", "thresholds")
    return {
        "split": split_spans,
        "features": features_learn_early,
        "samples": _samples,
        **{part: partial(_state, part=part) for part in states},
        "calibrator rows": _calibrator_rows,
        "auditor scores": _auditor_scores,
        **{f"{part} on shuffled labels": partial(_knows_nothing, part=part) for part in classifiers(s)},
        **corpus_checks(s),
    }


# ------------------------------------------------------------------ test rows changed


def tampered(s: AuditSubject) -> Prepared:
    """The copy with test windows changed, and labels that touch a test span.

    Values are mirrored and scaled, labels flipped, returns negated, weights tripled; spans and folds stay.
    """
    p = s.prepared
    start, _, end = span_bars(p.samples)
    test = p.fold.test
    taken = covered(start[test], end[test], int(end.max()) + 1)
    rows = covered(p.samples.start[test], p.samples.rows[test], len(p.table))
    values = p.table.values.copy()
    values[rows] = -FACTOR * values[rows] + np.nanstd(values, axis=0)
    touched = p.samples.rows[touching(start, end, taken)]
    labels = _turned(s.labels, touched)
    bars = p.bars.with_columns(
        pl.when(pl.Series(rows)).then(pl.col(c) * FACTOR).otherwise(pl.col(c)) for c in ("open", "high", "low", "close")
    )
    return _relabelled(s, replace(p, bars=bars, table=p.table.with_values(values)), labels)


def _turned(labels: Labels, rows: Array) -> Labels:
    """The labels with the outcome of these rows flipped and their weight tripled; ends stay."""
    y, ret, weight = labels.y.copy(), labels.ret.copy(), labels.weight.copy()
    y[rows] = labels.y.max() - y[rows]
    ret[rows] = -ret[rows] - 0.01
    weight[rows] *= 3
    return replace(labels, y=y, ret=ret, weight=weight)


def _relabelled(s: AuditSubject, prepared: Prepared, labels: Labels) -> Prepared:
    """The same rows and folds with other labels, by the package's own `make_samples`."""
    e = s.experiment
    events = e.events.mask(s.bars) if e.events else None
    samples = join.make_samples(prepared.table, labels, lookback=e.lookback, events=events, weighting=e.weighting)
    assert np.array_equal(samples.rows, prepared.samples.rows), "the change of labels moved samples"
    return replace(prepared, resolved=labels.resolved, samples=samples, table=samples.table)


def _samples(s: AuditSubject) -> Outcome:
    """Rows, labels and weights of the training side."""
    before, after = s.prepared, tampered(s)
    for part in ("train", "valid"):
        old, new = getattr(before, part), getattr(after, part)
        if found := first_difference(_kept(old), _kept(new)):
            row = aware_key(old.table, int(old.rows[found.row]))
            return Finding("samples", SEALED, f"test rows changed, {part}", found.column, row, found.size)
    return None


def _kept(samples: Samples) -> dict[str, Array]:
    return {name: getattr(samples, name) for name in ("y", "weight", "ret", "start", "end")}


def _state(s: AuditSubject, part: str) -> Outcome:
    """Fitted state before and after the test rows changed."""
    if part in ("auditor", "regime") and getattr(s.experiment, part) is None:
        return f"no {part} is configured"
    before, after = _fitted_states(s, "fitted")[part], _fitted_states(s, "tampered")[part]
    if found := first_difference(before, after, NET if part == "primary" else 0.0):
        return Finding(part, SEALED, "test rows changed", found.column, f"entry {found.row}", found.size)
    return None


def _fitted_states(s: AuditSubject, name: str) -> dict[str, dict[str, Array]]:
    """Every fitted state of the training side as columns of numbers, by part; cached on the subject."""
    if name not in s.states:
        changed = name == "tampered"
        prepared = tampered(s) if changed else s.prepared
        fitted = s.fit_again(s.small, prepared, name) if changed else s.fitted
        card = s.export(prepared, fitted, name).card if changed else s.bundle.card
        s.states[name] = _collected(s.small, prepared, fitted, card)
    return s.states[name]


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
    """All fitted numbers at any depth, as named flat arrays."""
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
        return [pair for name, value in part.items() for pair in _flat(value, f"{path}.{name}" if path else str(name))]
    if isinstance(part, list | tuple) and any(not isinstance(v, str | int | float) for v in part):
        return [pair for i, value in enumerate(part) for pair in _flat(value, f"{path}[{i}]")]
    return [(path or "state", np.atleast_1d(np.asarray(part)).ravel())]


# ------------------------------------------------------------------ who may learn from whom


@dataclass(frozen=True, eq=False)
class Gauge:
    """A stand-in model that ignores labels.

    P(1) rises with the first column of the row.
    """

    lookback: int

    def fit(self, train: Samples, valid: Samples) -> Self:  # noqa: ARG002
        """Fits nothing."""
        return self

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Probabilities float64 [N, 2], a monotone function of the row's first column."""
        up = 0.5 + 0.4 * np.tanh(table.values[rows, 0].astype(np.float64))
        return np.stack([1 - up, up], axis=1)


def _bare(e: Experiment, **changes: Any) -> Experiment:
    """The experiment without parts that a check does not need."""
    return replace(e, **{"auditor": None, "regime": None, "baselines": {}, **changes})


def _calibrator_rows(s: AuditSubject) -> Outcome:
    """Checks that the calibrator ignores training labels, with a model that ignores labels."""
    p, fitted = s.prepared, []
    first = p.table.values[p.train.rows, 0]
    for sign in (1, -1):
        y = p.samples.y.copy()
        y[p.fold.train] = (sign * (first - np.median(first)) > 0).astype(np.int64)
        changed = replace(p, samples=replace(p.samples, y=y))
        e = _bare(s.small, model=Gauge(s.experiment.model.lookback))
        fitted.append(s.fit_again(e, changed, f"gauge{sign}").primary.calibrator_)
    before, after = (dict(_flat(c, "")) for c in fitted)
    if found := first_difference(before, after):
        return Finding("calibrator", SEALED, "training labels turned", found.column, f"entry {found.row}", found.size)
    return None


def _auditor_scores(s: AuditSubject) -> Outcome:
    """The auditor's training scores do not depend on the labels of their own rows."""
    if s.experiment.auditor is None:
        return "no auditor is configured"
    p, e, fitted = s.prepared, s.small, s.fitted
    assert fitted.auditor is not None
    moments = np.unique(p.train.time)
    one = len(moments) / e.evaluation.n_oof_folds  # a stretch in the middle of the first fold
    block = moments[int(0.45 * one) : int(0.55 * one) + 1]
    turned = p.train.rows[np.isin(p.train.time, block)]
    trained_on: list[Samples] = []
    s.fit_again(replace(e, baselines={}), _relabelled(s, p, _outcomes_turned(s.labels, turned)), "turned", trained_on)
    frames = []
    for trained in (s.trained_on[0], trained_on[0]):
        inside = np.isin(trained.time, block)
        t, rows = trained.table, trained.rows[inside]
        columns = {
            "symbol": t.symbol[rows].astype(np.int64),
            "time": t.time[rows],
            "score": t.column("score")[rows],
        }
        frames.append(pl.DataFrame(columns))
    both = frames[0].join(frames[1], on=["symbol", "time"], suffix="_turned", maintain_order="left")
    found = first_difference({"score": both["score"].to_numpy()}, {"score": both["score_turned"].to_numpy()}, NET)
    if found is None:
        return None
    row = f"{p.table.symbols[both['symbol'][found.row]]} {both['time'][found.row]}"
    return Finding("auditor", SEALED, "labels of one out-of-fold block turned", "score", row, found.size)


def _outcomes_turned(labels: Labels, rows: Array) -> Labels:
    """Labels flipped at these rows, weights unchanged."""
    return replace(_turned(labels, rows), weight=labels.weight)


def _knows_nothing(s: AuditSubject, part: str) -> Outcome:
    """Checks that on shuffled labels the out-of-sample AUC is 0.5 within two standard errors.

    One refit in twenty fails by chance, so a failure is repeated: it is a finding only where the mean of two new refits
    lies beyond its own two standard errors too, on the same side (by chance about one in a thousand).
    """
    error = null_auc_error(s.prepared.test.y)
    excess = _shuffled_aucs(s, 0)[part] - 0.5
    if abs(excess) <= 2 * error:
        return None
    again = float(np.mean([_shuffled_aucs(s, repeat)[part] for repeat in FRESH])) - 0.5
    allowed = 2 * error / np.sqrt(len(FRESH))
    if abs(again) <= allowed or again * excess < 0:
        return None
    how = f"AUC of refits on shuffled labels; allowed 0.5 +/- {allowed:.3f}"
    return Finding(part, SEALED, how, "auc", f"{len(s.prepared.test)} test rows", again + 0.5)


def _shuffled_aucs(s: AuditSubject, repeat: int) -> dict[str, float]:
    if repeat not in s.aucs:
        p = s.prepared
        rows = np.flatnonzero(s.labels.resolved)
        dealt = np.random.default_rng([s.settings.seed, 2, repeat]).permutation(rows)
        y, ret, weight = s.labels.y.copy(), s.labels.ret.copy(), s.labels.weight.copy()
        y[rows], ret[rows], weight[rows] = y[dealt], ret[dealt], weight[dealt]
        changed = _relabelled(s, p, replace(s.labels, y=y, ret=ret, weight=weight))
        fitted = s.fit_again(_bare(s.small, baselines=s.small.baselines), changed, f"shuffled{repeat}")
        models = {"primary": fitted.primary} | {f"baseline {n}": m for n, m in fitted.baselines.items()}
        s.aucs[repeat] = {name: _auc_on_test(model, changed.test) for name, model in models.items()}
    return s.aucs[repeat]


def _auc_on_test(model: Any, test: Samples) -> float:
    up = model.predict_proba(test.table, test.rows)[:, 1]
    value = auc(np.stack([1 - up, up], axis=1), (test.y == 1).astype(np.int64))
    return 0.5 if value is None else value
