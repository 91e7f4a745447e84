"""Shared by all labels: the bounds of their parameters, and the base of their configuration classes."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from tradsys.core.bounds import check_bounds
from tradsys.core.plain_data import Json

DEATH = ("dead_after_bars", "delisting_return")
BOUNDS: Mapping[str, str] = {
    "horizon_bars": "whole [1, inf)",
    "atr_bars": "whole [1, inf)",
    "mean_bars": "whole [1, inf)",
    "band_bars": "whole [2, inf)",  # a deviation needs two
    "width": "(0, inf)",
    "upper": "(0, inf]",
    "lower": "(0, inf]",
    "rise": "(0, inf)",
    "dead_after_bars": "null or whole [1, inf)",
    "delisting_return": "(-1, 0]",
}


def check_sizes(where: str, bounds: Mapping[str, str] = BOUNDS, **sizes: Any) -> None:
    """Raises TrainingError for the first parameter of a label that is out of range."""
    check_bounds(where, sizes, {name: bounds[name] for name in sizes}, where)


class LabelConfig:
    """Base of label configurations, whose fields are the function's arguments.

    They are frozen dataclasses.
    """

    bounds: ClassVar[Mapping[str, str]] = BOUNDS

    def __post_init__(self) -> None:
        own = {name: self.bounds[name] for name in self.sizes() if name in self.bounds}
        check_bounds("labels", self, own, "labels")

    def sizes(self, *without: str) -> Json:
        """The fields by name, except these."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in without}  # type: ignore[arg-type]

    def delisting_rule(self) -> Json:
        """The delisting rule as a card keeps it: empty where the label has none."""
        rule = {name: getattr(self, name) for name in DEATH}
        return rule if rule["dead_after_bars"] is not None else {}
