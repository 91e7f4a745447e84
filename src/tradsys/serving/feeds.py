"""Feeds of closed bars: one protocol for stored bars and exchanges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
import polars as pl

from tradsys.core.plain_data import Json
from tradsys.market.bars import COLUMNS, SCHEMA
from tradsys.market.tradable import traded_volume
from tradsys.serving.brokers import Bar


@dataclass(frozen=True)
class Source:
    """How a feed waits for an exchange's bars.

    by: websocket or polling. last_message: of the websocket, UTC. n_breaks: connections lost. why: reason for polling.
    """

    by: str
    last_message: datetime | None = None
    n_breaks: int = 0
    why: str = ""

    def body(self) -> Json:
        """The source as JSON values."""
        last = None if self.last_message is None else self.last_message.isoformat()
        return {"by": self.by, "last_message": last, "n_breaks": self.n_breaks, "why": self.why}


@dataclass(frozen=True)
class Moment:
    """The bars that closed at one time.

    time: the close, UTC. bars: by symbol. late: newer bars exist already, so no entry is allowed on this one. missing:
    symbols without an expected bar. corrected: bars that the vendor has changed since they were first read, as (before,
    after). age: seconds since the close, by the exchange's clock. splits: (symbol, new units per old) of symbols whose
    history the vendor adjusted since the bar before; stored bars have none. source: see `Source`; None for stored bars.
    """

    time: datetime
    bars: tuple[Bar, ...]
    late: bool = False
    missing: tuple[str, ...] = ()
    corrected: tuple[tuple[Bar, Bar], ...] = ()
    age: float = 0.0
    splits: tuple[tuple[str, float], ...] = ()
    source: Source | None = None


class Feed(Protocol):
    """Protocol of a source of closed bars in order of time."""

    def history(self, until: datetime | None) -> pl.DataFrame:
        """Bars for the warm-up: closed at or before `until` (None: by now)."""

    def moments(self, after: datetime | None) -> Iterator[Moment | None]:
        """Bar closes later than `after`, as they happen.

        None while no bar has closed, to let the caller work.
        """


class StoredFeed:
    """Stored bars, moment by moment: the replay of a span.

    bars: COLUMNS, sorted by (symbol, time). since: first bar to decide on; earlier bars are history.
    """

    def __init__(self, bars: pl.DataFrame, since: datetime, symbols: Sequence[str]) -> None:
        self.bars = bars
        self.since = since
        self.symbols = list(symbols)

    def history(self, until: datetime | None) -> pl.DataFrame:
        """Bars before `since`, or up to `until` where a replay is resumed."""
        return self.bars.filter(pl.col("time") < self.since if until is None else pl.col("time") <= until)

    def moments(self, after: datetime | None) -> Iterator[Moment | None]:
        """Every later moment, all symbols of one close together."""
        begun = pl.col("time") >= self.since if after is None else pl.col("time") > after
        rows = _with_events(self.bars.filter(pl.col("time") >= self.since)).filter(begun).sort("time", "symbol")
        group: list[Bar] = []
        for row in rows.iter_rows():
            bar = Bar(*row)
            if group and bar.time != group[0].time:
                yield Moment(group[0].time, tuple(group))
                group = []
            group.append(bar)
        if group:
            yield Moment(group[0].time, tuple(group))


def _with_events(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars with the fields of `Bar` in order: prices, volume, funding, dividend, recorded."""
    due = [
        (pl.col(name).fill_null(0.0).fill_nan(0.0) if name in bars.columns else pl.lit(0.0)).alias(name)
        for name in ("funding_due", "dividend_due")
    ]
    recorded = pl.Series("recorded", np.isfinite(traded_volume(bars)))
    return bars.select(*COLUMNS, *due).with_columns(recorded)


def frame_of(bars: Sequence[Bar]) -> pl.DataFrame:
    """Bars as a frame, in the given order."""
    return pl.DataFrame([bar[: len(SCHEMA)] for bar in bars], schema=SCHEMA, orient="row")
