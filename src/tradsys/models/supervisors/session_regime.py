"""A regime of daily sessions for bars round the clock: one observation per session, from its publication on.

Legend: R rows of the table, N decision rows, S session rows, T sessions of a window, K states.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.received import refused_in_one_line
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.regime import HmmRegime
from tradsys.models.transforms import fitted, with_fitted


@dataclass(frozen=True, eq=False)
class SessionRegime:
    """Filtered regime of values that change once a session, read at every bar.

    An hourly filter over daily values would count each of them 24 times, and Friday's 72 times over a weekend. Here a
    row is an observation only where a session was published: where the column `clock`, the hours since then, is less
    than at the row before. A decision uses the sessions among its last `lookback_bars` rows, at most
    `regime.lookback` of them, begun from the prior; none of them lies after it.

    regime: columns, states, and as `lookback` the sessions of a window. clock: a column of ages, of the series that
    is published last. Fitted: regime_. All symbols hold the same values; the one with the most training rows is
    used, on the sessions of its training windows.
    """

    regime: HmmRegime
    clock: str
    lookback_bars: int = 744
    regime_: HmmRegime | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_bounds("session regime", self, {"lookback_bars": "whole [2, inf)"}, "regime.macro")

    @property
    def lookback(self) -> int:
        """Rows that a decision needs."""
        return self.lookback_bars

    @property
    def names(self) -> tuple[str, ...]:
        """States in the order of `regime.order_column`."""
        return self.regime.names

    @property
    def n_states(self) -> int:
        """K, the number of states."""
        return self.regime.n_states

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy fitted on the training windows' sessions.

        Raises as `HmmRegime.fit`, DataError without a session.
        """
        table = train.table
        symbol = np.bincount(table.symbol[train.rows]).argmax()
        own = train.take(table.symbol[train.rows] == symbol)
        rows = self.session_rows(table)
        first, last = np.searchsorted(rows, own.start + 1), np.searchsorted(rows, own.rows, side="right") - 1
        some = np.flatnonzero(last >= first)
        if not len(some):
            raise DataError(
                f"session regime: no session was published in the windows of {len(own)} training samples; "
                f"{self.clock!r} falls where one is; set clock= to a column of ages"
            )
        short, ends = table.take(rows), last[some]
        nothing = np.zeros(len(some))
        windows = Samples(short, ends, nothing.astype(np.int64), nothing + 1, first[some], ends, nothing)
        return with_fitted(self, {"regime_": self.regime.fit(windows, valid)})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Filtered posterior float64 [N, K].

        NaN where no session was published within the window.
        """
        rows = np.asarray(rows, dtype=np.int64)
        model, at = fitted(self, "regime_"), self.session_rows(table)
        out = np.full((len(rows), self.n_states), np.nan)
        last = np.searchsorted(at, rows, side="right") - 1
        # the row before an observation is needed too, since the clock falls between the two
        first = np.searchsorted(at, np.maximum(rows - self.lookback_bars + 2, _segment_starts(table)[rows] + 1))
        n_sessions = np.minimum(last - first + 1, self.regime.lookback)
        short = table.take(at)
        for n in np.unique(n_sessions[n_sessions > 0]):
            mine = np.flatnonzero(n_sessions == n)
            ends, which = np.unique(last[mine], return_inverse=True)
            out[mine] = model.filter_windows(short, ends, int(n))[which]
        return out

    def session_rows(self, table: FeatureTable) -> Array:
        """Rows [S], ascending, at which a session was published."""
        age = table.column(self.clock)
        with np.errstate(invalid="ignore"):
            newer = age[1:] < age[:-1]
        return np.flatnonzero(newer & (table.segment[1:] == table.segment[:-1])) + 1

    def to_json(self) -> Json:
        """A JSON value with every digit; `from_json` gives the same posteriors to the bit."""
        return {
            "clock": self.clock,
            "lookback_bars": self.lookback_bars,
            "regime": fitted(self, "regime_").to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted model that `to_json` wrote."""
        with refused_in_one_line("regime", "export the bundle again"):
            regime = HmmRegime.from_json(value["regime"])
            return with_fitted(cls(regime, str(value["clock"]), value["lookback_bars"]), {"regime_": regime})


def _segment_starts(table: FeatureTable) -> Array:
    """First row [R] of each row's segment."""
    starts = np.ones(len(table), dtype=bool)
    starts[1:] = table.segment[1:] != table.segment[:-1]
    return np.maximum.accumulate(np.where(starts, np.arange(len(table)), 0))
