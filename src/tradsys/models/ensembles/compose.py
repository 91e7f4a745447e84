"""Models of models: scaled, calibrated, averaged, pooled. Each is a Model like any other."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.protocols import Calibrator, Model, Transform
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.baseline import BaseRate
from tradsys.models.ensembles.nested_copies import in_workdir, seeded, watched
from tradsys.models.ensembles.out_of_fold import HeldOut, out_of_fold
from tradsys.models.ensembles.pool_weights import Skill, floored, likelihoods, pooled, shrunk
from tradsys.models.regime import HmmRegime
from tradsys.models.transforms import fitted, with_fitted
from tradsys.samples.splits import PurgedKFold

__all__ = [
    "Average", "Calibrated", "RegimeWeighted", "Scaled", "SeedAverage", "Stacked", "in_workdir", "scaled", "seeded",
    "watched",
]  # fmt: skip
LOG = logging.getLogger(__name__)
BASE = "base_rate"  # the member that every learned pool holds


@dataclass(frozen=True, eq=False)
class Scaled:
    """A model that sees the table through a transform fitted on its own training rows.

    Fitted: scaler_, model_.
    """

    scaler: Transform
    model: Model
    scaler_: Transform | None = field(init=False, default=None)
    model_: Model | None = field(init=False, default=None)

    @property
    def lookback(self) -> int:
        """The inner model's."""
        return self.model.lookback

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Fits the transform on the rows of `train`, then the model on the transformed table."""
        scaler = self.scaler.fit(train.table, train.rows)
        table = scaler.apply(train.table)
        held = table if valid.table is train.table else scaler.apply(valid.table)
        return self.of(scaler, self.model.fit(train.on(table), valid.on(held)))

    @classmethod
    def of(cls, scaler: Transform, model: Model) -> Self:
        """The composition of two parts that are fitted already, as a bundle loads them."""
        return with_fitted(cls(scaler, model), {"scaler_": scaler, "model_": model})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C] from the transformed table."""
        return fitted(self, "model_").predict_proba(fitted(self, "scaler_").apply(table), rows)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A model whose scores on the validation rows, never the training rows, fit a calibrator.

    Fitted: model_, calibrator_.
    """

    model: Model
    calibrator: Calibrator
    model_: Model | None = field(init=False, default=None)
    calibrator_: Calibrator | None = field(init=False, default=None)

    @property
    def lookback(self) -> int:
        """The inner model's."""
        return self.model.lookback

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Fits the model on `train`, the calibrator on `valid`; TrainingError when that is empty."""
        if not len(valid):
            raise TrainingError(
                "calibrated: no validation rows; a calibrator learns from rows the model was not fitted on; "
                "give the split a validation span or use calibration=none"
            )
        model = self.model.fit(train, valid)
        scores = model.predict_proba(valid.table, valid.rows)
        return self.of(model, self.calibrator.fit(scores, valid.y, valid.weight))

    @classmethod
    def of(cls, model: Model, calibrator: Calibrator) -> Self:
        """The composition of two parts that are fitted already, as a bundle loads them."""
        return with_fitted(cls(model, calibrator), {"model_": model, "calibrator_": calibrator})

    def score(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C] before calibration."""
        return fitted(self, "model_").predict_proba(table, rows)

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Calibrated float64 [N, C]."""
        return fitted(self, "calibrator_").apply(self.score(table, rows))


def scaled(scaler: Transform | None, model: Model) -> Model:
    """The model behind the scaler, or the model itself where it `reads_raw` values, as trees and the base rate do."""
    return model if scaler is None or getattr(model, "reads_raw", False) else Scaled(scaler, model)


@dataclass(frozen=True, eq=False)
class SeedAverage:
    """The plain mean of one model's probabilities under several seeds.

    n_seeds: fits, at least two. seed: from which theirs are drawn, so that two averages share no fit.
    workdir: each fit writes below its own number. Fitted: members_, by `seed_<k>`.
    """

    model: Model
    n_seeds: int
    seed: int = 0
    workdir: Path | None = None
    members_: Mapping[str, Model] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.n_seeds < 2:
            raise TrainingError(
                f"seed average: n_seeds={self.n_seeds}; a mean needs at least two fits; raise n_seeds or use the "
                "model itself"
            )

    @property
    def reads_raw(self) -> bool:
        """The inner model's: one scaler before all seeds, or none."""
        return getattr(self.model, "reads_raw", False)

    @property
    def lookback(self) -> int:
        """The inner model's."""
        return self.model.lookback

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Fits each copy on the same rows."""
        done: dict[str, Model] = {}
        for k in range(self.n_seeds):
            # from a hash: seeds 7 and 8 must not share all but one of their copies; 31 bits suit every library
            drawn = int(np.random.SeedSequence([self.seed, k]).generate_state(1)[0] >> 1)
            copy = seeded(self.model, drawn)
            done[f"seed_{k}"] = (in_workdir(copy, self.workdir / str(k)) if self.workdir else copy).fit(train, valid)
        return with_fitted(self, {"members_": done})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the mean over seeds."""
        return _mean(fitted(self, "members_"), table, rows)


@dataclass(frozen=True, eq=False)
class Average:
    """The mean of named members' probabilities; all answer the experiment's one question.

    scaler: before each member that does not read raw values; fitted per member, on its training rows.
    weights: one per member, >= 0, of sum one; None weighs all alike. One of them may be None: it takes the rest, so
    that a sweep can move the others. Fitted: members_.
    """

    reads_raw: ClassVar[bool] = True
    members: Mapping[str, Model]
    scaler: Transform | None = None
    weights: Mapping[str, float | None] | None = None
    members_: Mapping[str, Model] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        _check_members("average", self.members)
        if self.weights is not None:
            _check_weights(self.members, self.weights, self.weight_of)

    @property
    def lookback(self) -> int:
        """The longest of its members'."""
        return max(model.lookback for model in self.members.values())

    @property
    def weight_of(self) -> dict[str, float]:
        """The weight of each member, in their order."""
        if self.weights is None:
            return {name: 1 / len(self.members) for name in self.members}
        rest = 1 - sum(weight for weight in self.weights.values() if weight is not None)
        given = {name: self.weights.get(name, np.nan) for name in self.members}
        return {name: float(rest if weight is None else weight) for name, weight in given.items()}

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Fits each member on the same rows; an error names the member."""
        done: dict[str, Model] = {}
        for name, model in self.members.items():
            with _named(name):
                done[name] = scaled(self.scaler, model).fit(train, valid)
        return with_fitted(self, {"members_": done})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the mean over members."""
        each = [model.predict_proba(table, rows) for model in fitted(self, "members_").values()]
        return pooled(np.array(list(self.weight_of.values())), each)


@dataclass(frozen=True, eq=False)
class Stacked:
    """A linear opinion pool sum_k w_k p_k whose weights are learned on out-of-fold probabilities.

    The training base rate is a member of every pool and takes what nobody earns: without a member that knows
    something the pool is the base rate. members: all answer the experiment's one question. scaler: as of
    `Average`. calibrator: fitted on the validation rows behind each member, out-of-fold copies included; None
    pools scores as they are, and then a member whose loss skews its scores (class weights, focusing) may earn
    nothing though it ranks well. The pool itself is calibrated from outside, by `Calibrated`.
    n_folds, embargo_bars: purged folds of the training rows. confidence: of the skills' intervals; a member whose
    out-of-fold skill lies below zero in its whole interval gets weight 0 before the fit. floor: weights below it
    become 0 after the fit. workdir: takes the out-of-fold copies' checkpoints.
    Fitted: weights_ per name, `base_rate` last; skills_ per member; members_, those with a weight, refitted on all
    training rows; base_rate_.
    Source: Stone 1961 (linear pool); Wolpert 1992, Breiman 1996 (stacking, non-negative weights).
    """

    reads_raw: ClassVar[bool] = True
    members: Mapping[str, Model]
    scaler: Transform | None = None
    calibrator: Calibrator | None = None
    n_folds: int = 4
    embargo_bars: int = 0
    floor: float = 0.01
    confidence: float = 0.95
    workdir: Path | None = None
    weights_: Mapping[str, float] | None = field(init=False, default=None)
    skills_: Mapping[str, Skill] | None = field(init=False, default=None)
    members_: Mapping[str, Model] | None = field(init=False, default=None)
    base_rate_: Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        _check_members("stacked", self.members)
        if BASE in self.members:
            raise TrainingError(f"stacked: a member is named {BASE!r}, which every pool holds already; rename it")
        if not (0 <= self.floor < 1 / (len(self.members) + 1) and 0 < self.confidence < 1):
            raise TrainingError(
                f"stacked: floor={self.floor}, confidence={self.confidence}; the rule is 0 <= floor < "
                f"1 / (members + 1) = {1 / (len(self.members) + 1):.3f} and 0 < confidence < 1"
            )

    @property
    def lookback(self) -> int:
        """The longest of its members'."""
        return max(model.lookback for model in self.members.values())

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Learns the weights, then fits the members that have one; `valid` stops and calibrates each copy.

        Raises as `out_of_fold` and members do, the member named, and TrainingError where the training span holds
        fewer than two stretches longer than a label.
        """
        held = self._held_out(train, valid)
        weights_K = floored(held.weights(held.weight_N), self.floor)
        return self._refitted(held, weights_K, train, valid)

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the pool."""
        return pooled(self.earning()[1], self._told(table, rows))

    def earning(self) -> tuple[tuple[str, ...], Array]:
        """Names of what is pooled, the refitted members and `base_rate`, and their weights [K]."""
        weights = fitted(self, "weights_")
        names = (*fitted(self, "members_"), BASE)
        return names, np.array([weights[name] for name in names])

    def _told(self, table: FeatureTable, rows: Array) -> list[Array]:
        """Probabilities [N, C] of the refitted members and, last, the base rate."""
        each = [model.predict_proba(table, rows) for model in fitted(self, "members_").values()]
        return [*each, np.tile(fitted(self, "base_rate_"), (len(rows), 1))]

    def _whole(self, model: Model) -> Model:
        inner = scaled(self.scaler, model)
        return inner if self.calibrator is None else Calibrated(inner, self.calibrator)

    def _held_out(self, train: Samples, valid: Samples) -> HeldOut:
        """What every member said of training rows that it was not fitted on, and its skill there."""
        folds = PurgedKFold(self.n_folds, self.embargo_bars)
        copies = {name: self._whole(model) for name, model in self.members.items()} | {BASE: BaseRate()}
        proba, covered_N = [], np.ones(len(train), dtype=bool)
        for name, model in copies.items():
            folder = None if self.workdir is None else self.workdir / "out_of_fold" / name
            with _named(name):
                one = out_of_fold(model, train, folds, valid, folder)
            proba.append(one.proba_NC)
            covered_N &= one.covered_N
        known = train.take(covered_N)
        told_NK = likelihoods([p[covered_N] for p in proba], known.y)
        return HeldOut.of(known, told_NK, tuple(self.members), self.confidence)

    def _refitted(self, held: HeldOut, weights: Array, train: Samples, valid: Samples) -> Self:
        """The members that have a weight in any vector [..., K], fitted on all training rows."""
        names = (*self.members, BASE)
        most_K = np.atleast_2d(weights).max(axis=0)
        done: dict[str, Model] = {}
        for name, model in self.members.items():
            if most_K[names.index(name)] > 0:
                with _named(name):
                    done[name] = self._whole(model).fit(train, valid)
        base = BaseRate().fit(train, valid)
        what = "weights" if np.ndim(weights) == 1 else "largest weight in any regime"
        LOG.info("pool, %s: %s", what, ", ".join(f"{name} {w:.3f}" for name, w in zip(names, most_K, strict=True)))
        state = {
            "weights_": dict(zip(names, np.atleast_2d(weights)[0].tolist(), strict=True)),
            "skills_": held.skills,
            "members_": done,
            "base_rate_": base.proba_,
        }
        return with_fitted(self, state)


@dataclass(frozen=True, eq=False)
class RegimeWeighted(Stacked):
    """A stacked pool with one weight vector per regime, each drawn towards the common one, mixed by belief.

    regime: fitted on the training rows' features, which hold no label; beliefs are filtered, never smoothed.
    shrinkage: kappa, how many independent samples the common vector is worth. A state's own vector minimises the
    log-loss weighted by belief; n_s is the sum of beliefs times each label's uniqueness on the common clock, so
    that neither overlapping labels nor coins that move together count twice. Infinity is `Stacked`.
    Fitted, besides those of `Stacked`: regime_; state_weights_ [S, K] in the order of weights_; n_effective_ [S].
    """

    regime: HmmRegime = field(kw_only=True)
    shrinkage: float = field(kw_only=True)
    regime_: HmmRegime | None = field(init=False, default=None)
    state_weights_: Array | None = field(init=False, default=None)
    n_effective_: Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shrinkage >= 0:
            raise TrainingError(f"regime weighted: shrinkage={self.shrinkage}; it counts samples and is at least 0")

    @property
    def lookback(self) -> int:
        """The longest of its members' and the regime's."""
        return max(super().lookback, self.regime.lookback)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """As `Stacked`; also raises as the regime's fit does, and DataError where its windows are not full."""
        held = self._held_out(train, valid)
        regime = self.regime.fit(train, valid)
        belief_NS = regime.predict_proba(train.table, held.rows)
        if bad := int(np.isnan(belief_NS).any(axis=1).sum()):
            raise DataError(
                f"regime weighted: {bad} of {len(belief_NS)} training rows lack the {regime.lookback} rows that the "
                "regime reads; samples are made with the model's lookback; rebuild them"
            )
        n_effective_S = (belief_NS * held.uniqueness_N[:, None]).sum(axis=0)
        common_K = floored(held.weights(held.weight_N), self.floor)
        weights_SK = np.stack(
            [
                shrunk(held.weights(held.weight_N * belief_NS[:, s]), common_K, n_effective_S[s], self.shrinkage)
                for s in range(belief_NS.shape[1])
            ]
        )
        weights_SK = floored(weights_SK, self.floor)
        done = self._refitted(held, np.vstack([common_K, weights_SK]), train, valid)
        return with_fitted(done, {"regime_": regime, "state_weights_": weights_SK, "n_effective_": n_effective_S})

    def earning(self) -> tuple[tuple[str, ...], Array]:
        """Names of what is pooled, and their weights [S, K]."""
        names, every = super().earning()[0], tuple(fitted(self, "weights_"))
        return names, fitted(self, "state_weights_")[:, [every.index(name) for name in names]]

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the pool by each row's belief; NaN where the regime's window is not full."""
        belief_NS = fitted(self, "regime_").predict_proba(table, rows)
        return pooled(self.earning()[1], self._told(table, rows), belief_NS)


def _mean(members: Mapping[str, Model], table: FeatureTable, rows: Array) -> Array:
    return np.mean([model.predict_proba(table, rows) for model in members.values()], axis=0)


def _check_members(where: str, members: Mapping[str, Model]) -> None:
    """At least two, named by what a file can be named by."""
    odd = [name for name in members if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name))]
    if len(members) < 2 or odd:
        raise TrainingError(
            f"{where}: members {list(members)}{f', of which {odd} are no names' if odd else ''}; an ensemble has at "
            "least two, named by letters, digits, - and _; mend model.members"
        )


def _check_weights(
    members: Mapping[str, Model], given: Mapping[str, float | None], weight_of: dict[str, float]
) -> None:
    """One weight per member, at most one of them left to the others, none below zero, together one."""
    left = [name for name, weight in given.items() if weight is None]
    known = set(given) == set(members) and len(left) <= 1
    if not (known and min(weight_of.values()) >= 0 and abs(sum(weight_of.values()) - 1) <= 1e-9):
        raise TrainingError(
            f"average: weights {dict(given)} of members {list(members)}; each member has one weight >= 0, one of them "
            "may be null and takes the rest, and they sum to one; mend model.weights"
        )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of a fit with the member's name before them."""
    try:
        yield
    except (TrainingError, DataError) as cause:
        raise type(cause)(f"ensemble member {name!r}: {cause}") from cause
