"""CoinGecko, FRED and Alpha Vantage against answers in their form, with invented values."""

import csv
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.vendors.server import History, Vendors, serving
from tradsys.market.bars import SCHEMA
from tradsys.market.downloads.alphavantage import AlphaVantage
from tradsys.market.downloads.client import Http, Retry
from tradsys.market.downloads.coingecko import CoingeckoUniverse
from tradsys.market.downloads.fred import FredSeries, known_from
from tradsys.market.downloads.progress import Job, download
from tradsys.market.downloads.run import wanted_symbols
from tradsys.market.downloads.vintages import as_known
from tradsys.market.known import KnownSource
from tradsys.market.store import BarStore, StoredBars

NOW = datetime(2025, 1, 4, 6, 30, tzinfo=UTC)
KEY = "k3y-of-a-test"


@contextmanager
def vendor(routes, monkeypatch, **keys):
    """An Http on a server with these routes: path -> answer of a query."""
    monkeypatch.setenv("TEST_KEY", KEY)
    vendors = Vendors(History([], NOW, NOW), NOW)
    vendors.extra_routes = [Route(p, lambda r, f=f: JSONResponse(f(r.query_params))) for p, f in routes.items()]
    with serving(vendors.app()) as url:
        yield Http(url, rates=((1000, 1.0),), retry=Retry(3, 0.0, 1.0), key="TEST_KEY", **keys), vendors


def coin(name, cap, volume, rank=1):
    return {
        "id": name, "symbol": name[:4], "name": name.title(), "market_cap": cap, "total_volume": volume,
        "market_cap_rank": rank,
    }  # fmt: skip


def test_a_universe_marks_stablecoins_keeps_its_date_and_gives_coins_to_download(tmp_path, monkeypatch):
    coins = [coin("bitcoin", 1e12, 6e10), coin("tether", 1e11, 9e10), coin("wbtcwrapped", 1e10, 1e9),
             coin("idle", 1e10, 1e7), coin("tiny", 1e6, 1e6)]  # fmt: skip

    def markets(q):
        if "category" in q:
            return [
                c for c in coins if c["id"] == {"stablecoins": "tether", "wrapped-tokens": "wbtcwrapped"}[q["category"]]
            ]
        return [coin("rising", 2e7, 5e6)] if q.get("ids") == "rising" else coins

    routes = {"/coins/markets": markets, "/search/trending": lambda q: {"coins": [{"item": {"id": "rising"}}]}}
    with vendor(routes, monkeypatch, key_as="x-cg-demo-api-key") as (http, vendors):
        vendors.faults.extend(["too_many", None, "html"])
        [row] = CoingeckoUniverse(http).collect(Job(tmp_path, "top", (), now=NOW))
    assert row.n_bars == 4
    path = tmp_path / "universes" / "top" / "2025-01-04.csv"
    kinds = {r["symbol"]: r["kind"] for r in csv.DictReader(path.read_text().splitlines())}
    assert kinds == {"BITC-USD": "coin", "TETH-USD": "stablecoin", "WBTC-USD": "wrapped", "RISI-USD": "coin"}
    assert wanted_symbols(None, str(path))[0] == ("BITC-USD", "RISI-USD")


def test_each_build_of_a_universe_is_kept(tmp_path, monkeypatch):
    coins = [coin("bitcoin", 1e12, 6e10)]
    routes = {
        "/coins/markets": lambda q: [] if "category" in q else coins,
        "/search/trending": lambda _: {"coins": []},
    }
    with vendor(routes, monkeypatch) as (http, _):
        CoingeckoUniverse(http).collect(Job(tmp_path, "top", (), now=NOW))
        coins[0] = coin("ether", 1e12, 6e10)
        CoingeckoUniverse(http).collect(Job(tmp_path, "top", (), now=NOW + timedelta(hours=3)))
    builds = {path.name: path.read_text() for path in (tmp_path / "universes" / "top").iterdir()}
    assert "BITC-USD" in builds["2025-01-04.csv"]
    assert "ETHE-USD" in builds["2025-01-04T093000.csv"]


def fred_routes(history):
    """history: release day -> {reference date: value}."""

    def vintages(q):
        days = sorted(history)
        return (
            {"count": len(days), "vintage_dates": days}
            if q["series_id"] == "CPI"
            else {"count": 0, "vintage_dates": []}
        )

    def observations(q):
        rows = [
            {"realtime_start": r, "realtime_end": r, "date": d, "value": v}
            for r, values in history.items() if q["realtime_start"] <= r <= q["realtime_end"] for d, v in values.items()
        ]  # fmt: skip
        return {"count": len(rows), "observations": rows}

    return {"/fred/series/vintagedates": vintages, "/fred/series/observations": observations}


def test_a_macro_value_is_known_from_its_release_and_never_from_its_reference_period(tmp_path, monkeypatch):
    history = {
        "2024-02-13": {"2024-01-01": "3.1", "2023-12-01": "."},
        "2024-03-12": {"2024-02-01": "3.2", "2024-01-01": "3.1"},
        "2024-04-10": {"2024-03-01": "3.5", "2024-02-01": "3.3"},
    }
    with vendor(fred_routes(history), monkeypatch) as (http, vendors):
        vendors.faults.extend(["cut", None, "server_error"])
        good, bad = FredSeries(http).collect(Job(tmp_path, "us", ("CPI", "NOPE"), now=NOW))
    assert good.error is None
    assert "NOPE has no releases" in bad.error
    vintages = pl.read_parquet(tmp_path / "macro" / "us_vintages.parquet")
    assert vintages.select("date", "value").rows() == [
        (date(2024, 1, 1), 3.1), (date(2024, 2, 1), 3.2), (date(2024, 2, 1), 3.3), (date(2024, 3, 1), 3.5),
    ]  # fmt: skip
    frame = KnownSource(str(tmp_path / "macro" / "us.parquet"), "wide", {"CPI": "cpi"}).frame()
    assert frame["cpi"].to_list() == [3.1, 3.2, 3.5]
    assert frame["available_at"].to_list() == [known_from(d) for d in history]
    assert known_from("2024-02-13") == datetime(2024, 2, 14, 6, tzinfo=UTC)  # winter in St. Louis
    assert known_from("2024-04-10") == datetime(2024, 4, 11, 5, tzinfo=UTC)


def test_a_revision_of_an_older_period_alone_leaves_the_newest_value(tmp_path):
    rows = [("x", date(2024, 1, 1), 1.0, known_from("2024-02-01")),
            ("x", date(2024, 2, 1), 2.0, known_from("2024-03-01")),
            ("x", date(2024, 1, 1), 1.5, known_from("2024-03-15"))]  # fmt: skip
    schema = {"series": pl.String, "date": pl.Date, "value": pl.Float64, "available_at": SCHEMA["time"]}
    assert as_known(pl.DataFrame(rows, schema=schema, orient="row"))["x"].to_list() == [1.0, 2.0]


def daily(days):
    return {d: {"1. open": "10", "2. high": "11", "3. low": "9", "4. close": "10.5", "5. volume": "100"} for d in days}


def test_daily_stocks_close_with_their_session_and_limits_are_no_data(tmp_path, monkeypatch):
    answers = {
        "IBM": {"Meta Data": {}, "Time Series (Daily)": daily(["2024-11-29", "2024-11-27", "2024-12-03"])},
        "BAD": {"Error Message": "Invalid API call."},
        "ODD": {"Something": "else"},
        "FULL": {"Information": f"We have detected your API key as {KEY} and our limit is 25 requests per day."},
    }
    routes = {"/query": lambda q: answers[q["symbol"]]}
    with vendor(routes, monkeypatch, key_as="apikey") as (http, _):
        rows = download(AlphaVantage(http), Job(tmp_path, "us", ("IBM", "BAD", "ODD", "FULL", "LAST"), now=NOW))
    good, bad, odd, full, last = rows
    assert BarStore(tmp_path).read("us")["time"].to_list() == [
        datetime(2024, 11, 27, 21, tzinfo=UTC), datetime(2024, 11, 29, 18, tzinfo=UTC),
        datetime(2024, 12, 3, 21, tzinfo=UTC),
    ]  # fmt: skip
    assert len(good.holes) == 1  # Thanksgiving is none, 2 December is one
    assert "check the symbol" in bad.error
    assert "changed the form" in odd.error
    assert "25 requests per day" in full.error
    assert KEY not in str(rows)
    assert last.not_tried


def test_stored_bars_as_of_a_moment_are_a_source_with_a_digest_of_its_own(tmp_path, monkeypatch):
    answer = {"Time Series (Daily)": daily(["2024-11-26", "2024-11-27", "2024-11-29"])}
    with vendor({"/query": lambda q: answer}, monkeypatch, key_as="apikey") as (http, _):
        download(AlphaVantage(http), Job(tmp_path, "us", ("IBM",), now=NOW))
        first = StoredBars(str(tmp_path), "us")
        before, digest, moment = first.bars(), first.describe()["digest"], datetime.now(UTC).isoformat()
        answer["Time Series (Daily)"]["2024-11-27"]["4. close"] = "10.75"
        [row] = download(AlphaVantage(http), Job(tmp_path, "us", ("IBM",), now=NOW))
    assert row.revisions.n_changed == 1
    then = StoredBars(str(tmp_path), "us", as_of=moment)
    assert then.bars().equals(before)
    assert then.describe()["digest"] == digest != first.describe()["digest"]


@pytest.mark.parametrize("text", ["name\nx\n", "", "symbol\nBTC-USD\n\n ,\n"])
def test_a_universe_file_without_symbols_is_one_line(tmp_path, text):
    path = tmp_path / "coins.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"correct the file|no symbol"):
        wanted_symbols(None, str(path))
