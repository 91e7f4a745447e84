"""Order-book columns joined to bars of any length, measured at each bar's close."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.runs import digest_file
from tradsys.core.tables import Array
from tradsys.market.bars import utc64_times, utc_bars
from tradsys.market.orderbook.clocks import ClockReading, arrival_times
from tradsys.market.orderbook.measures import (
    DEPTH_COLUMNS,
    QUOTE_COLUMNS,
    TRADE_COLUMNS,
    Defects,
    depth_measures,
    quote_measures,
    trade_measures,
)
from tradsys.market.orderbook.records import FORMS, Records, read_depth, read_lobster, read_quotes, read_trades, top_of

KINDS = ("quotes", "depth", "trades")


@dataclass(frozen=True, eq=False)
class Stream:
    """Records of one kind in the order of their arrival.

    clock: None where the file has no arrival times.
    """

    records: Records
    arrived: Array
    clock: ClockReading | None


@dataclass(frozen=True)
class OrderBookValues:
    """Columns of one symbol's order book, of records arrived by the close.

    symbol: the columns are joined to its bars; other symbols' bars get null. form: `binance` (quotes as bookTicker,
    depth snapshots, trades; any of them) or `lobster` (depth and message files). quotes, depth, trades: paths. Columns,
    each with `prefix`: those of QUOTE_COLUMNS where there are quotes or depth, DEPTH_COLUMNS where there is depth,
    TRADE_COLUMNS where there are trades.

    The arrival time is the recorder's where the file has one, corrected by exchange time (`orderbook.clocks`);
    otherwise exchange time plus `latency_ms`. A book older than `stale_seconds` at a close gives NaN. Raises DataError
    for files that are no such records.
    """

    symbol: str
    quotes: str | None = None
    depth: str | None = None
    trades: str | None = None
    form: str = "binance"
    prefix: str = "book_"
    latency_ms: float = 100.0
    max_latency_ms: float = 1_000.0
    stale_seconds: float = 5.0

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind)]
        lobster = self.form == "lobster" and given != ["depth", "trades"]
        wrong = not (self.latency_ms >= 0 and self.max_latency_ms > 0 and self.stale_seconds > 0)
        if self.form not in FORMS or not given or lobster or wrong:
            raise DataError(
                f"orderbook: form={self.form!r} with {given or 'no file'}, latency_ms={self.latency_ms}, "
                f"max_latency_ms={self.max_latency_ms}, stale_seconds={self.stale_seconds}; the form must be "
                f"one of {FORMS} and times above 0 (latency_ms from 0); lobster takes depth= and trades= (its "
                "message file), binance at least one of quotes=, depth=, trades="
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are joined."""
        columns: tuple[str, ...] = QUOTE_COLUMNS if self.quotes or self.depth else ()
        columns = columns + (DEPTH_COLUMNS if self.depth else ()) + (TRADE_COLUMNS if self.trades else ())
        return tuple(self.prefix + name for name in columns)

    @cached_property
    def streams(self) -> dict[str, Stream]:
        """The files' records by kind, in the order of arrival."""
        if self.form == "lobster":
            depth, trades = read_lobster(Path(str(self.depth)), Path(str(self.trades)))
            read = {"quotes": top_of(depth), "depth": depth, "trades": trades}
        else:
            readers = {"quotes": read_quotes, "depth": read_depth, "trades": read_trades}
            read = {kind: readers[kind](Path(getattr(self, kind))) for kind in KINDS if getattr(self, kind)}
            if "quotes" not in read and "depth" in read:
                read["quotes"] = top_of(read["depth"])
        return {kind: self._stream(records) for kind, records in read.items() if len(records)}

    def measures(self, close: Array, length: timedelta) -> tuple[Array, dict[str, Defects]]:
        """float64 [B, C], columns as `names`, at ascending closes (datetime64).

        Also returns defects by kind of record.
        """
        close_B = close.astype("datetime64[us]").astype(np.int64)
        open_B = close_B - round(length.total_seconds() * 1e6)
        open_B[1:] = np.maximum(open_B[1:], close_B[:-1])
        stale = round(self.stale_seconds * 1e6)
        parts, found = [], {}
        if "quotes" in self.streams:
            stream = self.streams["quotes"]
            values, found["quotes"] = quote_measures(stream.arrived, stream.records.values, open_B, close_B, stale)
            parts.append(values)
        if "depth" in self.streams:
            stream = self.streams["depth"]
            values, found["depth"] = depth_measures(stream.arrived, stream.records.values, close_B, stale)
            parts.append(values)
        if self.trades:
            stream = self.streams["trades"]
            values, found["trades"] = trade_measures(stream.arrived, stream.records.values, open_B, close_B)
            parts.append(values)
        return np.column_stack(parts), found

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars in their order with the columns on the right.

        Null for other symbols or without a value.
        """
        bars = utc_bars(bars)
        if taken := sorted(set(self.names) & set(bars.columns)):
            raise DataError(f"orderbook: the bars have columns {taken} already; names must be unique; set prefix=")
        own = bars.filter(pl.col("symbol") == self.symbol)
        schema = dict.fromkeys(self.names, pl.Float64)
        if own.is_empty():
            return bars.with_columns(pl.lit(None, kind).alias(name) for name, kind in schema.items())
        values, _ = self.measures(utc64_times(own), _length(own))
        frame = pl.DataFrame(values, schema=schema).with_columns(pl.all().fill_nan(None))
        keyed = own.select("symbol", "time").hstack(frame)
        return bars.join(keyed, on=["symbol", "time"], how="left", maintain_order="left")

    def describe(self) -> Json:
        """For run records: files, digests, columns, clock and latency in words."""
        paths = [Path(getattr(self, kind)) for kind in KINDS if getattr(self, kind)]
        clocks = sorted({str(stream.clock) for stream in self.streams.values() if stream.clock})
        rule = "; ".join(clocks) or f"known {self.latency_ms:g} ms after exchange time"
        return {
            "file": ", ".join(path.name for path in paths),
            "sha256": ", ".join(digest_file(path) for path in paths),
            "columns": list(self.names),
            "point_in_time": True,
            "note": f"order book of {self.symbol} from {', '.join(path.name for path in paths)}: {rule}",
        }

    def _stream(self, records: Records) -> Stream:
        order = np.argsort(records.exchange if records.local is None else records.local, kind="stable")
        exchange, values = records.exchange[order], np.ascontiguousarray(records.values[order])
        local = None if records.local is None else records.local[order]
        sorted_ = Records(exchange, local, values, records.names)
        if local is None:
            return Stream(sorted_, exchange + round(self.latency_ms * 1_000), None)
        arrived, clock = arrival_times(local, exchange, max_latency_ms=self.max_latency_ms)
        return Stream(sorted_, arrived, clock)


def _length(bars: pl.DataFrame) -> timedelta:
    """The usual step between closes; one hour for a single bar."""
    step = bars["time"].diff().drop_nulls().mode().sort()
    return step[0] if len(step) else timedelta(hours=1)
