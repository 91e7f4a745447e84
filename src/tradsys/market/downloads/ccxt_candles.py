"""Candles of any exchange through ccxt: pages of closed bars, with retries of failed calls."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.market.bars import COLUMNS, SCHEMA
from tradsys.market.downloads.client import (
    CHANGED,
    INSTALL,
    MissingError,
    PassingError,
    Retry,
    plain_words,
    read_answer,
    retry_after,
)
from tradsys.market.downloads.intervals import minutes_of
from tradsys.market.downloads.progress import Page, gaps

KINDS = ("spot", "linear")


@dataclass(frozen=True)
class CcxtCandles:
    """Candles of one exchange.

    kind: spot or linear (perpetuals). quote: the quote currency for `BTC-USD`. page_bars: candles of one call. address:
    scheme and host that replace those of every URL.
    """

    exchange: str = "binance"
    interval: str = "1h"
    kind: str = "spot"
    quote: str = "USDT"
    page_bars: int = 1000
    first_day: str = "2017-01-01"
    retry: Retry = field(default_factory=Retry)
    timeout_seconds: float = 20.0
    address: str | None = None
    name: str = "ccxt"

    def __post_init__(self) -> None:
        minutes_of(self.interval, self.name)
        if self.kind not in KINDS or self.page_bars < 1:
            raise DataError(
                f"{self.name}: kind={self.kind!r}, page_bars={self.page_bars}; the kind must be one of "
                f"{', '.join(KINDS)} and page_bars at least 1; set source.kind= or source.page_bars="
            )

    @property
    def minutes(self) -> float:
        """Length of a bar in minutes."""
        return minutes_of(self.interval, self.name)

    @property
    def first(self) -> datetime:
        """The first moment from which candles are requested."""
        return datetime.fromisoformat(self.first_day).replace(tzinfo=UTC)

    def identity(self) -> Json:
        """Vendor, exchange, kind and interval."""
        return {"source": self.name, "exchange": self.exchange, "kind": self.kind, "interval": self.interval}

    def holes(self, bars: pl.DataFrame) -> list[tuple[datetime, datetime]]:
        """Spans without candles: exchanges of coins never close."""
        return gaps(bars, self.minutes)

    def spell(self, symbol: str) -> str:
        """ccxt's symbol: `BTC-USD` is BTC/USDT.

        Raises MissingError where the exchange has no such market.
        """
        base = re.fullmatch(r"([^/:]+)-USD", symbol)
        wanted = f"{base[1]}{self.quote}" if base else symbol.replace("/", "")
        found = self._symbols.get(wanted.upper())
        if found is None:
            raise MissingError(f"ccxt: {self.exchange} has no {self.kind} market {symbol!r}; check the symbol")
        return found

    def close(self) -> None:
        """Closes the connections; the next call opens them again."""
        raw = self.__dict__.pop("_raw", None)
        self.__dict__.pop("_symbols", None)
        if raw is not None and raw.session is not None:
            raw.session.close()

    def pages(self, spelling: str, since: datetime, until: datetime) -> Iterator[Page]:
        """Pages of closed candles.

        Empty pages are skipped, since some exchanges return them before a listing.
        """
        length = timedelta(minutes=self.minutes)
        at = since
        while at + length <= until:
            # an empty answer is accepted once it is repeated
            rows = self._page(spelling, at) or self._page(spelling, at)
            bars = _candles(spelling, rows, length).filter(pl.col("time") >= at + length, pl.col("time") <= until)
            at = bars["time"][-1] if bars.height else min(at + self.page_bars * length, until)
            yield Page(bars, at)

    def _page(self, spelling: str, at: datetime) -> list[list[float]]:
        """Candles that open at or after a moment; ccxt drops earlier ones, as of a repeated page."""
        begin = int(at.timestamp() * 1000)
        rows: list[list[float]] = self.retry.call(
            lambda: self.call("fetch_ohlcv", spelling, self.interval, begin, self.page_bars)
        )
        return rows

    def call(self, method: str, *args: Any) -> Any:
        """The answer of one of ccxt's methods.

        Raises PassingError, MissingError or DataError where the exchange fails.
        """
        ccxt, raw = self._ccxt, self._raw
        with read_answer(f"ccxt: {self.exchange}", f"the answer to {method}"):
            answer = self._answer(ccxt, raw, method, args)
        if not isinstance(raw.last_json_response, list | dict):  # ccxt reads an HTML page as an empty answer
            raise PassingError(f"ccxt: {self.exchange} answered no JSON, perhaps an HTML page; try again later")
        return answer

    def _answer(self, ccxt: Any, raw: Any, method: str, args: tuple[Any, ...]) -> Any:
        """ccxt's answer; its errors are raised as DataError or a subclass."""
        try:
            return getattr(raw, method)(*args)
        except ccxt.BadSymbol as error:
            raise MissingError(f"ccxt: {self.exchange} has no {args[:1]}; check the symbol") from error
        except (ccxt.OperationFailed, ccxt.BadResponse) as error:
            raise PassingError(
                f"ccxt: {self.exchange} fails: {type(error).__name__} {plain_words(error)}; try again later",
                retry_after({k.lower(): v for k, v in (raw.last_response_headers or {}).items()}),
            ) from error
        except ccxt.BaseError as error:
            words = plain_words(error, 160)
            raise DataError(
                f"ccxt: {self.exchange} refuses: {type(error).__name__} {words}; check the request"
            ) from error

    @cached_property
    def _ccxt(self) -> Any:
        try:
            import ccxt  # noqa: PLC0415 - an extra: only this source needs it
        except ImportError as error:
            raise DataError(f"sources: ccxt is not installed; {INSTALL}") from error
        return ccxt

    @cached_property
    def _raw(self) -> Any:
        if self.exchange not in self._ccxt.exchanges:
            raise DataError(
                f"ccxt: {self.exchange!r} is unknown to ccxt {self._ccxt.__version__}; fix source.exchange="
            )
        raw = getattr(self._ccxt, self.exchange)(
            {
                "enableRateLimit": self.address is None,
                "enableLastJsonResponse": True,
                "timeout": int(self.timeout_seconds * 1000),
                "options": {
                    "defaultType": "spot" if self.kind == "spot" else "swap",
                    "fetchMarkets": {"types": [self.kind]},
                    "fetchCurrencies": False,
                },
            }
        )
        if self.address is not None:
            raw.urls["api"] = _moved(raw.urls["api"], self.address)
        return raw

    @cached_property
    def _symbols(self) -> dict[str, str]:
        """Names without their slash, and the exchange's own ids -> ccxt's symbols."""
        self.retry.call(lambda: self.call("load_markets", True))
        wanted = "spot" if self.kind == "spot" else "swap"
        symbols = [s for s, market in self._raw.markets.items() if market.get("type") == wanted]
        by_id = {str(self._raw.markets[s]["id"]).upper(): s for s in symbols}
        return {**by_id, **{s.replace("/", "").upper(): s for s in symbols}}


def _candles(symbol: str, rows: list[list[float]], length: timedelta) -> pl.DataFrame:
    """Candles [[open ms, o, h, l, c, v], ...] as bars."""
    names = ["time", *COLUMNS[2:]]
    kinds = {"time": pl.Int64(), **{n: pl.Float64() for n in names[1:]}}
    frame = pl.DataFrame(rows, schema=kinds, orient="row", strict=False) if rows else pl.DataFrame(schema=kinds)
    if n_empty := frame.height - frame.drop_nulls().height:
        raise DataError(f"ccxt: {n_empty} of {frame.height} candles of {symbol} lack numbers; {CHANGED}")
    time = pl.from_epoch("time", "ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC") + length
    return (
        frame.select(pl.lit(symbol).alias("symbol"), time.alias("time"), *names[1:])
        .cast(pl.Schema(SCHEMA))
        .sort("time")
    )


def _moved(urls: Any, address: str) -> Any:
    if isinstance(urls, dict):
        return {key: _moved(value, address) for key, value in urls.items()}
    return re.sub(r"^https?://[^/]+", address.rstrip("/"), urls) if isinstance(urls, str) else urls
