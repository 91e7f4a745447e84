"""Forest plot of a comparison: every variant's skill, and its difference from the reference."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from tradsys.reports.interval_plot import Mark, Panel, forest_panels
from tradsys.reports.style import ALARM, INK, QUIET, SERIES, plain

BETTER, WORSE, OPEN = SERIES[2], ALARM, SERIES[0]
REFERENCE = {"value": 0.0, "low": None, "high": None, "reason": "the reference"}


def skills_and_differences(table: Mapping[str, Any]) -> go.Figure:
    """Skill and paired difference from the reference, a line per variant.

    Two panels, best on top. A difference is green where its interval lies above zero, red where below, blue where it
    holds zero. The reference is grey and its difference a hollow zero. A value without an interval is hollow.
    """
    variants: Sequence[Mapping[str, Any]] = table["variants"]
    skills = {v["name"]: Mark(v["skill_beyond_level"], QUIET if v["is_reference"] else INK, "square") for v in variants}
    gaps = {v["name"]: _difference_mark(v) for v in variants}
    panels = [Panel("skill beyond the level", skills), Panel(_difference_title(table), gaps)]
    names = [v["name"] for v in variants]
    labels = [f"{v['name']} *" if v["own_rows"] else v["name"] for v in variants]
    return forest_panels(panels, names, 4, labels).update_xaxes(tickformat="~g")


def _difference_mark(variant: Mapping[str, Any]) -> Mark:
    estimate = variant["difference"]
    if estimate is None:
        return Mark(REFERENCE, QUIET, "square")
    if estimate["low"] is None or estimate["low"] <= 0 <= estimate["high"]:
        return Mark(estimate, OPEN, "square")
    return Mark(estimate, BETTER if estimate["low"] > 0 else WORSE, "square")


def _difference_title(table: Mapping[str, Any]) -> str:
    others = {v["against"] for v in table["variants"]} - {None, table["reference"]}
    return "difference in skill, paired" + ("" if others else f", to {plain(table['reference'])}")
