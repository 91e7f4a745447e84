"""A decision maker for tests of the bot's runtime: a seeded coin in place of the bundle gives many trades."""

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from tradsys.ops.trading.bot import Plan
from tradsys.ops.trading.risk import Risk
from tradsys.portfolio.costs import Costs

OFF = Risk(*[None] * 8, model_band="off")


@dataclass
class CoinBundle:
    """What the runtime reads of a bundle."""

    folder: Path = Path("coin/1")
    history: int = 30
    bar_minutes: float = 60.0
    max_gap: timedelta | None = timedelta(hours=6)
    card: dict[str, Any] = field(
        default_factory=lambda: {
            "card_sha256": "c" * 64, "bar_minutes": 60, "data": {"symbols": ["AAAUSDT", "BBBUSDT"]},
            "verdict": {"kind": "edge"}, "metrics": {}, "label": {"kind": "triple_barrier"}, "feature_names": [],
        }
    )  # fmt: skip

    def check_bar_length(self, bars):
        """Any length will do."""


class CoinProfile:
    """The profile's words."""

    def describe(self) -> str:
        return "a coin that remembers"


@dataclass
class CoinStrategy:
    """Enters by the digest of symbol and time: the same decision for the same bar, whatever happened before."""

    primary: CoinBundle
    chance: float = 0.35
    shorts: bool = True
    horizon_bars: int = 8
    name: str = "coin"
    profile: CoinProfile = field(default_factory=CoinProfile)

    def targets(self, bars, since=None, predictions=None):
        rows = []
        for symbol, time, close in bars.select("symbol", "time", "close").iter_rows():
            number = int(hashlib.sha256(f"{symbol}{time.isoformat()}".encode()).hexdigest()[:8], 16) / 2**32
            if number < self.chance:
                side = -1 if self.shorts and number < self.chance / 2 else 1
                rows.append((symbol, time, side, 0.9, close * 0.012, close * 0.01, self.horizon_bars))
        schema = {"symbol": pl.String, "time": pl.Datetime("us", "UTC"), "side": pl.Int8, "size": pl.Float64,
                  "take_profit": pl.Float64, "stop_loss": pl.Float64, "horizon_bars": pl.Int64}  # fmt: skip
        return pl.DataFrame(rows, schema=schema, orient="row")


class CoinSession:
    """The predictor's place: every bar has a forecast."""

    def __init__(self, bundle, past):
        self.past = past

    def step(self, closed):
        return closed.select("symbol", "time", "close", probability=pl.lit(0.5), score=pl.lit(0.5))


def coin_plan(folder: Path, mode: str = "live", risk: Risk = OFF, capital: float = 1000.0, **kwargs) -> Plan:
    """A plan of the coin."""
    strategy = CoinStrategy(CoinBundle(), **kwargs)
    symbols = tuple(strategy.primary.card["data"]["symbols"])
    costs = Costs(fee_bps=10, slippage_bps=0)
    return Plan("coin", mode, folder, strategy, symbols, capital, costs, risk, exchange="binance/linear")


def rows_of(bars: pl.DataFrame, length: timedelta = timedelta(hours=1)) -> dict[str, list[tuple]]:
    """Bars by closing time as the exchange keeps them: by opening time in milliseconds, prices in ticks."""
    out: dict[str, list[tuple]] = {}
    for symbol, time, *numbers in bars.select("symbol", "time", "open", "high", "low", "close", "volume").iter_rows():
        prices = [round(x, 2) for x in numbers[:4]]
        prices[1], prices[2] = max(prices), min(prices)
        out.setdefault(symbol, []).append((int((time - length).timestamp() * 1000), *prices, round(numbers[4], 3)))
    return out
