"""Bundle + rule + masks + sizing -> target positions. Backtest and live hold this very object."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import polars as pl

from tradsys.core.errors import BundleError
from tradsys.core.tables import Array
from tradsys.serving.bundle import Bundle
from tradsys.signals.rules import Threshold, above, break_even_probability


@dataclass(frozen=True, eq=False)
class View:
    """What a decision may look at, N decision rows.

    score, probability: raw and calibrated P(upper barrier first) [N]. audit: P(the trade pays after costs) [N] or
    None. regime: names [N] or None. close [N]. take_profit, stop_loss: price distances of a long position [N].
    round_trip: costs of entry and exit together as a fraction. side int8 [N]: where the bundle has sides of its own,
    the one that score, probability and barriers are about (+1, -1, 0 no candidate); else None, all are about a long.
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


class Rule(Protocol):
    """Turns probabilities into a side."""

    def side(self, view: View, bundle: Bundle) -> Array:
        """int8 [N]: +1 long, -1 short, 0 none."""

    def describe(self) -> str:
        """The rule in words, with its unit."""


class Mask(Protocol):
    """Forbids entries."""

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
                f"strategy: {self.kind} >= {self.value}; softmax scores lie in 0 < value < 1; mend rule.value"
            )

    def side(self, view: View, bundle: Bundle) -> Array:
        """int8 [N]."""
        proba = view.probability if self.kind == "probability" else view.score
        threshold = Threshold(self.value, self.kind)
        long = above(proba, threshold.resolve(bundle.valid_scores))
        if view.side is not None:
            if self.short:
                raise BundleError(
                    "strategy: rule.short=true on a bundle whose sides are its own; P(0) says there that the position "
                    "on that side fails, not that the other one pays; use rule.short=false"
                )
            return (long * view.side).astype(np.int8)
        if not self.short:
            return long
        short = above(1 - proba, threshold.resolve(1 - bundle.valid_scores))
        return np.where(long > 0, long, -short).astype(np.int8)

    def describe(self) -> str:
        """Threshold and what it is measured in."""
        unit = {"score": "raw score", "probability": "calibrated probability", "quantile": "validation score quantile"}
        return f"{unit[self.kind]} >= {self.value:g}{', long and short' if self.short else ''}"


@dataclass(frozen=True)
class BreakEvenRule:
    """Long where the calibrated probability exceeds what barriers and costs need to break even, plus a margin."""

    margin: float = 0.0

    def side(self, view: View, bundle: Bundle) -> Array:  # noqa: ARG002 - one signature for all rules
        """int8 [N]."""
        needed = break_even_probability(view.take_profit, view.stop_loss, view.close, view.round_trip)
        enters = (view.probability >= needed + self.margin).astype(np.int8)
        return enters if view.side is None else (enters * view.side).astype(np.int8)

    def describe(self) -> str:
        """The rule and its margin."""
        return f"calibrated probability >= break-even of barriers and costs + {self.margin:g}"


@dataclass(frozen=True)
class RegimeMask:
    """No entry while the filtered regime is one of `blocked`."""

    blocked: Sequence[str]

    def allows(self, view: View) -> Array:
        """bool [N]."""
        if view.regime is None:
            raise BundleError("strategy: a regime mask needs a regime but the bundle has none; train with regime=hmm")
        return ~np.isin(view.regime, list(self.blocked))

    def describe(self) -> str:
        """Which regimes are blocked."""
        return f"not in regime {', '.join(self.blocked)}"


@dataclass(frozen=True)
class AuditMask:
    """No entry unless the auditor expects the trade to pay after costs."""

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
class Profile:
    """What a strategy's YAML says: when to enter, what forbids it, how much of the sub-account it takes."""

    rule: Rule
    masks: Sequence[Mask] = ()
    size: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.size <= 1:
            raise ValueError(
                f"strategy: size is {self.size}; it is a fraction 0 < size <= 1 of equity; mend the profile"
            )

    def describe(self) -> str:
        """The whole profile on one line."""
        return "; ".join([self.rule.describe(), *(mask.describe() for mask in self.masks)])


@dataclass(frozen=True)
class Strategy:
    """A named profile on a bundle. Exits are the label's barriers, read from the bundle's card."""

    name: str
    primary: Bundle
    profile: Profile
    round_trip: float
    label: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.primary.card["label"])

    def targets(
        self, bars: pl.DataFrame, since: datetime | None = None, predictions: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Entries wanted after each bar: symbol, time, side, size, take_profit, stop_loss, horizon_bars.

        Only rows with a side are returned; a bar without a row wants no new entry. `predictions` saves a second
        pass where several strategies share one bundle: it must be what `primary.predict(bars, since)` returned.
        """
        if predictions is None:
            predictions = self.primary.predict(bars, since)
        view = self._view(predictions)
        side = self.profile.rule.side(view, self.primary)
        for mask in self.profile.masks:
            side = np.where(mask.allows(view), side, 0)
        side = np.where(np.isfinite(view.take_profit) & (view.take_profit > 0), side, 0)
        short = (side < 0) & (view.side is None)  # barriers of a long, mirrored; a bundle's own sides have their own
        wanted = predictions.select("symbol", "time").with_columns(
            side=pl.Series(side.astype(np.int8)),
            size=pl.lit(self.profile.size),
            take_profit=pl.Series(np.where(short, view.stop_loss, view.take_profit)),
            stop_loss=pl.Series(np.where(short, view.take_profit, view.stop_loss)),
            horizon_bars=pl.lit(int(self.label["horizon_bars"]), dtype=pl.Int64),
        )
        return wanted.filter(pl.col("side") != 0)

    def _view(self, frame: pl.DataFrame) -> View:
        columns = set(frame.columns)
        width = frame["atr"].to_numpy()
        return View(
            score=frame["score"].to_numpy(),
            probability=frame["probability"].to_numpy(),
            audit=frame["audit"].to_numpy() if "audit" in columns else None,
            regime=frame["regime"].to_numpy() if "regime" in columns else None,
            close=frame["close"].to_numpy(),
            take_profit=self.label["upper"] * width,
            stop_loss=self.label["lower"] * width,
            round_trip=self.round_trip,
            side=frame["side"].to_numpy() if "side" in columns else None,
        )
