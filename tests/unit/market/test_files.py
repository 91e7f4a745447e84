import logging
import zipfile
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradsys.core.errors import DataError
from tradsys.core.runs import digest_file
from tradsys.fetch import work as fetch
from tradsys.market.bars import content_digest
from tradsys.market.sources.files import FileSource, read


def write(path, bars):
    bars.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    return path


def test_open_stamps_become_closes_and_close_stamps_stay(tmp_path, make_walk_bars):
    bars = make_walk_bars(30)
    path = write(tmp_path / "AAA.csv", bars)
    assert read(path, "bars").bars.equals(bars)
    assert read(path, "plain").bars["time"].to_list() == (bars["time"] + timedelta(hours=1)).to_list()
    assert "open_stamps_moved_to_close" in {one.kind for one in read(path, "plain").repairs}


@given(st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_and_columns_in_any_order_read_the_same(tmp_path, make_walk_bars, random):
    bars = make_walk_bars(40, ("AAA", "BBB"))
    order, columns = list(range(bars.height)), bars.columns
    random.shuffle(order)
    random.shuffle(columns)
    path = write(tmp_path / "panel.csv", bars[order].select(columns))
    assert content_digest(read(path, "bars").bars) == content_digest(bars)


def test_a_daily_bar_is_known_at_the_next_midnight_or_the_session_close(tmp_path, make_walk_bars):
    bars = make_walk_bars(5, minutes=1440).select(pl.col("time").dt.date().alias("date"), pl.exclude("time"))
    path = write(tmp_path / "AAA.csv", bars)
    assert bars["date"][0] == date(2020, 1, 1)
    assert read(path, "yahoo").bars["time"][0] == datetime(2020, 1, 2, tzinfo=UTC)
    assert read(path, "yahoo", session_close="21:00").bars["time"][0] == datetime(2020, 1, 1, 21, tzinfo=UTC)
    for wrong in ("25:00", "9pm", "21:00:00"):
        with pytest.raises(DataError, match="it is 'HH:MM' in UTC"):
            read(path, "yahoo", session_close=wrong)


def test_session_close_is_for_daily_bars(tmp_path, make_walk_bars):
    with pytest.raises(DataError, match="for daily bars only"):
        read(write(tmp_path / "AAA.csv", make_walk_bars(5)), "plain", session_close="21:00")


def test_a_folder_holds_one_instrument_per_file(tmp_path, make_walk_bars):
    panel = make_walk_bars(30, ("AAA", "BBB", "CCC"))
    for (symbol,), part in panel.partition_by("symbol", as_dict=True).items():
        if symbol == "CCC":
            part.drop("symbol").write_parquet(tmp_path / "CCC_1h.parquet")
        else:
            write(tmp_path / f"{symbol}.csv", part.drop("symbol"))
    (tmp_path / "notes.txt").write_text("not a table")
    result = read(tmp_path, "bars")
    assert result.bars.equals(panel)
    assert read(tmp_path, "bars", symbol="BBB").bars.equals(panel.filter(symbol="BBB"))
    reported = {one.kind: one for one in result.repairs}
    assert reported["symbol_from_file_name"].count == 3


def test_symbol_names_a_series_or_picks_from_a_panel(tmp_path, make_walk_bars):
    path = write(tmp_path / "one.csv", make_walk_bars(9).drop("symbol"))
    result = read(path, "bars", symbol="BTCUSDT")
    assert set(result.bars["symbol"]) == {"BTCUSDT"}
    assert [one.examples for one in result.repairs] == [("one -> BTCUSDT",)]
    panel = write(tmp_path / "panel.csv", make_walk_bars(9, ("AAA", "BBB")))
    with pytest.raises(DataError, match=r"no symbol 'ZZZ' among 2: \['AAA', 'BBB'\]"):
        read(panel, "bars", symbol="ZZZ")


def test_bar_length_comes_from_the_most_common_step_or_is_reported(tmp_path, make_walk_bars):
    path = write(tmp_path / "AAA.csv", make_walk_bars(20, minutes=15))
    assert read(path, "plain").meta["bar_minutes"] == 15
    with pytest.raises(DataError, match=r"every step of AAA is a multiple of 0:15:00; a shorter length would"):
        read(path, "plain", bar_minutes=5)
    with pytest.raises(DataError, match="19 x overlapping_bar"):
        read(path, "plain", bar_minutes=60)
    single = write(tmp_path / "BBB.csv", make_walk_bars(1))
    with pytest.raises(DataError, match="no step between bars; give bar_minutes"):
        read(single, "plain")
    assert read(single, "plain", bar_minutes=60).bars.height == 1
    with pytest.raises(DataError, match="bar_minutes is 0"):
        read(path, "plain", bar_minutes=0)


def test_adjusting_scales_all_prices_to_the_adjusted_close(tmp_path, make_walk_bars):
    bars = make_walk_bars(20).with_columns(pl.lit(0.5).alias("factor"))
    raw = bars.with_columns((pl.col("close") * pl.col("factor")).alias("Adj Close")).drop("factor")
    path = write(tmp_path / "AAA.csv", raw)
    plain = read(path, "bars")
    assert {one.kind: one.count for one in plain.remarks} == {"not_adjusted_for_dividends": 20}
    adjusted = read(path, "bars", repair=["adjust_for_dividends"])
    assert adjusted.bars["high"].to_list() == pytest.approx((bars["high"] / 2).to_list())
    assert adjusted.bars["volume"].to_list() == bars["volume"].to_list()
    assert adjusted.remarks == ()


def test_what_was_done_is_logged_and_kept_for_the_manifest(tmp_path, make_walk_bars, caplog):
    path = write(tmp_path / "AAA.csv", make_walk_bars(20)[::-1])
    with caplog.at_level(logging.INFO, logger="tradsys.market.sources.files"):
        result = read(path, "bars")
    assert "AAA.csv: 19 x newest_first sorted" in caplog.text
    assert result.meta["repairs"][0]["kind"] == "newest_first"
    assert result.meta["sha256"] == digest_file(path)
    assert (result.meta["source"], result.meta["layout"], result.meta["bar_minutes"]) == (
        "AAA.csv",
        "bars",
        60,
    )


def test_missing_paths_and_empty_folders_say_so(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        read(tmp_path / "none.csv", "plain")
    with pytest.raises(DataError, match="is a folder without tables, it holds nothing"):
        read(tmp_path, "plain")


def test_nothing_left_after_repairs_is_an_error(tmp_path):
    (tmp_path / "AAA.csv").write_text("date,open,close\n2020-01-01,,\n2020-01-02,,\n")
    with pytest.raises(DataError, match="no rows are left after"):
        read(tmp_path / "AAA.csv", "plain", repair=["drop_empty_rows"])


def test_a_file_source_reads_describes_and_gives_bars(tmp_path, make_walk_bars):
    bars = make_walk_bars(20)
    source = FileSource(str(write(tmp_path / "AAA.csv", bars)), "bars", repair=["drop_bad_ticks"])
    assert source.bars().equals(bars)
    reported = source.describe()
    assert (reported["kind"], reported["digest"], reported["symbols"]) == ("file", content_digest(bars), ["AAA"])
    assert reported["synthetic"] is False


def test_a_zip_that_holds_the_same_bars_twice_says_where_they_stand(tmp_path):
    hours = [f"2024-01-0{1 + k // 24}T{k % 24:02d}:00:00Z,1,2,0.5,1.5,10\n" for k in range(72)]
    table = "time,open,high,low,close,volume\n" + "".join(hours)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, table)
    asked = ["source=file", f"path={tmp_path / 'two.zip'}", "symbol=A", "name=two", f"paths.data={tmp_path}"]
    with pytest.raises(
        DataError, match=r"1 kind of defect in 144 rows:\n.*place=b.csv:2 .*;\na file with defects is refused"
    ):
        fetch(asked)


def test_the_directory_of_an_archive_is_read_once_for_all_its_members(tmp_path, monkeypatch):
    table = "time,open,high,low,close,volume\n2024-01-01,1,2,0.5,1.5,10\n2024-01-02,1,2,0.5,1.5,10\n"
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for k in range(6):
            archive.writestr(f"S{k}.csv", table)
        archive.writestr("readme.md", "bars")
    opened, real = [], zipfile.ZipFile._RealGetContents

    def counted(archive):
        opened.append(archive)
        real(archive)

    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", counted)
    result = read(tmp_path / "many.zip", "plain")
    assert result.bars["symbol"].unique().sort().to_list() == [f"S{k}" for k in range(6)]
    assert len(opened) == 1
