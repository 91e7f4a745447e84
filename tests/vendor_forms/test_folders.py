"""Folders, parts, mappings and symbols: what is joined only when asked, and what is named when it is not read."""

import gzip

import polars as pl
import pytest

from tests.vendor_forms.forms import HEAD, binance, csv, fmt, frame_bytes, random_bars, texts
from tradsys.core.errors import DataError
from tradsys.market.sources.files import read

STAMP = fmt("%Y-%m-%d %H:%M")


def plain(bars):
    return csv(texts(bars, STAMP), HEAD)


def test_every_kind_of_file_in_a_folder_is_read_and_the_rest_named(tmp_path):
    bars = random_bars(30)
    (tmp_path / "AAA.CSV").write_bytes(plain(bars))
    (tmp_path / "BBB.csv.gz").write_bytes(gzip.compress(plain(bars)))
    (tmp_path / "CCC.feather").write_bytes(frame_bytes(bars, "feather"))
    (tmp_path / "DDD.parquet").write_bytes(frame_bytes(bars, "parquet"))
    (tmp_path / "notes.txt").write_text("bought from a vendor\n")
    (tmp_path / "sheet.xlsx").write_bytes(b"PK")
    (tmp_path / "more").mkdir()
    result = read(tmp_path, "plain")
    assert result.bars["symbol"].unique().sort().to_list() == ["AAA", "BBB", "CCC", "DDD"]
    left = {one.kind: one for one in result.repairs}["not_read"]
    assert set(left.examples) == {"more/", "sheet.xlsx", "notes.txt"}


def months(tmp_path):
    bars = random_bars(90)
    for k in range(3):
        unit = 1000 if k < 2 else 1_000_000
        (tmp_path / f"DOGEUSDT-1h-2024-0{k + 1}.csv").write_bytes(binance(bars[30 * k : 30 * k + 30], unit))
    return bars


def test_parts_of_one_series_are_joined_when_asked_only(tmp_path):
    bars = months(tmp_path)
    with pytest.raises(DataError, match=r"3 files look like parts of DOGEUSDT.*symbol=DOGEUSDT.*mapping="):
        read(tmp_path, "binance")
    result = read(tmp_path, "binance", "DOGEUSDT")
    assert result.bars["close"].to_list() == bars["close"].to_list()
    assert {one.kind: one.count for one in result.repairs}["parts_joined"] == 3
    assert set(read(tmp_path, "binance", "DOGE").bars["symbol"]) == {"DOGE"}


def test_a_mapping_says_which_file_is_what(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    bars = random_bars(60)
    for name, part in (("first", bars[:30]), ("second", bars[30:]), ("other", bars)):
        (data / f"{name}.csv").write_bytes(plain(part))
    (tmp_path / "map.csv").write_text("name,symbol\nfirst,AAA\nsecond.csv,AAA\nother,BBB\n")
    got = read(data, "plain", mapping=tmp_path / "map.csv").bars
    assert dict(got.group_by("symbol").len().iter_rows()) == {"AAA": 60, "BBB": 60}
    (tmp_path / "map.csv").write_text("name,symbol\nthird,AAA\n")
    with pytest.raises(DataError, match="mapping names"):
        read(data, "plain", mapping=tmp_path / "map.csv")


def test_two_spellings_stay_two_instruments_and_are_named(tmp_path):
    bars = random_bars(20).with_columns(time=pl.col("time").dt.strftime("%Y-%m-%d %H:%M"))
    names = ("AB/USD", "A/BUSD", "ETH/USDT")
    pl.concat([bars.with_columns(symbol=pl.lit(n)) for n in names]).write_csv(tmp_path / "panel.csv")
    result = read(tmp_path / "panel.csv", "plain")
    assert result.bars["symbol"].unique().sort().to_list() == ["A-BUSD", "AB-USD", "ETHUSDT"]
    assert {one.kind: one.count for one in result.repairs}["two_spellings_of_one_name"] == 2
    assert result.meta["vendor_symbols"]["ETHUSDT"] == ["ETH/USDT"]


@pytest.mark.parametrize("names", [("ONE_1h.csv", "FOUR_4h.csv"), ("ONE.csv", "FOUR.csv")])
def test_a_folder_of_two_bar_lengths_is_refused(tmp_path, names):
    (tmp_path / names[0]).write_bytes(plain(random_bars(80)))
    (tmp_path / names[1]).write_bytes(plain(random_bars(20, minutes=240)))
    with pytest.raises(DataError, match=r"bars differ in length: ONE 1:00:00, FOUR 4:00:00"):
        read(tmp_path, "plain")


def test_words_of_yaml_survive_as_symbols_of_a_column(tmp_path):
    bars = random_bars(20).with_columns(time=pl.col("time").dt.strftime("%Y-%m-%d %H:%M"))
    names = ["NAN", "TRUE", "1E5", "0700", "null", "币安人生USDT"]
    pl.concat([bars.with_columns(symbol=pl.lit(n)) for n in names]).write_csv(tmp_path / "panel.csv")
    assert set(read(tmp_path / "panel.csv", "plain").bars["symbol"]) == set(names)


def test_yfinance_with_several_tickers(tmp_path):
    bars = random_bars(20)
    head = ["Price,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume", "Ticker" + ",AAA,BBB" * 5, "Date" + "," * 10]
    lines = []
    for row in bars.iter_rows(named=True):
        cells = [repr(row[v]) for v in ("close", "high", "low", "open", "volume") for _ in range(2)]
        lines.append(",".join([row["time"].strftime("%Y-%m-%d %H:%M"), *cells]))
    (tmp_path / "many.csv").write_text("\n".join([*head, *lines]) + "\n")
    got = read(tmp_path / "many.csv", "yahoo").bars
    assert dict(got.group_by("symbol").len().iter_rows()) == {"AAA": 20, "BBB": 20}
    assert got.filter(symbol="BBB")["open"].to_list() == bars["open"].to_list()


@pytest.mark.parametrize(
    "names", [("btc", "BTC"), ("BTC_USDT", "BTC-USDT"), ("\uff22\uff34\uff23", "BTC"), ("BRK.B", "BRK B")]
)
def test_symbols_that_look_alike_are_kept_apart_and_named(tmp_path, names):
    bars = random_bars(20).with_columns(time=pl.col("time").dt.strftime("%Y-%m-%d %H:%M"))
    pl.concat([bars.with_columns(symbol=pl.lit(n)) for n in names]).write_csv(tmp_path / "panel.csv")
    result = read(tmp_path / "panel.csv", "plain")
    assert set(result.bars["symbol"]) == set(names)
    assert {one.kind: one.count for one in result.repairs}["symbols_alike"] == 2
