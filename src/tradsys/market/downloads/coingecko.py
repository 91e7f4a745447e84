"""Universe files of today's largest and trending coins, from CoinGecko."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.runs import write_text
from tradsys.market.downloads.client import Http, PassingError, plain_words
from tradsys.market.downloads.progress import Job, Report, SymbolRow, silent
from tradsys.market.symbol_files import is_symbol

PAGE = 250  # rows of one call, the vendor's maximum
STABLE, WRAPPED = "stablecoins", "wrapped-tokens"  # the vendor's categories
COLUMNS = ("symbol", "kind", "name", "id", "rank", "market_cap", "volume", "volume_share", "trending", "built")


@dataclass(frozen=True)
class CoingeckoUniverse:
    """Writes today's list of coins to `universes/<name>/<date>.csv`.

    A later one of that day to `<date>T<time>.csv`.
    Symbols as BTC-USD: the top coins by market cap, and trending ones.
    Coins need market_cap >= min_market_cap and volume / market_cap >= min_volume_share. Stablecoins and wrapped tokens
    stay in the file, marked in `kind`, and are not downloaded. A build is valid from its own date on.
    """

    http: Http
    top: int = 100
    trending: bool = True
    min_market_cap: float = 10e6
    min_volume_share: float = 0.05
    marked: Mapping[str, str] = field(default_factory=lambda: {STABLE: "stablecoin", WRAPPED: "wrapped"})
    name: str = "coingecko"

    def __post_init__(self) -> None:
        if not 1 <= self.top <= 5000 or self.min_market_cap < 0 or self.min_volume_share < 0:
            raise DataError(f"{self.name}: top={self.top} must lie in 1..5000, limits from 0 on; fix conf/source")

    def collect(self, job: Job, report: Report = silent) -> list[SymbolRow]:
        """Builds the universe of this moment; returns one row for the file."""
        now = job.now or utc_now()
        odd: list[str] = []
        try:
            rows = self._rows(now, odd)
        finally:
            self.http.close()
        report("coins", 0, len(rows))
        folder = job.root / "universes" / job.name
        path = folder / f"{now:%Y-%m-%d}.csv"
        if path.exists():  # earlier builds are kept
            path = folder / f"{now:%Y-%m-%dT%H%M%S}.csv"
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())
        shown = ", ".join(repr(name) for name in odd[:6])
        remarks = (f"left out, as no file can be named so: {len(odd)} coins, {shown}",) if odd else ()
        return [SymbolRow(f"universes/{job.name}/{path.name}", now, now, len(rows), len(rows), remarks=remarks)]

    def _rows(self, now: datetime, odd: list[str]) -> list[Json]:
        """The file's rows; symbols that cannot be stored are appended to `odd`."""
        kinds = {coin["id"]: kind for category, kind in self.marked.items() for coin in self._markets(PAGE, category)}
        hot = self._trending() if self.trending else []
        coins = {coin["id"]: coin for coin in self._markets(self.top)}
        missing = [coin for coin in hot if coin not in coins]
        if missing:
            coins |= {coin["id"]: coin for coin in self._page(1, {"ids": ",".join(missing)})}
        rows: dict[str, Json] = {}
        for coin in coins.values():
            cap, volume = _dollars(coin, "market_cap"), _dollars(coin, "total_volume")
            symbol = f"{coin['symbol'].upper()}-USD"
            if cap < self.min_market_cap or cap == 0 or volume / cap < self.min_volume_share or symbol in rows:
                continue  # of two coins with one ticker the larger one is kept: rows are sorted by market cap
            if not is_symbol(symbol):
                odd.append(symbol)
                continue
            rows[symbol] = {
                "symbol": symbol, "kind": kinds.get(coin["id"], "coin"), "name": coin["name"], "id": coin["id"],
                "rank": coin["market_cap_rank"], "market_cap": cap, "volume": volume,
                "volume_share": round(volume / cap, 6), "trending": coin["id"] in hot, "built": now.isoformat(),
            }  # fmt: skip
        if not rows:
            raise DataError(f"{self.name}: no coin passes the limits; lower min_market_cap or min_volume_share")
        return list(rows.values())

    def _markets(self, n: int, category: str | None = None) -> list[Json]:
        coins: list[Json] = []
        extra = {} if category is None else {"category": category}
        for page in range(1, -(-n // PAGE) + 1):
            found = self._page(page, extra)
            coins += found
            if len(found) < PAGE:
                break
        return coins[:n]

    def _page(self, page: int, extra: Mapping[str, str]) -> list[Json]:
        query = {"vs_currency": "usd", "order": "market_cap_desc", "per_page": PAGE, "page": page, **extra}
        found: list[Json] = self.http.json("/coins/markets", query, check=_check_coins)
        return found

    def _trending(self) -> list[str]:
        found = self.http.json("/search/trending", check=_hot)
        return _hot(found)


def _hot(content: Any) -> list[str]:
    try:
        return [coin["item"]["id"] for coin in content["coins"]]
    except (KeyError, TypeError) as error:
        raise DataError("coingecko: the form of the trending answer changed; set source.trending=false") from error


def _check_coins(content: Any) -> None:
    if isinstance(content, dict) and "status" in content:
        words = plain_words(content["status"]["error_message"])
        raise PassingError(f"coingecko: {words}; try again later")
    if not isinstance(content, list):
        raise TypeError(f"{type(content).__name__} instead of a list of coins")
    for coin in content:
        if not all(isinstance(coin[name], str) and coin[name] for name in ("id", "symbol", "name")):
            raise TypeError(f"id, symbol or name of {coin['id']!r} is no text")
        for name in ("market_cap", "total_volume"):
            _dollars(coin, name)
        coin["market_cap_rank"]


def _dollars(coin: Mapping[str, Any], name: str) -> float:
    """An amount in US dollars; null is zero. ValueError or TypeError for anything else."""
    value = 0.0 if coin[name] is None else float(coin[name])
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}={value} of {coin['id']!r}")
    return value
