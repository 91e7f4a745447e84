from datetime import UTC, datetime

import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.market.sources.layouts import LAYOUTS, Layout, layout_named
from tradsys.market.sources.opening import list_files
from tradsys.market.sources.parse import parse_file
from tradsys.market.sources.stamps import times


def parse(tmp_path, text, layout="plain", name="AAA_1h.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    parsed = parse_file(list_files(path)[0][0], layout_named(layout))
    return parsed.rows, {note.kind: note for note in parsed.notes}


def test_numbers_with_separators_percent_and_magnitudes(tmp_path):
    text = 'date,open,high,low,close,volume\n2020-01-01,"1,234.5",2.5%,$3,"4",1.2M\n2020-01-02,1,1,1,1,3K\n'
    rows, notes = parse(tmp_path, text)
    assert rows.row(0, named=True) | {
        "open": 1234.5,
        "high": 2.5,
        "low": 3.0,
        "close": 4.0,
        "volume": 1.2e6,
    } == (rows.row(0, named=True))
    assert rows["volume"].to_list() == [1.2e6, 3e3]
    assert notes["thousands_separators"].count == 1
    assert notes["percent_signs"].examples == ("2.5%",)
    assert notes["magnitude_suffixes"].count == 2


def test_decimal_comma_is_a_matter_of_the_layout(tmp_path):
    layout = Layout("de", separator=";", decimal_comma=True, formats=("%d.%m.%Y",))
    rows, _ = parse(tmp_path, "date;open;close\n31.12.2020;1.234,5;2,25\n", layout)
    assert rows.select("open", "close").row(0) == (1234.5, 2.25)
    assert rows["stamp"][0] == datetime(2020, 12, 31, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "-", "null", "NaN", "N/A", "None"])
def test_absent_values_are_null_and_not_unreadable(tmp_path, text):
    rows, _ = parse(tmp_path, f"date,open,close,volume\n2020-01-01,1,2,{text}\n")
    assert rows["volume"].to_list() == [None]
    assert rows["unreadable"].to_list() == [None]


def test_what_cannot_be_read_is_kept_in_words(tmp_path):
    rows, _ = parse(tmp_path, "date,open,close\n2020-01-01,1,abc\nsoon,1,2\n2020-01-03,inf,2\n")
    assert rows["unreadable"].to_list() == ["close=abc", "time=soon", "open=inf"]
    assert rows["line"].to_list() == [2, 3, 4]


def test_epochs_of_any_unit_may_share_a_column(tmp_path):
    stamps = ["1577836800", "1577836800000", "1577836800000000", "1577836800000000000", "1577836800.0"]
    rows, notes = parse(tmp_path, "time,open,close\n" + "".join(f"{s},1,1\n" for s in stamps))
    assert rows["stamp"].unique().to_list() == [datetime(2020, 1, 1, tzinfo=UTC)]
    assert notes["mixed_epoch_units"].count == 1
    assert "2 rows in seconds" in notes["mixed_epoch_units"].examples


def test_time_formats_may_change_within_a_column(tmp_path):
    text = (
        "date,open,close\n2020-11-20 07:00:00,1,1\n2020-11-20 12-AM,1,1\n2020-11-20 01-PM,1,1\n2020-11-20 12-PM,1,1\n"
    )
    rows, notes = parse(tmp_path, text, "cryptodatadownload")
    assert [t.hour for t in rows["stamp"]] == [7, 0, 13, 12]
    assert notes["mixed_time_formats"].count == 1


def test_offsets_and_zones_become_utc(tmp_path):
    rows, _ = parse(tmp_path, "date,open,close\n2024-01-02 09:30:00-05:00,1,1\n2024-07-02 09:30:00-04:00,1,1\n")
    assert [t.hour for t in rows["stamp"]] == [14, 13]
    rows, _ = parse(tmp_path, "date,open,close\n2024-01-02T09:30:00Z,1,1\n")
    assert rows["stamp"][0] == datetime(2024, 1, 2, 9, 30, tzinfo=UTC)


def test_naive_hours_in_a_zone_and_the_hour_that_happens_twice(tmp_path):
    layout = Layout("ny", time_zone="America/New_York")
    text = "date,open,close\n2024-11-02 09:30,1,1\n2024-11-03 01:30,1,1\n2024-11-04 09:30,1,1\n2024-03-10 02:30,1,1\n"
    rows, _ = parse(tmp_path, text, layout)
    assert [t and t.hour for t in rows["stamp"]] == [13, None, 14, None]
    assert rows["unreadable"].to_list() == [None, "time=2024-11-03 01:30", None, "time=2024-03-10 02:30"]


def test_byte_order_mark_banner_case_and_spaces(tmp_path):
    text = "\ufeffhttps://www.vendor.example\n Date ,OPEN,High,low,Close,Volume\n2020-01-01,1,1,1,1,5\n"
    rows, notes = parse(tmp_path, text)
    assert rows["volume"].to_list() == [5.0]
    assert {"byte_order_mark", "vendor_banner"} <= set(notes)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT_1h.csv", "BTCUSDT"),
        ("BHP.AX.csv", "BHP.AX"),
        ("SPY_daily.csv", "SPY"),
        ("^GSPC.csv", "^GSPC"),
    ],
)
def test_the_file_name_gives_the_symbol_where_no_column_does(tmp_path, name, symbol):
    rows, notes = parse(tmp_path, "date,open,close\n2020-01-01,1,1\n", name=name)
    assert rows["symbol"].to_list() == [symbol]
    assert notes["symbol_from_file_name"].examples == (f"{name} -> {symbol}",)


@pytest.mark.parametrize("column", ["symbol", "ticker", "Name"])
def test_a_symbol_column_goes_before_the_file_name(tmp_path, column):
    rows, _ = parse(tmp_path, f"date,open,close,{column}\n2020-01-01,1,1,ETH/USDT\n")
    assert rows["symbol"].to_list() == ["ETHUSDT"]


def test_base_volume_is_taken_from_two_volumes(tmp_path):
    text = (
        "unix,date,symbol,open,high,low,close,Volume ETH,Volume USDT\n"
        "1577836800,2020-01-01 00:00:00,ETH/USDT,1,1,1,1,7,900\n"
    )
    rows, notes = parse(tmp_path, text, "cryptodatadownload")
    assert rows["volume"].to_list() == [7.0]
    assert notes["columns_not_read"].examples == ("volume usdt",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "date,price_of_it\n2020-01-01,1\n",
            r"no column for \['open', 'close'\] in layout 'plain'.*price_of_it",
        ),
        ("date,open,close\n", "no rows in layout"),
        ("", "cannot be read as a table"),
        ("date,open,Open,close\n2020-01-01,1,1,1\n", "header names appear twice"),
    ],
)
def test_a_file_of_another_form_says_what_it_has(tmp_path, text, says):
    with pytest.raises(DataError, match=says):
        parse(tmp_path, text)


def test_a_torn_parquet_file_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    pl.DataFrame({"timestamp": [1]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read as a table"):
        parse_file(list_files(path)[0][0], LAYOUTS["binance"])


def test_unknown_layouts_are_listed():
    with pytest.raises(DataError, match=r"no layout 'bloomberg' among .*'binance'.*'yahoo'"):
        layout_named("bloomberg")
    with pytest.raises(DataError, match="stamps a bar's 'open' or its 'close'"):
        Layout("x", stamp="middle")


def test_a_format_that_reads_every_time_of_a_file_is_the_only_one_tried(tmp_path, monkeypatch):
    """Thousands of small tables took minutes: each was asked for two hundred formats."""
    tried, one = [], times._try
    monkeypatch.setattr(times, "_try", lambda text, fmt: tried.append(fmt) or one(text, fmt))
    rows, notes = parse(tmp_path, "timestamp,open,close\n2024-01-01T01:00:00Z,1,2\n2024-01-01T02:00:00Z,1,2\n")
    assert rows["stamp"][1] == datetime(2024, 1, 1, 2, tzinfo=UTC)
    assert len(tried) < 40
    assert "mixed_time_formats" not in notes


def test_a_format_that_only_rows_after_the_sample_have_is_found(tmp_path):
    first = [f"2024-01-01 {hour:02d}:{minute:02d}" for hour in range(5) for minute in range(60)]
    lines = [f"{time},1,2" for time in [*first, "02.01.2024 06:00"]]
    rows, notes = parse(tmp_path, "\n".join(["timestamp,open,close", *lines, ""]))
    assert rows["stamp"][-1] == datetime(2024, 1, 2, 6, tzinfo=UTC)
    assert "mixed_time_formats" in notes
