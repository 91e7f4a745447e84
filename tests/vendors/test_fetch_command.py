"""The real fetch command against a local vendor: a kill in the middle, and everything that can be given wrongly."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.forks import Forked, forks
from tests.vendors.server import History, Vendors, serving
from tests.vendors.test_downloads import END, NOW, START, expected, stored
from tests.vendors.test_tables import daily
from tradsys.config.explain import ConfigError
from tradsys.core.errors import DataError
from tradsys.fetch import work
from tradsys.market.downloads.run import Lines
from tradsys.market.store import BarStore

KEY = "k3y-of-a-test"
SESSIONS = daily(["2024-11-26", "2024-11-27", "2024-11-29"])
ANSWERS = {
    "IBM": {"Time Series (Daily)": SESSIONS},
    "NOPE": {"Error Message": "Invalid API call. Please retry or visit the documentation"},
    "ODD": {"Monthly Time Series": {}},
    "KEYLESS": {"Error Message": f"the parameter apikey is invalid or missing: {KEY}"},
    "FULL": {"Information": "our standard API rate limit is 25 requests per day."},
}


class Killing(Vendors):
    """Kills a process in the middle of its third page."""

    victim: Forked | None = None
    n_pages = 0

    def klines(self, request):
        self.n_pages += 1
        if self.victim is not None and self.n_pages == 4:
            os.kill(self.victim.pid, signal.SIGKILL)
        return super().klines(request)


def test_what_a_killed_download_had_stays_and_the_rest_is_asked_for_again(tmp_path, monkeypatch, capsys):
    vendors = Killing(History(["BTCUSDT"], START, END), NOW)
    with serving(vendors.app()) as url:
        argv = ["source=ccxt", f"source.address={url}", "source.page_bars=200", "symbols=[BTC-USD]", "name=coins",
                f"start={START:%Y-%m-%d}", "end=2025-01-04"]  # fmt: skip
        vendors.victim = forks().start(["-m", "tradsys.fetch", *argv], tmp_path)
        assert vendors.victim.wait(timeout=120) == -signal.SIGKILL
        kept = list((tmp_path / "data" / "coins" / "partial").rglob("*.parquet"))
        assert len(kept) == 3
        assert BarStore(tmp_path / "data").names() == []
        vendors.victim, asked = None, len(vendors.requests)
        monkeypatch.chdir(tmp_path)
        work(argv)
    begins = [int(r.split("startTime=")[1].split("&")[0]) / 1000 for r in vendors.requests[asked:] if "startTime" in r]
    assert datetime.fromtimestamp(min(begins), UTC) == START + timedelta(hours=600)
    assert stored(tmp_path / "data") == expected(vendors, "BTCUSDT", datetime(2025, 1, 4, tzinfo=UTC))
    assert not (tmp_path / "data" / "coins" / "partial").exists()
    assert "BTC-USD" in capsys.readouterr().out


@pytest.fixture
def alphavantage(tmp_path, monkeypatch):
    """The command's arguments for a local Alpha Vantage; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHAVANTAGE_API_KEY", KEY)
    vendors = Vendors(History([], NOW, NOW), NOW)
    vendors.extra_routes = [Route("/query", lambda request: JSONResponse(ANSWERS[request.query_params["symbol"]]))]
    with serving(vendors.app()) as url:
        yield ["source=alphavantage", f"source.http.address={url}", "source.http.rates=[[1000,1]]", "name=us"]


FAILED = {  # symbols after IBM, what is printed of them
    "no such symbol": (
        ["NOPE"],
        "failed NOPE: alphavantage: Invalid API call. Please retry or visit the documentation",
    ),
    "another form": (["ODD"], "failed ODD: alphavantage: the answer has no 'Time Series (Daily)'; the vendor"),
    "a wrong key": (["KEYLESS"], "check the key in the environment variable ALPHAVANTAGE_API_KEY"),
    "the day's limit": (
        ["FULL", "NOPE"],
        "not tried NOPE: alphavantage: a limit, no data: our standard API rate limit",
    ),
}


@pytest.mark.parametrize("case", FAILED)
def test_a_symbol_that_fails_is_one_row_and_the_others_are_stored(alphavantage, capsys, case):
    others, words = FAILED[case]
    with pytest.raises(SystemExit) as ended:
        work([*alphavantage, f"symbols=[IBM,{','.join(others)}]"])
    out = capsys.readouterr().out
    assert ended.value.code == 3
    assert sum(words in line for line in out.splitlines()) == 1, out
    assert KEY not in out
    assert BarStore(Path("data")).manifest("us")["symbols"].keys() == {"IBM"}
    assert not Path("data/us/partial").exists()


REFUSED = {  # overrides, what the one line says
    "no key": ([], "ALPHAVANTAGE_API_KEY is empty; keys come from the environment"),
    "a future start": (["start=2999-01-01"], "start=2999-01-01 lies in the future"),
    "an end before the start": (["start=2024-02-01", "end=2024-01-01"], "end=2024-01-01 is not after start=2024-02-01"),
    "no date": (["start=soon"], "start='soon'; it takes an ISO date"),
    "both lists": (["universe=coins.csv"], "symbols= and universe= are both given"),
    "the key itself": ([f"source.http.key=x-{KEY}"], "takes the NAME of an environment variable"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_downloaded_is_one_line_and_nothing_is_written(alphavantage, monkeypatch, case):
    if case == "no key":
        monkeypatch.delenv("ALPHAVANTAGE_API_KEY")
    overrides, words = REFUSED[case]
    with pytest.raises((DataError, ConfigError)) as refused:
        work([*alphavantage, "symbols=[IBM]", *overrides])
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert KEY not in str(refused.value)
    assert not Path("data").exists()


def test_a_universe_with_duplicates_is_downloaded_once_and_says_so(alphavantage, capsys):
    Path("coins.csv").write_text("symbol,kind\nIBM,coin\nIBM,coin\nUSDT-USD,stablecoin\n")
    work([*alphavantage, "universe=coins.csv"])
    out = capsys.readouterr().out
    assert "named more than once, downloaded once: IBM (2 times)" in out
    assert "1 stablecoins or wrapped tokens left out: USDT-USD" in out
    assert [line.split()[3:] for line in out.splitlines() if line.startswith("IBM ")] == [["3", "3", "0", "0", "0"]]


def test_a_symbol_that_no_file_can_bear_is_one_row_of_a_universe(alphavantage, capsys):
    Path("coins.csv").write_text("\ufeffsymbol,kind\r\n=x,coin\r\n\r\nIBM,coin\r\n", newline="")
    with pytest.raises(SystemExit) as ended:
        work([*alphavantage, "universe=coins.csv"])
    out = capsys.readouterr().out
    assert ended.value.code == 3
    assert "failed =x: store: '=x' is no symbol that can be stored" in out
    assert BarStore(Path("data")).manifest("us")["symbols"].keys() == {"IBM"}


def test_a_second_download_into_one_dataset_is_one_line(alphavantage):
    Path("data").mkdir()
    with FileLock("data/.fetch_us.lock"), pytest.raises(DataError, match="another download into name=us is running"):
        work([*alphavantage, "symbols=[IBM]"])
    assert BarStore(Path("data")).names() == []
    work([*alphavantage, "symbols=[IBM]"])


def test_a_name_that_leads_out_of_the_store_is_refused(alphavantage):
    with pytest.raises(DataError, match="a folder's name has at most 100"):
        work([*alphavantage, "symbols=[IBM]", "name=../us"])
    assert not Path("data").exists()


def test_progress_is_lines_where_nobody_watches(capsys):
    lines = Lines(2, every=3600.0)
    for n in range(100):
        lines.show("BTC-USD", 0, n + 1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split(" ", 1)[1] for line in printed.err.splitlines()] == ["BTC-USD (1 of 2): 1 rows"]
