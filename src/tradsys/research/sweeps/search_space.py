"""Search space of a sweep: dotted config paths, each with a range, some only for certain values of another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
from optuna import Trial

from tradsys.core.errors import TradsysError, nearest
from tradsys.core.plain_data import Json
from tradsys.core.runs import digest_json

Value = bool | int | float | str | None
KINDS = ("float", "log", "int", "categorical")
# quantiles of the best trials' values that bound a refined search
ZOOM_QUANTILES = (0.1, 0.9)
# share of the old range by which a refined range is widened where the best trials all agree
ZOOM_LEAST = 0.05


class SweepError(TradsysError):
    """A search that cannot start or go on: its space, its study, its storage."""


@dataclass(frozen=True)
class Parameter:
    """One config path and its allowed values.

    kind: `float`, `log` (a float searched by its logarithm), `int`, or `categorical`. low, high: both included.
    step: grid of an int (1 where None) or float. choices: of a categorical; plain values, or options of a config group.
    when: path of another parameter -> its values for which this one is searched at all.
    """

    path: str
    kind: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[Value, ...] = ()
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str, entry: Mapping[str, Any]) -> Self:
        """Builds a parameter from its entry in conf/sweep.

        SweepError names the path and what is wrong.
        """
        known = {"type"} | {f.name for f in fields(cls)} - {"path", "kind"}
        if not isinstance(entry, Mapping) or (unknown := sorted(set(entry) - known)):
            what = f"unknown keys {unknown}" if isinstance(entry, Mapping) else f"{entry!r} is no mapping"
            raise SweepError(f"sweep: {path}: {what}; an entry has {sorted(known)}; set sweep.space")
        given = {k: v for k, v in entry.items() if k != "type"}
        given["choices"] = tuple(given.get("choices") or ())
        given["when"] = {
            k: tuple(v) if isinstance(v, list | tuple) else (v,) for k, v in (given.get("when") or {}).items()
        }
        parameter = cls(path, str(entry.get("type")), **given)
        parameter.check()
        return parameter

    def check(self) -> None:
        """SweepError where nothing could be drawn."""
        at = f"sweep: {self.path}"
        if self.kind not in KINDS:
            raise SweepError(f"{at}: type {self.kind!r}; it must be one of {', '.join(KINDS)}; set sweep.space")
        if self.kind == "categorical":
            if not self.choices:
                raise SweepError(f"{at}: no choices; a categorical needs at least one; list them in choices")
            if odd := [c for c in self.choices if not isinstance(c, bool | int | float | str | None)]:
                raise SweepError(f"{at}: choices {odd} are no plain values; give numbers, words, true, false or null")
            return
        numbers = [v for v in (self.low, self.high) if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < 2 or not all(math.isfinite(v) for v in numbers):
            raise SweepError(f"{at}: low={self.low}, high={self.high}; both must be finite numbers; give both")
        low, high = numbers
        if low >= high:
            raise SweepError(f"{at}: low={low} is not below high={high}; nothing is left to search; swap or widen them")
        if self.kind == "log" and low <= 0:
            raise SweepError(f"{at}: low={low} on a log scale; it must be above 0; raise it or use type: float")
        if self.kind == "int" and not all(float(v).is_integer() for v in (low, high, self.step or 1)):
            raise SweepError(f"{at}: low={low}, high={high}, step={self.step}; an int needs whole numbers; round them")
        if self.step is not None and (self.step <= 0 or self.kind == "log" or self.step > high - low):
            raise SweepError(
                f"{at}: step={self.step} of type {self.kind} between {low} and {high}; it must be positive, at most "
                "the range, and a log scale has none; set sweep.space"
            )

    def suggest(self, trial: Trial) -> Value:
        """A value drawn for a trial, within the range."""
        if self.kind == "categorical":
            return trial.suggest_categorical(self.path, self.choices)
        low, high = self.bounds
        if self.kind == "int":
            return trial.suggest_int(self.path, int(low), int(high), step=int(self.step or 1))
        return trial.suggest_float(self.path, low, high, step=self.step, log=self.kind == "log")

    @property
    def points(self) -> tuple[Value, ...]:
        """All values, rising, or all choices.

        Raises SweepError for a range without a step, which is infinite.
        """
        if self.kind == "categorical":
            return self.choices
        if self.kind == "log" or (self.kind == "float" and self.step is None):
            raise SweepError(
                f"sweep: {self.path}: type {self.kind} without a step has infinitely many values; a grid tries all; "
                "give a step, or choices with type: categorical"
            )
        low, high = self.bounds
        step = self.step or 1
        n = math.floor((high - low) / step + 1e-9) + 1
        return tuple(_typed(self, min(low + k * step, high)) for k in range(n))

    @property
    def bounds(self) -> tuple[float, float]:
        """The lower and upper bound of a numeric parameter."""
        assert self.low is not None, self.path
        assert self.high is not None, self.path
        return self.low, self.high

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values to try at set-up: low and high, or all choices."""
        return self.choices if self.kind == "categorical" else tuple(_typed(self, v) for v in self.bounds)

    def narrowed(self, values: Sequence[Value]) -> Self:
        """The range that the best trials' values span, inside this one.

        Unchanged with fewer than two values.
        """
        if len(values) < 2:
            return self
        if self.kind == "categorical":
            return replace(self, choices=tuple(c for c in self.choices if c in values))
        bottom, top = self.bounds
        there, back = (np.log, np.exp) if self.kind == "log" else (np.asarray, np.asarray)
        old_low, old_high = (float(there(v)) for v in (bottom, top))
        low, high = (float(q) for q in np.quantile(there(np.array(values, dtype=float)), ZOOM_QUANTILES))
        least = ZOOM_LEAST * (old_high - old_low)
        low, high = max(old_low, low - least), min(old_high, high + least)
        if self.kind == "log" or (self.kind == "float" and self.step is None):
            # back and forth through the logarithm must not leave the old range by a rounding
            return replace(self, low=max(bottom, float(back(low))), high=min(top, float(back(high))))
        step = self.step or 1
        first, last = math.floor((low - bottom) / step), math.ceil((high - bottom) / step)
        most = math.floor((top - bottom) / step + 1e-9)
        first, last = max(0, min(first, most - 1)), min(most, max(last, 1))
        kind = int if self.kind == "int" else float
        return replace(self, low=kind(bottom + first * step), high=kind(bottom + last * step))


@dataclass(frozen=True)
class SearchSpace:
    """Parameters in an order in which each comes after those that its `when` names."""

    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, entries: Mapping[str, Any] | None) -> Self:
        """Builds the space from `sweep.space`.

        Raises SweepError for an empty one, a bad range or an impossible condition.
        """
        if not entries:
            raise SweepError("sweep: the space is empty; a search needs something to change; list paths in sweep.space")
        parsed = [Parameter.of(str(path), entry) for path, entry in entries.items()]
        return cls(_ordered(parsed))

    @property
    def digest(self) -> str:
        """Digest of all ranges and conditions."""
        return digest_json(self.as_entries())

    def as_entries(self) -> dict[str, Json]:
        """The space as plain values, the form that `of` reads."""
        out = {}
        for parameter in self.parameters:
            entry = asdict(parameter) | {"type": parameter.kind, "choices": list(parameter.choices)}
            entry["when"] = {path: list(values) for path, values in parameter.when.items()}
            out[parameter.path] = {
                k: v for k, v in entry.items() if k not in ("path", "kind") and v not in (None, [], {})
            }
        return out

    def searched(self, values: Mapping[str, Value]) -> list[str]:
        """Paths of which a trial with these values has one: those whose conditions hold."""
        found: list[str] = []
        for parameter in self.parameters:
            if all(p in found and values.get(p) in wanted for p, wanted in parameter.when.items()):
                found.append(parameter.path)
        return found

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """A value for each path whose conditions hold."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if all(path in values and values[path] in wanted for path, wanted in parameter.when.items()):
                values[parameter.path] = parameter.suggest(trial)
        return values

    def grid(self) -> list[dict[str, Value]]:
        """Every assignment that a trial could draw, each once.

        A parameter whose condition fails is left out.
        """
        points: list[dict[str, Value]] = [{}]
        for parameter in self.parameters:
            grown: list[dict[str, Value]] = []
            for values in points:
                searched = all(path in values and values[path] in wanted for path, wanted in parameter.when.items())
                grown += [values | {parameter.path: value} for value in parameter.points] if searched else [values]
            points = grown
        return points

    def narrowed(self, best: Sequence[Mapping[str, Value]]) -> Self:
        """The space around the best trials' values.

        A parameter whose condition can no longer hold is removed.
        """
        kept: dict[str, Parameter] = {}
        for parameter in self.parameters:
            if any(path not in kept for path in parameter.when):
                continue
            if any(not set(kept[path].choices) & set(w) for path, w in parameter.when.items() if kept[path].choices):
                continue
            seen = [values[parameter.path] for values in best if parameter.path in values]
            kept[parameter.path] = parameter.narrowed(seen)
        return replace(self, parameters=tuple(kept.values()))

    def corners(self) -> list[dict[str, Value]]:
        """Assignments that use every parameter and choice at least once.

        Ends of ranges first.
        """
        out = []
        for parameter in self.parameters:
            out += [self.reaching(parameter) | {parameter.path: end} for end in parameter.ends]
        return out

    def reaching(self, parameter: Parameter) -> dict[str, Value]:
        """Values of other parameters at which this one is searched."""
        values: dict[str, Value] = {}
        for path, wanted in parameter.when.items():
            values |= self.reaching(self[path]) | {path: wanted[0]}
        return values

    def __getitem__(self, path: str) -> Parameter:
        return next(p for p in self.parameters if p.path == path)


def overrides_of(values: Mapping[str, Value]) -> list[str]:
    """The values as Hydra overrides, `path=value` each, numbers to the last digit."""
    return [f"{path}={_literal(value)}" for path, value in values.items()]


def leaves(value: Any, prefix: str = "") -> set[str]:
    """Dotted paths of everything in a plain config, groups included."""
    out: set[str] = set()
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        out |= {f"{prefix}{key}"} | leaves(inner, f"{prefix}{key}.")
    return out


def _literal(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # bare words stay bare, since a quoted one does not select from a config group
        return value if value.replace("_", "").replace("-", "").isalnum() else "'" + value.replace("'", "\\'") + "'"
    return repr(value)


def _typed(parameter: Parameter, value: Any) -> Value:
    return int(value) if parameter.kind == "int" else value


def _ordered(parameters: list[Parameter]) -> tuple[Parameter, ...]:
    known = {p.path for p in parameters}
    for parameter in parameters:
        for path in parameter.when:
            if path not in known:
                raise SweepError(
                    f"sweep: {parameter.path}: when names {path!r}, which is not searched; {nearest(path, known)}; a "
                    "condition names another path of the space; set sweep.space"
                )
        _check_reachable(parameter, {p.path: p for p in parameters})
    done: list[Parameter] = []
    while len(done) < len(parameters):
        names = {p.path for p in done}
        ready = [p for p in parameters if p.path not in names and set(p.when) <= names]
        if not ready:
            left = sorted(known - names)
            raise SweepError(f"sweep: conditions of {left} are circular; each needs the other first; drop one `when`")
        done += ready
    return tuple(done)


def _check_reachable(parameter: Parameter, known: Mapping[str, Parameter]) -> None:
    for path, wanted in parameter.when.items():
        choices = known[path].choices
        if not wanted or (choices and not set(choices) & set(wanted)):
            raise SweepError(
                f"sweep: {parameter.path}: when {path} in {list(wanted)}, but its choices are {list(choices)}; it "
                "would never be searched; fix the values"
            )
