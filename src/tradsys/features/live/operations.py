"""Steps without memory: one new value [n] from other new values of the same row, as polars computes them."""

import calendar
from collections.abc import Callable
from datetime import datetime
from functools import partial, reduce
from typing import Any

import numpy as np

from tradsys.core.tables import Array

Value = Any  # float64 or bool [n], or one number for all of them
Plain = Callable[..., Value]


def greater(a: Value, b: Value) -> Value:
    """a > b where NaN is above every number and equal to itself."""
    if isinstance(b, float) and b == b:  # noqa: PLR0124
        return ~(a <= b)
    return (a > b) | ((a != a) & (b == b))  # noqa: PLR0124 - a NaN alone differs from itself


def equal(a: Value, b: Value) -> Value:
    """Elementwise a == b, with NaN equal to NaN."""
    return (a == b) | ((a != a) & (b != b))  # noqa: PLR0124


def _not_greater(a: Value, b: Value) -> Value:
    return ~greater(a, b)


def _clip(value: Value, *bounds: Value, has_min: bool, has_max: bool) -> Value:
    low = bounds[0] if has_min else None
    high = bounds[-1] if has_max else None
    return np.clip(value, low, high)


def _power(value: Value, exponent: float) -> Value:
    return value * value if exponent == 2 else np.power(value, exponent)


PLAIN: dict[str, Plain] = {
    "Plus": np.add,
    "Minus": np.subtract,
    "Multiply": np.multiply,
    "TrueDivide": np.divide,
    "Gt": greater,
    "Lt": lambda a, b: greater(b, a),
    "GtEq": lambda a, b: _not_greater(b, a),
    "LtEq": _not_greater,
    "Eq": equal,
    "NotEq": lambda a, b: ~equal(a, b),
    "And": np.logical_and,
    "Or": np.logical_or,
    "where": np.where,
    "float": lambda x: np.asarray(x, dtype=np.float64),
    "abs": np.abs,
    "negate": np.negative,
    "sign": np.sign,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "fmax": lambda *values: reduce(np.fmax, values),
    "fmin": lambda *values: reduce(np.fmin, values),
}
PARTS: dict[str, Callable[[datetime], float]] = {
    "Hour": lambda t: t.hour,
    "Minute": lambda t: t.minute,
    "WeekDay": lambda t: t.isoweekday(),
    "Day": lambda t: t.day,
    "DaysInMonth": lambda t: calendar.monthrange(t.year, t.month)[1],
    "Month": lambda t: t.month,
}


def plain(op: str, params: tuple[Any, ...]) -> Plain | None:
    """The function of a stateless step; None for a step with state."""
    if op == "clip":
        return partial(_clip, has_min=params[0], has_max=params[1])
    if op == "round":
        return partial(np.round, decimals=params[0])
    if op == "power":
        return partial(_power, exponent=params[0])
    return PLAIN.get(op)


def part_of_time(part: str, time: datetime, n: int) -> Array:
    """A part of the moment for each of n symbols, float64 [n]."""
    return np.full(n, float(PARTS[part](time)))
