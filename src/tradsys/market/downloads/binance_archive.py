"""Binance's public archive of klines: monthly and daily zip files, each verified by its CHECKSUM."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.runs import digest_bytes
from tradsys.market.bars import SCHEMA
from tradsys.market.downloads.client import Http, MissingError, PassingError
from tradsys.market.downloads.intervals import minutes_of
from tradsys.market.downloads.progress import Page, gaps
from tradsys.market.sources.files import read

MARKETS = {"spot": "spot", "linear": "futures/um", "inverse": "futures/cm"}
MONTHLY_LAG = timedelta(days=62)  # for a month that ended longer ago, a missing file will never appear
DAILY_LAG = timedelta(days=4)


@dataclass(frozen=True)
class BinanceArchive:
    """Klines from the archive.

    market: spot, linear or inverse. quote: the quote currency for `BTC-USD`. Whether a file has a header, and whether
    its times are milliseconds (before 2025) or microseconds, is detected from the file. Monthly files are requested up
    to the last complete month, then daily ones.
    """

    http: Http
    interval: str = "1h"
    market: str = "spot"
    quote: str = "USDT"
    first_month: str = "2017-08"
    name: str = "binance_archive"

    def __post_init__(self) -> None:
        minutes_of(self.interval, self.name)
        if self.market not in MARKETS:
            raise DataError(f"{self.name}: market={self.market!r} is none of {', '.join(MARKETS)}; set source.market=")

    @property
    def minutes(self) -> float:
        """Length of a bar in minutes."""
        return minutes_of(self.interval, self.name)

    @property
    def first(self) -> datetime:
        """The first moment of the archive."""
        return datetime.strptime(self.first_month, "%Y-%m").replace(tzinfo=UTC)

    def identity(self) -> Json:
        """Vendor, market and interval."""
        return {"source": self.name, "market": self.market, "interval": self.interval}

    def spell(self, symbol: str) -> str:
        """The archive's symbol: `BTC-USD` is BTCUSDT.

        Other names lose the sign before the quote.
        """
        base = re.fullmatch(r"([A-Za-z0-9]+)-USD", symbol)
        plain = f"{base[1]}{self.quote}" if base else re.sub(r"[/-]", "", symbol)
        if not re.fullmatch(r"[A-Za-z0-9_]{2,30}", plain):
            raise DataError(f"{self.name}: {symbol!r} is no symbol of Binance; write BTC-USD, BTC/USDT or BTCUSDT")
        return plain.upper()

    def holes(self, bars: pl.DataFrame) -> list[tuple[datetime, datetime]]:
        """Spans without bars: the market never closes."""
        return gaps(bars, self.minutes)

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def pages(self, spelling: str, since: datetime, until: datetime) -> Iterator[Page]:
        """One page per file.

        Months before the listing give none; a missing file in between is a hole.
        """
        listed = False
        for begin, end in _months(since, until):
            if end <= until:
                page = self._file(spelling, "monthly", f"{begin:%Y-%m}", since, end)
                if page is not None:
                    listed = True
                    yield page
                    continue
                if until - end > MONTHLY_LAG:
                    if listed:
                        yield Page(_no_bars(), end)
                    continue
            yield from self._days(spelling, max(begin, since), min(end, until), until)

    def _days(self, spelling: str, begin: datetime, end: datetime, until: datetime) -> Iterator[Page]:
        day = begin.replace(hour=0, minute=0, second=0, microsecond=0)
        while day + timedelta(days=1) <= end:
            over = day + timedelta(days=1)
            page = self._file(spelling, "daily", f"{day:%Y-%m-%d}", begin, over)
            if page is None and until - over <= DAILY_LAG:
                return  # not published yet
            if page is not None:
                yield page
            day = over

    def _file(self, spelling: str, kind: str, stamp: str, since: datetime, end: datetime) -> Page | None:
        """The page of one zip file; None where there is no such file."""
        file = f"{spelling}-{self.interval}-{stamp}.zip"
        path = f"/data/{MARKETS[self.market]}/{kind}/klines/{spelling}/{self.interval}/{file}"
        try:
            checksum = self.http.content(f"{path}.CHECKSUM").decode("ascii", "replace").split()
        except MissingError:
            return None
        digest = checksum[0].lower() if checksum else ""
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise DataError(f"{self.name}: {file}.CHECKSUM holds no SHA-256 but {digest[:20]!r}; try again later")

        def verify(content: bytes) -> None:
            if digest_bytes(content) != digest:
                raise PassingError(
                    f"{self.name}: {file} has SHA-256 {digest_bytes(content)[:12]}, its CHECKSUM file {digest[:12]}; "
                    "the file was discarded; try again later"
                )

        content = self.http.content(path, verify)
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / file
            archive.write_bytes(content)
            bars = read(archive, "binance", symbol=spelling, bar_minutes=self.minutes, now=end).bars
        return Page(bars.filter(pl.col("time") > since, pl.col("time") <= end), end)


def _months(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    begin = since.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while begin < until:
        end = (begin + timedelta(days=32)).replace(day=1)
        yield begin, end
        begin = end


def _no_bars() -> pl.DataFrame:
    return pl.Schema(SCHEMA).to_frame()
