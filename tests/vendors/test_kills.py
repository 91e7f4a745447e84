"""A download killed at any moment: the store whole, nothing lost, nothing twice, every revision entered once."""

import contextlib
import random
import subprocess
import time
from datetime import UTC, datetime, timedelta

from tests.forks import forks
from tests.vendors.server import History, Vendors, serving
from tradsys.market.downloads.revisions import RevisionLedger
from tradsys.market.store import BarStore

SYMBOLS = ("BTC", "ETH")
START, END = datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 8, 1, tzinfo=UTC)
FIRST_END = datetime(2024, 7, 1, tzinfo=UTC)


class Watched(Vendors):
    """Candles, and the moment of the first one of a run."""

    begun = 0.0

    def klines(self, request):
        self.begun = self.begun or time.monotonic()
        return super().klines(request)


def test_kills_at_any_moment_lose_nothing_and_enter_each_revision_once(tmp_path):
    chance = random.Random(1)
    vendors = Watched(History([f"{s}USDT" for s in SYMBOLS], START, END), END)
    revised, span = [], 1.0
    with serving(vendors.app()) as url:
        argv = ["-m", "tradsys.fetch", "source=ccxt", f"source.address={url}", "source.page_bars=200", "name=coins",
                "symbols=[BTC-USD,ETH-USD]", "start=2024-06-01", "reread_bars=100"]  # fmt: skip

        def run(end, most=None):
            """Whether a run came to its end; after `most` seconds from its first candles it is killed."""
            vendors.begun = 0.0
            process = forks().start([*argv, f"end={end:%Y-%m-%d}"], tmp_path)
            while not vendors.begun and process.poll() is None:
                time.sleep(0.002)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(60.0 if most is None else most) == 0
            process.kill()
            process.wait(60.0)
            return False

        for end in (FIRST_END + timedelta(days=3 * k) for k in range(2)):
            for _ in range(2):
                run(end, chance.uniform(0, span))
            assert run(end)
            span = max(time.monotonic() - vendors.begun, 0.05)
            for symbol in SYMBOLS:
                moment = end - timedelta(hours=chance.randrange(2, 90))
                vendors.history.bars[f"{symbol}USDT"][moment][3] += 0.25
                revised.append((f"{symbol}-USD", moment + timedelta(hours=1)))
        assert run(end)
    store = BarStore(tmp_path / "data")
    for symbol in SYMBOLS:
        wanted = [(t + timedelta(hours=1), *v) for t, v in vendors.history.between(f"{symbol}USDT", START, END)]
        assert store.read("coins", [f"{symbol}-USD"]).drop("symbol").rows() == [r for r in wanted if r[0] <= end]
    entries = RevisionLedger(tmp_path / "data" / "coins").read()
    assert sorted(entries.select("symbol", "time").rows()) == sorted(revised)
    assert not (tmp_path / "data" / "coins" / "partial").exists()
