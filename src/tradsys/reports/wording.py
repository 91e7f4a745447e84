"""Texts of values, intervals and shares, the same on the terminal and on pages."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tradsys.core.clock import utc
from tradsys.core.plurals import counted

__all__ = ["counted"]  # of core, read by every page as a filter
UNKNOWN = "n/a"
TIMED = ("forward_return", "explosion")  # labels whose positions end only by time
FILTERS = (
    "skill_caution",
    "class_meaning",
    "bounds",
    "count",
    "counted",
    "exits",
    "fact",
    "interval",
    "listed",
    "moment",
    "number",
    "p_value",
    "percent",
    "percent_interval",
    "points",
)


def number(value: float | None, digits: int) -> str:
    """Fixed digits, `n/a` for None."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent, `n/a` for None."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f} %"


def interval(estimate: Mapping[str, Any], digits: int) -> str:
    """`value [low, high]`; the value alone without an interval."""
    if estimate["value"] is None:
        return UNKNOWN
    value = number(estimate["value"], digits)
    if estimate["low"] is None:
        return value
    return f"{value} {bounds(estimate['low'], estimate['high'], digits)}"


def bounds(low: float, high: float, digits: int) -> str:
    """`[low, high]`, fixed digits."""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def confidence(value: float | None, digits: int = 3) -> str:
    """A probability rounded down, so that 0.9499 is not shown as 0.95."""
    if value is None:
        return UNKNOWN
    scale = 10**digits
    return number(math.floor(value * scale + 1e-9) / scale, digits)


def count(value: float) -> str:
    """A whole number with thousands separated: `12,345`."""
    return f"{value:,.0f}"


def moment(text: str) -> str:
    """An ISO moment as `2024-03-01 12:00 UTC`.

    A date or any other text is returned unchanged.
    """
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return text
    if read.tzinfo is None:
        return text
    return f"{utc(read):%Y-%m-%d %H:%M} UTC"


def listed(values: Sequence[Any], most: int = 8) -> str:
    """`a, b, c`, or the first `most` of many and how many more there are."""
    shown = ", ".join(str(v) for v in values[:most])
    return shown if len(values) <= most else f"{shown} and {count(len(values) - most)} more"


def fact(value: Any) -> str:
    """A value of a card or a provenance in words.

    None is `not stated`, a moment is in UTC.
    """
    if value is None:
        return "not stated"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {fact(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return listed([fact(v) for v in value])
    return moment(value) if isinstance(value, str) else str(value)


def exits(label: Mapping[str, Any]) -> str:
    """A label's exits: `exits at 1.5 ATR profit or 1.5 ATR loss, or after 24 bars`.

    Empty if unknown.
    """
    if label.get("kind") in TIMED:
        return f"exits after {counted(label['horizon_bars'], 'bar')}, no profit or loss barrier"
    if "lower" not in label:
        return ""
    loss, bars = f"{label['lower']:g} ATR loss", counted(label["horizon_bars"], "bar")
    if label.get("kind") == "mean_reached":
        way = f"the way back to the mean of {counted(label['mean_bars'], 'bar')}"
        return f"exits at {way} as profit or at {loss}, or after {bars}"
    return f"exits at {label['upper']:g} ATR profit or {loss}, or after {bars}"


def skill_caution(label: Mapping[str, Any]) -> str:
    """Why skill on this label is no edge; empty for labels of the direction of prices."""
    if label.get("kind") == "mean_reached":
        return (
            "The distances to profit barrier and stop differ between rows, and a near one is reached more often on any "
            "random walk: skill alone is no edge; only strategies after costs can show one."
        )
    if label.get("kind") == "explosion":
        return (
            "This label is a rise of a given size. Volatile names reach it more often in every market, so skill "
            "alone is "
            "no edge; only lift over equally volatile names and returns of positions can show one."
        )
    if label.get("kind") == "expansion":
        return (
            "This label is volatility, which clusters in every market: skill alone is no edge; only strategies after "
            "costs can show one."
        )
    return ""


def class_meaning(label: Mapping[str, Any]) -> str:
    """The meaning of class 1 of a label, for a sentence of the report.

    Empty for an unknown label.
    """
    if label.get("kind") == "mean_reached":
        return "the mean is reached before the stop"
    if label.get("kind") == "expansion":
        return (
            f"the range of the next {counted(label['horizon_bars'], 'bar')} exceeds the mean of past ranges by "
            f"{label['width']:g} deviations; it does not include the direction"
        )
    if label.get("kind") == "forward_return":
        return f"a position over {counted(label['horizon_bars'], 'bar')} gains before costs"
    if label.get("kind") == "explosion":
        bars = counted(label["horizon_bars"], "bar")
        return f"a high within {bars} lies at least {100 * label['rise']:g} % above the entry"
    return "the profit barrier is met before the stop, in time" if "upper" in label else ""


SIDES = {
    "audited": "audited",
    "unaudited": "the same without the auditor",
    "reckless": "Reckless",
    "placebos": "placebo auditors, mean",
}


def percent_interval(estimate: Mapping[str, Any], digits: int = 2) -> str:
    """`value % [low, high]` of a fraction; `n/a` where it is unknown."""
    if estimate["value"] is None:
        return UNKNOWN
    value = percent(estimate["value"], digits)
    if estimate["low"] is None:
        return value
    return f"{value} {bounds(100 * estimate['low'], 100 * estimate['high'], digits)}"


def points(estimate: Mapping[str, Any]) -> str:
    """A difference of two shares in percentage points with its interval.

    `n/a` and the reason where it is unknown.
    """
    if estimate["value"] is None:
        return f"{UNKNOWN} ({estimate['reason']})"
    shown = {k: None if estimate[k] is None else 100 * estimate[k] for k in ("value", "low", "high")}
    return f"{interval(shown, 2)} percentage points"


def p_value(value: float | None) -> str:
    """`p = 0.31`, never rounded to zero; `p = n/a` where there was no test."""
    if value is None:
        return f"p = {UNKNOWN}"
    return "p < 0.001" if value < 0.001 else f"p = {number(value, 3)}"


def auditor_line(row: Mapping[str, Any]) -> str:
    """Whether an auditor helps, in words, or why that is unknown.

    `no (difference in Sharpe 0.10 [-0.40, 0.60] against 1,000 placebos, p = 0.310)`.
    """
    verdict = row["verdict"]
    if not row["placebos"]:
        return f"{verdict['kind']} ({'; '.join(verdict['reasons'])})"
    test, gap = row["placebos"]["sharpe"], row["versus"]["placebos"]["sharpe"]
    against = f"against {count(test['n'])} placebos, {p_value(test['p_value'])}"
    return f"{verdict['kind']} (difference in Sharpe {interval(gap, 2)} {against})"


def views_line(row: Mapping[str, Any]) -> str:
    """A strategy's Sharpe under each view of the regimes, in words.

    `Sharpe 1.20 filtered (point in time), 2.90 smoothed (difference 1.70 [0.30, 3.00]), 3.10 Viterbi (...)`.
    """
    views, gap = row["views"], row["gap"]
    if not any(view["n_trades"] for view in views.values()):
        return "it never traded"
    parts = [f"Sharpe {number(views['filtered']['sharpe'], 2)} filtered (point in time)"]
    for view, name in (("smoothed", "smoothed"), ("viterbi", "Viterbi")):
        more = f" (difference {interval(gap[view]['sharpe'], 2)})" if gap[view] else ""
        parts.append(f"{number(views[view]['sharpe'], 2)} {name}{more}")
    return ", ".join(parts)


def escaped(text: object) -> str:
    """One line of text as Markdown shows it literally."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(str(text).split()))
