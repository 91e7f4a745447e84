"""Vendors that change their form, pack answers wrongly, or are wrong for a while: one line each, nothing kept of it."""

import gzip
import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.vendors.server import History, Vendors, serving
from tests.vendors.test_downloads import END, START, expected, stored
from tests.vendors.test_tables import KEY, NOW, coin, daily, fred_routes, vendor
from tradsys.core.errors import DataError
from tradsys.market.downloads.alphavantage import AlphaVantage
from tradsys.market.downloads.ccxt_candles import CcxtCandles
from tradsys.market.downloads.client import Http, LimitError, PassingError, Retry
from tradsys.market.downloads.coingecko import CoingeckoUniverse
from tradsys.market.downloads.fred import FredSeries
from tradsys.market.downloads.progress import Job, download
from tradsys.market.downloads.revisions import RevisionLedger, RevisionRule
from tradsys.market.known import KnownSource
from tradsys.market.store import BarStore

QUICK = Retry(attempts=3, wait_seconds=0.0, max_wait_seconds=1.0)
DAYS = daily(["2024-11-26", "2024-11-27", "2024-11-29"])
FIRST = DAYS["2024-11-26"]
ONCE = {"count": 1, "vintage_dates": ["2024-02-13"]}
RELEASE = {"realtime_start": "2024-02-13", "realtime_end": "9999-12-31", "date": "2024-01-01", "value": "3.1"}

STOCKS = {
    "a renamed column": {"2024-11-26": {("4. Close" if k == "4. close" else k): v for k, v in FIRST.items()}},
    "a word for a price": {"2024-11-26": FIRST | {"4. close": "N/A"}},
    "no price": {"2024-11-26": FIRST | {"4. close": None}},
    "other dates": {"26.11.2024": FIRST},
    "lists for rows": {"2024-11-26": [1, 2, 3]},
}


@pytest.mark.parametrize("form", STOCKS)
def test_stocks_of_another_form_are_one_row_and_the_others_are_stored(tmp_path, monkeypatch, form):
    def answer(query):
        return {"Time Series (Daily)": STOCKS[form] if query["symbol"] == "ODD" else DAYS}

    with vendor({"/query": answer}, monkeypatch, key_as="apikey") as (http, _):
        odd, good = download(AlphaVantage(http), Job(tmp_path, "us", ("ODD", "IBM"), now=NOW))
    assert "changed the form" in odd.error
    assert "\n" not in odd.error
    assert good.error is None
    assert BarStore(tmp_path).manifest("us")["symbols"].keys() == {"IBM"}
    assert not (tmp_path / "us" / "partial").exists()


def test_an_answer_of_another_form_is_not_cached(tmp_path, monkeypatch):
    answers = [STOCKS["a renamed column"], DAYS]
    keys = {"key_as": "apikey", "cache": str(tmp_path / "http.sqlite"), "cache_hours": 6.0}
    with vendor({"/query": lambda _: {"Time Series (Daily)": answers.pop(0)}}, monkeypatch, **keys) as (http, _):
        assert "changed the form" in download(AlphaVantage(http), Job(tmp_path, "us", ("IBM",), now=NOW))[0].error
        assert download(AlphaVantage(http), Job(tmp_path, "us", ("IBM",), now=NOW))[0].error is None


WORDS = {
    "Our standard API rate limit is 25 requests per day.": (LimitError, "the limit ends by"),
    "5 calls per minute and 500 calls per day": (LimitError, "the limit ends by"),
    "spread out your requests more sparingly (1 request per second)": (PassingError, "too many calls"),
    "This is a premium endpoint.": (DataError, "source.outputsize=compact"),
}


@pytest.mark.parametrize("words", WORDS)
def test_words_of_a_limit_say_which_limit_it_is(monkeypatch, words):
    kind, said = WORDS[words]
    with vendor({"/query": lambda _: {"Information": f"{words} {KEY}"}}, monkeypatch, key_as="apikey") as (http, _):
        with pytest.raises(DataError) as refused:
            AlphaVantage(http)._rows("IBM", {"Information": f"{words} {KEY}"})
        assert type(refused.value) is kind
        assert said in str(refused.value)
        assert KEY not in str(refused.value)


RELEASES = {
    "a word for a value": RELEASE | {"value": "#N/A"},
    "no number": RELEASE | {"value": "nan"},
    "a renamed column": {"when": "2024-01-01", "value": "1"},
    "other dates": RELEASE | {"date": "01/02/2024"},
    "no moment of release": RELEASE | {"realtime_start": "soon"},
    "a release beyond all dates": RELEASE | {"realtime_start": "9999-12-31"},
}


@pytest.mark.parametrize("form", RELEASES)
def test_macro_values_of_another_form_are_one_row(tmp_path, monkeypatch, form):
    routes = {
        "/fred/series/vintagedates": lambda _: ONCE,
        "/fred/series/observations": lambda _: {"count": 1, "observations": [RELEASES[form]]},
    }
    with vendor(routes, monkeypatch) as (http, _):
        [row] = FredSeries(http).collect(Job(tmp_path, "us", ("CPI",), now=NOW))
    assert "changed the form" in row.error
    assert not (tmp_path / "macro").exists()


def test_pages_of_macro_values_end_with_an_empty_one(tmp_path, monkeypatch):
    routes = {
        "/fred/series/vintagedates": lambda q: ONCE if q["offset"] == "0" else {"count": 1, "vintage_dates": []},
        "/fred/series/observations": lambda q: {
            "count": 10**9,
            "observations": [RELEASE] if q["offset"] == "0" else [],
        },
    }
    with vendor(routes, monkeypatch) as (http, vendors):
        [row] = FredSeries(http).collect(Job(tmp_path, "us", ("CPI",), now=NOW))
    assert row.n_bars == 1
    assert len(vendors.requests) == 3


def test_releases_that_the_vendor_rewrote_are_in_the_ledger_and_can_be_refused(tmp_path, monkeypatch):
    history = {"2024-02-13": {"2024-01-01": "3.1"}, "2024-03-12": {"2024-02-01": "3.2"}}
    with vendor(fred_routes(history), monkeypatch) as (http, _):
        job = Job(tmp_path, "us", ("CPI",), now=NOW)
        FredSeries(http).collect(job)
        before = pl.read_parquet(tmp_path / "macro" / "us_vintages.parquet")
        history["2024-02-13"]["2024-01-01"] = "3.0"
        refusing = Job(tmp_path, "us", ("CPI",), now=NOW, rule=RevisionRule("refuse", 0.0))
        assert "max_revised_share" in FredSeries(http).collect(refusing)[0].error
        assert pl.read_parquet(tmp_path / "macro" / "us_vintages.parquet").equals(before)
        [row] = FredSeries(http).collect(job)
        assert row.revisions.n_changed == 1
        [row] = FredSeries(http).collect(job)
        assert row.revisions.n == 0
    ledger = RevisionLedger(tmp_path / "macro" / "us_vintages").read()
    assert ledger.select("symbol", "column", "old", "new").rows() == [("CPI", "2024-01-01", 3.1, 3.0)]


def test_releases_are_read_as_they_were_before_the_vendor_rewrote_them(tmp_path, monkeypatch):
    path = tmp_path / "macro" / "us.parquet"

    def read(moment=None):
        source = KnownSource(str(path), "wide", {"CPI": "cpi"}, as_of=moment and moment.isoformat())
        return source.frame().rows()

    history = {
        "2024-02-13": {"2024-01-01": "3.1"}, "2024-03-12": {"2024-02-01": "3.2"}, "2024-04-10": {"2024-03-01": "3.4"},
    }  # fmt: skip
    with vendor(fred_routes(history), monkeypatch) as (http, _):
        FredSeries(http).collect(Job(tmp_path, "us", ("CPI",), now=NOW))
        first, moment = read(), datetime.now(UTC)
        history["2024-02-13"]["2024-01-01"] = "3.0"  # rewritten
        history["2024-03-05"] = {"2024-02-01": "2.9"}  # a release that came into the past
        del history["2024-04-10"]  # withdrawn
        history["2024-05-15"] = {"2024-04-01": "3.6"}
        FredSeries(http).collect(Job(tmp_path, "us", ("CPI",), now=NOW))
    assert [value for _, value in read()] == [3.0, 2.9, 3.2, 3.6]
    assert [value for _, value in first] == [3.1, 3.2, 3.4]
    assert read(moment) == [*first, read()[-1]]  # a later release counts as known since its day, as a later bar does
    assert read(datetime(2024, 4, 1, tzinfo=UTC)) == first[:2]
    assert read(datetime.now(UTC)) == read()


COINS = {
    "a word for a sum": coin("bitcoin", "a lot", 1e10),
    "a negative sum": coin("bitcoin", -1e12, 1e10),
    "no symbol": coin("bitcoin", 1e12, 1e11) | {"symbol": None},
    "a renamed column": {k: v for k, v in coin("bitcoin", 1e12, 1e11).items() if k != "market_cap"},
}


@pytest.mark.parametrize("form", COINS)
def test_coins_of_another_form_are_one_line_and_no_file(tmp_path, monkeypatch, form):
    routes = {"/coins/markets": lambda _: [COINS[form]], "/search/trending": lambda _: {"coins": []}}
    with vendor(routes, monkeypatch) as (http, _), pytest.raises(DataError, match="changed the form"):
        CoingeckoUniverse(http).collect(Job(tmp_path, "top", (), now=NOW))
    assert not (tmp_path / "universes").exists()


def test_a_coin_whose_name_no_file_can_bear_is_left_out_and_named(tmp_path, monkeypatch):
    coins = [coin("bitcoin", 1e12, 1e11), coin("odd", 1e11, 1e10) | {"symbol": "../x"}]
    routes = {
        "/coins/markets": lambda q: [] if "category" in q else coins,
        "/search/trending": lambda _: {"coins": []},
    }
    with vendor(routes, monkeypatch) as (http, _):
        [row] = CoingeckoUniverse(http).collect(Job(tmp_path, "top", (), now=NOW))
    assert row.n_bars == 1
    assert "'../X-USD'" in row.remarks[0]


FILES = {
    "packed wrongly": lambda _: Response(b"\x1f\x8b\x08 no gzip", headers={"content-encoding": "gzip"}),
    "a circle of addresses": lambda _: RedirectResponse("/x"),
    "an address that is none": lambda _: Response(b"", 302, headers={"location": "http://[::bad"}),
    "nested without end": lambda _: Response(b"[" * 100_000),
    "a wait beyond all dates": lambda _: Response(b"", 429, headers={"Retry-After": "9" * 17}),
    "a date to wait for": lambda _: Response(b"", 429, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}),
}


@pytest.mark.parametrize("form", FILES)
def test_an_answer_that_cannot_be_read_is_one_line(form):
    vendors = Vendors(History([], NOW, NOW), NOW)
    vendors.extra_routes = [Route("/x", FILES[form])]
    with (
        serving(vendors.app()) as url,
        closing(Http(url, rates=((1000, 1.0),), retry=QUICK)) as http,
        pytest.raises(DataError) as refused,
    ):
        http.json("/x")
    assert "\n" not in str(refused.value)
    assert ("2099-10-21 07:28 UTC" in str(refused.value)) == (form == "a date to wait for")


def test_an_answer_that_was_packed_wrongly_once_is_asked_for_again():
    answers = [Response(b"no gzip", headers={"content-encoding": "gzip"}),
               Response(gzip.compress(b"[1]"), headers={"content-encoding": "gzip"})]  # fmt: skip
    vendors = Vendors(History([], NOW, NOW), NOW)
    vendors.extra_routes = [Route("/x", lambda _: answers.pop(0))]
    with serving(vendors.app()) as url, closing(Http(url, rates=((1000, 1.0),), retry=QUICK)) as http:
        assert http.json("/x") == [1]


@pytest.mark.parametrize("name", ["http.sqlite", "calls_127_0_0_1_{port}.sqlite"])
def test_a_damaged_cache_or_count_of_calls_is_one_line(tmp_path, name):
    vendors = Vendors(History([], NOW, NOW), NOW)
    vendors.extra_routes = [Route("/x", lambda _: JSONResponse([1]))]
    keys = {"cache": str(tmp_path / "http.sqlite"), "cache_hours": 1.0, "rates": ((3, 86400.0),), "retry": QUICK}
    with serving(vendors.app()) as url:
        (tmp_path / name.format(port=url.rsplit(":", 1)[1])).write_bytes(b"no database" * 1000)
        with closing(Http(url, **keys)) as http, pytest.raises(DataError, match=r"http\.sqlite .* cannot be used"):
            http.json("/x")


class Mistaken(Vendors):
    """Candles as `wrong` makes them, while it is set."""

    wrong = None

    def klines(self, request):
        answer = super().klines(request)
        return answer if self.wrong is None else Response(json.dumps(self.wrong(json.loads(answer.body))))


PASSING = {
    "two values for one bar": lambda rows: [one for row in rows for one in (row, [*row[:4], row[2], *row[5:]])],
    "no bars": lambda _: [],
    "no prices": lambda rows: [[row[0], None, None, None, None, None] for row in rows],
    "prices of zero": lambda rows: [[row[0], "0", "0", "0", "0", "0"] for row in rows],
    "rows that are none": lambda _: {"data": 1},
}


@pytest.mark.parametrize("wrong", PASSING)
def test_what_was_refused_is_asked_for_again_and_not_for_ever(tmp_path, wrong):
    vendors = Mistaken(History(["BTCUSDT"], START, END), NOW)
    vendors.wrong = PASSING[wrong]
    with serving(vendors.app()) as url:
        source = CcxtCandles(address=url, retry=QUICK, first_day="2024-11-20")
        [row] = download(source, Job(tmp_path, "coins", ("BTC-USD",), now=NOW))
        assert row.error is not None
        assert "\n" not in row.error
        assert list(tmp_path.rglob("*.parquet")) == []
        vendors.wrong = None
        [row] = download(source, Job(tmp_path, "coins", ("BTC-USD",), now=NOW))
    assert row.error is None
    assert stored(tmp_path) == expected(vendors, "BTCUSDT", datetime(2025, 1, 4, 6, tzinfo=UTC))


def test_an_empty_history_of_a_stock_is_asked_for_again_in_full(tmp_path, monkeypatch):
    answers = [{}, DAYS]
    with vendor({"/query": lambda _: {"Time Series (Daily)": answers.pop(0)}}, monkeypatch, key_as="apikey") as (h, _):
        assert "no bars" in download(AlphaVantage(h), Job(tmp_path, "us", ("IBM",), now=NOW))[0].error
        assert download(AlphaVantage(h), Job(tmp_path, "us", ("IBM",), now=NOW))[0].n_bars == len(DAYS)
    assert not Path(tmp_path / "us" / "partial").exists()
