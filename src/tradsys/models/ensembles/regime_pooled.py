"""One model per regime, each shrunk to the common model by how few samples it has.

Legend: N samples, S states, K members (the common model and the states' own), C classes.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.protocols import Model, Transform
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.ensembles.compose import scaled
from tradsys.models.ensembles.nested_copies import in_workdir
from tradsys.models.ensembles.pool_weights import pooled, shrunk
from tradsys.models.market_regime import MarketRegime
from tradsys.models.regime import HmmRegime
from tradsys.models.transforms import fitted, with_fitted
from tradsys.samples.splits import span_bars
from tradsys.samples.weights import average_uniqueness

LOG = logging.getLogger(__name__)
COMMON = "common"
SLIGHT = 0.05  # rows with a smaller belief in a state are left out: trees count rows, not weights


@dataclass(frozen=True, eq=False)
class RegimePooled:
    """One model per regime, shrunk to a common one, mixed by belief.

    sum_s belief_s (n_s p_s + kappa p) / (n_s + kappa) with p the common model.
    model: copied, once for all rows and once per state, whose weights are multiplied by the filtered belief in it.
    regime: fitted on the training rows' features, without labels; for a panel a `MarketRegime`. scaler: before
    each copy, unless the model reads raw values. shrinkage: kappa, number of independent samples that the common model
    counts as; infinity gives it alone. n_s: the sum of beliefs times each label's uniqueness on the common clock, so
    that neither overlapping labels nor symbols that move together count twice. least: with a smaller n_s, or one class
    only, a state has no model of its own. workdir: takes each copy's files.
    Fitted: regime_; members_, `common` and `in_<state>`; n_effective_ [S].
    Source: Efron and Morris 1975 (shrinkage to the common estimate), in the form of `RegimeWeighted`.
    """

    reads_raw: ClassVar[bool] = True
    model: Model
    regime: HmmRegime | MarketRegime
    shrinkage: float
    scaler: Transform | None = None
    least: float = 20.0
    workdir: Path | None = None
    regime_: HmmRegime | MarketRegime | None = field(init=False, default=None)
    members_: Mapping[str, Model] | None = field(init=False, default=None)
    n_effective_: Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not (self.shrinkage >= 0 and self.least > 0):
            raise TrainingError(
                f"regime pooled: shrinkage={self.shrinkage}, least={self.least}; both count independent samples, the "
                "rule is shrinkage >= 0 and least > 0; set model.shrinkage or model.least"
            )

    @property
    def lookback(self) -> int:
        """The longer lookback of the model's and the regime's."""
        return max(self.model.lookback, self.regime.lookback)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy with the regime, the common model and the states' models fitted.

        Errors of a copy name it. Raises DataError where a training row has no belief, and as regime and model do.
        """
        regime = self.regime.fit(train, valid)
        belief_NS, held_MS = (regime.predict_proba(part.table, part.rows) for part in (train, valid))
        self._check_known(belief_NS)
        n_effective_S = (belief_NS * _uniqueness(train)[:, None]).sum(axis=0)
        done = {COMMON: self._copy(COMMON).fit(train, valid)}
        for s, name in enumerate(regime.names):
            own = _of_state(train, belief_NS[:, s])
            if n_effective_S[s] < self.least or len(np.unique(own.y)) < train.n_classes:
                LOG.warning(
                    "regime pooled: state %s has too few samples for a model of its own; the common one is used", name
                )
                continue
            try:
                done[f"in_{name}"] = self._copy(f"in_{name}").fit(own, self._stopping(valid, held_MS[:, s]))
            except (TrainingError, DataError) as cause:
                raise type(cause)(f"regime pooled, state {name!r}: {cause}") from cause
        return with_fitted(self, {"regime_": regime, "members_": done, "n_effective_": n_effective_S})

    def earning(self) -> tuple[tuple[str, ...], Array]:
        """Names of the pooled models and their weights [S, K]."""
        names, n_effective_S = tuple(fitted(self, "members_")), fitted(self, "n_effective_")
        common_K = np.array([float(name == COMMON) for name in names])
        rows = []
        for state, n in zip(self.regime.names, n_effective_S, strict=True):
            own_K = np.array([float(name == f"in_{state}") for name in names])
            rows.append(shrunk(own_K, common_K, n, self.shrinkage) if own_K.any() else common_K)
        return names, np.stack(rows)

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the mixture by each row's belief.

        NaN where the regime is unknown.
        """
        belief_NS = fitted(self, "regime_").predict_proba(table, rows)
        each = [model.predict_proba(table, rows) for model in fitted(self, "members_").values()]
        return pooled(self.earning()[1], each, belief_NS)

    def _copy(self, name: str) -> Model:
        inner = scaled(self.scaler, self.model)
        return inner if self.workdir is None else in_workdir(inner, self.workdir / name)

    def _stopping(self, valid: Samples, belief_M: Array) -> Samples:
        """Validation rows weighted by belief; all of them equally where the state hardly occurs among them."""
        if not len(valid):
            return valid
        known_M = np.nan_to_num(belief_M)
        own = _of_state(valid, known_M)
        enough = float((known_M * _uniqueness(valid)).sum()) >= self.least and len(np.unique(own.y)) == valid.n_classes
        return own if enough else valid

    def _check_known(self, belief_NS: Array) -> None:
        if bad := int(np.isnan(belief_NS).any(axis=1).sum()):
            raise DataError(
                f"regime pooled: {bad} of {len(belief_NS)} training rows lack the {self.regime.lookback} rows that the "
                "regime reads, of their own or of the market; load earlier bars of both, or shorten regime.lookback"
            )


def _of_state(samples: Samples, belief_N: Array) -> Samples:
    """The samples that belong to a state, their weights multiplied by the belief in it."""
    kept = belief_N >= SLIGHT
    own = samples.take(kept)
    return Samples(**{**vars(own), "weight": own.weight * belief_N[kept]})


def _uniqueness(samples: Samples) -> Array:
    """Uniqueness [N] of each label on the common clock, all symbols together: it sums to independent samples."""
    _, decision, end = span_bars(samples)
    return average_uniqueness(np.minimum(decision + 1, end), end)
