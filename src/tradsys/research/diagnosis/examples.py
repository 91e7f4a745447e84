"""Example rows shown with the bars around them: events, near misses, and compressions without an event."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TypedDict

import numpy as np
import polars as pl

from tradsys.core.tables import Array, Labels

EVENT, NEAR_MISS, FALSE_ALARM = "event", "near miss", "false alarm"


def episodes(event_rows: Array, end_R: Array, symbol_R: Array) -> Array:
    """First rows [E], ascending, of the events that do not overlap.

    Of each run of overlapping labels, the first. event_rows: ascending rows. Ten rows before one explosion are ten
    events and one episode.
    """
    kept: list[int] = []
    last_end, last_symbol = -1, -1
    for row, end, symbol in zip(
        event_rows.tolist(), end_R[event_rows].tolist(), symbol_R[event_rows].tolist(), strict=True
    ):
        if symbol != last_symbol or row > last_end:
            kept.append(row)
            last_end, last_symbol = end, symbol
    return np.array(kept, dtype=np.int64)


class Chart(TypedDict):
    """Bars around one decision.

    offset: bars from it. high, low, close: in percent of `entry`.
    """

    kind: str
    symbol: str
    time: str
    entry: float
    best_rise: float | None
    offset: list[int]
    high: list[float]
    low: list[float]
    close: list[float]


def worked_examples(
    bars: pl.DataFrame,
    labels: Labels,
    rows: Array,
    *,
    best_move_N: Array,
    compressed_N: Array,
    horizon_bars: int,
    before_bars: int,
    n_each: int,
    until: datetime,
    seed: int,
) -> list[Chart]:
    """Up to `n_each` charts of each kind, ready for JSON.

    No symbol twice within a kind. rows [N]: candidate rows, with best_move_N, their largest log rise within the
    horizon, and compressed_N. Events are drawn at random among first rows of episodes, false alarms among compressed
    rows without an event; near misses are the rows with the largest rises below the event. No bar at or after `until`
    is shown.
    """
    rng = np.random.default_rng(seed)
    symbol = bars["symbol"].rle_id().to_numpy()  # bars are sorted by symbol
    event = labels.y[rows] == 1
    position = {row: k for k, row in enumerate(rows.tolist())}
    shuffled_events = rng.permutation(episodes(rows[event], labels.end, symbol))
    missed = rows[~event & np.isfinite(best_move_N)]
    nearest = missed[np.argsort(-best_move_N[~event & np.isfinite(best_move_N)], kind="stable")]
    alarms = rng.permutation(rows[compressed_N & ~event])
    chosen = {EVENT: shuffled_events, NEAR_MISS: nearest, FALSE_ALARM: alarms}
    frame = _Frame(bars, symbol, before_bars, horizon_bars, until)
    return [
        frame.chart(kind, row, float(best_move_N[position[row]]))
        for kind, candidates in chosen.items()
        for row in _one_per_symbol(candidates.tolist(), symbol, n_each)
    ]


class _Frame:
    """Bars as arrays, from which charts are cut."""

    def __init__(self, bars: pl.DataFrame, symbol: Array, before_bars: int, horizon_bars: int, until: datetime) -> None:
        self.names, self.time, self.symbol = bars["symbol"], bars["time"], symbol
        self.prices = {name: bars[name].to_numpy() for name in ("open", "high", "low", "close")}
        self.before, self.horizon, self.until = before_bars, horizon_bars, until

    def chart(self, kind: str, row: int, best_move: float) -> Chart:
        """Prices in percent of the entry, the open after the decision.

        Offset 0 is the decision bar.
        """
        last = min(row + self.horizon + self.horizon // 2, len(self.symbol) - 1)
        shown = np.arange(max(0, row - self.before), last + 1)
        shown = shown[self.symbol[shown] == self.symbol[row]]
        shown = shown[(self.time.gather(shown) < self.until).to_numpy()]
        entry = float(self.prices["open"][row + 1])
        high, low, close = (
            np.round(100 * (self.prices[name][shown] / entry - 1), 3).tolist() for name in ("high", "low", "close")
        )
        return {
            "kind": kind,
            "symbol": str(self.names[row]),
            "time": self.time[row].isoformat(),
            "entry": entry,
            "best_rise": float(np.expm1(best_move)) if np.isfinite(best_move) else None,
            "offset": (shown - row).tolist(),
            "high": high,
            "low": low,
            "close": close,
        }


def _one_per_symbol(candidates: Iterable[int], symbol: Array, n_each: int) -> Iterator[int]:
    seen: set[int] = set()
    for row in candidates:
        if len(seen) == n_each:
            return
        if symbol[row] not in seen:
            seen.add(int(symbol[row]))
            yield row
