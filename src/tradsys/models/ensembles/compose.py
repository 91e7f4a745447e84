"""Composed models: scaled, calibrated, averaged over seeds or members. Each is a Model itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from tradsys.core.errors import TrainingError
from tradsys.core.extensions import answer
from tradsys.core.protocols import Calibrator, Model, Transform
from tradsys.core.tables import ROWS_AT_ONCE, Array, FeatureTable, Samples
from tradsys.models.ensembles.members import check_members, check_weights, mean_probability, naming_member
from tradsys.models.ensembles.nested_copies import in_workdir, seeded
from tradsys.models.ensembles.pool_weights import pooled
from tradsys.models.net_fits import NetFit, NetFits
from tradsys.models.transforms import fitted, with_fitted


@dataclass(frozen=True, eq=False)
class Scaled:
    """A model behind a transform that is fitted on the model's own training rows.

    Where the transform works `by_row` and the model `reads_row`, only the rows in use are transformed, not the table.
    Fitted: scaler_, model_.
    """

    scaler: Transform
    model: Model
    scaler_: Transform | None = field(init=False, default=None)
    model_: Model | None = field(init=False, default=None)

    @property
    def lookback(self) -> int:
        """Lookback of the inner model."""
        return self.model.lookback

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy with the transform, then the model, fitted on `train`.

        The model reads the transformed table.
        """
        if self._row_by_row:
            scaler = self.scaler.fit(train.table, train.rows)
            train, valid = (_of_own_rows(scaler, samples) for samples in (train, valid))
        else:
            scaler, train, valid = NetFits().scaled(self.scaler, train, valid)
        return self.of(scaler, self.model.fit(train, valid))

    @property
    def _row_by_row(self) -> bool:
        promised = ((self.scaler, "by_row"), (self.model, "reads_row"))
        # by the class itself: a subclass may read other rows too, and has to promise anew
        return all(vars(type(part)).get(name, False) for part, name in promised)

    def net_fits(self, train: Samples, valid: Samples, found: NetFits) -> Iterator[NetFit]:
        """The inner model's nets, on samples behind the transform.

        For models without nets nothing is fitted.
        """
        if not hasattr(self.model, "net_fits"):
            return
        _, train, valid = found.scaled(self.scaler, train, valid)
        yield from found.of(self.model, train, valid)

    @classmethod
    def of(cls, scaler: Transform, model: Model) -> Self:
        """The composition of two parts that are fitted already, as a bundle loads them."""
        return with_fitted(cls(scaler, model), {"scaler_": scaler, "model_": model})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C] from the transformed table."""
        scaler, model = fitted(self, "scaler_"), fitted(self, "model_")
        if not self._row_by_row:
            return model.predict_proba(scaler.apply(table), rows)
        blocks = (rows[k : k + ROWS_AT_ONCE] for k in range(0, max(len(rows), 1), ROWS_AT_ONCE))
        parts = [model.predict_proba(scaler.apply(table.take(some)), np.arange(len(some))) for some in blocks]
        return np.concatenate(parts)


def _of_own_rows(scaler: Transform, samples: Samples) -> Samples:
    """The samples on a table of their own rows alone, transformed; for models that read no other row."""
    at, table = np.arange(len(samples)), samples.table
    values = np.empty((len(at), len(table.names)), dtype=np.float32)
    for k in range(0, len(at), ROWS_AT_ONCE):
        some = slice(k, k + ROWS_AT_ONCE)
        values[some] = scaler.apply(table.take(samples.rows[some])).values
    own = {name: getattr(table, name)[samples.rows] for name in ("symbol", "time", "segment")}
    return replace(samples, table=replace(table, values=values, **own), rows=at, start=at, end=at)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A model with a calibrator fitted on the validation rows only.

    Fitted: model_, calibrator_.
    """

    model: Model
    calibrator: Calibrator
    model_: Model | None = field(init=False, default=None)
    calibrator_: Calibrator | None = field(init=False, default=None)

    @property
    def lookback(self) -> int:
        """Lookback of the inner model."""
        return self.model.lookback

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy with the model fitted on `train`, the calibrator on `valid`.

        Raises TrainingError when that is empty.
        """
        if not len(valid):
            raise TrainingError(
                "calibrated: no validation rows; a calibrator learns from rows the model was not fitted on; "
                "give the split a validation span or use calibration=none"
            )
        model = answer(self.model, "fit", train, valid, kind=Model)
        scores = answer(model, "predict_proba", valid.table, valid.rows, kind=np.ndarray)
        if scores.ndim != 2 or len(scores) != len(valid):
            raise TrainingError(
                f"calibrated: {type(model).__name__}.predict_proba() returned {list(scores.shape)} for "
                f"{len(valid)} rows; it must return [rows, classes]; see tradsys.core.protocols"
            )
        return self.of(model, self.calibrator.fit(scores, valid.y, valid.weight))

    def net_fits(self, train: Samples, valid: Samples, found: NetFits) -> Iterator[NetFit]:
        """Yields the nets that the inner model's fit trains."""
        yield from found.of(self.model, train, valid)

    @classmethod
    def of(cls, model: Model, calibrator: Calibrator) -> Self:
        """The composition of two parts that are fitted already, as a bundle loads them."""
        return with_fitted(cls(model, calibrator), {"model_": model, "calibrator_": calibrator})

    def score(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C] before calibration."""
        return fitted(self, "model_").predict_proba(table, rows)

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Calibrated probabilities, float64 [N, C]."""
        return fitted(self, "calibrator_").apply(self.score(table, rows))


def scaled(scaler: Transform | None, model: Model) -> Model:
    """The model behind the scaler, or itself where it `reads_raw` values.

    Trees and the base rate do.
    """
    return model if scaler is None or getattr(model, "reads_raw", False) else Scaled(scaler, model)


@dataclass(frozen=True, eq=False)
class SeedAverage:
    """The plain mean of one model's probabilities under several seeds.

    n_seeds: fits, at least two. seed: the fits' seeds are drawn from it, so that two averages share no fit.
    workdir: each fit writes below its own number, a stack below `stack`. stacked: whether nets of sequence models train
    as one stack, which changes only the last digits: null where that is faster, true wherever it is possible.
    Fitted: members_, by `seed_<k>`.
    """

    model: Model
    n_seeds: int
    seed: int = 0
    stacked: bool | None = None
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
        """Whether the inner model reads raw values: one scaler before all seeds, or none."""
        return getattr(self.model, "reads_raw", False)

    @property
    def lookback(self) -> int:
        """Lookback of the inner model."""
        return self.model.lookback

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy with each member fitted on the same rows."""
        copies = self._copies()
        done = self._as_stack(copies, train, valid) or [copy.fit(train, valid) for copy in copies]
        return with_fitted(self, {"members_": {f"seed_{k}": model for k, model in enumerate(done)}})

    def net_fits(self, train: Samples, valid: Samples, found: NetFits) -> Iterator[NetFit]:
        """The nets of its members, with its `stacked` setting; none where that is false."""
        if self.stacked is False:
            return
        for copy in self._copies():
            yield from (replace(fit, stacked=self.stacked) for fit in found.of(copy, train, valid))

    def _copies(self) -> list[Model]:
        """The model under each seed, in its own workdir."""
        # from a hash: seeds 7 and 8 must not share all but one of their members; 31 bits suit every library
        seeds = [int(np.random.SeedSequence([self.seed, k]).generate_state(1)[0] >> 1) for k in range(self.n_seeds)]
        copies = [seeded(self.model, drawn) for drawn in seeds]
        return [in_workdir(copy, self.workdir / str(k)) if self.workdir else copy for k, copy in enumerate(copies)]

    def _as_stack(self, copies: Sequence[Model], train: Samples, valid: Samples) -> Sequence[Model] | None:
        """The members trained as one stack; None where they are no nets, or are not faster so."""
        together = getattr(self.model, "fit_together", None)
        if together is None:
            return None
        folder = self.workdir / "stack" if self.workdir else None
        return together(copies, train, valid, workdir=folder, stacked=self.stacked)  # type: ignore[no-any-return]

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the mean over seeds."""
        return mean_probability(fitted(self, "members_"), table, rows)


@dataclass(frozen=True, eq=False)
class Average:
    """The weighted mean of named members' probabilities.

    All members predict the same label. scaler: before each member that does not read raw values; fitted per member, on
    its training rows. weights: one per member, >= 0, with sum one; None weights all equally. One of them may be None:
    it takes the rest, so that a sweep can vary the others. Fitted: members_.
    """

    reads_raw: ClassVar[bool] = True
    members: Mapping[str, Model]
    scaler: Transform | None = None
    weights: Mapping[str, float | None] | None = None
    members_: Mapping[str, Model] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_members("average", self.members)
        if self.weights is not None:
            check_weights(self.members, self.weights, self.weight_of)

    @property
    def lookback(self) -> int:
        """The longest lookback of its members."""
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
        """A copy with each member fitted on the same rows; an error names the member."""
        done: dict[str, Model] = {}
        for name, model in self.members.items():
            with naming_member(name):
                done[name] = scaled(self.scaler, model).fit(train, valid)
        return with_fitted(self, {"members_": done})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the mean over members."""
        each = [model.predict_proba(table, rows) for model in fitted(self, "members_").values()]
        return pooled(np.array(list(self.weight_of.values())), each)


def weights_of(model: Average | SeedAverage) -> dict[str, float]:
    """The weight of each fitted member of a mean, in their order.

    Equal where there are none.
    """
    names = list(model.members_ or {})
    return model.weight_of if isinstance(model, Average) else {name: 1 / len(names) for name in names}
