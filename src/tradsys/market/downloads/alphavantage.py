"""Daily stocks and exchange rates from Alpha Vantage, within its limits of calls per minute and day."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, NoReturn

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.market.bars import COLUMNS, SCHEMA
from tradsys.market.downloads.client import Http, LimitError, MissingError, PassingError, plain_words
from tradsys.market.downloads.daily import daily_holes, session_bars
from tradsys.market.downloads.progress import Page

KINDS = {"stock": "Time Series (Daily)", "fx": "Time Series FX (Daily)"}
LIMITS = ("Note", "Information")  # answers with these keys report a limit and hold no data
DAY = timedelta(days=1)


@dataclass(frozen=True)
class AlphaVantage:
    """Daily bars.

    kind: stock, or fx (symbols such as EURUSD). calendar: the dates are its sessions. outputsize: `compact` gives the
    last 100 days, `full` all (for paying keys). Prices are raw; fx has volume 0.
    """

    http: Http
    kind: str = "stock"
    calendar: str = "XNYS"
    outputsize: str = "compact"
    minutes: float = 1440.0
    name: str = "alphavantage"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.outputsize not in ("compact", "full"):
            raise DataError(
                f"{self.name}: kind={self.kind!r}, outputsize={self.outputsize!r}; the kind must be one of "
                f"{', '.join(KINDS)}, the size compact or full; set source.kind= and source.outputsize="
            )

    @property
    def first(self) -> datetime:
        """A moment before all of this vendor's history."""
        return datetime(1990, 1, 1, tzinfo=UTC)

    def spell(self, symbol: str) -> str:
        """The symbol unchanged; fx needs six letters."""
        if self.kind == "fx" and not (len(symbol) == 6 and symbol.isalpha()):
            raise DataError(f"{self.name}: {symbol!r} is no pair of currencies; write EURUSD")
        return symbol

    def identity(self) -> Json:
        """Vendor, kind and size."""
        return {"source": self.name, "kind": self.kind, "outputsize": self.outputsize}

    def holes(self, bars: pl.DataFrame) -> list[tuple[datetime, datetime]]:
        """Sessions of the calendar without a bar."""
        return daily_holes(bars, self.calendar)

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def pages(self, spelling: str, since: datetime, until: datetime) -> Iterator[Page]:
        """One page: this vendor returns the complete history in one call."""
        query = {"function": "TIME_SERIES_DAILY", "symbol": spelling, "outputsize": self.outputsize}
        if self.kind == "fx":
            query |= {"function": "FX_DAILY", "from_symbol": spelling[:3], "to_symbol": spelling[3:]}
            del query["symbol"]
        content = self.http.json("/query", query, check=partial(self._rows, spelling))
        bars = session_bars(self._rows(spelling, content), self.calendar)
        yield Page(bars.filter(pl.col("time") > since, pl.col("time") <= until), until)

    def _rows(self, symbol: str, content: Any) -> pl.DataFrame:
        """symbol, date, prices and volume of an answer; raises for a limit, an error or an unknown form."""
        self._check(content)
        rows = [
            (symbol, date.fromisoformat(day), *(float(v[k]) for k in ("1. open", "2. high", "3. low", "4. close")),
             0.0 if self.kind == "fx" else float(v["5. volume"]))
            for day, v in content[KINDS[self.kind]].items()
        ]  # fmt: skip
        schema = {"symbol": pl.String(), "date": pl.Date(), **{n: SCHEMA[n] for n in COLUMNS[2:]}}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def _check(self, content: Any) -> None:
        for key in LIMITS:
            if isinstance(content, dict) and key in content:
                self._refuse(self.http.masked(plain_words(content[key], 200)))
        if isinstance(content, dict) and "Error Message" in content:
            words = self.http.masked(plain_words(content["Error Message"]))
            if "apikey" in words.lower():
                raise DataError(f"{self.name}: {words}; check the key in the environment variable {self.http.key}")
            raise MissingError(f"{self.name}: {words}; check the symbol")
        if not isinstance(content, dict) or not isinstance(content.get(KINDS[self.kind]), dict):
            raise DataError(
                f"{self.name}: the answer has no {KINDS[self.kind]!r}; the vendor changed the form of its "
                "answer; use another source until it is read again"
            )

    def _refuse(self, words: str) -> NoReturn:
        """Raises for a `Note` or `Information`: too fast, daily limit reached, or a paid query."""
        text = words.lower()
        if "premium endpoint" in text or "premium feature" in text:
            raise DataError(f"{self.name}: no data: {words}; set source.outputsize=compact, or use a paying key")
        if "per day" not in text and ("per minute" in text or "per second" in text):
            raise PassingError(f"{self.name}: too many calls: {words}; try again later", after=60.0)
        opens = utc_now() + DAY
        raise LimitError(
            f"{self.name}: a limit, no data: {words}; complete symbols are kept; the limit ends by "
            f"{opens:%Y-%m-%d %H:%M} UTC at the latest; run it again then"
        )
