"""Effect of a vendor's revisions: features and labels on first prints compared with those on final prints."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from rich.table import Table

from tradsys.core.errors import DataError
from tradsys.core.protocols import Labeller
from tradsys.core.tables import Array
from tradsys.features.feature_set import FeatureSet
from tradsys.market.store import StoredBars
from tradsys.reports.terminal import table
from tradsys.research.pipeline.dataset import load_bars
from tradsys.research.pipeline.settings import Experiment


@dataclass(frozen=True)
class PrintDifference:
    """One column on both prints.

    n: rows with a value on either. changed: share that differ or have it on one only. mean_abs: mean absolute
    difference where both have a value, in units of the final print's standard deviation; None where that is zero.
    """

    name: str
    n: int
    changed: float
    mean_abs: float | None


def prints_of(experiment: Experiment) -> tuple[PrintDifference, ...]:
    """`compare_prints` of an experiment's stored bars.

    Its own features and labels on both prints. Fitted features are fitted on the first prints. Raises DataError where
    the data are not a stored dataset.
    """
    source = experiment.data["source"]
    first, final = (
        load_bars(replace(experiment, data={**experiment.data, "source": with_prints(source, prints)}))
        for prints in ("first", "final")
    )
    return compare_prints(first, final, experiment.features.fit(first), experiment.labels)


def prints_table(found: Sequence[PrintDifference]) -> Table:
    """The differences as a table for the terminal, the most changed first."""
    out = table("first prints against final prints", ("column", "rows", "changed", "mean |difference| / sd"))
    for one in sorted(found, key=lambda one: -one.changed):
        size = "" if one.mean_abs is None else f"{one.mean_abs:.2g}"
        out.add_row(one.name, f"{one.n:,}", f"{one.changed:.2%}", size)
    return out


def with_prints(source: Any, prints: str) -> Any:
    """The source with every stored dataset in it set to these prints.

    Raises DataError where there is none.
    """
    found = _replaced(source, prints)
    if found is source:
        raise DataError(
            f"prints: the data are {type(source).__name__}, which keep no revisions; give stored bars, such as "
            "data=stored data.source.name=coins"
        )
    return found


def _replaced(source: Any, prints: str) -> Any:
    if isinstance(source, StoredBars):
        return replace(source, prints=prints)
    if not is_dataclass(source) or isinstance(source, type):
        return source
    inner = {f.name: getattr(source, f.name) for f in fields(source) if f.init}
    new = {name: _replaced(value, prints) for name, value in inner.items() if is_dataclass(value)}
    changed = {name: value for name, value in new.items() if value is not inner[name]}
    return replace(source, **changed) if changed else source


def compare_prints(
    first: pl.DataFrame, final: pl.DataFrame, features: FeatureSet, labels: Labeller
) -> tuple[PrintDifference, ...]:
    """Every feature and the label on the two prints of the same bars.

    The label's class and return as `y` and `ret`. first: as `RevisionLedger.first_prints` returns them; both with
    segments, or both without. Features are not fitted here: pass a fitted set. Raises DataError where the two are not
    the same bars.
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
