"""Models fitted on samples that are reweighted or resampled at the fit, from the training samples alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.net_fits import NetFit, NetFits
from tradsys.samples.sequential_bootstrap import sequential_bootstrap
from tradsys.samples.weights import average_uniqueness, time_decay


class _Weighed:
    """Base of models that reweight their training samples at the fit and predict as the inner model does."""

    model: Model
    kind: ClassVar[str]

    @property
    def reads_raw(self) -> bool:
        """Whether the inner model reads raw values."""
        return getattr(self.model, "reads_raw", False)

    @property
    def lookback(self) -> int:
        """Lookback of the inner model."""
        return self.model.lookback

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:  # noqa: ARG002
        """TrainingError: a fitted model is what `fit` returns."""
        raise TrainingError(f"{self.kind}: not fitted; only a fitted model predicts; use what `fit` returns")

    def fit(self, train: Samples, valid: Samples) -> Model:
        """The inner model, fitted on the reweighted training samples.

        `valid` is passed on unchanged.
        """
        return self.model.fit(self._weighed(train), valid)

    def net_fits(self, train: Samples, valid: Samples, found: NetFits) -> Iterator[NetFit]:
        """The inner model's nets, on the reweighted samples."""
        yield from found.of(self.model, self._weighed(train), valid)

    def _weighed(self, train: Samples) -> Samples:
        """The samples at weights times `_factor`, rescaled to mean 1; those of factor 0 are left out."""
        factor_N = self._factor(train)
        kept = replace(train, weight=train.weight * factor_N).take(factor_N > 0)
        return replace(kept, weight=kept.weight / kept.weight.mean())

    def _factor(self, train: Samples) -> Array:
        """Factor [N] of each training sample's weight."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class SequentialBootstrap(_Weighed):
    """A model fitted on a sequential bootstrap of its training samples.

    `fit` returns the inner model, fitted. A sample that was drawn k times has k times its weight, which equals k copies
    for every model here. Inside a `SeedAverage` each member draws its own, which is bagging by uniqueness. seed: of the
    draws and of the inner model. share: draws per training sample. Source: Lopez de Prado 2018, section 4.5.
    """

    kind: ClassVar[str] = "sequential bootstrap"
    model: Model
    seed: int = 0
    share: float = 1.0

    def __post_init__(self) -> None:
        check_bounds("sequential bootstrap", self, {"share": "(0, inf)"}, "model")

    def _factor(self, train: Samples) -> Array:
        n_draws = max(1, round(self.share * len(train)))
        drawn = sequential_bootstrap(*spans(train), n_draws=n_draws, seed=self.seed)
        return np.bincount(drawn, minlength=len(train))


@dataclass(frozen=True, eq=False)
class Decayed(_Weighed):
    """A model fitted with weights that fall with the age of a training sample.

    `fit` returns the inner model, fitted. oldest: see `samples.weights.time_decay`. Validation samples keep their
    weights.
    """

    kind: ClassVar[str] = "decayed"
    model: Model
    oldest: float

    def _factor(self, train: Samples) -> Array:
        return time_decay(average_uniqueness(*spans(train)), train.time, self.oldest)


def spans(samples: Samples) -> tuple[Array, Array]:
    """First and last bar [N] at which each label is open."""
    return samples.rows + 1, samples.end
