"""The regime of the market symbol, joined by time to every symbol of a panel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.received import refused_in_one_line
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.regime import HmmRegime
from tradsys.models.supervisors.supervised import SupervisedRegime
from tradsys.models.transforms import fitted, with_fitted


@dataclass(frozen=True, eq=False)
class MarketRegime:
    """Filtered regime of one symbol, the market's, joined to all others by time.

    On a panel each symbol's own regime would mostly be noise: hundreds of filters that disagree on one date,
    so that names ranked against each other would be scored by different mixtures, and hundreds of series that move
    together would enter the fit as if they were independent. The market's state is one value per date, the same for
    every name, available at the date's close.
    regime: which columns, how many states, how many rows back. market_symbol: its symbol in the table; it need be no
    sample. Fitted: regime_.
    """

    regime: HmmRegime
    market_symbol: str
    regime_: HmmRegime | None = field(init=False, default=None)

    @property
    def lookback(self) -> int:
        """Rows of the market that are read; a live buffer has to hold as many."""
        return self.regime.lookback

    @property
    def names(self) -> tuple[str, ...]:
        """States from the calmest to the wildest."""
        return self.regime.names

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy fitted on the market's rows at the training decisions' times only.

        Raises as `HmmRegime.fit` does.
        """
        table = train.table
        rows = self._rows(table)
        rows = rows[np.isin(table.time[rows], np.unique(train.time))]
        nothing = np.zeros(len(rows))
        market = Samples(table, rows, nothing.astype(np.int64), nothing + 1, rows, rows, nothing)
        return with_fitted(self, {"regime_": self.regime.fit(market, valid)})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """The market's filtered posterior float64 [N, S] at each row's own time.

        NaN where the market has no bar then, or not `lookback` finite rows in a row up to it. DataError for a table
        without the market.
        """
        market, regime = self._rows(table), fitted(self, "regime_")
        times, which = np.unique(table.time[rows], return_inverse=True)
        at = np.minimum(np.searchsorted(table.time[market], times), len(market) - 1)
        there = table.time[market[at]] == times
        belief_TS = np.full((len(times), regime.n_states), np.nan)
        belief_TS[there] = regime.predict_proba(table, market[at[there]])
        return belief_TS[which]

    def _rows(self, table: FeatureTable) -> Array:
        """The market's rows in time order."""
        known = self.market_symbol in table.symbols
        rows = np.flatnonzero(table.symbol == table.symbols.index(self.market_symbol)) if known else np.empty(0)
        if not len(rows):
            raise DataError(
                f"regime: no bar of {self.market_symbol!r} among {len(table.symbols)} symbols; the market's state is "
                "read from its own bars; add it to the data or use another market_symbol"
            )
        return rows

    def to_json(self) -> Json:
        """A JSON value with every digit.

        `regime_from_json` gives the same posteriors to the bit.
        """
        return {"market_symbol": self.market_symbol, "regime": fitted(self, "regime_").to_json()}


def regime_from_json(value: Mapping[str, Any]) -> HmmRegime | MarketRegime | SupervisedRegime:
    """The fitted regime that `to_json` of any kind wrote."""
    if isinstance(value, Mapping) and "macro" in value:
        with refused_in_one_line("regime", "export the bundle again"):
            return SupervisedRegime.from_json(value)
    if "market_symbol" not in value:
        return HmmRegime.from_json(value)
    with refused_in_one_line("regime", "export the bundle again"):
        regime = HmmRegime.from_json(value["regime"])
    return with_fitted(MarketRegime(regime, value["market_symbol"]), {"regime_": regime})
