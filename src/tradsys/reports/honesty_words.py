"""The two honest questions in one line each: does the auditor help, and how much of a regime is hindsight."""

from collections.abc import Mapping
from typing import Any

from tradsys.reports.wording import UNKNOWN, bounds, count, interval, number, percent

SIDES = {
    "audited": "audited",
    "unaudited": "the same without the auditor",
    "reckless": "Reckless",
    "placebos": "placebo auditors, mean",
}


def percent_interval(estimate: Mapping[str, Any], digits: int = 2) -> str:
    """`value % [low, high]` of a fraction; `n/a` where it is not known."""
    if estimate["value"] is None:
        return UNKNOWN
    value = percent(estimate["value"], digits)
    if estimate["low"] is None:
        return value
    return f"{value} {bounds(100 * estimate['low'], 100 * estimate['high'], digits)}"


def points(estimate: Mapping[str, Any]) -> str:
    """A difference of two shares in percentage points with its interval; `n/a` and why where it is not known."""
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
    """`no (difference in Sharpe 0.10 [-0.40, 0.60] against 1,000 placebos, p = 0.310)`, or why it cannot be told."""
    verdict = row["verdict"]
    if not row["placebos"]:
        return f"{verdict['kind']} ({'; '.join(verdict['reasons'])})"
    test, gap = row["placebos"]["sharpe"], row["versus"]["placebos"]["sharpe"]
    against = f"against {count(test['n'])} placebos, {p_value(test['p_value'])}"
    return f"{verdict['kind']} (difference in Sharpe {interval(gap, 2)} {against})"


def hindsight_line(row: Mapping[str, Any]) -> str:
    """`Sharpe 1.20 as it could be known, 2.90 smoothed (1.70 [0.30, 3.00] more), 3.10 Viterbi (...)`."""
    views, gap = row["views"], row["gap"]
    if not any(view["n_trades"] for view in views.values()):
        return "it never traded"
    parts = [f"Sharpe {number(views['filtered']['sharpe'], 2)} as it could be known"]
    for view, name in (("smoothed", "smoothed"), ("viterbi", "Viterbi")):
        more = interval(gap[view]["sharpe"], 2)
        parts.append(f"{number(views[view]['sharpe'], 2)} {name} (difference {more})")
    return ", ".join(parts)
