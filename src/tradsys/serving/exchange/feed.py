"""Closed bars of an exchange by REST, with retries for missing bars and detection of corrections."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from tradsys.core.errors import DataError
from tradsys.serving.brokers import Bar
from tradsys.serving.exchange.client import TIMEFRAMES, Client
from tradsys.serving.exchange.funding import Funding
from tradsys.serving.exchange.stream import BarStream
from tradsys.serving.feeds import Moment, Source, frame_of

SPLIT_TOLERANCE = 0.01  # largest relative difference between the factors of bars that one split changed
LEAST_SPLIT = 1.2  # new units per old, or old per new; a smaller factor is a correction
REREAD = 5  # newest bars that are read again at every close, to detect corrections
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ExchangeFeed:
    """Bars of some symbols.

    The exchange's opening times are converted: `time` is the close. Bars of perpetuals have the funding settled since
    the close before. A history that changed by one factor is a split: see `Moment.splits`. minutes: bar length.
    n_history: bars of warm-up per symbol. `stream` gets the next close and may end the caller's wait for it; its
    messages never become bars. Raises DataError for a length that the exchange does not have, and for perpetuals
    without readable funding.
    """

    def __init__(self, client: Client, symbols: Sequence[str], minutes: int, n_history: int) -> None:
        if minutes not in TIMEFRAMES:
            raise DataError(
                f"exchange: the bundle's bars last {minutes} minutes; exchanges have bars of {list(TIMEFRAMES)}; "
                "train on one of these lengths"
            )
        self.client, self.symbols, self.minutes = client, sorted(symbols), minutes
        self.length, self.n_history = timedelta(minutes=minutes), n_history
        self.seen: dict[str, dict[datetime, Bar]] = {s: {} for s in self.symbols}
        self.last: datetime | None = None
        self.funding = Funding(client, self.symbols)
        self.stream: BarStream | None = None

    def history(self, until: datetime | None) -> pl.DataFrame:
        """The last n_history bars of each symbol closed by `until`, or by now."""
        newest = self._closed(self.client.time()) if until is None else until
        bars: list[Bar] = []
        for symbol in self.symbols:
            own = self._read(symbol, newest - self.n_history * self.length, newest)
            self.seen[symbol] = {bar.time: bar for bar in own[-REREAD:]}
            bars += own
        if not bars:
            raise DataError(
                f"exchange {self.client.spec.id}: it returned no bar of {self.symbols} before {newest}; check "
                "that it lists these symbols="
            )
        self.last = newest
        return frame_of(bars).sort("symbol", "time")

    def moments(self, after: datetime | None) -> Iterator[Moment | None]:
        """Every close after `after` (None: after the history); endless."""
        last = after or self.last
        assert last is not None, "history comes first"
        self.funding.begin(last)
        while True:
            if self.stream is not None:
                self.stream.due = last + self.length
            now = self.client.time()
            newest = self._closed(now)
            if newest <= last:
                yield None
                continue
            bars = {s: {b.time: b for b in self._read(s, last - REREAD * self.length, newest)} for s in self.symbols}
            self.funding.read(newest)
            if self._waits(bars, last, newest, now):
                yield None
                continue
            corrected = self._corrections(bars, last)
            splits, at = splits_in(corrected), last + self.length
            while at <= newest:
                here = [bars[s][at] for s in self.symbols if at in bars[s]]
                here = [bar._replace(funding=self.funding.due(bar.symbol, at)) for bar in here]
                missing = tuple(s for s in self.symbols if at not in bars[s])
                age = (now - at).total_seconds()
                yield Moment(at, tuple(here), at < newest, missing, corrected, age, splits, self._source())
                corrected, splits, at = (), (), at + self.length
            for symbol, own in bars.items():
                self.seen[symbol] = dict(sorted(own.items())[-REREAD - 1 :])
            last = newest

    def _source(self) -> Source:
        return Source("polling", why="exchange.stream=false") if self.stream is None else self.stream.source()

    def _waits(self, bars: dict[str, dict[datetime, Bar]], last: datetime, newest: datetime, now: datetime) -> bool:
        """Whether to keep polling for an expected bar or funding rate, up to `patience_seconds`."""
        absent = [s for s in self.symbols if newest not in bars[s] and (last in bars[s] or last in self.seen[s])]
        still = (now - newest).total_seconds() < self.client.spec.patience_seconds
        return still and (bool(absent) or self.funding.overdue(newest))

    def _corrections(self, bars: dict[str, dict[datetime, Bar]], last: datetime) -> tuple[tuple[Bar, Bar], ...]:
        return tuple(
            (old, bars[s][time])
            for s in self.symbols
            for time, old in self.seen[s].items()
            if time <= last and time in bars[s] and bars[s][time] != old
        )

    def _closed(self, now: datetime) -> datetime:
        return EPOCH + (now - EPOCH) // self.length * self.length

    def _read(self, symbol: str, after: datetime, newest: datetime) -> list[Bar]:
        """Bars with after < close <= newest."""
        rows = self.client.klines(symbol, self.minutes, after, newest)
        out = []
        for row in rows:
            close_time = datetime.fromtimestamp(row[0] / 1000, UTC) + self.length
            if after < close_time <= newest:
                open_, high, low, close, volume = map(float, row[1:6])
                out.append(Bar(symbol, close_time, open_, high, low, close, volume))
        return out


def splits_in(corrected: Sequence[tuple[Bar, Bar]]) -> tuple[tuple[str, float], ...]:
    """Splits (symbol, new units per old) that re-read bars show.

    At least two bars must all have changed by one factor. A price of 100 that is 10 afterwards is a split of 10 new
    units
    for one.
    """
    found = []
    for symbol in sorted({before.symbol for before, _ in corrected}):
        factors = [
            getattr(before, name) / getattr(after, name)
            for before, after in corrected
            if before.symbol == symbol
            for name in ("open", "high", "low", "close")
        ]
        alike = max(factors) <= min(factors) * (1 + SPLIT_TOLERANCE)
        if len(factors) >= 8 and alike and not 1 / LEAST_SPLIT < factors[-1] < LEAST_SPLIT:
            found.append((symbol, factors[-1]))
    return tuple(found)
