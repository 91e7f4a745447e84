"""The coins that count today, from CoinGecko: a universe file, kept with its date."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.runs import write_text
from tradsys.market.downloads.client import Http, PassingError
from tradsys.market.downloads.progress import Job, SymbolRow

PAGE = 250  # rows of one call, the vendor's most
STABLE, WRAPPED = "stablecoins", "wrapped-tokens"  # the vendor's categories
COLUMNS = ("symbol", "kind", "name", "id", "rank", "market_cap", "volume", "volume_share", "trending", "built")


@dataclass(frozen=True)
class CoingeckoUniverse:
    """Writes `universes/<name>/<date>.csv`, symbols as BTC-USD: the top coins by market cap, and trending ones.

    Coins need market_cap >= min_market_cap and volume / market_cap >= min_volume_share. Stablecoins and wrapped tokens
    stay in the file, marked in `kind`, and are not downloaded. Each build stands for its own date and later alone.
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
            raise DataError(f"{self.name}: top={self.top} lies in 1..5000 and limits are not negative; fix conf/source")

    def collect(self, job: Job) -> list[SymbolRow]:
        """Builds the universe of this moment; returns one row for the file."""
        now = job.now or utc_now()
        try:
            rows = self._rows(now)
        finally:
            self.http.close()
        path = job.root / "universes" / job.name / f"{now:%Y-%m-%d}.csv"
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())
        return [SymbolRow(f"universes/{job.name}/{path.name}", now, now, len(rows), len(rows))]

    def _rows(self, now: datetime) -> list[dict[str, Any]]:
        kinds = {coin["id"]: kind for category, kind in self.marked.items() for coin in self._markets(PAGE, category)}
        hot = self._trending() if self.trending else []
        coins = {coin["id"]: coin for coin in self._markets(self.top)}
        missing = [coin for coin in hot if coin not in coins]
        if missing:
            coins |= {coin["id"]: coin for coin in self._page(1, {"ids": ",".join(missing)})}
        rows: dict[str, dict[str, Any]] = {}
        for coin in coins.values():
            cap, volume = float(coin["market_cap"] or 0), float(coin["total_volume"] or 0)
            symbol = f"{str(coin['symbol']).upper()}-USD"
            if cap < self.min_market_cap or cap == 0 or volume / cap < self.min_volume_share or symbol in rows:
                continue  # of two coins with one ticker the larger one counts: rows come by market cap
            rows[symbol] = {
                "symbol": symbol, "kind": kinds.get(coin["id"], "coin"), "name": coin["name"], "id": coin["id"],
                "rank": coin["market_cap_rank"], "market_cap": cap, "volume": volume,
                "volume_share": round(volume / cap, 6), "trending": coin["id"] in hot, "built": now.isoformat(),
            }  # fmt: skip
        if not rows:
            raise DataError(f"{self.name}: no coin passes the limits; lower min_market_cap or min_volume_share")
        return list(rows.values())

    def _markets(self, n: int, category: str | None = None) -> list[dict[str, Any]]:
        coins: list[dict[str, Any]] = []
        extra = {} if category is None else {"category": category}
        for page in range(1, -(-n // PAGE) + 1):
            found = self._page(page, extra)
            coins += found
            if len(found) < PAGE:
                break
        return coins[:n]

    def _page(self, page: int, extra: Mapping[str, str]) -> list[dict[str, Any]]:
        query = {"vs_currency": "usd", "order": "market_cap_desc", "per_page": PAGE, "page": page, **extra}
        found: list[dict[str, Any]] = self.http.json("/coins/markets", query, check=_check_coins)
        return found

    def _trending(self) -> list[str]:
        found = self.http.json("/search/trending")
        try:
            return [coin["item"]["id"] for coin in found["coins"]]
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.name}: the trending page changed its form; set source.trending=false") from error


def _check_coins(content: Any) -> None:
    if isinstance(content, dict) and "status" in content:
        raise PassingError(f"coingecko: {content['status'].get('error_message', 'refuses')}; try again later")
    needed = {"id", "symbol", "name", "market_cap", "total_volume", "market_cap_rank"}
    wrong = not isinstance(content, list) or [c for c in content if not isinstance(c, dict) or needed - set(c)]
    if wrong:
        raise DataError("coingecko: the page of coins changed its form; report it with the date, nothing was written")
