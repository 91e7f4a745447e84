# ruff: noqa: E501 -- one row of a table, one line
"""The forms in which exchanges, brokers and libraries write the same bars: one function per form."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

VALUES = ("open", "high", "low", "close", "volume")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def random_bars(n=40, seed=0, minutes=60, start=datetime(2024, 1, 1, tzinfo=UTC)):
    """Bars with `time` their open; prices of four decimals, as text and binary hold them alike."""
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.003, n))), 4)
    opened = np.round(np.r_[100.0, close[:-1]], 4)
    high = np.round(np.maximum(opened, close) + rng.random(n), 4)
    low = np.round(np.minimum(opened, close) - rng.random(n), 4)
    return pl.DataFrame(
        {
            "time": pl.Series(
                [start + timedelta(minutes=minutes * k) for k in range(n)], dtype=pl.Datetime("us", "UTC")
            ),
            **dict(zip(VALUES, (opened, high, low, close, np.round(rng.lognormal(6, 1, n), 2)), strict=True)),
        }
    )


def texts(bars, stamp, *, decimal=".", thousands=False):
    """The rows as lists of cells: the stamp, then the five values."""
    for row in bars.iter_rows(named=True):
        cells = [f"{row[v]:,.4f}" if thousands else repr(row[v]) for v in VALUES]
        if decimal == ",":
            cells = [c.translate(str.maketrans(",.", ".,")) for c in cells]
        yield [stamp(row["time"]), *cells]


def csv(rows, header=None, separator=",", *, quote=False, newline="\n"):
    lines = [header] if header else []
    for row in rows:
        lines.append(separator.join(f'"{c}"' if quote else c for c in row))
    return (newline.join(lines) + newline).encode()


def fmt(pattern, zone=None):
    return lambda t: (t.astimezone(ZoneInfo(zone)) if zone else t).strftime(pattern)


def epoch(per_second):
    return lambda t: str(int((t - EPOCH) / timedelta(microseconds=1)) * per_second // 1_000_000)


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def frame_bytes(frame, kind):
    out = io.BytesIO()
    frame.write_parquet(out) if kind == "parquet" else frame.write_ipc(out)
    return out.getvalue()


@dataclass(frozen=True)
class Form:
    """How one vendor writes bars: the file's name, its bytes, and what `read` must be given."""

    name: str
    write: Callable[[pl.DataFrame], bytes]
    layout: str = "plain"
    options: dict = field(default_factory=dict)


HEAD = "Date,Open,High,Low,Close,Volume"


def binance(bars, unit=1000):
    """Opens and closes as Binance's archives have them; the rows may come in any order, or twice."""
    steps = bars["time"].unique().sort().diff().drop_nulls()
    rows, length = [], steps.min()
    for cells, t in zip(texts(bars, epoch(unit)), bars["time"], strict=True):
        end = int(epoch(unit)(t + length)) - 1
        rows.append([*cells, str(end), "1.0", "10", "1.0", "1.0", "0"])
    return csv(rows)


def yfinance(bars):
    order = ("close", "high", "low", "open", "volume")
    lines = ["Price,Close,High,Low,Open,Volume", "Ticker,ABC,ABC,ABC,ABC,ABC", "Datetime,,,,,"]
    for row in bars.iter_rows(named=True):
        lines.append(",".join([row["time"].strftime("%Y-%m-%d %H:%M:%S+00:00"), *(repr(row[v]) for v in order)]))
    return ("\n".join(lines) + "\n").encode()


def metatrader(bars):
    rows = [[*c[0].split(" "), *c[1:], "0", "3"] for c in texts(bars, fmt("%Y.%m.%d %H:%M:%S"))]
    return csv(rows, "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>", "\t")


def stooq(bars):
    rows = [["ABC.US", "60", *c[0].split(" "), *c[1:], "0"] for c in texts(bars, fmt("%Y%m%d %H%M%S"))]
    return csv(rows, "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>")


def excel_serial(t):
    return repr((t - datetime(1899, 12, 30, tzinfo=UTC)) / timedelta(days=1))


def records(bars):
    """Polygon's answer."""
    stamp = epoch(1000)
    rows = [{**dict(zip("ohlcv", (row[v] for v in VALUES), strict=True)), "t": int(stamp(row["time"]))}
            for row in bars.iter_rows(named=True)]  # fmt: skip
    return json.dumps({"ticker": "ABC", "results": rows, "status": "OK"}).encode()


def lists(bars):
    """Freqtrade's candles."""
    stamp = epoch(1000)
    return json.dumps(
        [[int(stamp(row["time"])), *(row[v] for v in VALUES)] for row in bars.iter_rows(named=True)]
    ).encode()


def end_of_day(t):
    """Midnight as 24:00 of the day that it ends."""
    return (
        (t - timedelta(days=1)).strftime("%Y-%m-%d 24:00") if t.hour == t.minute == 0 else t.strftime("%Y-%m-%d %H:%M")
    )


OPENS = ",Open,High,Low,Close,Volume"
SEMICOLON = "Date;Open;High;Low;Close;Volume"
FORMS = (
    Form("iso.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M:%S")), HEAD)),
    Form("iso_t_z.csv", lambda b: csv(texts(b, fmt("%Y-%m-%dT%H:%M:%SZ")), HEAD)),
    Form("iso_millis.csv", lambda b: csv(texts(b, fmt("%Y-%m-%dT%H:%M:%S.000Z")), HEAD)),
    Form("offset.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M:%S%z", "Asia/Kolkata")), HEAD)),
    Form("new_york.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M", "America/New_York")), HEAD),
         options={"zone": "America/New_York"}),
    Form("named_zone.csv", lambda b: csv(texts(b, fmt("%Y%m%d %H:%M:%S US/Eastern", "US/Eastern")), HEAD)),
    Form("dotted.csv", lambda b: csv(texts(b, fmt("%d.%m.%Y %H:%M")), HEAD)),
    Form("european.csv", lambda b: csv(texts(b, fmt("%d.%m.%Y %H:%M"), decimal=","), SEMICOLON, ";")),
    Form("german_thousands.csv", lambda b: csv(texts(b, fmt("%d.%m.%Y %H:%M"), decimal=",", thousands=True), SEMICOLON, ";")),
    Form("quoted_comma.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M"), decimal=","), HEAD, quote=True)),
    Form("us_thousands.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M"), thousands=True), HEAD, quote=True)),
    Form("day_first.csv", lambda b: csv(texts(b, fmt("%d/%m/%Y %H:%M")), HEAD), options={"date_format": "%d/%m/%Y %H:%M"}),
    Form("am_pm.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %I:%M %p")), HEAD)),
    Form("compact.csv", lambda b: csv(texts(b, fmt("%Y%m%d %H:%M")), HEAD)),
    Form("digits12.csv", lambda b: csv(texts(b, fmt("%Y%m%d%H%M")), HEAD)),
    Form("digits14.csv", lambda b: csv(texts(b, fmt("%Y%m%d%H%M%S")), HEAD)),
    Form("digits10.csv", lambda b: csv(texts(b, fmt("%Y%m%d%H")), HEAD)),
    Form("seconds.csv", lambda b: csv(texts(b, epoch(1)), HEAD)),
    Form("millis.csv", lambda b: csv(texts(b, epoch(1000)), HEAD)),
    Form("micros.csv", lambda b: csv(texts(b, epoch(1_000_000)), HEAD)),
    Form("excel.csv", lambda b: csv(texts(b, excel_serial), HEAD)),
    Form("tabs.tsv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M")), HEAD.replace(",", "\t"), "\t")),
    Form("pipes.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M")), HEAD.replace(",", "|"), "|")),
    Form("crlf.CSV", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M")), HEAD, newline="\r\n")),
    Form("utf16.csv", lambda b: csv(texts(b, fmt("%Y.%m.%d %H:%M")), HEAD).decode().encode("utf-16")),
    Form("mark.csv", lambda b: b"\xef\xbb\xbf" + csv(texts(b, fmt("%Y-%m-%d %H:%M")), HEAD)),
    Form("latin1.csv", lambda b: csv(texts(b, fmt("%d.%m.%Y %H:%M"), decimal=","), "Datum;Er\u00f6ffnung;Hoch;Tief;Schluss;Volumen", ";").decode().encode("cp1252")),
    Form("sep_line.csv", lambda b: b"sep=;\n" + csv(texts(b, fmt("%d.%m.%Y %H:%M"), decimal=","), SEMICOLON, ";")),
    Form("banner.csv", lambda b: b"https://www.vendor.example\n" + csv(texts(b, fmt("%Y-%m-%d %H:%M")), HEAD)),
    Form("plain.csv.gz", lambda b: gzip.compress(csv(texts(b, fmt("%Y-%m-%d %H:%M")), HEAD))),
    Form("plain.csv.bz2", lambda b: bz2.compress(csv(texts(b, fmt("%Y-%m-%d %H:%M")), HEAD))),
    Form("plain.csv.xz", lambda b: lzma.compress(csv(texts(b, fmt("%Y-%m-%d %H:%M")), HEAD))),
    Form("ABCUSDT-1h-2024-01.zip", lambda b: zipped({"ABCUSDT-1h-2024-01.csv": binance(b)}), "binance"),
    Form("binance_us.csv", lambda b: binance(b, 1_000_000), "binance"),
    Form("kraken.csv", lambda b: csv([[*c, "5"] for c in texts(b, epoch(1))])),
    Form("yfinance.csv", yfinance, "yahoo"),
    Form("metatrader.csv", metatrader),
    Form("metatrader4.csv", lambda b: csv([[*c[0].split(" "), *c[1:]] for c in texts(b, fmt("%Y.%m.%d %H:%M"))])),
    Form("stooq.txt", stooq),
    Form("histdata.csv", lambda b: csv(texts(b, fmt("%Y%m%d %H%M%S")), separator=";")),
    Form("dukascopy.csv", lambda b: csv(texts(b, fmt("%d.%m.%Y %H:%M:%S.000 GMT%z", "Europe/Berlin")), "Local time,Open,High,Low,Close,Volume")),
    Form("bitstamp.csv", lambda b: csv(texts(b, epoch(1)), "Timestamp,Open,High,Low,Close,Volume")),
    Form("header_given.csv", lambda b: csv([[c[0], c[3], c[2], c[1], c[4], c[5]] for c in texts(b, epoch(1))]),
         options={"header": ["time", "low", "high", "open", "close", "volume"]}),
    Form("index_column.csv", lambda b: csv([[str(k), *c] for k, c in enumerate(texts(b, fmt("%Y-%m-%d %H:%M")))], "," + HEAD)),
    Form("pandas_index.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M:%S")), ",Open,High,Low,Close,Volume")),
    Form("freqtrade-1h.feather", lambda b: frame_bytes(b.rename({"time": "date"}).with_columns(pl.col("date").cast(pl.Datetime("ms", "UTC"))), "feather")),
    Form("plain.parquet", lambda b: frame_bytes(b, "parquet")),
    Form("epochs.parquet", lambda b: frame_bytes(b.with_columns(pl.col("time").to_physical() // 1000), "parquet")),
    Form("header_utc2.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M", "Etc/GMT-2")), "Time (UTC+2)" + OPENS)),
    Form("header_tokyo.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M", "Asia/Tokyo")), "Time (Asia/Tokyo)" + OPENS)),
    Form("header_est.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M", "Etc/GMT+5")), "Date (EST)" + OPENS), options={"zone": "Etc/GMT+5"}),
    Form("cells_jst.csv", lambda b: csv(texts(b, fmt("%Y-%m-%d %H:%M JST", "Asia/Tokyo")), HEAD), options={"zone": "Asia/Tokyo"}),
    Form("midnight_24.csv", lambda b: csv(texts(b, end_of_day), HEAD)),
    Form("okx.csv", lambda b: csv([[*c, "1"] for c in texts(b, epoch(1000))], "ts,o,h,l,c,vol,confirm")),
    Form("dollars.csv", lambda b: csv([[c[0], *(f"US${x}" for x in c[1:5]), c[5]] for c in texts(b, fmt("%Y-%m-%d %H:%M"))], HEAD)),
    Form("weekdays.csv", lambda b: csv(texts(b, fmt("%a %d %b %Y %H:%M")), HEAD)),
    Form("polygon.json", records),
    Form("freqtrade-1h.json", lists),
    Form("lists.json.gz", lambda b: gzip.compress(lists(b))),
    Form("naive.parquet", lambda b: frame_bytes(b.with_columns(pl.col("time").dt.replace_time_zone(None)), "parquet")),
)  # fmt: skip


def keyed(options):
    """Options of `read` with the keys of the form gathered."""
    from tradsys.market.sources.sniff import FormKeys

    names = ("separator", "decimal", "date_format", "zone", "header", "stamp", "price_scale")
    keys = FormKeys(**{k: v for k, v in options.items() if k in names})
    return {**{k: v for k, v in options.items() if k not in names}, "keys": keys}


def written(folder, form, bars):
    path = folder / form.name
    path.write_bytes(form.write(bars))
    return path
