"""Daily files dated by an exchange's calendar."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.market.sessions import closes
from tradsys.market.sources.files import FileSource, read


def daily(dates, symbol="AAA", price=10.0):
    n = len(dates)
    prices = {name: [price + k * 0.01 for k in range(n)] for name in ("open", "high", "low", "close")}
    return pl.DataFrame({"date": dates, "symbol": [symbol] * n, **prices, "volume": [100.0 + k for k in range(n)]})


def test_dates_become_closes_over_a_change_of_clocks_and_a_half_day(tmp_path):
    sessions = closes("XNYS", date(2018, 11, 1), date(2018, 12, 31))
    daily(sessions["session"]).write_csv(tmp_path / "AAA.csv")
    result = read(tmp_path / "AAA.csv", "yahoo", calendar="XNYS")
    assert result.bars["time"].to_list() == sessions["close"].to_list()
    at = {time.date(): time.hour for time in result.bars["time"]}
    assert (at[date(2018, 11, 2)], at[date(2018, 11, 5)], at[date(2018, 12, 24)]) == (20, 21, 18)
    assert result.meta["calendar"] == "XNYS"
    assert {one.kind: one.count for one in result.repairs}["dates_moved_to_session_closes"] == sessions.height


def test_a_holiday_is_a_defect_that_its_repair_drops(tmp_path):
    dates = [date(2022, 6, day) for day in (15, 16, 17, 20, 21)]  # the 20th: closed for Juneteenth
    daily(dates).write_csv(tmp_path / "AAA.csv")
    with pytest.raises(DataError, match=r"1 x not_a_session: AAA 2022-06-20 00:00 .* repair with .*drop_non_sessions"):
        read(tmp_path / "AAA.csv", "yahoo", calendar="XNYS")
    kept = read(tmp_path / "AAA.csv", "yahoo", calendar="XNYS", repair=["drop_non_sessions"])
    assert [time.day for time in kept.bars["time"]] == [15, 16, 17, 21]
    assert kept.meta["repairs"][-1]["kind"] == "drop_non_sessions"
    assert read(tmp_path / "AAA.csv", "yahoo").bars.height == 5, "without a calendar nobody knows"


def test_midnights_in_the_exchange_s_own_zone_keep_their_date(tmp_path):
    sydney = pl.Series([datetime(2020, 2, day) for day in (12, 13, 14)]).dt.replace_time_zone("Australia/Sydney")
    daily(sydney.dt.convert_time_zone("UTC")).write_parquet(tmp_path / "BHP.parquet")  # 13:00 the day before, in UTC
    bars = read(tmp_path / "BHP.parquet", "yahoo", calendar="XASX").bars
    assert bars["time"].to_list() == [datetime(2020, 2, day, 5, tzinfo=UTC) for day in (12, 13, 14)]


def test_one_symbol_is_picked_from_a_file_of_many(tmp_path):
    dates = [date(2020, 3, 5), date(2020, 3, 6), date(2020, 3, 9)]
    broken = daily([date(2020, 3, 7), date(2020, 3, 8)], "BAD", price=-1.0)  # not SPY's business
    pl.concat([daily(dates, "SPY"), daily(dates, "QQQ"), broken]).write_parquet(tmp_path / "etf.parquet")
    bars = FileSource(str(tmp_path / "etf.parquet"), "yahoo", symbol="SPY", calendar="XNYS").bars()
    assert bars["symbol"].unique().to_list() == ["SPY"]
    assert [time.hour for time in bars["time"]] == [21, 21, 20]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"calendar": "XNYS", "session_close": "21:00"}, "a session closes once; give one of them"),
        ({"calendar": "XNYX"}, "no calendar 'XNYX'"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, words):
    daily([date(2020, 3, 5), date(2020, 3, 6)]).write_csv(tmp_path / "AAA.csv")
    with pytest.raises(DataError, match=words):
        read(tmp_path / "AAA.csv", "yahoo", **options)


@pytest.mark.parametrize(("minutes", "layout"), [(60, "plain"), (1440, "bars")])
def test_a_calendar_dates_daily_bars_stamped_by_date_alone(tmp_path, make_walk_bars, minutes, layout):
    path = tmp_path / "AAA.csv"
    make_walk_bars(20, minutes=minutes).write_csv(path)
    with pytest.raises(DataError, match="a calendar applies to daily bars that a vendor stamps by date"):
        read(path, layout, calendar="XNYS")


@pytest.mark.slow
def test_the_real_files_have_the_counts_seen_by_hand(shared_data):
    names = shared_data / "equities" / "sp500_daily.parquet"
    repairs = ["drop_non_sessions", "split_at_jumps"]
    result = read(names, "yahoo", calendar="XNYS", repair=repairs)
    done = {one.kind: one for one in result.repairs}
    # every name has a copy of Friday's bar on Monday 2022-06-20, when the exchange was closed
    assert done["drop_non_sessions"].count == 500
    assert (done["split_at_jumps"].count, done["split_at_jumps"].examples[0][:14]) == (1, "KDP 2018-07-10")
    assert result.bars["symbol"].n_unique() == 502
    assert result.bars["time"].unique().sort().to_list() == (
        closes("XNYS", date(2018, 1, 2), date(2022, 12, 30))["close"].to_list()
    )
    spy = read(shared_data / "macro" / "market_daily.parquet", "yahoo", "SPY", calendar="XNYS").bars
    assert (spy.height, spy["symbol"].unique().to_list()) == (2768, ["SPY"])
    asx = read(shared_data / "equities" / "asx200_daily_2019-09_2020-02.parquet", "yahoo", calendar="XASX").bars
    assert set(asx.filter(symbol="A2M.AX")["time"].dt.hour()) == {3, 5, 6}  # half days, summer, winter
