"""A strategy: bundle, rule, masks and sizing give target positions, in backtest and live trading alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import polars as pl

from tradsys.core.clock import Moment
from tradsys.core.errors import BundleError, TradsysError
from tradsys.core.extensions import answer
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array
from tradsys.market.calendars import sessions_per_year
from tradsys.market.sessions import ROUND_THE_CLOCK
from tradsys.serving import exits
from tradsys.serving.bundle import Bundle
from tradsys.serving.own_rules import result_of
from tradsys.signals.rules import Threshold, above, break_even_probability

DAY_MINUTES = 1440
UNITS = {"score": "raw score", "probability": "calibrated probability", "quantile": "validation score quantile"}


@dataclass(frozen=True, eq=False)
class View:
    """Inputs of a decision, N decision rows.

    score, probability: raw and calibrated P(class 1) [N]: that the profit barrier is reached first or, for a label of
    kind `expansion`, that the range expands. audit: P(profitable after costs) [N] or None. spread: standard deviation
    of raw P(1) over the members of a mean [N] or None. regime: names [N] or None. close [N]. take_profit, stop_loss:
    price distances [N] of a position on its side. round_trip: costs of entry and exit together as a fraction. borrow:
    borrow fee of a short for its longest holding time. side int8 [N]: if the bundle predicts sides itself, the side of
    score, probability and barriers (+1, -1, 0 no candidate); otherwise None, and they are those of a long. kind: of the
    label.
    """

    score: Array
    probability: Array
    audit: Array | None
    regime: Array | None
    close: Array
    take_profit: Array
    stop_loss: Array
    round_trip: float
    side: Array | None = None
    kind: str = exits.BARRIER
    spread: Array | None = None
    borrow: float = 0.0


class Rule(Protocol):
    """Protocol: turns probabilities into a side."""

    def side(self, view: View, bundle: Bundle) -> Array:
        """int8 [N]: +1 long, -1 short, 0 none."""

    def describe(self) -> str:
        """The rule in words, with its unit."""


class Sizing(Protocol):
    """Protocol: reduces the size of riskier positions."""

    def size(self, view: View) -> Array:
        """float64 [N] in (0, 1], a share of the profile's size."""

    def describe(self) -> str:
        """The sizing in words."""


class Mask(Protocol):
    """Protocol: forbids entries."""

    def allows(self, view: View) -> Array:
        """bool [N]."""

    def describe(self) -> str:
        """The mask in words."""


@dataclass(frozen=True)
class ThresholdRule:
    """Long where P(1) reaches the threshold; with `short`, short where P(0) does.

    kind: `score` (raw softmax), `probability` (calibrated), or `quantile` (of validation scores, kept in the card).
    """

    value: float
    kind: str
    short: bool = False

    def __post_init__(self) -> None:
        Threshold(self.value, self.kind)
        if not 0 < self.value < 1:
            raise ValueError(
                f"strategy: {self.kind} >= {self.value}; softmax scores lie in 0 < value < 1; set rule.value"
            )

    def side(self, view: View, bundle: Bundle) -> Array:
        """int8 [N]; BundleError where the probability is not of a direction."""
        _check_direction(view, "ThresholdRule")
        if self.short and view.kind == exits.EXPLOSION:
            raise BundleError(
                "strategy: rule.short=true on a label of kind 'explosion'; no rise of that size is no fall; use "
                "rule.short=false"
            )
        proba = view.probability if self.kind == "probability" else view.score
        threshold = Threshold(self.value, self.kind)
        long = above(proba, threshold.resolve(bundle.valid_scores))
        if view.side is not None:
            if self.short:
                raise BundleError(
                    "strategy: rule.short=true on a bundle that predicts sides itself; there P(0) means that the "
                    "position "
                    "on that side fails, not that the other side is profitable; use rule.short=false"
                )
            return (long * view.side).astype(np.int8)
        if not self.short:
            return long
        short = above(1 - proba, threshold.resolve(1 - bundle.valid_scores))
        return np.where(long > 0, long, -short).astype(np.int8)

    def describe(self) -> str:
        """The threshold with its unit."""
        return f"{UNITS[self.kind]} >= {self.value:g}{', long and short' if self.short else ''}"


@dataclass(frozen=True)
class BreakEvenRule:
    """Long where P exceeds the break-even of barriers and costs by a margin.

    Costs are the round trip and, for a short, the borrow fee of its longest holding time. Later funding and dividends
    are unknown at the decision and are booked when due.
    """

    margin: float = 0.0

    def __post_init__(self) -> None:
        if not -1 < self.margin < 1:
            raise TradsysError(
                f"strategy: margin={self.margin} on a probability; the rule is -1 < margin < 1; set rule.margin"
            )

    def side(self, view: View, bundle: Bundle) -> Array:  # noqa: ARG002 - one signature for all rules
        """int8 [N]; BundleError where the probability is not of a direction."""
        _check_direction(view, "BreakEvenRule")
        if view.kind in exits.TIMED:
            raise BundleError(
                f"strategy: a BreakEvenRule needs barriers, but the bundle's label {view.kind!r} ends "
                "positions only by time; use strategy=[top_decile] or a portfolio of ranked names"
            )
        short = np.zeros(len(view.close), dtype=np.bool_) if view.side is None else view.side < 0
        cost = view.round_trip + np.where(short, view.borrow, 0.0)
        needed = break_even_probability(view.take_profit, view.stop_loss, view.close, cost)
        enters = (view.probability >= needed + self.margin).astype(np.int8)
        return enters if view.side is None else (enters * view.side).astype(np.int8)

    def describe(self) -> str:
        """The rule and its margin."""
        return f"calibrated probability >= break-even of barriers and costs + {self.margin:g}"


@dataclass(frozen=True)
class BreakoutRule:
    """The bundle's own side where an expansion of the range is likely enough.

    kind: as in ThresholdRule. For bundles with an expansion label and a feature `side`.
    """

    value: float
    kind: str

    def __post_init__(self) -> None:
        Threshold(self.value, self.kind)
        if not 0 < self.value < 1:
            raise ValueError(
                f"strategy: P(expansion) as {self.kind} >= {self.value}; it lies in 0 < value < 1; set rule.value"
            )

    def side(self, view: View, bundle: Bundle) -> Array:
        """int8 [N]; BundleError without an expansion label or without a side."""
        if view.kind != exits.EXPANSION or view.side is None:
            raise BundleError(
                f"strategy: a BreakoutRule needs P(expansion) and a side, but the bundle's label is {view.kind!r} "
                f"{'with' if view.side is not None else 'without'} a side; train with agent=volatility or use another "
                "rule"
            )
        proba = view.probability if self.kind == "probability" else view.score
        likely = above(proba, Threshold(self.value, self.kind).resolve(bundle.valid_scores))
        return (likely * view.side).astype(np.int8)

    def describe(self) -> str:
        """Threshold and what it is measured in."""
        return f"breakouts where the expansion's {UNITS[self.kind]} >= {self.value:g}"


@dataclass(frozen=True)
class ExpansionSizing:
    """Smaller positions before expansion: 1 - (1 - floor) * P(expansion)."""

    floor: float

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise TradsysError(f"strategy: floor is {self.floor}; it must be a share, 0 < floor <= 1; set sizing.floor")

    def size(self, view: View) -> Array:
        """float64 [N] from `floor` to 1; BundleError for another label's P."""
        if view.kind != exits.EXPANSION:
            raise BundleError(
                f"strategy: an ExpansionSizing needs P(expansion), but the bundle's label is {view.kind!r}; train with "
                "agent=volatility or leave sizing out"
            )
        return 1 - (1 - self.floor) * view.probability

    def describe(self) -> str:
        """The sizing in words."""
        return f"size falls to {self.floor:g} as P(expansion) rises to 1"


def _check_direction(view: View, rule: str) -> None:
    if view.kind == exits.EXPANSION:
        raise BundleError(
            f"strategy: a {rule} needs the probability of a gain, but the bundle's label is an expansion of the "
            "range in either direction; use strategy=[breakout]"
        )


@dataclass(frozen=True)
class RegimeMask:
    """Forbids entries while the filtered regime, or a part of it, is blocked."""

    blocked: Sequence[str]

    def allows(self, view: View) -> Array:
        """bool [N]."""
        if view.regime is None:
            raise BundleError(
                "strategy: a regime mask needs a regime but the bundle has none; choose a strategy without a mask "
                "(strategy=top_decile), or train with regime=hmm"
            )
        from tradsys.models.supervisors.supervised import parts_of  # noqa: PLC0415 - only with a regime

        forbidden = [name for name in np.unique(view.regime) if set(parts_of(name)) & set(self.blocked)]
        return ~np.isin(view.regime, forbidden)

    def describe(self) -> str:
        """Which regimes are blocked."""
        return f"not in regime {', '.join(self.blocked)}"


@dataclass(frozen=True)
class AuditMask:
    """Forbids entries unless the auditor's P(profitable after costs) is high enough."""

    min_probability: float

    def allows(self, view: View) -> Array:
        """bool [N]."""
        if view.audit is None:
            raise BundleError("strategy: an audit mask needs an auditor; train with auditor=xgboost")
        return view.audit >= self.min_probability

    def describe(self) -> str:
        """The auditor's threshold."""
        return f"auditor >= {self.min_probability:g}"


@dataclass(frozen=True)
class AgreementMask:
    """Forbids entries where the members' raw P(1) spread too widely.

    max_spread: a standard deviation, in probability. A NaN spread forbids entries.
    """

    max_spread: float

    def __post_init__(self) -> None:
        if not self.max_spread > 0:
            raise TradsysError(f"strategy: max_spread={self.max_spread}; it must be > 0; 0.02 to 0.1 is usual")

    def allows(self, view: View) -> Array:
        """bool [N]. Raises BundleError on a bundle of a single model."""
        if view.spread is None:
            raise BundleError(
                "strategy: an agreement mask needs a mean of several members but the bundle's model is a single one; "
                "train with model=seed_average or model=average"
            )
        return view.spread <= self.max_spread

    def describe(self) -> str:
        """The largest allowed spread."""
        return f"spread over members <= {self.max_spread:g}"


@dataclass(frozen=True)
class Profile:
    """A strategy profile: entry rule, masks, share of the sub-account."""

    rule: Rule
    masks: Sequence[Mask] = ()
    size: float = 1.0
    sizing: Sizing | None = None

    def __post_init__(self) -> None:
        if not 0 < self.size <= 1:
            raise ValueError(
                f"strategy: size is {self.size}; it must be a fraction of equity, 0 < size <= 1; fix the profile"
            )

    def describe(self) -> str:
        """The complete profile in one line."""
        parts = [self.rule, *self.masks, *([] if self.sizing is None else [self.sizing])]
        return "; ".join(answer(part, "describe", kind=str) for part in parts)


def profiles_of(parts: Mapping[str, Any]) -> Mapping[str, Profile]:
    """The profiles among the parts of a configuration; none for strategy=[]."""
    return parts.get("strategy") or {}


@dataclass(frozen=True)
class Strategy:
    """A named profile on a bundle, with its label's exits (`serving.exits`).

    round_trip: costs of entry and exit as a fraction. borrow_per_year: yearly fee of a short, a fraction of its value.
    """

    name: str
    primary: Bundle
    profile: Profile
    round_trip: float
    borrow_per_year: float = 0.0
    label: Json = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.primary.card["label"])

    def targets(
        self, bars: pl.DataFrame, since: Moment | None = None, predictions: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Entries wanted after each bar, as TARGETS_SCHEMA.

        Only rows with a side are returned; a bar without a row has no new entry. `predictions` avoids a second pass
        where several strategies share one bundle: it must be the result of `primary.predict(bars, since)`.
        """
        if predictions is None:
            predictions = self.primary.predict(bars, since)
        view = self._view(predictions)
        side = result_of(self.profile.rule, "side", view, self.primary)
        for mask in self.profile.masks:
            side = np.where(result_of(mask, "allows", view), side, 0)
        side = np.where((view.take_profit > 0) & (view.stop_loss > 0), side, 0)  # NaN gives no position
        sizing = self.profile.sizing
        share = np.ones(len(side)) if sizing is None else result_of(sizing, "size", view)
        # mirrors a long's barriers; a bundle that predicts sides has barriers of each side
        short = (side < 0) & (view.side is None)
        entered = np.flatnonzero(side)
        columns: dict[str, Array] = {
            "side": side.astype(np.int8),
            "size": self.profile.size * share,
            "take_profit": np.where(short, view.stop_loss, view.take_profit),
            "stop_loss": np.where(short, view.take_profit, view.stop_loss),
            "horizon_bars": np.full(len(side), int(self.label["horizon_bars"]), dtype=np.int64),
        }
        made = [pl.Series(name, values[entered]) for name, values in columns.items()]
        # a query or a gather would dominate the time of a live step: slices where all rows enter or none
        taken = slice(len(entered)) if len(entered) in (0, len(side)) else entered
        return pl.DataFrame([predictions["symbol"][taken], predictions["time"][taken], *made])

    def _longest_years(self) -> float:
        """Years that a position may last: horizon_bars of the bundle's bars, days by its calendar's sessions."""
        bars, minutes = int(self.label["horizon_bars"]), self.primary.bar_minutes or 0.0
        calendar = self.primary.data_config().get("calendar") or ROUND_THE_CLOCK
        if minutes >= DAY_MINUTES:
            return bars * minutes / DAY_MINUTES / sessions_per_year(calendar)
        return bars * minutes / (365 * DAY_MINUTES)

    def _view(self, frame: pl.DataFrame) -> View:
        columns = set(frame.columns)
        take_profit, stop_loss = exits.distances(self.label, frame)
        return View(
            score=frame["score"].to_numpy(),
            probability=frame["probability"].to_numpy(),
            audit=frame["audit"].to_numpy() if "audit" in columns else None,
            regime=frame["regime"].to_numpy() if "regime" in columns else None,
            close=frame["close"].to_numpy(),
            take_profit=take_profit,
            stop_loss=stop_loss,
            round_trip=self.round_trip,
            borrow=self.borrow_per_year * self._longest_years() if self.borrow_per_year else 0.0,
            side=frame["side"].to_numpy() if "side" in columns else None,
            kind=exits.kind_of(self.label),
            spread=frame["spread"].to_numpy() if "spread" in columns else None,
        )
