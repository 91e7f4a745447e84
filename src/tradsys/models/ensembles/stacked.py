"""Ensembles with weights learned out of fold: one weight vector, or one per regime."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.protocols import Calibrator, Model, Transform
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.baseline import BaseRate
from tradsys.models.ensembles.compose import Calibrated, scaled
from tradsys.models.ensembles.members import check_members, naming_member
from tradsys.models.ensembles.out_of_fold import HeldOut, out_of_fold
from tradsys.models.ensembles.pool_weights import Skill, floored, likelihoods, pooled, shrunk
from tradsys.models.regime import HmmRegime
from tradsys.models.transforms import fitted, with_fitted
from tradsys.samples.splits import PurgedKFold

LOG = logging.getLogger(__name__)
BASE = "base_rate"  # a member of every learned pool


@dataclass(frozen=True, eq=False)
class Stacked:
    """A linear opinion pool sum_k w_k p_k with learned weights.

    Learned on out-of-fold probabilities.
    The training base rate is a member of every pool and takes the weight that no other member earns: without a skilled
    member the pool is the base rate. members: all predict the same label. scaler: as of
    `Average`. calibrator: fitted on the validation rows behind each member, out-of-fold copies included; None
    pools raw scores, and then a member whose loss skews its scores (class weights, focusing) may earn no
    weight though it ranks well. The pool itself is calibrated from outside, by `Calibrated`.
    n_folds, embargo_bars: purged folds of the training rows. confidence: of the skills' intervals; a member whose
    complete interval of out-of-fold skill lies below zero gets weight 0 before the fit. floor: weights below it
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
        check_members("stacked", self.members)
        if BASE in self.members:
            raise TrainingError(f"stacked: a member is named {BASE!r}, which every pool holds already; rename it")
        if not (0 <= self.floor < 1 / (len(self.members) + 1) and 0 < self.confidence < 1):
            raise TrainingError(
                f"stacked: floor={self.floor}, confidence={self.confidence}; the rule is 0 <= floor < 1 / "
                f"(members + 1) = {1 / (len(self.members) + 1):.3f} and 0 < confidence < 1; set model.floor "
                "and model.confidence"
            )

    @property
    def lookback(self) -> int:
        """The longest lookback of its members."""
        return max(model.lookback for model in self.members.values())

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy with learned weights and the weighted members fitted.

        `valid` stops and calibrates each. Raises as `out_of_fold` and members do, the member named, and TrainingError
        where the training span holds fewer than two stretches longer than a label.
        """
        held = self._held_out(train, valid)
        weights_K = floored(held.weights(held.weight_N), self.floor)
        return self._refitted(held, weights_K, train, valid)

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Probabilities of the pool, float64 [N, C]."""
        return pooled(self.earning()[1], self._member_probabilities(table, rows))

    def earning(self) -> tuple[tuple[str, ...], Array]:
        """Names of the pooled members and `base_rate`, and their weights [K].

        Members are refitted.
        """
        weights = fitted(self, "weights_")
        names = (*fitted(self, "members_"), BASE)
        return names, np.array([weights[name] for name in names])

    def _member_probabilities(self, table: FeatureTable, rows: Array) -> list[Array]:
        """Probabilities [N, C] of the refitted members and, last, the base rate."""
        each = [model.predict_proba(table, rows) for model in fitted(self, "members_").values()]
        return [*each, np.tile(fitted(self, "base_rate_"), (len(rows), 1))]

    def _whole(self, model: Model) -> Model:
        inner = scaled(self.scaler, model)
        return inner if self.calibrator is None else Calibrated(inner, self.calibrator)

    def _held_out(self, train: Samples, valid: Samples) -> HeldOut:
        """Every member's predictions of training rows on which it was not fitted, and its skill there."""
        folds = PurgedKFold(self.n_folds, self.embargo_bars)
        copies = {name: self._whole(model) for name, model in self.members.items()} | {BASE: BaseRate()}
        proba, covered_N = [], np.ones(len(train), dtype=bool)
        for name, model in copies.items():
            folder = None if self.workdir is None else self.workdir / "out_of_fold" / name
            with naming_member(name):
                one = out_of_fold(model, train, folds, valid, folder)
            proba.append(one.proba_NC)
            covered_N &= one.covered_N
        known = train.take(covered_N)
        likelihood_NK = likelihoods([p[covered_N] for p in proba], known.y)
        return HeldOut.of(known, likelihood_NK, tuple(self.members), self.confidence)

    def _refitted(self, held: HeldOut, weights: Array, train: Samples, valid: Samples) -> Self:
        """The members that have a weight in any vector [..., K], fitted on all training rows."""
        names = (*self.members, BASE)
        most_K = np.atleast_2d(weights).max(axis=0)
        done: dict[str, Model] = {}
        for name, model in self.members.items():
            if most_K[names.index(name)] > 0:
                with naming_member(name):
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
    """A stacked pool with one weight vector per regime, mixed by belief.

    Each vector is shrunk to the common one. regime: fitted on the training rows' features, without labels; beliefs are
    filtered, never smoothed. shrinkage: kappa, number of independent samples that the common vector counts as. A
    state's own vector minimises the log-loss weighted by belief; n_s is the sum of beliefs times each label's
    uniqueness on the common clock, so that neither overlapping labels nor coins that move together count twice.
    Infinity is `Stacked`. Fitted, besides those of `Stacked`: regime_; state_weights_ [S, K] in the order of weights_;
    n_effective_ [S].
    """

    regime: HmmRegime = field(kw_only=True)
    shrinkage: float = field(kw_only=True)
    regime_: HmmRegime | None = field(init=False, default=None)
    state_weights_: Array | None = field(init=False, default=None)
    n_effective_: Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shrinkage >= 0:
            raise TrainingError(
                f"regime weighted: shrinkage={self.shrinkage}; it counts samples and is at least 0; set model.shrinkage"
            )

    @property
    def lookback(self) -> int:
        """The longest lookback of its members' and the regime's."""
        return max(super().lookback, self.regime.lookback)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A fitted copy, as `Stacked.fit`.

        Also raises as the regime's fit, and DataError for incomplete windows.
        """
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
        """Names of the pooled members, and their weights [S, K]."""
        names, every = super().earning()[0], tuple(fitted(self, "weights_"))
        return names, fitted(self, "state_weights_")[:, [every.index(name) for name in names]]

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the pool by each row's belief.

        NaN where the regime's window is incomplete.
        """
        belief_NS = fitted(self, "regime_").predict_proba(table, rows)
        return pooled(self.earning()[1], self._member_probabilities(table, rows), belief_NS)
