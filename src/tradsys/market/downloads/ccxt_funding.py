"""Settled funding rates of perpetual futures through ccxt, each from the moment of its settlement."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.runs import written_atomically
from tradsys.market.bars import TIME
from tradsys.market.downloads.ccxt_candles import CcxtCandles
from tradsys.market.downloads.client import Retry, read_answer
from tradsys.market.downloads.progress import PARTIAL, Job, Page, Partial, Report, SymbolRow, each_symbol, silent
from tradsys.market.downloads.revisions import revise_values
from tradsys.market.parquet import read_parquet

LONGEST = timedelta(hours=8)  # the usual time between two settlements; twice as long is a hole
SCHEMA = pl.Schema({"available_at": TIME, "funding_rate": pl.Float64()})


@dataclass(frozen=True)
class CcxtFunding:
    """Funding of an exchange's perpetuals, a file per symbol.

    `funding/NAME_SYMBOL.parquet` has available_at and funding_rate. A rate is a fraction of the position's value, paid
    by longs to shorts at `available_at`, and available from then on. A settlement that the vendor changed takes the new
    value; one that vanished is kept. Both are recorded in `funding/NAME_SYMBOL/revisions.sqlite`. Keys as of
    `CcxtCandles`.
    """

    exchange: str = "binance"
    quote: str = "USDT"
    page_rows: int = 1000
    first_day: str = "2019-09-01"
    retry: Retry = field(default_factory=Retry)
    timeout_seconds: float = 20.0
    address: str | None = None
    name: str = "ccxt_funding"

    @property
    def _market(self) -> CcxtCandles:
        return CcxtCandles(
            self.exchange,
            kind="linear",
            quote=self.quote,
            first_day=self.first_day,
            retry=self.retry,
            timeout_seconds=self.timeout_seconds,
            address=self.address,
        )

    def collect(self, job: Job, report: Report = silent) -> list[SymbolRow]:
        """Downloads symbol by symbol.

        A failure becomes a row, a reached limit ends the download.
        """
        if not job.symbols:
            raise DataError("fetch: no symbols to download; give symbols=[BTC-USD,ETH-USD] or universe=coins.csv")
        market = self._market
        try:
            return each_symbol(job.symbols, partial(self._one, market, job), report)
        finally:
            market.close()

    def _one(self, market: CcxtCandles, job: Job, symbol: str, report: Callable[[int], None]) -> SymbolRow:
        spelling = market.spell(symbol)
        path = job.root / "funding" / f"{job.name}_{symbol}.parquet"
        stored = read_parquet(path, "move it away and download it again") if path.exists() else SCHEMA.to_frame()
        begin = job.start or (stored["available_at"][-job.reread_bars :].min() if stored.height else market.first)
        assert isinstance(begin, datetime)
        request = {**market.identity(), "name": job.name, "since": begin.isoformat()}
        kept = Partial(path.parent / PARTIAL, path.stem, request, SCHEMA)
        pages = kept.read()
        for page in self._pages(market, spelling, pages[-1].until if pages else begin, job.until):
            kept.keep(page)
            pages.append(page)
            report(sum(one.bars.height for one in pages))
        with kept.used_up():
            new = _settled(symbol, pages)
            if new.is_empty() and stored.is_empty():
                raise DataError(f"{self.name}: {symbol} has no settled rates; check the symbol")
            old, found = (frame.rename({"available_at": "time"}) for frame in (stored, new))
            revisions = revise_values(path.with_suffix(""), old, found, symbol, self.name, job.rule)
            merged = pl.concat([stored.join(new, on="available_at", how="anti"), new]).sort("available_at")
            with written_atomically(path) as draft:
                merged.write_parquet(draft)
        times = merged["available_at"]
        holes = tuple((a, b) for a, b in pairwise(times) if b - a >= 2 * LONGEST)
        n_added = merged.height - stored.height
        return SymbolRow(symbol, times[0], times[-1], merged.height, n_added, holes, revisions=revisions)

    def _pages(self, market: CcxtCandles, spelling: str, begin: datetime, until: datetime) -> Iterator[Page]:
        """Pages of settled rates; ends at a page that does not advance. An empty answer needs a repetition."""
        at = begin
        while at < until:
            found = self._page(market, spelling, at) or self._page(market, spelling, at)
            rates = _rates(found).filter(pl.col("available_at") >= at, pl.col("available_at") <= min(until, utc_now()))
            if rates.is_empty():
                return
            at = rates["available_at"][-1] + timedelta(milliseconds=1)
            yield Page(rates, at)

    def _page(self, market: CcxtCandles, spelling: str, at: datetime) -> list[Any]:
        rows: list[Any] = self.retry.call(
            lambda: market.call("fetch_funding_rate_history", spelling, int(at.timestamp() * 1000), self.page_rows)
        )
        return rows


def _settled(symbol: str, pages: Sequence[Page]) -> pl.DataFrame:
    """The pages as one frame, each settlement once; DataError where one has two rates."""
    rows = pl.concat([SCHEMA.to_frame(), *(page.bars for page in pages)]).unique().sort("available_at")
    twice = rows.filter(pl.col("available_at").is_duplicated())
    if twice.height:
        moment, one, other = twice["available_at"][0], *twice["funding_rate"][:2]
        raise DataError(
            f"ccxt_funding: gives {symbol} {moment:%Y-%m-%d %H:%M} twice, {one:g} and {other:g}; nothing was "
            "stored; run it again later"
        )
    return rows


def _rates(rows: list[Any]) -> pl.DataFrame:
    """ccxt's list of {timestamp, fundingRate}; DataError for a rate that is no fraction of a position's value."""
    with read_answer("ccxt_funding", "a page of rates"):
        settled = [row for row in rows if row["fundingRate"] is not None] or rows
        values = [(int(row["timestamp"]), float(row["fundingRate"])) for row in settled]
        if odd := [rate for _, rate in values if not abs(rate) < 1]:
            raise ValueError(f"rate {odd[0]:g}, no fraction of a position's value")
        frame = pl.DataFrame(values, schema={"at": pl.Int64, "funding_rate": pl.Float64}, orient="row")
        time = pl.from_epoch("at", "ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return frame.select(available_at=time, funding_rate="funding_rate").sort("available_at")
