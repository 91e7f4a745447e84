"""Whether quiet rows explode more often: lift of compression over all rows, within times and within symbols.

A row is compressed in a column where its value lies in the column's lowest share. Legend: N rows, K columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from tradsys.core.headline import EstimateRow
from tradsys.core.tables import Array, FeatureTable
from tradsys.evidence.cross_section.association import Lift, event_lift, event_rate

N_FIFTHS = 5


class Drawn(TypedDict):
    """Shortest block in bars and confidence of intervals."""

    min_block: float
    confidence: float


class LiftRow(TypedDict):
    """Lift of the event where a column is low; n_both of n_chosen such rows have it."""

    name: str
    lift: EstimateRow
    within_time: EstimateRow
    within_symbol: EstimateRow
    n_chosen: int
    n_both: int
    rate: float | None


class FifthRow(EstimateRow):
    """Event rate of the n rows of a fifth of a column, counted from its lowest."""

    fifth: int
    n: int


class CompressionSection(TypedDict):
    """How often the event follows a compressed market.

    levels: a column at or below its level is low, the lowest `share` of n rows. rate: of the event over all rows.
    """

    share: float
    levels: dict[str, float]
    n: int
    rate: float
    lifts: list[LiftRow]
    fifths: dict[str, list[FifthRow]]


@dataclass(frozen=True, eq=False)
class Compressed:
    """Which of N rows are compressed.

    values_NK [N, K]: the columns; known [N]: rows where all are finite. low_NK: bool, the value is at most the level,
    the edge of the lowest share. all_of_them [N]: low in every column.
    """

    names: tuple[str, ...]
    values_NK: Array
    levels_K: Array
    low_NK: Array
    known: Array
    share: float

    @property
    def all_of_them(self) -> Array:
        """bool [N]: rows that are low in every column."""
        return self.known & self.low_NK.all(axis=1)


def compressed_rows(table: FeatureTable, rows: Array, columns: Sequence[str], share: float) -> Compressed | None:
    """The rows in the lowest `share` of each column.

    None where the table lacks the columns, or no row has all.
    """
    names = tuple(name for name in columns if name in table.names)
    if not names:
        return None
    values = np.stack([table.column(name)[rows] for name in names], axis=1)
    known = np.isfinite(values).all(axis=1)
    if not known.any():
        return None
    # "lower": a level that is one of the values, so that ties fall on one side
    levels = np.quantile(values[known], share, axis=0, method="lower")
    return Compressed(names, values, levels, known[:, None] & (values <= levels), known, share)


def compression_section(
    squeezed: Compressed | None, event_N: Array, time_N: Array, symbol_N: Array, drawn: Drawn
) -> CompressionSection | None:
    """Lifts of compressed rows, and event rates by fifth of each column.

    Lifts of all columns together and of each; None without columns.
    """
    if squeezed is None:
        return None
    known = squeezed.known
    event, time, symbol = event_N[known], time_N[known], symbol_N[known]
    masks = dict(zip(squeezed.names, squeezed.low_NK[known].T, strict=True))
    if len(masks) > 1:
        masks = {"all of them": squeezed.all_of_them[known], **masks}
    lifts = [_lift_row(name, event_lift(mask, event, time, symbol, **drawn)) for name, mask in masks.items()]
    fifths = {name: _fifths(squeezed.values_NK[known, k], event, time, drawn) for k, name in enumerate(squeezed.names)}
    return {
        "share": squeezed.share,
        "levels": dict(zip(squeezed.names, squeezed.levels_K.tolist(), strict=True)),
        "n": int(known.sum()),
        "rate": float(event.mean()),
        "lifts": lifts,
        "fifths": fifths,
    }


def _lift_row(name: str, found: Lift) -> LiftRow:
    return {
        "name": name,
        "lift": found.lift.as_dict(),
        "within_time": found.within_time.as_dict(),
        "within_symbol": found.within_symbol.as_dict(),
        "n_chosen": found.n_chosen,
        "n_both": found.n_both,
        "rate": found.n_both / found.n_chosen if found.n_chosen else None,
    }


def _fifths(value_N: Array, event: Array, time: Array, drawn: Drawn) -> list[FifthRow]:
    """Event rate by fifth of the column, from its lowest; fifths that ties leave empty are left out."""
    edges = np.quantile(value_N, np.arange(1, N_FIFTHS) / N_FIFTHS, method="lower")
    code = np.searchsorted(edges, value_N, side="left")
    return [
        {"fifth": k + 1, "n": int((code == k).sum()), **event_rate(code == k, event, time, **drawn).as_dict()}
        for k in range(N_FIFTHS)
        if (code == k).any()
    ]
