"""Settled funding rates of perpetual futures through ccxt, each from the moment of its settlement."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.runs import written_atomically
from tradsys.market.bars import TIME
from tradsys.market.downloads.ccxt_candles import CcxtCandles
from tradsys.market.downloads.client import LimitError, Retry
from tradsys.market.downloads.progress import Job, SymbolRow
from tradsys.market.parquet import read_parquet

LONGEST = timedelta(hours=8)  # the usual rest between two settlements; twice as long is a hole
SCHEMA = pl.Schema({"available_at": TIME, "funding_rate": pl.Float64()})


@dataclass(frozen=True)
class CcxtFunding:
    """Funding of perpetuals of one exchange into `funding/NAME_SYMBOL.parquet`: available_at, funding_rate.

    A rate is a fraction of the position's value, paid by longs to shorts at `available_at`, and known then. Re-read
    settlements that the vendor changed take the new value and are counted; those that vanished stay. Keys as
    `CcxtCandles` has them.
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

    def collect(self, job: Job) -> list[SymbolRow]:
        """Downloads symbol by symbol; a failure is a row, a used-up limit ends the download."""
        if not job.symbols:
            raise DataError("fetch: no symbols to download; give symbols=[BTC-USD,ETH-USD] or universe=coins.csv")
        market, rows = self._market, list[SymbolRow]()
        try:
            for symbol in job.symbols:
                try:
                    rows.append(self._one(market, job, symbol))
                except LimitError as error:
                    rest = job.symbols[len(rows) :]
                    rows += [SymbolRow(one, error=str(error), not_tried=k > 0) for k, one in enumerate(rest)]
                    break
                except DataError as error:
                    rows.append(SymbolRow(symbol, error=str(error)))
        finally:
            market.close()
        return rows

    def _one(self, market: CcxtCandles, job: Job, symbol: str) -> SymbolRow:
        spelling = market.spell(symbol)
        path = job.root / "funding" / f"{job.name}_{symbol}.parquet"
        stored = read_parquet(path, "move it away and download it again") if path.exists() else SCHEMA.to_frame()
        begin = job.start or (stored["available_at"][-job.reread_bars :].min() if stored.height else market.first)
        assert isinstance(begin, datetime)
        pages = [page for page in self._pages(market, spelling, begin, job.until) if page.height]
        if not pages and stored.is_empty():
            raise DataError(f"{self.name}: {symbol} has no settled rates; check the symbol")
        new = pl.concat(pages).unique("available_at", keep="last").sort("available_at") if pages else SCHEMA.to_frame()
        both = stored.join(new, on="available_at", suffix="_new")
        n_changed = both.filter(pl.col("funding_rate") != pl.col("funding_rate_new")).height
        whole = pl.concat([stored.join(new, on="available_at", how="anti"), new]).sort("available_at")
        with written_atomically(path) as draft:
            draft.parent.mkdir(parents=True, exist_ok=True)
            whole.write_parquet(draft)
        times = whole["available_at"]
        holes = [(a, b) for a, b in pairwise(times) if b - a >= 2 * LONGEST]
        remarks = (f"{n_changed} re-read settlements changed; the new values are stored",) if n_changed else ()
        n_added = whole.height - stored.height
        return SymbolRow(symbol, times[0], times[-1], whole.height, n_added, tuple(holes), remarks=remarks)

    def _pages(self, market: CcxtCandles, spelling: str, begin: datetime, until: datetime) -> Iterator[pl.DataFrame]:
        """Pages of settled rates; an empty answer counts when it is repeated, a page that stands still ends them."""
        at = begin
        while at < until:
            found = self._page(market, spelling, at) or self._page(market, spelling, at)
            page = _rates(found).filter(pl.col("available_at") >= at, pl.col("available_at") <= min(until, utc_now()))
            yield page
            if page.is_empty():
                return
            at = page["available_at"][-1] + timedelta(milliseconds=1)

    def _page(self, market: CcxtCandles, spelling: str, at: datetime) -> list[Any]:
        rows: list[Any] = self.retry.call(
            lambda: market.call("fetch_funding_rate_history", spelling, int(at.timestamp() * 1000), self.page_rows)
        )
        return rows


def _rates(rows: list[Any]) -> pl.DataFrame:
    """ccxt's list of {timestamp, fundingRate}; rows without a number are left out."""
    values = [(row["timestamp"], row["fundingRate"]) for row in rows if row.get("fundingRate") is not None]
    frame = pl.DataFrame(values, schema={"at": pl.Int64, "funding_rate": pl.Float64}, orient="row")
    time = pl.from_epoch("at", "ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return frame.select(available_at=time, funding_rate="funding_rate").sort("available_at")
