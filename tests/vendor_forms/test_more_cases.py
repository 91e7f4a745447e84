# ruff: noqa: E501 -- one row of a table, one line
"""Dates and columns that looked like something else, files under a wrong name, parts of a series, lone bars."""

import gzip
import re
from datetime import datetime

import pytest

from tests.vendor_forms.forms import frame_bytes, keyed, random_bars, zipped
from tests.vendor_forms.test_cases import CELLS, DAILY, HEAD, HOURLY, NOW, Case, days, hours, put, rows
from tradsys.core.errors import DataError
from tradsys.market.sources.files import read
from tradsys.market.sources.sniff import FormKeys

SESSIONS = [f"{d}-{h:02d}:30" for d in days("%Y%m%d", 5) for h in range(9, 16)]
UNPADDED = ["2024-1-9", "2024-1-10", "2024-1-11", "2024-1-12"]
THOSE = ["2024-01-10 00:00", "2024-01-11 00:00", "2024-01-12 00:00", "2024-01-13 00:00"]
NORDIC = "Date;Bid;Ask;Opening price;High price;Low price;Closing price;Average price;Total volume;Turnover;Trades"

READ = (
    Case("days without a leading zero, the last two no offset", rows(UNPADDED), THOSE),
    Case("the same from the tenth on, no month's first day", rows(UNPADDED[1:]), THOSE[1:]),
    Case("the same, said", rows(UNPADDED), THOSE, options={"date_format": "%Y-%m-%d"}),
    Case("a dash before the time of day", rows(hours("%Y%m%d-%H:%M")), HOURLY),
    Case("a dash, with seconds (FIX)", rows(hours("%Y%m%d-%H:%M:%S")), HOURLY),
    Case("an underscore", rows(hours("%Y-%m-%d_%H-%M-%S")), HOURLY),
    Case("hours alone", rows(hours("%Y-%m-%dT%HZ")), HOURLY),
    Case("JavaScript", rows(hours("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)")), HOURLY),
    Case("SAS", rows([s.upper() for s in hours("%d%b%Y:%H:%M:%S")]), HOURLY),
    Case("a month in full with dashes", rows(days("%d-%B-%Y")), DAILY),
    Case("year, month in letters, day", rows(days("%Y-%b-%d")), DAILY),
    Case("Chinese dates", rows(days("%Y\u5e74%m\u6708%d\u65e5")), DAILY),
    Case("Korean dates", rows(["2024. 1. 9.", "2024. 1. 10.", "2024. 1. 11.", "2024. 1. 12."]), THOSE),
    Case("texts that a spreadsheet must not read", rows([f'"=""{s}"""' for s in days("%Y-%m-%d")]), DAILY),
    Case("a format as the file has it, T and Z", rows(hours("%Y-%m-%dT%H:%M:%SZ")), HOURLY, options={"date_format": "%Y-%m-%dT%H:%M:%SZ"}),
    Case("a format with an offset", rows(hours("%Y-%m-%d %H:%M:%S-0500")), [f"2024-01-15 {h:02d}:00" for h in (6, 7, 8, 9, 10)], options={"date_format": "%Y-%m-%d %H:%M:%S%z"}),
    Case("names in place of the file's own", rows(days("%Y-%m-%d"), "Nr,A,B,C,D,E", CELLS), DAILY, options={"header": ["time", "open", "high", "low", "close", "volume"]}),
    Case("columns of Nordic exchanges", NORDIC + "\n" + "".join(f"{d};9;11;10,0;12,0;9,0;11,0;10;5;55;3\n" for d in days("%Y-%m-%d")), DAILY),
    Case("columns of an Indian exchange", "SYMBOL,SERIES,OPEN,HIGH,LOW,CLOSE,LAST,TOTTRDQTY,TIMESTAMP\n" + "".join(f"XY,EQ,10,12,9,11,11,5,{d.upper()}\n" for d in days("%d-%b-%Y")), DAILY, symbol="XY"),
    Case("columns in French", '"Date","Dernier","Ouv."," Plus Haut","Plus Bas","Vol."\n' + "".join(f'"{d}","11,0","10,0","12,0","9,0","5"\n' for d in days("%d/%m/%Y")), DAILY),
    Case("pieces, not their worth", "Datum;Erster;Hoch;Tief;Schlusskurs;Stuecke;Volumen\n" + "".join(f"{d};10,0;12,0;9,0;11,0;5;55\n" for d in days("%Y-%m-%d")), DAILY),
    Case("UTF-16 without a mark", rows(days("%Y-%m-%d")).encode("utf-16-le"), DAILY),
)  # fmt: skip
REFUSED = (
    Case("a dash before hours of an exchange", rows(SESSIONS), refused="name no zone.*give zone=America/New_York"),
    Case("a format that hides a zone", rows(hours("%Y-%m-%d %H:%M EST")), refused="'EST'.*give zone=", options={"date_format": "%Y-%m-%d %H:%M EST"}),
    Case("epochs that a spreadsheet rounded", rows(["1.70528E+12", "1.70529E+12", "1.7053E+12"]), refused="lost their last digits"),
    Case("a format in other letters", rows(days("%d/%m/%Y")), refused="reads none.*such as %d.%m.%Y", options={"date_format": "dd/mm/yyyy"}),
    Case("no known volume, columns unread", rows(days("%Y-%m-%d"), "Date,Open,High,Low,Close,Up", CELLS), refused=r"no column is recognised as volume, and up .*header="),
    Case("whole numbers and 1.234", rows(days("%Y-%m-%d"), cells="10,12,9,11,985") + "2024-01-20,10,12,9,11,1.234\n", refused="'1.234' may be a thousand or a fraction.*decimal=comma"),
    Case("gzip as .csv", gzip.compress(rows(days("%Y-%m-%d")).encode()), refused="packed with gzip; name it .csv.gz"),
    Case("a zip as .csv", zipped({"ABC.csv": "x"}), refused="a zip archive; name it .zip"),
    Case("a workbook as .csv", zipped({"xl/workbook.xml": "x"}), refused="a workbook; save each sheet"),
    Case("parquet as .csv", frame_bytes(random_bars(), "parquet"), refused="a parquet file"),
    Case("parquet in a zip", zipped({"ABC.parquet": "x"}), refused="texts among them.*unpack others", name="ABC.zip"),
)  # fmt: skip


@pytest.mark.parametrize("case", READ, ids=lambda c: c.id)
def test_read_as_a_careful_person_would(tmp_path, case):
    bars = read(put(tmp_path, case), case.layout, now=NOW, **keyed(case.options)).bars
    assert [f"{t:%Y-%m-%d %H:%M}" for t in bars["time"]] == case.ends
    assert bars.row(0)[2:] == (10.0, 12.0, 9.0, 11.0, 5.0)
    assert case.symbol in (None, bars["symbol"][0])


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.id)
def test_refused_with_the_next_step(tmp_path, case):
    with pytest.raises(DataError) as caught:
        read(put(tmp_path, case), case.layout, now=NOW, **keyed(case.options))
    assert re.search(case.refused, line := " ".join(str(caught.value).split())), line


def folder(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("step", [2, 4, 8, 24])
def test_two_or_three_bars_of_another_length_are_no_holes(tmp_path, n, step):
    """They were taken for bars of an hour with holes between them, and known hours early."""
    hourly, longer = rows(hours("%Y-%m-%d %H:%M", 90)), rows(hours("%Y-%m-%d %H:%M", n, step=step))
    with pytest.raises(DataError, match="bars differ in length"):
        read(folder(tmp_path, {"AB.csv": hourly, "CD.csv": longer}), "plain", now=NOW)


def test_a_file_of_one_date_beside_hours_is_refused(tmp_path):
    files = {"AB.csv": rows(hours("%Y-%m-%d %H:%M", 90)), "CD.csv": rows(days("%Y-%m-%d", 1))}
    with pytest.raises(DataError, match=r"CD\.csv has dates without a time of day"):
        read(folder(tmp_path, files), "plain", now=NOW)


def test_a_stock_of_a_friday_and_a_monday_stays_daily(tmp_path):
    files = {"AB.csv": rows(days("%Y-%m-%d", 5)), "CD.csv": rows(["2024-01-19", "2024-01-22"])}
    assert read(folder(tmp_path, files), "plain", now=NOW).bars.height == 7


@pytest.mark.parametrize(
    "name", ["XY_part{}", "XY ({})", "XY_{}", "2024-0{}_XY", "XY-2024Q{}", "{}_XY_1h", "XY_1h_of_{}"]
)
def test_parts_that_follow_each_other_are_joined_when_asked(tmp_path, name):
    """Three files that go on where another ends are one series or three: the user says which."""
    texts = [rows(hours("%Y-%m-%d %H:%M", 700, datetime(2024, m, 1))) for m in (1, 2, 3)]
    path = folder(tmp_path, {f"{name.format(m)}.csv": text for m, text in zip((1, 2, 3), texts, strict=True)})
    with pytest.raises(DataError, match="3 files look like parts of"):
        read(path, "plain", now=NOW)
    parts = [r.split("\n")[1:] for r in texts]
    assert len({line for part in parts for line in part if line}) == 2100 - 4
    joined = read(path, "plain", "XY", now=NOW, repair=["drop_identical_duplicates"], keys=FormKeys()).bars
    assert joined["symbol"].unique().to_list() == ["XY"]
    assert joined.height == 2100 - 4


def test_two_coins_of_one_time_are_no_parts(tmp_path):
    text = rows(hours("%Y-%m-%d %H:%M", 90))
    files = {"COIN1.csv": text, "COIN2.csv": text}
    assert read(folder(tmp_path, files), "plain", now=NOW).bars["symbol"].n_unique() == 2


def test_a_date_beside_hours_needs_a_word(tmp_path):
    assert HEAD.startswith("Date")
    path = tmp_path / "AB.csv"
    path.write_text(rows([*hours("%Y-%m-%d %H:%M", 30), "2024-01-17"]))
    bars = read(path, "plain", now=NOW).bars
    assert f"{bars['time'][-1]:%Y-%m-%d %H:%M}" == "2024-01-17 01:00"
