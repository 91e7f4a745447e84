"""Protocols of the parts in config groups. They are structural: nothing inherits from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, FeatureTable, Fold, Labels, Samples

if TYPE_CHECKING:
    import polars as pl


@runtime_checkable
class Feature(Protocol):
    """One named column of one row's past. Parameters are fields of a frozen dataclass."""

    @property
    def name(self) -> str:
        """Column name, unique in a set, with its span: `vol_24`."""

    @property
    def warmup(self) -> int:
        """Rows before a row, from which on its value depends on nothing earlier."""

    def expr(self) -> pl.Expr:
        """Values over one segment sorted by time.

        Null or NaN in the warm-up, never filled.
        """


@runtime_checkable
class Labeller(Protocol):
    """Labels of a position decided at each bar, and the exits of such a position."""

    @property
    def horizon_bars(self) -> int:
        """The most bars a label may last."""

    @property
    def atr_bars(self) -> int:
        """Span of Wilder's average true range, in which barriers are measured."""

    def label(self, bars: pl.DataFrame, side: Array | None = None) -> Labels:
        """Labels [R].

        Side int8 [R]: +1 long, -1 short, 0 no candidate, which stays unlabelled; None is all long.
        """

    def card(self) -> Json:
        """JSON values from which serving derives the same exits.

        Keys: `kind`, `horizon_bars`, `atr_bars`, `classes`...
        """


@runtime_checkable
class Events(Protocol):
    """Selection of decision bars: events such as CUSUM's, or members of a universe."""

    def mask(self, bars: pl.DataFrame) -> Array:
        """True [R] where a decision is taken; reads rows <= t only."""


@runtime_checkable
class Transform(Protocol):
    """A column-wise map fitted on training rows."""

    def fit(self, table: FeatureTable, rows: Array) -> Self:
        """Learns from `rows` of the table and nothing else.

        Returns a fitted copy or itself.
        """

    def apply(self, table: FeatureTable) -> FeatureTable:
        """The table with transformed values, same rows."""


@runtime_checkable
class Model(Protocol):
    """Probabilities from windows that end at a row.

    `lookback` is the window's length in rows.
    """

    @property
    def lookback(self) -> int:
        """Rows read per sample, the decision row included."""

    def fit(self, train: Samples, valid: Samples) -> Self:
        """Learns from `train`; stops early on `valid`, which lies later in time."""

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C] class probabilities, each row summing to one."""


@runtime_checkable
class Calibrator(Protocol):
    """A map from scores to probabilities, fitted on rows later than training."""

    def fit(self, proba_NC: Array, y_N: Array, weight_N: Array) -> Self:
        """Learns the map from held-out scores."""

    def apply(self, proba_NC: Array) -> Array:
        """Calibrated float64 [N, C], each row summing to one."""


@runtime_checkable
class Splitter(Protocol):
    """Purged folds of samples over time."""

    def split(self, samples: Samples) -> Iterator[Fold]:
        """Folds whose training spans touch no validation or test span."""
