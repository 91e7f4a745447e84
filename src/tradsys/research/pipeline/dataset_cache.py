"""What experiments on the same bars share, each part computed once: digest, event masks and feature tables."""

from functools import cached_property
from typing import Any

import polars as pl

from tradsys.core.protocols import Events
from tradsys.core.tables import Array, FeatureTable
from tradsys.features.feature_set import FeatureSet
from tradsys.market.bars import content_digest


class DatasetCache:
    """Caches the digest, event masks and feature tables of one set of bars.

    bars: with segments, as `dataset.load_bars` returns them.
    """

    def __init__(self, bars: pl.DataFrame) -> None:
        self.bars = bars
        self._masks: list[tuple[Events, Array]] = []
        self._tables: list[tuple[FeatureSet, FeatureTable]] = []

    @cached_property
    def digest(self) -> str:
        """Of the bars' content."""
        return content_digest(self.bars)

    def mask(self, events: Events | None) -> Array | None:
        """Where these events decide, bool [R]; None for none."""
        if events is None:
            return None
        if not (known := [mask for other, mask in self._masks if other == events]):
            known = [events.mask(self.bars)]
            self._masks.append((events, known[0]))
        return known[0]

    def table(self, features: FeatureSet) -> FeatureTable:
        """The table of a fitted feature set; one for all sets that compute the same."""
        if not (known := [table for other, table in self._tables if _rules(other) == _rules(features)]):
            known = [features.table(self.bars)]
            self._tables.append((features, known[0]))
        return known[0]


def _rules(features: FeatureSet) -> tuple[Any, ...]:
    """All that decides a feature set's table: its features with their parameters, its ranks, its gap, its market."""
    return tuple(features.features), features.names, features.max_gap_minutes, features.market_symbol
