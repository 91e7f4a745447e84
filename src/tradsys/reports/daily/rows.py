"""The tables of a daily report as cells, the same for HTML and Markdown."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tradsys.core.plain_data import Json
from tradsys.reports.tables import Cell
from tradsys.reports.wording import UNKNOWN, bounds, count, number, percent

# metric, heading, digits: the evaluation of each horizon
METRICS = (
    ("auc", "AUC", 3),
    ("skill_beyond_level", "skill beyond the level", 4),
    ("skill_over_base_rate", "skill over the base rate", 4),
    ("brier", "Brier", 4),
    ("hit_rate", "hit rate / base rate's", 3),
    ("ece", "ECE", 3),
    ("rank_ic", "rank IC", 3),
    ("deciles.net", "decile spread, net", 4),
)
ORDER = {"stop": 0, "warn": 1, "pass": 2}


def gate_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """gate, subject, outcome, said; checks that did not pass come first."""
    rows = [
        {
            "gate": check["gate"].replace("_", " "),
            "subject": check["subject"] or "the day",
            "outcome": check["outcome"],
            "said": check["said"],
        }
        for check in report["gates"]
    ]
    return sorted(rows, key=lambda row: ORDER[row["outcome"]])


def plan_rows(report: Mapping[str, Any]) -> list[Json]:
    """The plan as rows of text, one per name.

    rank, symbol, a cell per horizon, prices, weight, volatility, contributions.
    """
    return [
        {
            "rank": row["rank"],
            "symbol": row["symbol"],
            "forecasts": [forecast_cell(row["forecasts"][one["name"]]) for one in report["horizons"]],
            "entry": price(row["entry"]),
            "stop": Cell(price(row["stop"]), _away(row["stop"], row["entry"])),
            "target": Cell(price(row["target"]), _away(row["target"], row["entry"])),
            "weight": Cell(
                "" if row["weight"] is None else percent(row["weight"]), f"vol {percent(row['volatility'], 0)} a year"
            ),
            "reasons": [f"{one['name']} {value(one['value'])} ({one['log_odds']:+.3f})" for one in row["reasons"]],
        }
        for row in report["plan"]["rows"]
    ]


def forecast_cell(forecast: Mapping[str, Any] | None) -> Cell:
    """A probability, with the observed frequency and number of forecasts in its bin."""
    if forecast is None:
        return Cell("withheld")
    return Cell(number(forecast["p"], 3), f"observed {number(forecast['observed'], 3)} of {count(forecast['n'])}")


def horizon_rows(report: Mapping[str, Any]) -> list[Json]:
    """The horizons as rows of text.

    Name, training facts, a cell per metric with its interval, and why it is withheld.
    """
    return [
        {
            "name": one["name"],
            "detail": [f"trained {one['trained']}", f"base rate {number(one['base_rate'], 3)}"],
            "rows": Cell(count(one["rows"]["train"]), f"test {count(one['rows']['test'])}"),
            "cells": metric_cells(one["metrics"]),
            "withheld": one["withheld"],
            "because": one["because"],
            "no_interval": _no_interval(one["metrics"]),
        }
        for one in report["horizons"]
    ]


def _no_interval(metrics: Mapping[str, Any]) -> str:
    """Why values of the table have no interval, the reasons joined; empty where all have one."""
    found = [metric(metrics, key) for key, _, _ in METRICS]
    bare = [
        str(e["reason"])
        for e in found
        if e is not None and e["value"] is not None and e["low"] is None and e.get("reason")
    ]
    return "; ".join(dict.fromkeys(bare))


def metric_cells(metrics: Mapping[str, Any]) -> list[Cell]:
    """A cell per entry of METRICS.

    The hit rate next to that of always forecasting the more frequent class.
    """
    cells = [estimate_cell(metric(metrics, key), digits) for key, _, digits in METRICS]
    place = [key for key, _, _ in METRICS].index("hit_rate")
    base = metric(metrics, "hit_rate_base")
    if base is not None and base["value"] is not None:
        cells[place] = replace(cells[place], text=f"{cells[place].text} / {number(base['value'], 3)}")
    return cells


def metric(metrics: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """The estimate at `key` or `key.key`; None where the report has none."""
    found: Any = metrics
    for part in key.split("."):
        found = (found or {}).get(part)
    return found  # type: ignore[no-any-return]


def estimate_cell(estimate: Mapping[str, Any] | None, digits: int) -> Cell:
    """A value over its interval, or why there is none."""
    if estimate is None or estimate["value"] is None:
        return Cell(UNKNOWN, "" if estimate is None else str(estimate.get("reason") or ""))
    if estimate["low"] is None:
        return Cell(number(estimate["value"], digits), "no interval")
    return Cell(number(estimate["value"], digits), bounds(estimate["low"], estimate["high"], digits))


def price(amount: float | None) -> str:
    """Two decimals from 10 on, five significant digits below."""
    if amount is None:
        return UNKNOWN
    return f"{amount:,.2f}" if abs(amount) >= 10 else f"{amount:.5g}"


def value(number_: float) -> str:
    """A feature's value: three significant digits."""
    return f"{number_:.3g}"


def _away(level: float | None, entry: float) -> str:
    return "" if level is None else f"{100 * (level / entry - 1):+.1f} %"
