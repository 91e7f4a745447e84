"""What a vendor's revisions were worth: features and labels on first prints against those on final prints."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.protocols import Labeller
from tradsys.core.tables import Array
from tradsys.features.feature_set import FeatureSet


@dataclass(frozen=True)
class PrintDifference:
    """One column on both prints. n: rows where either is known. changed: share of them that differ or are known once.

    mean_abs: mean absolute difference where both are known, in units of the final print's standard deviation; None
    where that is zero.
    """

    name: str
    n: int
    changed: float
    mean_abs: float | None


def compare_prints(
    first: pl.DataFrame, final: pl.DataFrame, features: FeatureSet, labels: Labeller
) -> tuple[PrintDifference, ...]:
    """Every feature, and the label's class and return as `y` and `ret`, on the two prints of the same bars.

    first: as `RevisionLedger.first_prints` gives them; both with segments, or both without. What features learn is the
    caller's: pass a fitted set. Raises DataError where the two are not the same bars.
    """
    if not first.select("symbol", "time").equals(final.select("symbol", "time")):
        raise DataError(
            f"prints: {first.height} first and {final.height} final bars differ; compare prints of one dataset"
        )
    one, two = features.table(first), features.table(final)
    found = [_print_difference(name, one.column(name), two.column(name)) for name in features.names]
    early, late = (labels.label(bars, features.side(bars)) for bars in (first, final))
    y = [np.where(part.y < 0, np.nan, part.y) for part in (early, late)]
    return (*found, _print_difference("y", *y), _print_difference("ret", early.ret, late.ret))


def _print_difference(name: str, first: Array, final: Array) -> PrintDifference:
    known, there = np.isfinite(first) | np.isfinite(final), np.isfinite(first) & np.isfinite(final)
    apart = np.abs(first[there].astype(np.float64) - final[there])
    spread = float(final[there].astype(np.float64).std()) if there.any() else 0.0
    n = int(known.sum())
    differing = int((known & ~there).sum()) + int((apart > 0).sum())
    return PrintDifference(name, n, differing / n if n else 0.0, float(apart.mean()) / spread if spread > 0 else None)
