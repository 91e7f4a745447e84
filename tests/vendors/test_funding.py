"""Funding rates through the real ccxt against a local exchange that misbehaves."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.vendors.server import History, Vendors, serving
from tradsys.market.downloads.ccxt_funding import CcxtFunding
from tradsys.market.downloads.client import Retry
from tradsys.market.downloads.progress import InterruptedDownload, Job
from tradsys.market.downloads.revisions import RevisionLedger, RevisionRule
from tradsys.market.known import KnownSource

NOW = datetime(2025, 1, 4, 6, 30, tzinfo=UTC)
FIRST = datetime(2024, 12, 1, tzinfo=UTC)
QUICK = Retry(attempts=4, wait_seconds=0.0, max_wait_seconds=5.0)


class Futures(Vendors):
    """Perpetuals with a settlement every eight hours."""

    def __init__(self):
        super().__init__(History([], FIRST, FIRST), NOW)
        self.twice = False  # whether the first rate of a page is given a second time, otherwise
        self.rates = {FIRST + timedelta(hours=8 * k): round(1e-4 + 1e-6 * (k % 5), 8) for k in range(103)}
        self.extra_routes = [Route("/fapi/v1/exchangeInfo", self.markets), Route("/fapi/v1/fundingRate", self.funding)]

    def markets(self, _request: Request):
        one = {"symbol": "BTCUSDT", "pair": "BTCUSDT", "contractType": "PERPETUAL", "status": "TRADING"}
        assets = {"baseAsset": "BTC", "quoteAsset": "USDT", "marginAsset": "USDT", "pricePrecision": 2}
        rest = {"quantityPrecision": 3, "baseAssetPrecision": 8, "quotePrecision": 8, "deliveryDate": 4133404800000}
        return JSONResponse({"symbols": [one | assets | rest | {"onboardDate": 0, "filters": [], "orderTypes": []}]})

    def funding(self, request: Request):
        begin, n = int(request.query_params.get("startTime", 0)), int(request.query_params.get("limit", 100))
        rows = [(int(t.timestamp() * 1000), r) for t, r in self.rates.items() if t.timestamp() * 1000 >= begin]
        pairs = [(t, r) for t, r in rows[:n]] + ([(rows[0][0], 0.5)] if self.twice and rows else [])
        return JSONResponse([{"symbol": "BTCUSDT", "fundingTime": t, "fundingRate": str(r)} for t, r in pairs])


@pytest.fixture
def futures():
    return Futures()


@pytest.fixture
def source(futures):
    with serving(futures.app()) as url:
        yield CcxtFunding(address=url, retry=QUICK, page_rows=40, first_day="2024-11-25")


def job(tmp_path, symbols=("BTC-USD",), **keys):
    return Job(tmp_path, "perp", symbols, now=NOW, **keys)


def stored(tmp_path):
    return dict(pl.read_parquet(tmp_path / "funding" / "perp_BTC-USD.parquet").rows())


def settled(futures):
    return {t: r for t, r in futures.rates.items() if t <= NOW}


@pytest.mark.parametrize("faults", [[], ["too_many"], ["server_error", None, "html"], ["cut"], [None, None, "empty"]])
def test_every_settlement_is_stored_whatever_fails_on_the_way(futures, source, tmp_path, faults):
    futures.faults.extend(faults)
    [row] = source.collect(job(tmp_path))
    assert row.error is None
    assert stored(tmp_path) == settled(futures)
    assert (row.n_bars, row.holes) == (len(settled(futures)), ())


def test_it_goes_on_where_it_ended_and_takes_what_changed(futures, source, tmp_path):
    source.collect(Job(tmp_path, "perp", ("BTC-USD",), now=NOW, end=datetime(2024, 12, 20, tzinfo=UTC)))
    before = len(stored(tmp_path))
    changed = datetime(2024, 12, 18, tzinfo=UTC)
    futures.rates[changed] = 0.0042
    futures.requests.clear()
    [row] = source.collect(job(tmp_path))
    assert stored(tmp_path) == settled(futures)
    assert stored(tmp_path)[changed] == 0.0042
    assert row.n_added == len(settled(futures)) - before
    assert (row.revisions.n_changed, row.revisions.n) == (1, 1)
    entries = RevisionLedger(tmp_path / "funding" / "perp_BTC-USD").read()
    assert entries.select("symbol", "time", "column", "new", "source").rows() == [
        ("BTC-USD", changed, "funding_rate", 0.0042, "ccxt_funding")
    ]
    asked = [r for r in futures.requests if "fundingRate" in r]
    assert f"startTime={int(datetime(2024, 12, 4, 8, tzinfo=UTC).timestamp() * 1000)}" in asked[0], "the last 48 again"


def test_holes_unknown_symbols_and_limits_are_rows(futures, source, tmp_path):
    del futures.rates[datetime(2024, 12, 10, tzinfo=UTC)]
    found, missing = source.collect(job(tmp_path, ("BTC-USD", "NIX-USD")))
    assert [a for a, _ in found.holes] == [datetime(2024, 12, 9, 16, tzinfo=UTC)]
    assert "has no linear market 'NIX-USD'" in missing.error
    futures.faults.extend([None, "long_wait"])
    first, second = source.collect(Job(tmp_path, "other", ("BTC-USD", "ETH-USD"), now=NOW))
    assert "answers again from" in first.error
    assert second.not_tried
    assert not (tmp_path / "funding" / "other_BTC-USD.parquet").exists(), "nothing half-written"


def test_the_file_is_known_from_each_settlement_on(futures, source, tmp_path):
    gone = futures.rates.pop(datetime(2025, 1, 2, tzinfo=UTC))
    source.collect(job(tmp_path))
    first, moment = settled(futures), datetime.now(UTC)
    futures.rates |= {datetime(2025, 1, 1, tzinfo=UTC): 0.0042, datetime(2025, 1, 2, tzinfo=UTC): gone}
    source.collect(job(tmp_path))
    path = str(tmp_path / "funding" / "perp_BTC-USD.parquet")

    def read(**keys):
        frame = KnownSource(path, "wide", {"funding_rate": "funding"}, **keys).frame()
        return dict(frame.select("available_at", "funding").rows())

    assert read() == settled(futures)
    assert read(as_of=moment.isoformat()) == first
    assert read(as_of="2024-12-15") == {t: r for t, r in first.items() if t <= datetime(2024, 12, 15, tzinfo=UTC)}
    assert read(as_of=datetime.now(UTC).isoformat()) == settled(futures)


def test_rewritten_settlements_above_the_share_are_refused(futures, source, tmp_path):
    source.collect(job(tmp_path))
    before = stored(tmp_path)
    futures.rates[datetime(2025, 1, 1, tzinfo=UTC)] = 0.0042
    del futures.rates[datetime(2025, 1, 2, tzinfo=UTC)]
    [row] = source.collect(job(tmp_path, rule=RevisionRule("refuse", 0.01)))
    assert "max_revised_share" in row.error
    assert stored(tmp_path) == before
    [row] = source.collect(job(tmp_path))
    assert (row.revisions.n_changed, row.revisions.n_vanished) == (1, 1)
    assert len(stored(tmp_path)) == len(before), "what the vendor no longer has stays"


@pytest.mark.parametrize("rate", ["nan", "1e400", "12.5", "soon"])
def test_a_rate_that_is_no_fraction_is_refused_and_asked_for_again(futures, source, tmp_path, rate):
    moment = datetime(2024, 12, 20, tzinfo=UTC)
    right, futures.rates[moment] = futures.rates[moment], rate
    [row] = source.collect(job(tmp_path))
    assert row.error is not None or moment not in stored(tmp_path)
    futures.rates[moment] = right
    [row] = source.collect(job(tmp_path))
    assert row.error is None
    assert stored(tmp_path) == settled(futures)


def test_two_rates_for_one_settlement_are_refused(futures, source, tmp_path):
    futures.twice = True
    [row] = source.collect(job(tmp_path))
    assert "twice" in row.error
    assert not list(tmp_path.rglob("*.parquet"))


def test_pages_of_an_interrupted_download_are_not_asked_for_again(futures, source, tmp_path):
    def stop(symbol, number, n_rows):
        if n_rows > 50:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedDownload):
        source.collect(job(tmp_path), stop)
    futures.requests.clear()
    [row] = source.collect(job(tmp_path))
    assert row.error is None
    assert stored(tmp_path) == settled(futures)
    begins = [int(r.split("startTime=")[1].split("&")[0]) for r in futures.requests if "startTime" in r]
    assert min(begins) >= FIRST.timestamp() * 1000 + 79 * 8 * 3_600_000
    assert not (tmp_path / "funding" / "partial").exists()
