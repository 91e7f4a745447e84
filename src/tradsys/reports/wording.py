"""Numbers in words: one way to write a value, an interval and a share, on the terminal and on the page."""

from collections.abc import Mapping
from typing import Any

UNKNOWN = "n/a"


def number(value: float | None, digits: int) -> str:
    """Fixed digits, `n/a` for None."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent, `n/a` for None."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f} %"


def interval(estimate: Mapping[str, Any], digits: int) -> str:
    """`value [low, high]`; the value alone where there is no interval."""
    if estimate["value"] is None:
        return UNKNOWN
    value = number(estimate["value"], digits)
    if estimate["low"] is None:
        return value
    return f"{value} [{number(estimate['low'], digits)}, {number(estimate['high'], digits)}]"
