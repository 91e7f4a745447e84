"""Imports recordings of order books: bars of any length, and measures at each close."""

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.runs import written_atomically
from tradsys.core.tables import Array
from tradsys.market.bars import SCHEMA, utc_series
from tradsys.market.downloads.progress import Job, Report, SymbolRow, silent
from tradsys.market.orderbook.measures import are_good
from tradsys.market.orderbook.values import OrderBookValues, Stream
from tradsys.market.store import BarStore

SHORT = timedelta(days=90)  # a shorter recording is too short for a verdict on a forecast


@dataclass(frozen=True)
class OrderBookRecording:
    """A recording on disk.

    values: its files and how they are read. interval_seconds: length of the bars built from it. `collect` stores bars
    of the trades (of mid prices where there are none) under the job's name and writes their measures to
    `orderbook/NAME.parquet` beside it, with `available_at`.
    """

    values: OrderBookValues
    interval_seconds: float = 10.0
    name: str = "orderbook"

    def __post_init__(self) -> None:
        if not self.interval_seconds >= 1:
            raise DataError(
                f"orderbook: interval_seconds={self.interval_seconds}; bars must last a second or longer; set "
                "source.interval_seconds="
            )

    def collect(self, job: Job, report: Report = silent) -> list[SymbolRow]:
        """Reads, measures and stores.

        One row with remarks on clocks, damaged and stale books, and the length.
        """
        symbol = job.symbols[0] if job.symbols else self.values.symbol
        values = replace(self.values, symbol=symbol)
        step = timedelta(seconds=self.interval_seconds)
        bars = _bars(values.streams, symbol, step)
        report(symbol, 0, bars.height)
        table, found = values.measures(bars["time"].to_numpy(), step)
        measures = bars.select(available_at="time", symbol="symbol").hstack(
            pl.DataFrame(table, schema=dict.fromkeys(values.names, pl.Float64)).with_columns(pl.all().fill_nan(None))
        )
        store = BarStore(job.root)
        store.append(job.name, bars, {"source": self.name, "files": values.describe()["file"]})
        with written_atomically(job.root / "orderbook" / f"{job.name}.parquet") as draft:
            draft.parent.mkdir(parents=True, exist_ok=True)
            measures.write_parquet(draft)
        first, last = bars["time"][0], bars["time"][-1]
        remarks = [f"{kind}: {stream.clock}" for kind, stream in values.streams.items() if stream.clock]
        remarks += [f"{kind}: {defects}" for kind, defects in found.items()]
        remarks += [_of_length(last - first + step)]
        return [SymbolRow(symbol, first, last, bars.height, bars.height, remarks=tuple(remarks))]


def _of_length(span: timedelta) -> str:
    if span >= SHORT:
        return f"{span.days} days of records"
    return (
        f"{_words(span)} of records: enough to check the measures, too short for a verdict on a forecast from them "
        f"(which takes at least {SHORT.days} days)"
    )


def _words(span: timedelta) -> str:
    return (
        f"{span.total_seconds() / 60:.1f} minutes"
        if span < timedelta(hours=2)
        else f"{span / timedelta(hours=1):.1f} hours"
    )


def _bars(streams: dict[str, Stream], symbol: str, step: timedelta) -> pl.DataFrame:
    """Bars of trades, else of mid prices, by arrival; only full bars inside the recording."""
    if "trades" in streams:
        stream = streams["trades"]
        price, quantity = stream.records.values[:, 0], stream.records.values[:, 1]
        good = np.isfinite(price) & (price > 0) & np.isfinite(quantity) & (quantity > 0)
    else:
        stream = streams["quotes"]
        price = 0.5 * (stream.records.values[:, 0] + stream.records.values[:, 2])
        quantity = np.zeros(len(price))
        good = are_good(stream.records.values)
    if not good.any():
        raise DataError(
            f"orderbook: of {len(good):,} records no book is complete and uncrossed, or no trade has a price and a "
            "quantity; check that the columns are the vendor's"
        )
    at, length = stream.arrived[good], round(step.total_seconds() * 1e6)
    begin = max(s.arrived[0] for s in streams.values())
    end = min(s.arrived[-1] for s in streams.values())
    bucket: Array = -(-at // length) * length  # the close of (open, close]
    complete = (bucket - length >= begin) & (bucket <= end)
    if not complete.any():
        raise DataError(
            f"orderbook: {_words(timedelta(microseconds=int(end - begin)))} of records hold no complete bar of "
            f"{step.total_seconds():g} seconds; set a smaller source.interval_seconds="
        )
    frame = pl.DataFrame(
        {"close_at": bucket[complete], "price": price[good][complete], "quantity": quantity[good][complete]}
    )
    value = pl.col("price")
    bars = frame.group_by("close_at", maintain_order=True).agg(
        open=value.first(), high=value.max(), low=value.min(), close=value.last(), volume=pl.col("quantity").sum()
    )
    time = utc_series(bars["close_at"].to_numpy().astype("datetime64[us]"))
    return bars.with_columns(symbol=pl.lit(symbol), time=time).select(list(SCHEMA)).cast(pl.Schema(SCHEMA)).sort("time")
