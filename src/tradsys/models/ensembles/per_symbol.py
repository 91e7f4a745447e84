"""One copy of a model per symbol, for comparison with pooled training."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from tradsys.core.errors import TrainingError
from tradsys.core.protocols import Calibrator, Model, Transform
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.baseline import BaseRate
from tradsys.models.ensembles.compose import Calibrated, scaled
from tradsys.models.ensembles.nested_copies import in_workdir
from tradsys.models.transforms import fitted, with_fitted

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PerSymbol:
    """Predicts each symbol by a copy fitted on that symbol's samples only.

    scaler, calibrator: fitted per symbol too; None for none. least: a symbol with fewer training samples, or whose
    training or validation lacks a class, gets the base rate of all training samples.
    workdir: each copy writes below its symbol's name. It is for comparison only: no bundle holds it.
    Fitted: members_ by symbol; base_rate_ [C].
    """

    reads_raw: ClassVar[bool] = True
    model: Model
    scaler: Transform | None = None
    calibrator: Calibrator | None = None
    least: int = 200
    workdir: Path | None = None
    members_: Mapping[str, Model] | None = field(init=False, default=None)
    base_rate_: Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.least < 2:
            raise TrainingError(f"per symbol: least={self.least}; a copy learns from two samples at least; raise it")

    @property
    def lookback(self) -> int:
        """Lookback of the inner model."""
        return self.model.lookback

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy with each symbol's model fitted on its own samples.

        Warns of symbols that have too few. Raises TrainingError where no symbol has enough, or only one class occurs.
        """
        base: Any = BaseRate().fit(train, valid)
        done: dict[str, Model] = {}
        for symbol in train.table.symbols:
            own, held = _samples_of(train, symbol), _samples_of(valid, symbol)
            if len(own) >= self.least and all(len(np.unique(part.y)) == len(base.proba_) for part in (own, held)):
                done[symbol] = self._copy(symbol).fit(own, held)
        if not done:
            raise TrainingError(
                f"per symbol: none of {list(train.table.symbols)} has {self.least} training samples and all classes in "
                "training and validation; load more history, or train one pooled model with the model itself"
            )
        if lacking := [symbol for symbol in train.table.symbols if symbol not in done]:
            LOG.warning("per symbol: too little history of %s; they get the base rate", ", ".join(lacking))
        return with_fitted(self, {"members_": done, "base_rate_": base.proba_})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C] from each row's own copy; the base rate for symbols without one."""
        proba_NC = np.tile(fitted(self, "base_rate_"), (len(rows), 1))
        symbol_N = np.asarray(table.symbols, dtype=object)[table.symbol[rows]]
        for symbol, model in fitted(self, "members_").items():
            if (mine := symbol_N == symbol).any():
                proba_NC[mine] = model.predict_proba(table, rows[mine])
        return proba_NC

    def _copy(self, symbol: str) -> Model:
        inner = scaled(self.scaler, self.model)
        composed = inner if self.calibrator is None else Calibrated(inner, self.calibrator)
        return composed if self.workdir is None else in_workdir(composed, self.workdir / symbol)


def _samples_of(samples: Samples, symbol: str) -> Samples:
    table = samples.table
    return samples.take(table.symbol[samples.rows] == table.symbols.index(symbol))
