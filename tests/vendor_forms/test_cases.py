# ruff: noqa: E501 -- one row of a table, one line
"""Small files in real forms: each with the bars that a careful person reads from it, or the refusal."""

import gzip
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tests.vendor_forms.forms import frame_bytes, keyed, random_bars, zipped
from tradsys.core.errors import DataError
from tradsys.market.sources.files import read

NOW = datetime(2026, 6, 1, 10, 30, tzinfo=UTC)
HEAD = "Date,Open,High,Low,Close,Volume"
CELLS = "10,12,9,11,5"


@dataclass(frozen=True)
class Case:
    """A file, what `read` is given, and the ends of its bars, or what the refusal says."""

    id: str
    data: str | bytes | dict
    ends: list | None = None
    refused: str | None = None
    layout: str = "plain"
    name: str = "ABC.csv"
    symbol: str | None = None
    options: dict = field(default_factory=dict)


def rows(stamps, head=HEAD, cells=CELLS, separator=","):
    body = [f"{s}{separator}{cells.replace(',', separator)}" for s in stamps]
    return "\n".join([head.replace(",", separator), *body]) + "\n"


def days(pattern, n=5, first=datetime(2024, 1, 15), step=1):
    return [(first + timedelta(days=step * k)).strftime(pattern) for k in range(n)]


def hours(pattern, n=5, first=datetime(2024, 1, 15), step=1):
    return [(first + timedelta(hours=step * k)).strftime(pattern) for k in range(n)]


DAILY = [f"2024-01-{d} 00:00" for d in (16, 17, 18, 19, 20)]
HOURLY = [f"2024-01-15 0{h}:00" for h in (1, 2, 3, 4, 5)]
MONTHS = [f"2023-{m:02d}-01" for m in range(1, 8)]
NY = {"zone": "America/New_York"}

READ = (
    Case("iso dates", rows(days("%Y-%m-%d")), DAILY),
    Case("slashes, year first", rows(days("%Y/%m/%d")), DAILY),
    Case("dots, day first", rows(days("%d.%m.%Y")), DAILY),
    Case("dots, year first", rows(days("%Y.%m.%d")), DAILY),
    Case("day first by one row above twelve", rows(days("%d/%m/%Y")), DAILY),
    Case("month first by one row above twelve", rows(days("%m/%d/%Y")), DAILY),
    Case("day first in a layout that is known for month first", rows(days("%d/%m/%Y", 5, datetime(2024, 1, 10))),
         [f"2024-01-{d} 00:00" for d in (11, 12, 13, 14, 15)], layout="kaggle"),
    Case("written months", rows(days("%d-%b-%Y")), DAILY),
    Case("American written months", rows([f'"{s}"' for s in days("%b %d, %Y")]), DAILY, layout="investing"),
    Case("two-digit years", rows(days("%d/%m/%y")), DAILY),
    Case("digits of a date", rows(days("%Y%m%d")), DAILY),
    Case("digits of minutes, not milliseconds of 1976", rows(hours("%Y%m%d%H%M")), HOURLY),
    Case("digits of hours, not seconds of 2034", rows(hours("%Y%m%d%H")), HOURLY),
    Case("digits of seconds, not of 2611", rows(hours("%Y%m%d%H%M%S")), HOURLY),
    Case("digits as floats", rows([f"{s}.0" for s in days("%Y%m%d")]), DAILY),
    Case("Excel serials", rows([str(45306 + k) for k in range(5)]), DAILY),
    Case("Excel serials with hours", rows([f"{45306 + k / 24:.10f}" for k in range(5)]), HOURLY),
    Case("epochs in seconds as floats", rows([f"{1705276800 + 3600 * k}.0" for k in range(5)]), HOURLY),
    Case("nanoseconds", rows([str((1705276800 + 3600 * k) * 10**9) for k in range(5)]), HOURLY),
    Case("milliseconds, then microseconds", rows([str((1705276800 + 3600 * k) * (1000 if k < 2 else 10**6)) for k in range(5)]), HOURLY),
    Case("given format", rows(days("%d/%m/%Y", 3, datetime(2024, 1, 3))), ["2024-01-04 00:00", "2024-01-05 00:00", "2024-01-06 00:00"],
         options={"date_format": "%d/%m/%Y"}),
    Case("months", rows(MONTHS), [f"2023-{m:02d}-01 00:00" for m in range(2, 9)]),
    Case("weeks", rows(days("%Y-%m-%d", 5, datetime(2024, 1, 1), 7)), [f"2024-{d} 00:00" for d in ("01-08", "01-15", "01-22", "01-29", "02-05")]),
    Case("a day that opens at 16:00", rows([f"{s} 16:00:00" for s in days("%Y-%m-%d")]), [f"2024-01-{d} 16:00" for d in (16, 17, 18, 19, 20)],
         options={"calendar": "24/7"}),
    Case("days of 23 and 25 hours in a zone", rows(days("%Y-%m-%d", 3, datetime(2024, 3, 9))), ["2024-03-10 05:00", "2024-03-11 04:00", "2024-03-12 04:00"],
         options=NY),
    Case("days with offsets over a change of clocks",
         rows(["2024-11-01 00:00:00-04:00", "2024-11-02 00:00:00-04:00", "2024-11-03 00:00:00-04:00", "2024-11-04 00:00:00-05:00", "2024-11-05 00:00:00-05:00"]),
         ["2024-11-02 04:00", "2024-11-03 04:00", "2024-11-04 05:00", "2024-11-05 05:00", "2024-11-06 05:00"]),
    Case("session closes in winter and summer", rows(["2024-03-07", "2024-03-08", "2024-03-11"]), ["2024-03-07 21:00", "2024-03-08 21:00", "2024-03-11 20:00"],
         options={"calendar": "XNYS"}),
    Case("a daily bar stamped at the session's open", rows(["2024-03-07 14:30:00+00:00", "2024-03-08 14:30:00+00:00", "2024-03-11 13:30:00+00:00", "2024-03-12 13:30:00+00:00"]),
         ["2024-03-07 21:00", "2024-03-08 21:00", "2024-03-11 20:00", "2024-03-12 20:00"], options={"calendar": "XNYS"}),
    Case("midnights of Tokyo by its calendar", rows(["2024-01-04 00:00:00+09:00", "2024-01-05 00:00:00+09:00", "2024-01-09 00:00:00+09:00"]),
         ["2024-01-04 06:00", "2024-01-05 06:00", "2024-01-09 06:00"], options={"calendar": "XTKS"}),
    Case("dates of closes end with their day", rows(days("%Y-%m-%d")), DAILY, options={"stamp": "close"}),
    Case("times of closes stand", rows(hours("%Y-%m-%d %H:%M", 5, datetime(2024, 1, 15, 1))), HOURLY, options={"stamp": "close"}),
    Case("both passes of the hour that happens twice", rows(["2024-11-03 00:00", "2024-11-03 01:00", "2024-11-03 01:00", "2024-11-03 02:00"]),
         ["2024-11-03 05:00", "2024-11-03 06:00", "2024-11-03 07:00", "2024-11-03 08:00"], options=NY),
    Case("date and time in two columns", "Date,Time,Open,High,Low,Close,Volume\n" + "".join(f"2024.01.15,0{h}:00,{CELLS}\n" for h in range(5)), HOURLY),
    Case("dollar signs and close/last", "Date,Close/Last,Volume,Open,High,Low\n" + "".join(f"01/{d}/2024,$11,5,$10,$12,$9\n" for d in range(15, 20)), DAILY),
    Case("a separator at the end of each line", "Date,Open,High,Low,Close,Volume\n" + "".join(f"{s},{CELLS},\n" for s in days("%Y-%m-%d")), DAILY),
    Case("blank lines", rows(days("%Y-%m-%d")).replace("\n", "\n\n"), DAILY),
    Case("a dot for nothing", rows(days("%Y-%m-%d")) + "2024-01-20,.,.,.,.,.\n", DAILY, options={"repair": ["drop_empty_rows"]}),
    Case("one member among others in a zip", zipped({"ABC.csv": rows(days("%Y-%m-%d")), "readme.md": "hello"}), DAILY, name="ABC.zip"),
    Case("days with a year of two digits", rows(days("%y%m%d", 10)), [f"2024-01-{d} 00:00" for d in range(16, 26)]),
    Case("hours with a year of two digits, no epoch of 2046", rows(hours("%y%m%d%H%M")), HOURLY),
    Case("four hours on a local clock, one of three and one of five",
         rows(["2024-03-09 20:00", "2024-03-10 00:00", "2024-03-10 04:00", "2024-03-10 08:00", "2024-03-10 12:00"]),
         ["2024-03-10 05:00", "2024-03-10 08:00", "2024-03-10 12:00", "2024-03-10 16:00", "2024-03-10 20:00"], options=NY),
    Case("four hours on a local clock in autumn: the bar of five is not known after four",
         rows(["2024-11-02 16:00", "2024-11-02 20:00", "2024-11-03 00:00", "2024-11-03 04:00", "2024-11-03 08:00"]),
         ["2024-11-03 00:00", "2024-11-03 04:00", "2024-11-03 09:00", "2024-11-03 13:00", "2024-11-03 17:00"], options=NY),
    Case("weeks by their first trading day", rows([*days("%Y-%m-%d", 3, datetime(2024, 1, 1), 7), "2024-01-23", *days("%Y-%m-%d", 3, datetime(2024, 1, 29), 7)]),
         ["2024-01-08 00:00", "2024-01-15 00:00", "2024-01-22 00:00", "2024-01-30 00:00", "2024-02-05 00:00", "2024-02-12 00:00", "2024-02-19 00:00"]),
    Case("months by their last trading day", rows(["2023-01-31", "2023-02-28", "2023-03-31", "2023-04-28", "2023-05-31", "2023-06-30"]),
         ["2023-02-28 00:00", "2023-03-31 00:00", "2023-04-28 00:00", "2023-05-31 00:00", "2023-06-30 00:00", "2023-07-31 00:00"]),
    Case("headers in Spanish", rows(days("%Y-%m-%d"), "Fecha,Apertura,Máximo,Mínimo,Cierre,Volumen"), DAILY),
    Case("headers in Polish", rows(days("%Y-%m-%d"), "Data,Otwarcie,Najwyzszy,Najnizszy,Zamkniecie,Wolumen"), DAILY),
    Case("headers in Chinese", rows(days("%Y-%m-%d"), "日期,开盘,最高,最低,收盘,成交量"), DAILY),
    Case("a flat file of nanoseconds", "ticker,volume,open,close,high,low,window_start\n" + "".join(f"ABC,5,10,11,12,9,{(1705276800 + 3600 * k) * 10**9}\n" for k in range(5)), HOURLY),
    Case("hours of New York to sessions", rows(hours("%Y-%m-%d %H:%M", 7, datetime(2024, 1, 16, 9, 30)) + hours("%Y-%m-%d %H:%M", 7, datetime(2024, 1, 17, 9, 30))),
         ["2024-01-16 21:00", "2024-01-17 21:00"], options={**NY, "resample": "1d", "calendar": "XNYS"}),
    Case("a column per symbol and price", rows(days("%Y-%m-%d"), "Date,XY.A_Open,XY.A_High,XY.A_Low,XY.A_Close,XY.A_Volume"), DAILY, symbol="XY.A"),
    Case("a column per price and symbol", rows(days("%Y-%m-%d"), "Date,Open_XY,High_XY,Low_XY,Close_XY,Volume_XY"), DAILY, symbol="XY"),
    Case("columns as R's quantmod names them", rows(days("%Y-%m-%d"), "Index,XY.Open,XY.High,XY.Low,XY.Close,XY.Volume"), DAILY, symbol="XY"),
    Case("columns that are pairs in words", rows(days("%Y-%m-%d"), ",".join(["Date", *(f"\"('{f}', 'XY')\"" for f in HEAD.split(",")[1:])])), DAILY, symbol="XY"),
    Case("columns that are pairs in words, in parquet",
         frame_bytes(pl.DataFrame({"time": [datetime(2024, 1, 15, h) for h in range(5)]} | {f"('{f}', 'XY')": [float(c)] * 5 for f, c in zip(HEAD.split(",")[1:], CELLS.split(","), strict=True)}), "parquet"),
         HOURLY, name="ABC.parquet", symbol="XY"),
    Case("a row per price", "symbol,date,field,value\n" + "".join(f"XY,{s},{f},{c}\n" for s in days("%Y-%m-%d") for f, c in zip(HEAD.split(",")[1:], CELLS.split(","), strict=True)), DAILY, symbol="XY"),
    Case("CRSP's columns", "PERMNO,date,TICKER,BIDLO,ASKHI,PRC,VOL,OPENPRC\n" + "".join(f"1,{s},XY,9,12,11,5,10\n" for s in days("%Y-%m-%d")), DAILY, symbol="XY"),
    Case("Compustat's columns", "gvkey,datadate,tic,cshtrd,prccd,prchd,prcld,prcod\n" + "".join(f"001,{s},XY,5,11,12,9,10\n" for s in days("%d/%m/%Y")), DAILY, symbol="XY"),
    Case("a period's start beside the first trade's time", "time_period_start;time_open;price_open;price_high;price_low;price_close;volume_traded\n"
         + "".join(f"2024-01-15T0{h}:00:00.0000000Z;2024-01-15T0{h}:00:03.0000000Z;10;12;9;11;5\n" for h in range(5)), HOURLY),
    Case("a date and a minute", "date,minute,label,high,low,open,close,volume\n" + "".join(f"2024-01-15,0{h}:00,x,12,9,10,11,5\n" for h in range(5)), HOURLY),
    Case("Huobi's id and amount", "id,open,close,low,high,amount,vol,count\n" + "".join(f"{1705276800 + 3600 * k},10,11,9,12,5,55,3\n" for k in range(5)), HOURLY, layout="huobi"),
    Case("ten-thousandths, said", "".join(f"{s} 00:00,100000,120000,90000,110000,5\n" for s in days("%Y%m%d")), DAILY, options={"price_scale": 10000}),
    Case("billionths, said", f"ts_event,rtype,publisher_id,{HEAD[5:]},symbol\n" + "".join(f"{(1705276800 + 3600 * k) * 10**9},34,1,10000000000,12000000000,9000000000,11000000000,5,XY\n" for k in range(5)),
         HOURLY, options={"price_scale": 1e9}, symbol="XY"),
    Case("midnights of Chicago by New York's calendar", rows([f"{s} 06:00:00+00:00" for s in ("2024-03-06", "2024-03-07", "2024-03-08")]),
         ["2024-03-06 21:00", "2024-03-07 21:00", "2024-03-08 21:00"], options={"calendar": "XNYS"}),
    *(Case(f"the name {name}", rows(stamps), HOURLY, name=f"{name}.csv", symbol=symbol) for stamps in (hours("%Y-%m-%d %H:%M"),) for name, symbol in (
        ("XBTUSD_60", "XBTUSD"), ("BINANCE_BTCUSDT, 60", "BINANCE_BTCUSDT"), ("XY_H1_202401150000", "XY"), ("XY_Candlestick_1_Hour_BID_15.01.2024-16.01.2024", "XY"),
        ("DAT_ASCII_XY_M1_202401", "XY"), ("BTC-USDT-SWAP-candle1H-2024-01", "BTC-USDT-SWAP"), ("GER_30", "GER_30"), ("XY_1hour_UNADJUSTED", "XY"))),
)  # fmt: skip
REFUSED = (
    Case("ten-thousandths without a word", "".join(f"{s} 00:00,{100000 + 100 * k},120000,90000,110000,5\n" for k, s in enumerate(days("%Y%m%d"))), refused="multiples of 100 such as 100000.*give price_scale="),
    Case("billionths without a word", f"ts_event,rtype,publisher_id,{HEAD[5:]}\n" + "".join(f"{(1705276800 + 3600 * k) * 10**9},34,1,{10 + k}000000000,{20 + k}000000000,{9 - k}000000000,{11 + k}000000000,5\n" for k in range(5)),
         refused="multiples of 100.*give price_scale="),
    Case("a column per symbol", rows(days("%Y-%m-%d"), "Date,XY,YZ,ZA,AB,BC"), refused="bars need open, high, low and close of it, as AAPL_Open"),
    Case("closes alone", "Date,Close\n" + "".join(f"{s},11\n" for s in days("%Y-%m-%d")), refused="closes alone are no bars"),
    Case("bids and asks", rows(days("%Y-%m-%d"), "Date,bid_open,bid_high,bid_low,bid_close,bid_volume"), refused="no column for"),
    Case("a row per price, one twice", "symbol,date,field,value\n" + "".join(f"XY,2024-01-15,{f},1\n" for f in ("open", "close", "close")), refused="1 values share symbol, date, field"),
    Case("a workbook", b"PK", refused="save each sheet of ABC.xlsx as .csv", name="ABC.xlsx"),
    Case("eight columns without a header", "".join(f"{1705276800 + 3600 * k},10,12,9,11,10,5,3\n" for k in range(5)), refused=r"header=\[time,open,high,low,close,volume,other1,other2\]"),
    Case("day or month first", rows(days("%d/%m/%Y", 5, datetime(2024, 1, 3))), refused=r"may be day or month first.*date_format='%d/%m/%Y'"),
    Case("both orders in one file", rows(["13/01/2024", "01/14/2024", "15/01/2024"]), refused="one file has one order of day and month"),
    Case("digits that are nothing", rows(["9912", "9913", "9914"]), refused=r"no dates and no epochs.*date_format="),
    Case("dates of two-digit years that are milliseconds of 1977", rows(hours("%y%m%d%H%M%S")), refused=r"may be epochs \(1977.*date_format=%y%m%d%H%M%S"),
    Case("ticks since the year 1 that are nanoseconds of 1990", rows([str(638408736 * 10**9 + 36 * 10**9 * k) for k in range(5)]), refused=r"intraday bars of 1990.*convert them"),
    Case("ticks since 1601 that are nanoseconds of 1974", rows([str(133497504 * 10**9 + 36 * 10**9 * k) for k in range(5)]), refused=r"intraday bars of 1974.*convert them"),
    Case("hundredths of seconds that are milliseconds of 1975", rows([str((1705276800 + 3600 * k) * 100) for k in range(5)]), refused=r"intraday bars of 197.*convert them"),
    Case("days at the end of hours", rows(hours("%Y-%m-%d %H:%M", 48) + hours("%Y-%m-%d %H:%M", 5, datetime(2024, 1, 17), 24)),
         refused=r"bars of 1:00:00 but of 1 day, 0:00:00 from 2024-01-17"),
    Case("weeks at the head of days", rows(days("%Y-%m-%d", 4, datetime(2023, 12, 18), 7) + days("%Y-%m-%d", 30, datetime(2024, 1, 9))),
         refused=r"bars of 1 day, 0:00:00 but of 7 days"),
    Case("times that are durations", frame_bytes(random_bars(20).with_columns(time=pl.duration(seconds=pl.int_range(20))), "parquet"),
         refused="which is no moment", name="ABC.parquet"),
    Case("adjusted prices without adjusted closes", rows(days("%Y-%m-%d")), refused="needs adjusted closes.*actions=", options={"repair": ["adjust_for_dividends"]}),
    Case("times in words", rows(["soon", "later", "never"]), refused=r"have no known format; give date_format="),
    Case("an empty file", "", refused="it is empty"),
    Case("a web page", "<html><body>Not found</body></html>\n", refused="no header row is found.*separator="),
    Case("Coinbase's order without a header", "".join(f"{1705276800 + 3600 * k},9,12,10,11,5\n" for k in range(5)), refused=r"no known order; give header=\[time"),
    Case("a thousand or a fraction", rows(hours("%Y-%m-%d %H:%M"), cells='"1,234","1,236","1,230","1,235",5'), refused="give decimal=point"),
    Case("two decimal signs", rows(hours("%Y-%m-%d %H:%M"), cells='"10,5",12.25,9,11,5'), refused="do not share a decimal sign"),
    Case("decimal commas without quotes", rows(hours("%Y-%m-%d %H:%M"), cells="10,5,12,5,9,5,11,5,1"), refused=r"give separator=|no column|cells where|lines have"),
    Case("some zones", rows(["2024-01-15 00:00+00:00", "2024-01-15 01:00", "2024-01-15 02:00+00:00"]), refused="give zone="),
    Case("an unknown zone", rows(hours("%Y-%m-%d %H:%M")), refused="is no IANA name", options={"zone": "Eastern Time"}),
    Case("a bar that has not closed", rows(hours("%Y-%m-%d %H:%M", 5, datetime(2026, 6, 1, 6))), refused="1 x unclosed_bar.*repair with drop_unclosed"),
    Case("a session that has not closed", rows(["2026-05-28", "2026-05-29", "2026-06-01"]), refused="1 x unclosed_bar", options={"calendar": "XNYS"}),
    Case("a live row among dates", rows([*[f"{s} 00:00:00" for s in days("%Y-%m-%d", 20)], "2024-02-05 15:31:07"]), refused="1 x live_row.*drop_live_rows"),
    Case("bars of a tenth of a second", rows([f"2024-01-15 00:00:00.{k}" for k in range(5)]), refused="a bar lasts a second to a month"),
    Case("quarters", rows(["2023-01-01", "2023-04-01", "2023-07-01", "2023-10-01", "2024-01-01"]), refused="a bar lasts a second to a month"),
    Case("four-hour bars after hourly ones", rows(hours("%Y-%m-%d %H:%M", 30) + hours("%Y-%m-%d %H:%M", 12, datetime(2024, 1, 16, 6), 4)),
         refused=r"bars of 1:00:00 but of 4:00:00 from 2024-01-16"),
    Case("a name of four hours on hourly stamps", rows(hours("%Y-%m-%d %H:%M")), refused="states bars of 240 minutes", name="ABC_4h.csv"),
    Case("a bar length that would be early", rows(hours("%Y-%m-%d %H:%M", 5, step=4)), refused="a shorter length would make bars", options={"bar_minutes": 60}),
    Case("one row", rows(["2024-01-15"]), refused="give bar_minutes="),
    Case("naive hours of New York taken for UTC", rows(hours("%Y-%m-%d %H:%M", 3, datetime(2024, 1, 16, 9, 30)) + hours("%Y-%m-%d %H:%M", 3, datetime(2024, 1, 17, 9, 30))),
         refused="give zone=America/New_York", options={"resample": "1d", "calendar": "XNYS"}),
    Case("days that open in the evening by a stock calendar", rows([f"{s} 23:00:00" for s in days("%Y-%m-%d", 4, datetime(2024, 1, 16))]),
         refused="time_of_day_off_session.*no repair is right", options={"calendar": "XNYS"}),
    Case("early years", rows(days("%Y-%m-%d", 30, datetime(1969, 12, 20))), refused="12 x early_time.*accept_early_times"),
    Case("a torn gz", gzip.compress(rows(days("%Y-%m-%d", 300)).encode())[:-40], refused="it is damaged; download it again", name="ABC.csv.gz"),
    Case("a torn zip", b"PK\x03\x04nothing", refused="cannot be opened as a zip", name="ABC.zip"),
    Case("an archive of pictures", zipped({"a.png": "x"}), refused="holds no table but", name="ABC.zip"),
    Case("an unknown kind", "x", refused=r"is no table; tables are \.csv", name="ABC.pdf"),
    Case("a bomb", gzip.compress(b"2024-01-15,10,12,9,11,5\n" * 100_000), refused="unpacks to more than .* the limit is max_rows=50,000", name="ABC.csv.gz", options={"max_rows": 50_000}),
    Case("a bomb of columns", frame_bytes(random_bars(3000), "parquet"), refused="has 3,000 rows, the limit is max_rows=1,000", name="ABC.parquet", options={"max_rows": 1000}),
)  # fmt: skip


def put(folder, case):
    path = folder / case.name
    path.write_bytes(case.data if isinstance(case.data, bytes) else case.data.encode())
    return path


@pytest.mark.parametrize("case", READ, ids=lambda c: c.id)
def test_read_as_a_careful_person_would(tmp_path, case):
    bars = read(put(tmp_path, case), case.layout, now=NOW, **keyed(case.options)).bars
    assert [f"{t:%Y-%m-%d %H:%M}" for t in bars["time"]] == case.ends
    assert bars.row(0)[2:] == (10.0, 12.0, 9.0, 11.0, 35.0 if "resample" in case.options else 5.0)
    assert case.symbol in (None, bars["symbol"][0])


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.id)
def test_refused_with_the_keys_to_give(tmp_path, case):
    with pytest.raises(DataError) as caught:
        read(put(tmp_path, case), case.layout, now=NOW, **keyed(case.options))
    line = " ".join(str(caught.value).split())
    assert re.search(case.refused, line), line
    assert "polars" not in line
    assert "truncate_ragged" not in line
