"""Bars through the real yfinance against a local Yahoo that misbehaves."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from tests.vendors.server import History, Vendors, serving
from tradsys.core.errors import DataError
from tradsys.market.downloads.client import MissingError, Retry
from tradsys.market.downloads.progress import Job, download
from tradsys.market.downloads.revisions import RevisionLedger
from tradsys.market.downloads.yfinance_bars import YfinanceBars, flat
from tradsys.market.sessions import closes
from tradsys.market.store import BarStore, StoredBars

NEW_YORK = ZoneInfo("America/New_York")
FIRST, LAST = date(2024, 10, 21), date(2024, 11, 29)  # the clock changes on 3 November; the last day is a half day
NOW = datetime(2024, 11, 29, 17, 0, tzinfo=UTC)  # within the last session
QUICK = Retry(attempts=4, wait_seconds=0.0, max_wait_seconds=5.0)


class Yahoo(Vendors):
    """The chart page: raw prices, events, an unfinished last row."""

    def __init__(self):
        super().__init__(History([], NOW, NOW), NOW)
        self.days = closes("XNYS", FIRST, LAST)["session"].to_list()
        self.close_of = {day: 100.0 + k for k, day in enumerate(self.days)}
        self.zone, self.ratio = "America/New_York", 3.0  # of the split on the sixth day; 1.0: not yet
        self.extra_routes = [
            Route("/v8/finance/chart/{symbol}", self.chart),
            Route("/v1/test/getcrumb", lambda _: PlainTextResponse("crumb")),
            Route("/{rest:path}", lambda _: PlainTextResponse("")),
        ]

    def stamps(self, interval):
        opens = [datetime(d.year, d.month, d.day, 9, 30, tzinfo=NEW_YORK) for d in self.days]
        if interval == "1d":
            return [(o, d) for o, d in zip(opens, self.days, strict=True)]
        hours = [(o + timedelta(hours=k), d) for o, d in zip(opens, self.days, strict=True) for k in range(7)]
        hours = [(t, d) for t, d in hours if t <= NOW and (d != self.days[-1] or t.hour < 13)]
        return [*hours, (NOW - timedelta(minutes=13), self.days[-1])]  # the running bar, stamped with the moment

    def chart(self, request: Request):
        symbol, interval = request.path_params["symbol"], request.query_params.get("interval", "1d")
        if symbol == "NIX":
            error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
            return JSONResponse({"chart": {"result": None, "error": error}}, 404)
        rows = self.stamps(interval)
        ratio = {d: self.ratio if d < self.days[5] else 1.0 for d in self.days}
        # in today's units and single precision
        close, high, low = (
            [float(np.float32((self.close_of[d] + more) / ratio[d])) for _, d in rows] for more in (0, 1, -1)
        )
        quote = {"open": close, "high": high, "low": low, "close": close}
        ex, split = (int(rows[k][0].timestamp()) for k in (3, 5))
        events = {
            "dividends": {str(ex): {"amount": 0.75 / self.ratio, "date": ex}},
            "splits": {str(split): {"date": split, "numerator": 3, "denominator": 1, "splitRatio": "3:1"}},
        }
        events = events if self.ratio != 1 else {"dividends": events["dividends"]}
        meta = {
            "symbol": symbol, "currency": "USD", "exchangeTimezoneName": self.zone, "timezone": "EST",
            "instrumentType": "EQUITY", "dataGranularity": interval, "priceHint": 2, "gmtoffset": -18000,
            "regularMarketTime": int(NOW.timestamp()), "validRanges": ["max"],
            "currentTradingPeriod": {n: {"timezone": "EST", "start": 0, "end": 0, "gmtoffset": 0}
                                     for n in ("pre", "regular", "post")},
        }  # fmt: skip
        if interval != "1d":
            period = {"timezone": "EST", "start": int(rows[0][0].timestamp()), "end": 0, "gmtoffset": -18000}
            meta["tradingPeriods"] = [[period | {"end": period["start"] + 23400}]]
        adjusted = [{"adjclose": [c * 0.99 for c in close]}]
        indicators = {"quote": [quote | {"volume": [int(1000 * ratio[d]) for _, d in rows]}]}
        indicators |= {"adjclose": adjusted} if interval == "1d" else {}
        stamps = [int(t.timestamp()) for t, _ in rows]
        result = {"meta": meta, "timestamp": stamps, "events": events, "indicators": indicators}
        return JSONResponse({"chart": {"result": [result], "error": None}})


@pytest.fixture
def yahoo():
    return Yahoo()


@pytest.fixture
def source(yahoo, tmp_path):
    with serving(yahoo.app()) as url:
        yield lambda **keys: YfinanceBars(address=url, retry=QUICK, cache=str(tmp_path / "cache"), **keys)


def job(tmp_path, symbols=("IBM",), **keys):
    return Job(tmp_path, "us", symbols, now=NOW, start=datetime(2024, 10, 1, tzinfo=UTC), **keys)


def stored(tmp_path):
    return BarStore(tmp_path).read("us", ["IBM"])


def test_daily_bars_close_with_their_sessions_and_the_running_one_is_left_out(yahoo, source, tmp_path):
    [row] = download(source(), job(tmp_path))
    assert row.error is None
    bars, expected = stored(tmp_path), closes("XNYS", FIRST, date(2024, 11, 27))
    assert bars["time"].to_list() == expected["close"].to_list(), "20:00 UTC before the clock changed, 21:00 after"
    assert bars["close"].to_list() == [yahoo.close_of[d] for d in expected["session"]], "as traded, not adjusted"
    assert bars["volume"].to_list() == [1000.0] * bars.height
    assert row.holes == ()
    midnight = [datetime(d.year, d.month, d.day, microsecond=1, tzinfo=UTC) for d in (yahoo.days[3], yahoo.days[5])]
    kept = BarStore(tmp_path).events("us").select("time", "kind", "value").rows()
    assert kept == [(midnight[0], "dividend", 0.75), (midnight[1], "split", 3.0)]
    today = StoredBars(str(tmp_path), "us").bars()
    assert today["close"].to_list()[:6] == pytest.approx([yahoo.close_of[d] / 3 for d in yahoo.days[:5]] + [105.0])
    assert today.filter(pl.col("dividend_due") > 0)["dividend_due"].to_list() == pytest.approx([0.25])


def test_a_split_restates_nothing(yahoo, source, tmp_path):
    yahoo.ratio = 1.0
    before = NOW - timedelta(days=33)  # 27 October: the split comes two sessions later
    download(source(), Job(tmp_path, "us", ("IBM",), now=before, start=datetime(2024, 10, 1, tzinfo=UTC)))
    yahoo.ratio = 3.0
    [row] = download(source(), job(tmp_path))
    assert RevisionLedger(tmp_path / "us").read().rows() == []
    assert row.revisions.n == 0
    assert stored(tmp_path)["close"].to_list()[:6] == [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]


def test_hourly_bars_are_known_an_hour_after_they_open(yahoo, source, tmp_path):
    [row] = download(source(interval="1h"), job(tmp_path))
    assert row.error is None
    bars = stored(tmp_path)
    opened = [t for t, _ in yahoo.stamps("1h")[:-1] if t + timedelta(hours=1) <= NOW]
    assert bars["time"].to_list() == [(t + timedelta(hours=1)).astimezone(UTC) for t in opened]


@pytest.mark.parametrize("fault", ["too_many", "server_error", "html", "cut", "empty"])
def test_a_failure_that_passes_changes_nothing(yahoo, source, tmp_path, fault):
    yahoo.faults.extend([None, fault, None, None])
    [row] = download(source(), job(tmp_path))
    assert row.error is None
    assert stored(tmp_path).height == len(yahoo.days) - 1


def test_an_unknown_symbol_is_a_row_and_the_others_are_stored(source, tmp_path):
    missing, found = download(source(), job(tmp_path, ("NIX", "IBM")))
    assert "NIX" in missing.error
    assert found.error is None


def test_changed_history_is_recorded_and_a_zone_that_moves_changes_no_date(yahoo, source, tmp_path):
    download(source(), job(tmp_path))
    yahoo.close_of[yahoo.days[-6]] += 0.5
    [row] = download(source(), Job(tmp_path, "us", ("IBM",), now=NOW))
    assert row.revisions.n_changed == 1
    yahoo.zone = "America/Chicago"
    [row] = download(source(), Job(tmp_path, "us", ("IBM",), now=NOW))
    assert row.error is None
    assert row.revisions.n == 0


def test_a_calendar_of_another_exchange_is_refused(source, tmp_path):
    [row] = download(source(calendar="XASX"), job(tmp_path))
    assert "IBM trades in the zone America/New_York, the calendar XASX is that of Australia/Sydney" in row.error
    assert BarStore(tmp_path).names() == []


def test_columns_of_two_levels_in_either_order_and_empty_answers():
    index = pd.DatetimeIndex(["2024-10-21", "2024-10-22"], tz=NEW_YORK)
    names = ["Open", "High", "Low", "Close", "Volume"]
    plain = pd.DataFrame([[1.0, 2.0, 0.5, 1.5, 10.0], [1.0, 2.0, 0.5, None, 10.0]], index, names)
    other = plain * 3
    for keys in ({"IBM": plain, "MSFT": other},):
        by_ticker = pd.concat(keys, axis=1)
        for frame in (by_ticker, by_ticker.swaplevel(axis=1)):
            assert flat(frame, "IBM").equals(flat(plain, "IBM"))
    assert flat(plain, "IBM").height == 1, "a row without a price is no bar"
    with pytest.raises(MissingError, match="the answer is empty"):
        flat(plain[:0], "IBM")
    with pytest.raises(DataError, match="changed the form"):
        flat(plain.drop(columns="Close"), "IBM")
