"""Quality gates of a trading day: each measure passes, warns or stops by bounds from YAML."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tradsys.core.errors import TradsysError

Outcome = Literal["pass", "warn", "stop"]
# gate -> (title of its value, format)
MEASURES: Mapping[str, tuple[str, str]] = {
    "auc": ("AUC on the test sessions", ".3f"),
    "training_rows": ("training rows", ",.0f"),
    "coverage": ("members with every feature", ".1%"),
    "stale_prices": ("members without a fresh price", ".1%"),
    "duplicated_rows": ("rows that repeat the session before", ".1%"),
    "drift": ("AUC of last sessions against training rows", ".3f"),
    "disk_gb": ("free disk, GB", ",.1f"),
}
PER_HORIZON = ("auc", "training_rows")
BOUNDS = ("stop_below", "warn_below", "stop_above", "warn_above")


@dataclass(frozen=True)
class Rule:
    """The bounds of one gate; None for none. unknown: the outcome of a missing value.

    Raises TradsysError where a warning could never occur, because its bound lies beyond the one that stops.
    """

    stop_below: float | None = None
    warn_below: float | None = None
    stop_above: float | None = None
    warn_above: float | None = None
    unknown: Outcome = "stop"

    def __post_init__(self) -> None:
        if endless := [name for name in BOUNDS if not math.isfinite(getattr(self, name) or 0)]:
            raise TradsysError(
                f"gates: {asdict(self)}; {endless[0]} is a finite number; null leaves it out; fix conf/gates"
            )
        low = self.stop_below is not None and self.warn_below is not None and self.warn_below < self.stop_below
        high = self.stop_above is not None and self.warn_above is not None and self.warn_above > self.stop_above
        if low or high or self.unknown not in ("pass", "warn", "stop"):
            raise TradsysError(
                f"gates: {asdict(self)}; a warning comes before the stop (warn_below >= stop_below, warn_above <= "
                "stop_above) and unknown is pass, warn or stop; fix conf/gates"
            )

    def outcome(self, value: float | None) -> tuple[Outcome, str | None]:
        """The outcome, and the bound that decided it (None for a pass or a missing value)."""
        if value is None or not math.isfinite(value):
            return self.unknown, None
        for outcome in ("stop", "warn"):
            low, high = getattr(self, f"{outcome}_below"), getattr(self, f"{outcome}_above")
            if low is not None and value < low:
                return outcome, f"{outcome}_below"  # type: ignore[return-value]
            if high is not None and value > high:
                return outcome, f"{outcome}_above"  # type: ignore[return-value]
        return "pass", None


@dataclass(frozen=True)
class Measure:
    """A value for a gate.

    subject: its horizon, None for the day. detail: explanation in words.
    """

    gate: str
    value: float | None
    subject: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Check:
    """The outcome of a measure.

    said: the outcome in words, with the value and the bound.
    """

    gate: str
    subject: str | None
    value: float | None
    outcome: Outcome
    said: str


@dataclass(frozen=True)
class Gates:
    """The rules by gate, as conf/gates holds them.

    Raises TradsysError for a gate or a bound that does not exist.
    """

    rules: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.rules) - set(MEASURES))
        if unknown:
            raise TradsysError(f"gates: unknown gate {unknown}; the gates are {list(MEASURES)}; fix conf/gates")
        known = {*BOUNDS, "unknown"}
        for name, rule in self.rules.items():
            if not isinstance(rule, Mapping):
                raise TradsysError(f"gates: {name}={rule!r}; a rule is a mapping of bounds; fix gates.rules.{name}")
            wrong = {
                key: value
                for key, value in rule.items()
                if key in BOUNDS and value is not None and not (isinstance(value, int | float) and value is not True)
            }
            for key, value in wrong.items():
                raise TradsysError(
                    f"gates: gates.rules.{name}.{key}={str(value)[:60]!r}; a bound is a number, or null for "
                    "none; set it"
                )
            if odd := sorted(set(rule) - known):
                raise TradsysError(f"gates: {name} has {odd}; a rule has {sorted(known)}; fix conf/gates")
            Rule(**rule)

    def check(self, measures: Sequence[Measure]) -> list[Check]:
        """Outcomes of the measures that have a rule, in order.

        A rule without a measure is unknown.
        """
        wanted = [*measures, *(Measure(g, None, None, "not measured") for g in self.rules if g not in _gates(measures))]
        return [self._check(measure) for measure in wanted if measure.gate in self.rules]

    def _check(self, measure: Measure) -> Check:
        rule = Rule(**self.rules[measure.gate])
        outcome, bound = rule.outcome(measure.value)
        return Check(measure.gate, measure.subject, measure.value, outcome, _outcome_line(measure, rule, bound))


def withheld(checks: Sequence[Check]) -> dict[str, str]:
    """Stopped horizon -> reason; their forecasts are not published."""
    failed: dict[str, str] = {}
    for check in checks:
        if check.gate in PER_HORIZON and check.outcome == "stop" and check.subject is not None:
            failed[check.subject] = "; ".join(filter(None, [failed.get(check.subject), check.said]))
    return failed


def stopped(checks: Sequence[Check], horizons: Sequence[str]) -> list[str]:
    """Why the day may not be published; empty where it may.

    A stop of the day, or of every horizon.
    """
    reasons = [c.said for c in checks if c.outcome == "stop" and (c.gate not in PER_HORIZON or c.subject is None)]
    out = withheld(checks)
    if horizons and set(horizons) <= set(out):
        reasons += [f"{horizon}: {out[horizon]}" for horizon in horizons]
    return reasons


def outcome_of(checks: Sequence[Check]) -> Outcome:
    """`warn` where a check did not pass, else `pass`; for a day that was not stopped."""
    return "pass" if all(check.outcome == "pass" for check in checks) else "warn"


def _gates(measures: Sequence[Measure]) -> set[str]:
    return {measure.gate for measure in measures}


def _outcome_line(measure: Measure, rule: Rule, bound: str | None) -> str:
    title, form = MEASURES[measure.gate]
    if measure.value is None or not math.isfinite(measure.value):
        text = f"{title}: not known"
    else:
        text = f"{title} {format(measure.value, form)}"
    if bound is not None:
        outcome, _, way = bound.partition("_")
        verb = "stops" if outcome == "stop" else "warns"
        text += f", {verb} {way} {format(getattr(rule, bound), form)}"
    return f"{text} ({measure.detail})" if measure.detail else text
