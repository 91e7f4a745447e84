"""State of a session between two bars: feature rows of the last windows, ATR, and the bars."""

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tradsys.core.tables import Array, FeatureTable
from tradsys.features.live.newest import NewestFeatures, time_us
from tradsys.market.bars import TIME
from tradsys.market.true_range import LiveAtr
from tradsys.serving import exits
from tradsys.serving.bundle import Bundle


class LiveRows:
    """The last `lookback` rows of each symbol as a small feature table.

    Updated bar by bar. bundle: gives features, window length and exits. features: row-by-row form of its feature set.
    """

    def __init__(self, bundle: Bundle, features: NewestFeatures) -> None:
        self.bundle, self.features = bundle, features
        self.lookback = bundle.lookback
        label = bundle.card["label"]
        self._atr, self._measures = LiveAtr(int(label["atr_bars"])), exits.LiveMeasures(label)
        self._names = bundle.features.names
        self._values = np.empty((0, self.lookback, len(self._names)), dtype=np.float32)
        self._times = np.empty((0, self.lookback), dtype=np.int64)
        self._segments = np.empty((0, self.lookback), dtype=np.int64)
        self._count, self._run = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._order = np.zeros(0, dtype=np.int64)  # positions of the symbols in the order of their names

    def push(self, time: datetime, symbols: Sequence[str], numbers: Array) -> tuple[Array, dict[str, Array]]:
        """Adds the bars of one moment.

        Their positions [n], and `atr` and other inputs of the exits, [n] each. numbers: float64 [n, C], the columns of
        `features.columns`.
        """
        before = self._last_times(symbols)
        new = self.features.push(time, symbols, numbers)
        self._grow(len(self.features.symbols))
        at, now = new.at, time_us(time)
        gap = self.bundle.max_gap
        starts = np.isnan(before)
        if gap is not None:
            starts |= now - np.nan_to_num(before) > gap / timedelta(microseconds=1)
        slot = self._count[at] % self.lookback
        earlier = self._segments[at, slot - 1]
        same = (earlier == new.segment) & (self._count[at] > 0)
        finite = np.isfinite(new.values).all(axis=1)
        self._run[at] = np.where(finite, np.where(same, self._run[at], 0) + 1, 0)
        self._values[at, slot], self._times[at, slot], self._segments[at, slot] = new.values, now, new.segment
        self._count[at] += 1
        measured = {"atr": self._atr.push(at, numbers[:, 1:4], starts)}
        return at, measured | self._measures.push(at, numbers[:, 3], starts)

    def ready(self, at: Array) -> Array:
        """bool [n]: whether a full window ends at these symbols' newest row.

        Inside one segment.
        """
        return self._run[at] >= self.lookback

    def table(self, at: Array) -> tuple[FeatureTable, Array]:
        """The kept rows as a table, and row numbers [n] of the newest.

        The newest rows are of the symbols at these positions.
        """
        order = self._order
        held = np.minimum(self._count[order], self.lookback)
        ends = np.cumsum(held)
        symbol = np.repeat(np.arange(len(order)), held)
        age = np.repeat(ends, held) - np.arange(int(ends[-1])) - 1
        place, slot = order[symbol], (self._count[order][symbol] - 1 - age) % self.lookback
        segment = self._segments[place, slot]
        begins = np.ones(len(symbol), dtype=bool)
        begins[1:] = (segment[1:] != segment[:-1]) | (symbol[1:] != symbol[:-1])
        table = FeatureTable(
            symbol=symbol.astype(np.int32),
            time=self._times[place, slot].astype("datetime64[us]"),
            segment=(np.cumsum(begins) - 1).astype(np.int32),
            values=self._values[place, slot],
            names=self._names,
            symbols=tuple(self.features.symbols[k] for k in order),
        )
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return table, ends[rank[at]] - 1

    def _last_times(self, symbols: Sequence[str]) -> Array:
        """Microseconds [n] of each symbol's newest bar, NaN where it has none."""
        known = {symbol: k for k, symbol in enumerate(self.features.symbols)}
        out = np.full(len(symbols), np.nan)
        for k, symbol in enumerate(symbols):
            at = known.get(symbol)
            if at is not None and at < len(self._count):
                out[k] = self._times[at, (self._count[at] - 1) % self.lookback]
        return out

    def _grow(self, n_symbols: int) -> None:
        lacking = n_symbols - len(self._count)
        if not lacking:
            return
        for name in ("_values", "_times", "_segments", "_count", "_run"):
            held = getattr(self, name)
            fill = np.full((lacking, *held.shape[1:]), np.nan if name == "_values" else 0, dtype=held.dtype)
            setattr(self, name, np.concatenate([held, fill]))
        self._order = np.argsort(np.array(self.features.symbols))


class PastBars:
    """The last `history` bars of each symbol, kept as rows and returned as a frame.

    columns: names of the numbers of a bar, in their order.
    """

    def __init__(self, history: int, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)
        self._history = history
        self._rows: dict[str, deque[tuple[datetime, Array]]] = {}

    def push(self, time: datetime, symbols: Sequence[str], numbers: Array) -> None:
        """Adds the bars of one moment."""
        for symbol, row in zip(symbols, numbers, strict=True):
            self._rows.setdefault(symbol, deque(maxlen=self._history)).append((time, row))

    def last(self, symbol: str) -> datetime | None:
        """Close of the symbol's newest bar; None where it has none."""
        rows = self._rows.get(symbol)
        return rows[-1][0] if rows else None

    def frame(self) -> pl.DataFrame:
        """All kept bars, sorted by (symbol, time): symbol, time and the numbers."""
        names = sorted(self._rows)
        held = [(name, time, row) for name in names for time, row in self._rows[name]]
        numbers = np.array([row for _, _, row in held]) if held else np.empty((0, len(self._columns)))
        keys = {"symbol": [name for name, _, _ in held], "time": [time for _, time, _ in held]}
        frame = pl.DataFrame(keys, schema={"symbol": pl.String, "time": TIME})
        return frame.with_columns(pl.Series(name, numbers[:, k]) for k, name in enumerate(self._columns))
