"""Daily stocks and exchange rates from Alpha Vantage, within its calls a minute and a day."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import COLUMNS, SCHEMA
from tradsys.market.downloads.client import Http, LimitError, MissingError, plain_words
from tradsys.market.downloads.daily import daily_holes, session_bars
from tradsys.market.downloads.progress import Page

KINDS = {"stock": "Time Series (Daily)", "fx": "Time Series FX (Daily)"}
LIMITS = ("Note", "Information")  # answers of this vendor that are limits, not data


@dataclass(frozen=True)
class AlphaVantage:
    """Daily bars. kind: stock, or fx (symbols such as EURUSD). calendar: whose sessions the dates are.

    outputsize: `compact` gives the last 100 days, `full` all (for paying keys). Prices are raw; fx has volume 0.
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
                f"{self.name}: kind={self.kind!r}, outputsize={self.outputsize!r}; kinds are {', '.join(KINDS)}, sizes "
                "compact and full; set source.kind= and source.outputsize="
            )

    @property
    def first(self) -> datetime:
        """Before all of this vendor's history."""
        return datetime(1990, 1, 1, tzinfo=UTC)

    def spell(self, symbol: str) -> str:
        """The symbol as it is; fx needs six letters."""
        if self.kind == "fx" and not (len(symbol) == 6 and symbol.isalpha()):
            raise DataError(f"{self.name}: {symbol!r} is no pair of currencies; write EURUSD")
        return symbol

    def identity(self) -> dict[str, Any]:
        """Vendor, kind and size."""
        return {"source": self.name, "kind": self.kind, "outputsize": self.outputsize}

    def holes(self, bars: pl.DataFrame) -> list[tuple[datetime, datetime]]:
        """Sessions of the calendar without a bar."""
        return daily_holes(bars, self.calendar)

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def pages(self, spelling: str, since: datetime, until: datetime) -> Iterator[Page]:
        """One page: this vendor gives a history in one call."""
        query = {"function": "TIME_SERIES_DAILY", "symbol": spelling, "outputsize": self.outputsize}
        if self.kind == "fx":
            query |= {"function": "FX_DAILY", "from_symbol": spelling[:3], "to_symbol": spelling[3:]}
            del query["symbol"]
        found = self.http.json("/query", query, check=self._check)[KINDS[self.kind]]
        rows = [
            (spelling, date.fromisoformat(day), *(float(v[k]) for k in ("1. open", "2. high", "3. low", "4. close")),
             float(v.get("5. volume", 0)))
            for day, v in found.items()
        ]  # fmt: skip
        schema = {"symbol": pl.String(), "date": pl.Date(), **{n: SCHEMA[n] for n in COLUMNS[2:]}}
        bars = session_bars(pl.DataFrame(rows, schema=schema, orient="row"), self.calendar)
        yield Page(bars.filter(pl.col("time") > since, pl.col("time") <= until), until)

    def _check(self, content: Any) -> None:
        for key in LIMITS:
            if isinstance(content, dict) and key in content:
                words = self.http.masked(" ".join(str(content[key]).split()))[:200]
                raise LimitError(
                    f"{self.name}: a limit, no data: {words}; what is complete is kept; run it again later"
                )
        if isinstance(content, dict) and "Error Message" in content:
            words = self.http.masked(plain_words(content["Error Message"]))
            if "apikey" in words.lower():
                raise DataError(f"{self.name}: {words}; check the key in the environment variable {self.http.key}")
            raise MissingError(f"{self.name}: {words}; check the symbol")
        if not isinstance(content, dict) or not isinstance(content.get(KINDS[self.kind]), dict):
            raise DataError(f"{self.name}: the answer has no {KINDS[self.kind]!r}; the vendor's page changed its form")
