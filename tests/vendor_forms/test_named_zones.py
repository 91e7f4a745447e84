# ruff: noqa: E501 -- one row of a table, one line
"""Zones in headers, flags of unclosed bars, 24:00, JSON, indexes of pandas: read right, or asked for in one line."""

import io
import json
import re
from datetime import datetime, timedelta

import pandas as pd
import pytest

from tests.vendor_forms.forms import keyed
from tests.vendor_forms.test_cases import CELLS, DAILY, HEAD, HOURLY, NOW, Case, days, hours, put, rows
from tradsys.core.errors import DataError
from tradsys.market.sources.files import read

OPENS = "Open,High,Low,Close,Volume"
STAMPS = hours("%Y-%m-%d %H:%M")
MILLIS = [str((1705276800 + 3600 * k) * 1000) for k in range(5)]
EARLIER = [f"2024-01-{d} {h:02d}:00" for d, h in ((14, 23), (15, 0), (15, 1), (15, 2), (15, 3))]
LATER = [f"2024-01-15 {h:02d}:00" for h in (6, 7, 8, 9, 10)]
MIDNIGHT = ["2024-01-15 22:00", "2024-01-15 23:00", "2024-01-15 24:00", "2024-01-16 01:00"]
OVER = ["2024-01-15 23:00", "2024-01-16 00:00", "2024-01-16 01:00", "2024-01-16 02:00"]
OKX = "ts,o,h,l,c,vol,volCcy,volCcyQuote,confirm"


def named(column, stamps=STAMPS):
    return rows(stamps, f"{column},{OPENS}")


def okx(flags):
    return rows(MILLIS, OKX, "10,12,9,11,5,50,500").replace("500\n", "500,#\n").replace("#", "{}").format(*flags)


def records(**more):
    return [{"t": int(t), "o": 10, "h": 12, "l": 9, "c": 11, "v": 5, **more} for t in MILLIS]


def pandas_bytes(index, form="to_parquet"):
    frame = pd.DataFrame({"Open": 10.0, "High": 12.0, "Low": 9.0, "Close": 11.0, "Volume": 5.0}, index=index)
    if form == "to_csv":
        return frame.to_csv()
    getattr(frame, form)(buffer := io.BytesIO())
    return buffer.getvalue()


NAIVE = pd.date_range("2024-01-15", periods=5, freq="h")
PANEL = pd.MultiIndex.from_product([["ONE"], NAIVE])
READ = (
    Case("header: UTC+2", named("Time (UTC+2)"), EARLIER),
    Case("header: an IANA name", named("Datetime (America/New_York)"), LATER),
    Case("header: _utc", named("timestamp_utc"), HOURLY),
    Case("header: EST and zone=", named("Date (EST)"), LATER, options={"zone": "America/New_York"}),
    Case("header: local time whose stamps carry an offset", named("Local time", hours("%d.%m.%Y %H:%M:%S.000 GMT+0200")), EARLIER),
    Case("cells: EST and zone=", named("Time", hours("%Y-%m-%d %H:%M EST")), LATER, options={"zone": "Etc/GMT+5"}),
    Case("cells: offset and zone in brackets", named("Time", hours("%Y-%m-%dT%H:%M:%S+02:00[Europe/Helsinki]")), EARLIER),
    Case("a column of one zone", rows(STAMPS, f"Time,{OPENS},Timezone", f"{CELLS},America/New_York"), LATER),
    Case("OKX, all confirmed", okx("11111"), HOURLY),
    Case("OKX, the last one not", okx("11110"), HOURLY[:4], options={"repair": ["drop_unclosed"]}),
    Case("24:00", named("Time", MIDNIGHT), OVER),
    Case("24:00 of two columns", rows([s.replace(" ", ",") for s in MIDNIGHT], f"Date,Time,{OPENS}"), OVER),
    Case("2400 of two columns", rows([s.replace(":", "").replace("-", "").replace(" ", ",") for s in MIDNIGHT], f"Date,Time,{OPENS}"), OVER),
    Case("months", rows([f"2023-{m:02d}" for m in range(1, 5)]), [f"2023-{m:02d}-01 00:00" for m in range(2, 6)]),
    Case("days of the week", rows(days("%a %d %b %Y")), DAILY),
    Case("days of the week in full", rows(days('"%A, %B %d, %Y"')), DAILY),
    Case("a currency behind numbers", rows(days("%Y-%m-%d"), cells="10.00 USD,12.00 USD,9.00 USD,11.00 USD,5"), DAILY),
    Case("a currency before numbers", rows(days("%Y-%m-%d"), cells="C$10.00,C$12.00,C$9.00,C$11.00,5"), DAILY),
    Case("lakhs", rows(days("%d-%b-%Y"), cells='10.00,12.00,9.00,11.00,"12,34,567"'), DAILY),
    Case("Yahoo's footnotes", rows(days('"%b %d, %Y"'), "Date,Open,High,Low,Close*,Adj Close**,Volume", "10,12,9,11,11,5"), DAILY),
    Case("Bloomberg", "Security,ABC US Equity\nPeriod,D\n\n" + rows(days("%m/%d/%Y"), "Date,PX_OPEN,PX_HIGH,PX_LOW,PX_LAST,PX_VOLUME"), DAILY),
    Case("Bitfinex", rows(MILLIS, "MTS,OPEN,CLOSE,HIGH,LOW,VOLUME", "10,11,12,9,5"), HOURLY),
    Case("MetaStock", rows([f"{d},0" for d in days("%Y%m%d")], "<DTYYYYMMDD>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>"), DAILY),
    Case("JSON: lists (freqtrade)", json.dumps([[int(t), 10, 12, 9, 11, 5] for t in MILLIS]), HOURLY, name="A_B-1h.json"),
    Case("JSON: records in an answer (Polygon)", json.dumps({"ticker": "ABC", "results": records(n=3), "status": "OK"}), HOURLY, name="ABC.json"),
    Case("JSON: records with a record (OANDA)", json.dumps({"candles": [{"time": f"{s.replace(' ', 'T')}:00.000000000Z", "complete": True, "volume": 5, "mid": {"o": "10", "h": "12", "l": "9", "c": "11"}} for s in STAMPS]}), HOURLY, name="ABC.json"),
    Case("JSON: by time (Alpha Vantage)", json.dumps({"Meta Data": {"2. Symbol": "ABC"}, "Time Series": {d: {"1. open": "10", "2. high": "12", "3. low": "9", "4. close": "11", "5. volume": "5"} for d in reversed(days("%Y-%m-%d"))}}), DAILY, name="ABC.json"),
    Case("JSON: a record a line", "\n".join(map(json.dumps, records())), HOURLY, name="ABC.jsonl"),
    Case("JSON: rows in another order, named", json.dumps([[int(t), 9, 12, 10, 11, 5] for t in MILLIS]), HOURLY, name="ABC.json", options={"header": ["time", "low", "high", "open", "close", "volume"]}),
    Case("pandas: nameless index", pandas_bytes(NAIVE), HOURLY, name="ABC.parquet"),
    Case("pandas: index in a zone", pandas_bytes(NAIVE.tz_localize("America/New_York")), LATER, name="ABC.parquet"),
    Case("pandas: two nameless indexes", pandas_bytes(PANEL), HOURLY, name="ABC.parquet"),
    Case("pandas: two nameless indexes, text", pandas_bytes(PANEL, "to_csv"), HOURLY),
    Case("a market that closes, zone given", named("Time", [f"{d} {h}:30" for d in days("%Y-%m-%d", 5) for h in (9, 10)]),
         [f"2024-01-{d} {h}:30" for d in (15, 16, 17, 18, 19) for h in (15, 16)], options={"zone": "America/New_York", "bar_minutes": 60}),
)  # fmt: skip
WEEK = [t for k in range(24 * 14) if (t := datetime(2024, 1, 8) + timedelta(hours=k)).weekday() < 5]
REFUSED = (
    Case("header: EST", named("Date (EST)"), refused=r"'date \(est\)' names the zone 'EST'.*give zone=, such as America/New_York"),
    Case("header: EET", named("Time (EET)"), refused="'EET'.*Europe/Helsinki"),
    Case("header: local time", named("Local time"), refused="'LOCAL'.*give zone="),
    Case("header: EST under other names", named("Date (EST)"), options={"header": ["time", "open", "high", "low", "close", "volume"]}, refused="'EST'.*give zone="),
    Case("cells: ET", named("Time", hours("%Y-%m-%d %H:%M ET")), refused="'ET'.*give zone="),
    Case("a column of an offset", rows(STAMPS, f"Time,{OPENS},GMT Offset", f"{CELLS},-5"), refused="'gmt offset' names the zone '-5'.*give zone="),
    Case("OKX, the last one not confirmed", okx("11110"), refused="1 x unclosed_bar.*drop_unclosed"),
    Case("a complete flag in words", rows(STAMPS, f"Time,{OPENS},Complete", f"{CELLS},false"), refused="5 x unclosed_bar"),
    Case("two currencies", HEAD + "\n" + "".join(f"{d},{c} 10,{c} 12,{c} 9,{c} 11,5\n" for d, c in zip(days("%Y-%m-%d"), ("USD", "EUR") * 3, strict=False)), refused="unreadable=open=USD 10"),
    Case("hours of a stock exchange", named("Time", [f"{d} {h}:30" for d in days("%Y-%m-%d") for h in range(10, 16)]), options={"bar_minutes": 60}, refused=r"no bar between 15:59.*too early; give zone="),
    Case("a week without Saturdays", named("Time", [f"{t:%Y-%m-%d %H:%M}" for t in WEEK]), refused="no bar on Saturdays.*give zone="),
    Case("JSON without a table", json.dumps({"code": 1, "msg": "limit reached"}), name="ABC.json", refused="holds no table of bars"),
    Case("JSON cut off", '[{"t": 1705276800000, "o": 1', name="ABC.json", refused="ABC.json: it is not JSON"),
    Case("JSON of two tables", json.dumps({"A": records(), "B": records()}), name="ABC.json", refused="holds 2 tables of bars"),
)  # fmt: skip


@pytest.mark.parametrize("case", READ, ids=lambda c: c.id)
def test_read_as_a_careful_person_would(tmp_path, case):
    bars = read(put(tmp_path, case), case.layout, now=NOW, **keyed(case.options)).bars
    assert [f"{t:%Y-%m-%d %H:%M}" for t in bars["time"]] == case.ends
    assert bars.row(0)[2:6] == (10.0, 12.0, 9.0, 11.0)


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.id)
def test_refused_with_the_keys_to_give(tmp_path, case):
    with pytest.raises(DataError) as caught:
        read(put(tmp_path, case), case.layout, now=NOW, **keyed(case.options))
    line = " ".join(str(caught.value).split())
    assert re.search(case.refused, line), line
