"""Two regimes combined: the market's own, and a macro regime.

Legend: N decision rows, K states of the market, M states of the supervisor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.regime import HmmRegime
from tradsys.models.supervisors.session_regime import SessionRegime
from tradsys.models.transforms import fitted, with_fitted

JOINT = "+"  # between the two names of a joint state


@dataclass(frozen=True, eq=False)
class SupervisedRegime:
    """The market's and the macro regime as K * M joint states.

    Named `calm+risk_on`, ... Each filter uses its own columns alone; the joint posterior is the product of the two. A
    mask that blocks `risk_off` blocks every joint state with that part. Fitted: market_, macro_.
    """

    market: HmmRegime
    macro: SessionRegime
    market_: HmmRegime | None = field(init=False, default=None)
    macro_: SessionRegime | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        both = sorted(set(self.market.names) & set(self.macro.names))
        odd = [name for name in (*self.market.names, *self.macro.names) if JOINT in name]
        if both or odd:
            raise DataError(
                f"regime: names {both} stand in both regimes, {odd} contain {JOINT!r}; a mask blocks a state by its "
                "part's name; choose other names"
            )

    @property
    def lookback(self) -> int:
        """The longer lookback of the two."""
        return max(self.market.lookback, self.macro.lookback)

    @property
    def names(self) -> tuple[str, ...]:
        """Joint states, the market's state first and slowest to change."""
        return tuple(f"{one}{JOINT}{other}" for one in self.market.names for other in self.macro.names)

    @property
    def n_states(self) -> int:
        """K * M, the number of joint states."""
        return self.market.n_states * self.macro.n_states

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A copy with both fitted on training rows; raises as they do."""
        return with_fitted(self, {"market_": self.market.fit(train, valid), "macro_": self.macro.fit(train, valid)})

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Joint filtered posterior float64 [N, K * M]; NaN where either is NaN."""
        market_NK = fitted(self, "market_").predict_proba(table, rows)
        return joint(market_NK, fitted(self, "macro_").predict_proba(table, rows))

    def to_json(self) -> Json:
        """A JSON value with every digit of both."""
        return {"market": fitted(self, "market_").to_json(), "macro": fitted(self, "macro_").to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted model that `to_json` wrote."""
        market, macro = HmmRegime.from_json(value["market"]), SessionRegime.from_json(value["macro"])
        return with_fitted(cls(market, macro), {"market_": market, "macro_": macro})


Regime = HmmRegime | SessionRegime | SupervisedRegime


def joint(market_NK: Array, macro_NM: Array) -> Array:
    """Product [N, K * M] of two posteriors, the market's state first."""
    return np.einsum("nk,nm->nkm", market_NK, macro_NM).reshape(len(market_NK), -1)


def parts_of(name: str) -> tuple[str, ...]:
    """The regimes in a state's name: one, or the two of a joint state."""
    return tuple(name.split(JOINT))


def filters_of(regime: Regime) -> tuple[HmmRegime, ...]:
    """The fitted filters inside a regime, for reports of their fits."""
    if isinstance(regime, SupervisedRegime):
        return (*filters_of(fitted(regime, "market_")), *filters_of(fitted(regime, "macro_")))
    if isinstance(regime, SessionRegime):
        return (fitted(regime, "regime_"),)
    return (regime,)


def with_effort(regime: Any, n_seeds: int, max_iter: int, max_rows: int) -> Any:
    """An unfitted copy that fits with fewer starts, steps and rows.

    It never uses more than the original.
    """
    if isinstance(regime, SupervisedRegime):
        return SupervisedRegime(
            *(with_effort(one, n_seeds, max_iter, max_rows) for one in (regime.market, regime.macro))
        )
    if isinstance(regime, SessionRegime):
        return replace(regime, regime=with_effort(regime.regime, n_seeds, max_iter, max_rows))
    least = {"n_seeds": n_seeds, "max_iter": max_iter, "max_rows": max_rows}
    return replace(regime, **{name: min(getattr(regime, name), most) for name, most in least.items()})
