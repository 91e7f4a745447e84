"""Barriers of a position by the label that the model was trained on, so that label and backtest agree.

Every kind of label defines its exits by values available at the deciding bar; this module computes them without
importing the labels, which read the future. A test simulates every labelled candidate and gets the label's return.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.errors import BundleError
from tradsys.core.tables import Array
from tradsys.market.true_range import LiveMean, trailing_mean, usable_unit

BARRIER, MEAN, EXPANSION = "triple_barrier", "mean_reached", "expansion"
FORWARD, EXPLOSION = "forward_return", "explosion"
TIMED = (FORWARD, EXPLOSION)  # labels whose positions end only by time, without barriers
KINDS = (BARRIER, MEAN, EXPANSION, *TIMED)


def kind_of(label: Mapping[str, Any]) -> str:
    """The label's kind; a card without one is a triple barrier's.

    Raises BundleError for a kind without exits.
    """
    kind = str(label.get("kind", BARRIER))
    if kind not in KINDS:
        raise BundleError(
            f"bundle: label kind {kind[:60]!r} has no exits, so no strategy can trade it; kinds with exits: "
            f"{', '.join(KINDS)}; give strategy=[] to evaluate the forecasts alone, or another bundle"
        )
    return kind


def measures(label: Mapping[str, Any], bars: pl.DataFrame) -> dict[str, Array]:
    """Inputs of the exits besides ATR, close and side.

    Columns [R] in price units; none for most kinds. bars: with segments. `mean`: the last `mean_bars` closes' plain
    mean, NaN until a segment holds so many. A kind without exits has none: its forecasts can be served, but a strategy
    on it is refused.
    """
    return {"mean": trailing_mean(bars, int(label["mean_bars"]))} if label.get("kind") == MEAN else {}


class LiveMeasures:
    """Inputs of the exits, updated bar by bar: equal to `measures` on all bars.

    label: of the bundle's card; only a label towards the mean has an input, `mean` in price units.
    """

    def __init__(self, label: Mapping[str, Any]) -> None:
        self._mean = LiveMean(int(label["mean_bars"])) if label.get("kind") == MEAN else None

    def push(self, at: Array, close: Array, starts: Array) -> dict[str, Array]:
        """Inputs [n] by name after one new close of n symbols; {} for most labels.

        at: int [n], the symbols' positions. close: float64 [n]. starts: bool [n], a segment begins.
        NaN until a segment holds `mean_bars` closes.
        """
        return {} if self._mean is None else {"mean": self._mean.push(at, close, starts)}


def distances(label: Mapping[str, Any], frame: pl.DataFrame) -> tuple[Array, Array]:
    """Profit and stop distance from the entry, float64 [N] each.

    They are in price units, of a position on the frame's side. frame: predictions with atr, close and, where the
    bundle has
    sides, side (else all are long); `mean` for a label of that kind. NaN where no position has a barrier: no ATR or
    mean yet, an ATR of zero, or a close at or beyond the mean. Infinite on every row where the label ends positions
    only by time.
    """
    if kind_of(label) in TIMED:
        return np.full(frame.height, np.inf), np.full(frame.height, np.inf)
    width = usable_unit(frame["atr"].to_numpy(), frame["close"].to_numpy())
    stop = label["lower"] * width
    if kind_of(label) != MEAN:
        return label["upper"] * width, stop
    side = frame["side"].to_numpy() if "side" in frame.columns else 1
    way = side * (frame["mean"].to_numpy() - frame["close"].to_numpy())
    return np.where(way > 0, way, np.nan), stop
