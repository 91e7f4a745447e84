import gzip
from contextlib import closing
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.vendors.server import History, Vendors, serving
from tradsys.core.errors import DataError
from tradsys.market.downloads import transport
from tradsys.market.downloads.binance_archive import BinanceArchive
from tradsys.market.downloads.ccxt_candles import CcxtCandles
from tradsys.market.downloads.client import Http, LimitError, Retry
from tradsys.market.downloads.progress import InterruptedDownload, Job, download
from tradsys.market.downloads.revisions import BAR, RevisionLedger, RevisionRule
from tradsys.market.store import BarStore

START, END = datetime(2024, 11, 20, tzinfo=UTC), datetime(2025, 1, 6, tzinfo=UTC)
NOW = datetime(2025, 1, 4, 6, 30, tzinfo=UTC)
QUICK = Retry(attempts=4, wait_seconds=0.0, max_wait_seconds=5.0)


@pytest.fixture
def vendors():
    return Vendors(History(["BTCUSDT", "ETHUSDT"], START, END), NOW)


@pytest.fixture
def address(vendors):
    with serving(vendors.app()) as url:
        yield url


def archive(address, **keys):
    return BinanceArchive(Http(address, rates=((1000, 1.0),), retry=QUICK, **keys), first_month="2024-10")


def candles(address, **keys):
    return CcxtCandles(address=address, retry=QUICK, first_day="2024-11-01", **keys)


SOURCES = {"archive": archive, "candles": candles}


@pytest.fixture(params=SOURCES)
def source(request, address):
    return SOURCES[request.param](address)


def job(tmp_path, symbols=("BTC-USD",), now=NOW, **keys):
    return Job(tmp_path, "coins", symbols, now=now, **keys)


def expected(vendors, symbol, until):
    rows = [(t + timedelta(hours=1), *v) for t, v in vendors.history.between(symbol, START, END)]
    return [r for r in rows if r[0] <= until]


def stored(tmp_path, symbol="BTC-USD"):
    return BarStore(tmp_path).read("coins", [symbol]).drop("symbol").rows()


def test_every_closed_bar_is_stored_at_its_close(source, vendors, tmp_path):
    [row] = download(source, job(tmp_path))
    assert row.error is None
    last = datetime(2025, 1, 4, 6 if source.name == "ccxt" else 0, tzinfo=UTC)
    assert stored(tmp_path) == expected(vendors, "BTCUSDT", last)
    assert (row.last, row.holes, row.n_bars) == (last, (), len(stored(tmp_path)))


def test_the_archive_is_read_with_and_without_header_in_milliseconds_and_microseconds(address, vendors, tmp_path):
    vendors.headers_from = datetime(2024, 12, 1, tzinfo=UTC)
    [row] = download(archive(address), job(tmp_path))
    assert row.error is None
    assert stored(tmp_path) == expected(vendors, "BTCUSDT", datetime(2025, 1, 4, tzinfo=UTC))


@pytest.mark.parametrize("fault", ["too_many", "server_error", "html", "cut"])
def test_a_failure_that_passes_changes_nothing(source, vendors, tmp_path, fault):
    vendors.faults.extend([fault, None, fault, fault, None, None, fault])
    [row] = download(source, job(tmp_path))
    assert row.error is None
    assert stored(tmp_path) == expected(vendors, "BTCUSDT", row.last)


def test_empty_and_repeated_pages_change_nothing(address, vendors, tmp_path):
    vendors.faults.extend([None, None, "repeat"])
    source = candles(address, page_bars=200)
    [row] = download(source, job(tmp_path, start=datetime(2024, 11, 1, tzinfo=UTC)))
    assert row.error is None
    assert stored(tmp_path) == expected(vendors, "BTCUSDT", row.last)


@pytest.mark.parametrize("fault", ["server_error", "html", "cut"])
def test_a_failure_that_stays_is_one_line_and_other_symbols_go_on(source, vendors, tmp_path, fault):
    source.spell("BTC-USD")  # loads the markets of ccxt
    vendors.faults.extend([fault] * QUICK.attempts)
    bad, good = download(source, job(tmp_path, ("BTC-USD", "ETH-USD")))
    assert "\n" not in bad.error
    assert "later" in bad.error
    assert good.error is None
    assert BarStore(tmp_path).manifest("coins")["symbols"].keys() == {"ETH-USD"}


def test_a_symbol_that_does_not_exist_is_one_row(source, tmp_path):
    bad, good = download(source, job(tmp_path, ("NOPE-USD", "BTC-USD")))
    assert "NOPE-USD" in bad.error
    assert "check the symbol" in bad.error
    assert good.error is None


def test_a_wait_that_is_too_long_ends_the_download_and_says_when_it_opens(source, vendors, tmp_path):
    source.spell("BTC-USD")
    vendors.faults.append("long_wait")
    first, second = download(source, job(tmp_path, ("BTC-USD", "ETH-USD")))
    assert "answers again from" in first.error
    assert second.not_tried
    assert BarStore(tmp_path).names() == []


def test_a_wrong_checksum_is_refused(address, vendors, tmp_path):
    vendors.wrong_checksums.add("BTCUSDT-1h-2024-12.zip")
    [row] = download(archive(address), job(tmp_path))
    assert "CHECKSUM" in row.error
    assert BarStore(tmp_path).names() == []


def test_what_was_complete_when_it_was_killed_is_not_asked_again(address, vendors, tmp_path):
    source = candles(address, page_bars=200)

    def stop(symbol, number, n_bars):
        if n_bars > 300:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedDownload) as interrupted:
        download(source, job(tmp_path), stop)
    assert interrupted.value.rows == []
    assert BarStore(tmp_path).names() == []
    n_before = len(vendors.requests)
    [row] = download(source, job(tmp_path))
    assert stored(tmp_path) == expected(vendors, "BTCUSDT", row.last)
    starts = [r.split("startTime=")[1].split("&")[0] for r in vendors.requests if "startTime" in r]
    assert len(starts) == len(set(starts))
    assert len(vendors.requests) > n_before
    assert not (tmp_path / "coins" / "partial").exists()


def test_holes_are_named(source, vendors, tmp_path):
    gone = [datetime(2024, 12, 3, 4, tzinfo=UTC), datetime(2024, 12, 3, 5, tzinfo=UTC)]
    for moment in gone:
        del vendors.history.bars["BTCUSDT"][moment]
    [row] = download(source, job(tmp_path))
    assert row.holes == ((gone[0], datetime(2024, 12, 3, 7, tzinfo=UTC)),)


def revised(vendors):
    """A changed close, a bar that vanishes, and one that appears, in the last two days."""
    bars = vendors.history.bars["BTCUSDT"]
    bars[datetime(2025, 1, 3, 3, tzinfo=UTC)][3] += 0.5
    bars[datetime(2025, 1, 3, 6, tzinfo=UTC)] = bars.pop(datetime(2025, 1, 3, 5, tzinfo=UTC))


def test_revisions_are_recorded_and_the_store_is_read_as_of_a_moment(source, vendors, tmp_path):
    del vendors.history.bars["BTCUSDT"][datetime(2025, 1, 3, 6, tzinfo=UTC)]
    download(source, job(tmp_path))
    before = stored(tmp_path)
    moment = datetime.now(UTC)
    revised(vendors)
    [row] = download(source, job(tmp_path))
    assert (row.revisions.n_changed, row.revisions.n_appeared, row.revisions.n_vanished) == (1, 1, 1)
    ledger = RevisionLedger(tmp_path / "coins")
    entries = ledger.read()
    assert entries["column"].to_list() == ["close", BAR, BAR]
    assert entries.filter(pl.col("column") == "close").select(pl.col("new") - pl.col("old")).item() == pytest.approx(
        0.5
    )
    bars = BarStore(tmp_path).read("coins")
    assert ledger.before(bars, moment).drop("symbol").rows() == before
    assert ledger.before(bars, datetime.now(UTC)).rows() == bars.rows()
    download(source, job(tmp_path))
    assert ledger.read().rows() == entries.rows()  # what is known is not entered again


def test_revisions_above_the_share_are_refused_and_nothing_is_written(source, vendors, tmp_path):
    download(source, job(tmp_path))
    before = stored(tmp_path)
    revised(vendors)
    [row] = download(source, job(tmp_path, rule=RevisionRule("refuse", 0.01)))
    assert "max_revised_share" in row.error
    assert stored(tmp_path) == before
    assert RevisionLedger(tmp_path / "coins").read().is_empty()
    [row] = download(source, job(tmp_path, rule=RevisionRule("refuse", 0.5)))
    assert row.error is None
    assert row.revisions.n > 0


def test_a_second_download_adds_what_is_new_alone(source, vendors, tmp_path):
    download(source, job(tmp_path, now=datetime(2024, 12, 31, 12, tzinfo=UTC)))
    vendors.requests.clear()
    [row] = download(source, job(tmp_path))
    assert stored(tmp_path) == expected(vendors, "BTCUSDT", row.last)
    assert row.n_added < 200
    assert len(vendors.requests) < 20


def test_the_same_command_again_asks_for_the_last_bars_alone(source, vendors, tmp_path):
    start = datetime(2024, 10, 1, tzinfo=UTC)  # before the listing
    download(source, job(tmp_path, start=start))
    vendors.requests.clear()
    [row] = download(source, job(tmp_path, start=start))
    assert row.n_added == 0
    assert row.revisions.n_reread <= 50
    [row] = download(source, job(tmp_path, start=datetime(2024, 9, 1, tzinfo=UTC)))
    assert row.revisions.n_reread == row.n_bars


def test_dates_in_the_future_are_refused(tmp_path):
    with pytest.raises(DataError, match="lies in the future"):
        job(tmp_path, start=NOW + timedelta(days=1))


def test_a_call_count_of_a_day_holds_across_runs(address, vendors, tmp_path):
    def http():
        return Http(address, rates=((3, 86400.0),), retry=QUICK, cache=str(tmp_path / "http.sqlite"))

    for _ in range(3):
        with closing(http()) as one:
            one.json("/api/v3/exchangeInfo")
    with closing(http()) as one, pytest.raises(LimitError, match="the limit ends"):
        one.json("/api/v3/exchangeInfo")


def test_answers_are_cached_without_the_key_and_never_a_page_that_is_no_data(address, vendors, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "s3cret-value")
    http = Http(
        address, rates=((1000, 1.0),), retry=QUICK, cache=str(tmp_path / "http.sqlite"), cache_hours=1.0, key="TEST_KEY"
    )
    vendors.faults.append("html")
    with closing(http):
        assert http.json("/api/v3/exchangeInfo") == http.json("/api/v3/exchangeInfo")
    assert len(vendors.requests) == 2
    assert vendors.requests[1].endswith("api_key=s3cret-value")
    assert all(b"s3cret" not in p.read_bytes() for p in tmp_path.iterdir())


def test_a_missing_key_is_one_line(address, monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(DataError, match="TEST_KEY is empty"):
        Http(address, key="TEST_KEY", retry=QUICK).json("/api/v3/exchangeInfo")


@pytest.mark.parametrize("elsewhere", ["http://localhost:{port}/taken", "{address}/own", "file:///etc/passwd"])
def test_a_redirect_takes_the_key_nowhere_else(vendors, monkeypatch, elsewhere):
    """The same machine under another name stands for another host."""
    monkeypatch.setenv("TEST_KEY", "s3cret-value")
    target = []
    vendors.extra_routes += [
        Route("/moved", lambda _: RedirectResponse(target[0])),
        Route("/taken", lambda _: JSONResponse([1])),
        Route("/own", lambda _: JSONResponse([2])),
    ]
    with serving(vendors.app()) as address:
        target.append(elsewhere.format(address=address, port=address.rsplit(":", 1)[1]))
        with closing(Http(address, rates=((1000, 1.0),), retry=Retry(1), key="TEST_KEY")) as http:
            if target[0].startswith("http"):
                assert http.json("/moved") in ([1], [2])
            else:
                with pytest.raises(DataError) as refused:
                    http.json("/moved")
                assert "\n" not in str(refused.value)
    asked = {request.partition("?")[0]: "s3cret" in request for request in vendors.requests}
    assert asked["/moved"]
    assert not asked.get("/taken")
    assert asked.get("/own", True)


@pytest.mark.parametrize("form", ["gzip bomb", "long stream"])
def test_an_answer_without_end_is_refused_before_it_fills_the_memory(vendors, monkeypatch, form):
    monkeypatch.setattr(transport, "MOST_BYTES", 2**20)

    async def stream():
        for _ in range(100):
            yield bytes(2**16)

    def answer(_):
        if form == "gzip bomb":
            return Response(gzip.compress(bytes(2**24)), headers={"content-encoding": "gzip"})
        return StreamingResponse(stream())

    vendors.extra_routes.append(Route("/large", answer))
    with (
        serving(vendors.app()) as address,
        closing(Http(address, rates=((1000, 1.0),), retry=Retry(1))) as http,
        pytest.raises(DataError, match="at most 1,048,576"),
    ):
        http.content("/large")
