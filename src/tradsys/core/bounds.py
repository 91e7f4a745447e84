"""Ranges of settings written as in a textbook, `(0, 1]`, and refused when a config is built, before data is read."""

import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from tradsys.core.errors import TrainingError

INTERVAL = re.compile(r"(null or )?(whole )?([\[(])(-?[\w.]+), (-?[\w.]+)([\])])")


def check_bounds(where: str, part: Any, rules: Mapping[str, str], key: str) -> None:
    """Raises TrainingError for the first attribute of `part` that leaves its range; NaN and words leave every range.

    part: an object, or a mapping. rules: name -> range such as `[0, 1)`, `(0, inf]`, `whole [1, inf)` or
    `null or whole [1, inf)`; a round bracket excludes its end. key: config path of the part, named in the error.
    """
    for name, rule in rules.items():
        value = part[name] if isinstance(part, Mapping) else getattr(part, name)
        if not is_within(value, rule):
            raise TrainingError(f"{where}: {name}={value!r}; it must be {_spoken(rule)}; set {key}.{name}")


def is_within(value: Any, rule: str) -> bool:
    """Whether a value lies in a range, see `check_bounds`."""
    found = INTERVAL.fullmatch(rule)
    assert found, rule
    nullable, whole, left, low, high, right = found.groups()
    if value is None or isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        return value is None and bool(nullable)
    number, least, most = float(value), float(low), float(high)
    above = number > least or (left == "[" and number == least)
    below = number < most or (right == "]" and number == most)
    return not math.isnan(number) and above and below


def _spoken(rule: str) -> str:
    nullable, _, rest = rule.rpartition("null or ")
    kind = "a whole number in " if rest.startswith("whole ") else "a number in "
    return ("null or " if nullable or rule != rest else "") + kind + rest.removeprefix("whole ")
