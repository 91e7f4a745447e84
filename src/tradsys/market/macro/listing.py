"""Listing age of a symbol as a class, point in time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import polars as pl

from tradsys.core.bounds import check_bounds
from tradsys.core.plain_data import Json
from tradsys.market.bars import utc_bars
from tradsys.market.macro.coins import Source, check_free

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class ListingAge:
    """Class of a symbol's age since its first bar.

    Each class is twice as long as the one before. sources: bars that hold each symbol from its first bar on, by any
    names. Column `<name>_class`: 1 below `first_days` of age, 2 below twice as many, ..., `classes` from first_days *
    2^(classes - 2) on; 0 where the age is unknown. A symbol whose first bar lies within `first_days` of its source's
    first bar may have been listed earlier, so its class is 0 until the oldest class is certain. A symbol without a
    source has class 0; in several sources, its earliest bar counts.
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    name: str = "age"
    first_days: float = 30.0
    classes: int = 6

    def __post_init__(self) -> None:
        rules = {"first_days": "(0, inf)", "classes": "whole [2, inf)"}
        check_bounds(f"known: {self.name}", self, rules, f"data.source.known.{self.name}")

    @property
    def column(self) -> str:
        """The column that is joined."""
        return f"{self.name}_class"

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars with the column on the right, in their order.

        Of the sources only first bars are read.
        """
        bars = utc_bars(bars)
        check_free(bars, [self.column])
        joined = bars.join(self._listed(), on="symbol", how="left", maintain_order="left")
        days = (pl.col("time") - pl.col("listed")).dt.total_seconds() / DAY_SECONDS
        bounds = [self.first_days * 2**k for k in range(self.classes - 1)]
        code = 1 + pl.sum_horizontal((days >= bound).cast(pl.Int64) for bound in bounds)
        is_known = (pl.col("time") >= pl.col("listed")) & (pl.col("is_seen") | (code == self.classes))
        found = pl.when(is_known).then(code).otherwise(0).cast(pl.Float64).fill_null(0.0)
        return joined.select(*bars.columns, found.alias(self.column))

    def describe(self) -> Json:
        """For run records."""
        reported = [one.describe() for one in self.sources.values()]
        return {
            "file": f"listing age {self.name}",
            "sha256": "+".join(str(one["digest"]) for one in reported),
            "columns": [self.column],
            "point_in_time": True,
            "note": f"{self.column} from first bars of {', '.join(str(one['name']) for one in reported)}: known since",
        }

    def _listed(self) -> pl.DataFrame:
        """symbol, `listed`, the close of its first bar, and `is_seen`, whether its source begins before that."""
        empty = pl.DataFrame(schema={"symbol": pl.String, "listed": pl.Datetime("us", "UTC"), "is_seen": pl.Boolean})
        parts = [empty]
        for source in self.sources.values():
            late = pl.col("listed") - pl.col("listed").min() > timedelta(days=self.first_days)
            first = utc_bars(source.bars()).group_by("symbol").agg(listed=pl.col("time").min())
            parts.append(first.with_columns(is_seen=late).cast(empty.schema))
        return pl.concat(parts).sort("symbol", "listed").unique("symbol", keep="first", maintain_order=True)
