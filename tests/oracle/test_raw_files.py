"""Vendors' originals, messy on purpose: each is read right, or refused with the counts of its defects.

Counts are those of the data's SOURCES.md or were taken from the files by plain CSV reading; prices are rows
of the files, picked by hand.
"""

import re
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.market.bars import content_digest, mark_gaps
from tradsys.market.calendars import periods_per_year
from tradsys.market.sources.files import read
from tradsys.market.store import BarStore

CDD = "raw/cdd_Binance_BTCUSDT_1h.csv"
CDD_REPAIRS = ("trust_later_time", "keep_first_duplicate", "drop_bad_ticks", "drop_invented_flat_bars")


def defects(path, layout, **options):
    """Kind -> count, as the one error lists them."""
    with pytest.raises(DataError) as caught:
        read(path, layout, **options)
    return {kind: int(n) for n, kind in re.findall(r"^  (\d+) x (\w+)", str(caught.value), re.MULTILINE)}


def reported(result):
    return {one.kind: one.count for one in (*result.repairs, *result.remarks)}


def at(bars, *when, symbol=None):
    """(open, high, low, close, volume) of the bar that closes then."""
    rows = bars.filter(pl.col("time") == datetime(*when, tzinfo=UTC))
    rows = rows.filter(symbol=symbol) if symbol else rows
    assert rows.height == 1, rows
    return rows.select("open", "high", "low", "close", "volume").row(0)


def test_cryptodatadownload_is_refused_with_every_kind_at_once(shared_data):
    assert defects(shared_data / CDD, "cryptodatadownload") == {
        "time_columns_disagree": 91,
        "conflicting_duplicate": 2649,
        "bad_tick": 1,
        "invented_flat_bar": 117,
    }


def test_cryptodatadownload_repaired_agrees_with_the_exchange(shared_data):
    result = read(shared_data / CDD, "cryptodatadownload", repair=CDD_REPAIRS)
    done = reported(result)
    assert done["mixed_epoch_units"] == 7478  # milliseconds; the other 28,584 rows are in seconds
    assert done["mixed_time_formats"] == 7478
    assert [done[name] for name in CDD_REPAIRS] == [91, 2649, 1, 117]
    assert result.bars.height == 36062 - 2649 - 1 - 117
    assert set(result.bars["symbol"]) == {"BTCUSDT"}
    # first good bar: opens 05:00, so it is known at 06:00; 04:00 is the bad tick 16199.91
    assert at(result.bars, 2017, 8, 17, 6) == (4308.83, 4328.69, 4291.37, 4315.32, 23.23)
    # of the pair for 2020-09-26 04:00 the exchange's own volume, not the rounded one
    assert at(result.bars, 2020, 9, 26, 5)[3:] == (10735.04, 863.424398)
    exchange = read(shared_data / "crypto/BTCUSDT_1h.parquet", "binance").bars
    both = result.bars.join(exchange, on="time", suffix="_exchange")
    assert both.height == 1256 * 24 + 1 - 115 - 7  # hours since 2018, less outages, less invented bars
    off = (both["close"] / both["close_exchange"] - 1).abs()
    assert ((off < 1e-9).mean(), (off > 1e-3).mean()) == (
        pytest.approx(0.9896, abs=1e-3),
        pytest.approx(0.002, abs=1e-3),
    )
    late = result.bars.with_columns(pl.col("time") + timedelta(hours=1)).join(exchange, on="time", suffix="_exchange")
    assert ((late["close"] / late["close_exchange"] - 1).abs() < 1e-9).mean() < 0.01, "the comparison feels an hour"


def test_of_the_invented_bars_102_lie_in_the_exchanges_own_outages(shared_data):
    """The reference counts 102: in the block in seconds, since 2018. The others found are named here."""
    kept = read(shared_data / CDD, "cryptodatadownload", repair=(*CDD_REPAIRS[:3], "accept_flat_bars")).bars
    dropped = read(shared_data / CDD, "cryptodatadownload", repair=CDD_REPAIRS).bars
    invented = kept.join(dropped, on="time", how="anti")
    exchange = read(shared_data / "crypto/BTCUSDT_1h.parquet", "binance").bars
    missing = invented.join(exchange, on="time", how="anti")
    in_outage = missing.filter(pl.col("time") > datetime(2018, 1, 1, tzinfo=UTC))
    in_seconds = in_outage.filter(pl.col("time") < datetime(2020, 8, 1, tzinfo=UTC))
    assert in_seconds.height == 102
    assert in_outage.height - in_seconds.height == 1  # 2020-12-21, in the block in milliseconds
    assert missing.height - in_outage.height == 7  # 2017-09-06, before the exchange file begins
    real = invented.join(exchange, on="time", suffix="_exchange")
    assert (real["volume_exchange"] == 0).sum() == 2  # 2019-06-07 and 2021-02-11: nothing traded at the exchange
    assert real.height == 2 + 5  # 2019-07-26 and 27: traded at the exchange, invented here


def test_redated_sessions_are_caught_by_their_weekends(shared_data):
    path = shared_data / "raw/AAL_data.csv"
    assert defects(path, "kaggle") == {"redated_block": 26, "weekend_session": 12}
    assert defects(path, "kaggle", repair=["drop_weekend_sessions"])["redated_block"] == 26
    result = read(path, "kaggle", repair=["drop_redated_blocks"])
    assert result.bars.height == 1259 - 26
    assert at(result.bars, 2013, 2, 9) == (15.07, 15.12, 14.63, 14.75, 8407500)
    assert result.bars["time"].max() == datetime(2017, 12, 30, tzinfo=UTC)
    assert set(result.bars["symbol"]) == {"AAL"}


def test_a_special_dividend_is_a_suspicious_jump(shared_data):
    path = shared_data / "raw/KDP.csv"
    assert defects(path, "kaggle") == {"suspicious_jump": 1}
    accepted = read(path, "kaggle", repair=["accept_jumps"])
    assert accepted.bars.height == 1384
    before, after = at(accepted.bars, 2018, 7, 10), at(accepted.bars, 2018, 7, 11)
    assert after[3] / before[3] - 1 == pytest.approx(-0.82, abs=0.005)
    split = read(path, "kaggle", repair=["split_at_jumps"]).bars
    assert dict(split.group_by("symbol").len().iter_rows()) == {"KDP": 130, "KDP.2": 1254}


def test_a_reused_ticker_becomes_two_instruments(shared_data):
    path = shared_data / "raw/LUNAUSDT_1h.csv"
    assert defects(path, "plain") == {"ticker_reused": 1}
    result = read(path, "plain", repair=["split_reused_ticker"])
    assert dict(result.bars.group_by("symbol").len().iter_rows()) == {
        "LUNAUSDT": 9665,
        "LUNAUSDT.2": 23551 - 9665,
    }
    assert at(result.bars, 2022, 5, 13, 1, symbol="LUNAUSDT")[3] == 0.00005
    assert at(result.bars, 2022, 5, 31, 7, symbol="LUNAUSDT.2")[:4] == (1.0, 25.0, 1.0, 8.5558)
    assert reported(result)["hole"] == 5, "the collapse itself is real and stays"


def test_investing_with_byte_order_mark_and_written_dates(shared_data):
    path = shared_data / "raw/investingcom_AU10Y.csv"
    assert defects(path, "investing") == {"no_volume": 1719, "high_low_breached": 1}
    result = read(path, "investing", symbol="AU10Y", repair=["fill_volume_zero", "clip_high_low"])
    done = reported(result)
    assert (done["byte_order_mark"], done["newest_first"], done["fill_volume_zero"]) == (1, 1718, 1719)
    assert done["weekend_bar"] == 418
    assert at(result.bars, 2022, 2, 19) == (2.170, 2.246, 2.148, 2.184, 0)
    assert at(result.bars, 2017, 7, 14) == (2.733, 2.733, 2.698, 2.698, 0)  # its low was above its close


@pytest.mark.parametrize("symbol", [None, "DXY"])
def test_a_file_that_is_not_what_its_name_says(shared_data, symbol):
    path = shared_data / "raw/mislabelled_DXY_not_dollar_index.csv"
    assert defects(path, "yahoo", symbol=symbol) == {"implausible_level": 1185}
    assert read(path, "yahoo", symbol="UNKNOWN").bars.height == 1185, "only the name says it should be the index"


def test_the_dollar_index_without_high_and_low(shared_data):
    path = shared_data / "raw/tzjtan_DXY.csv"
    assert defects(path, "plain", symbol="DXY") == {"empty_row": 3027, "no_high_low": 13715}
    result = read(path, "plain", symbol="DXY", repair=["drop_empty_rows", "fill_high_low_from_close"])
    assert result.bars.height == 13715
    assert at(result.bars, 2024, 12, 31) == (108.01, 108.13, 108.01, 108.13, 0)
    assert result.bars.select(pl.col("close").min(), high=pl.col("close").max()).row(0) == (71.33, 164.72)


def test_the_volatility_index_without_volume(shared_data):
    path = shared_data / "raw/vix-daily.csv"
    assert defects(path, "plain", symbol="VIX") == {"no_volume": 8833, "bad_tick": 3, "high_low_breached": 47}
    repairs = ["fill_volume_zero", "drop_bad_ticks", "clip_high_low"]
    result = read(path, "plain", symbol="VIX", repair=repairs)
    assert [reported(result)[name] for name in repairs] == [8833, 3, 45], "two breaches were the bad ticks' own"
    assert at(result.bars, 1990, 1, 3) == (17.24, 17.24, 17.24, 17.24, 0)
    assert at(result.bars, 2018, 2, 6)[3] == 37.32, "the day volatility doubled is real"


def test_yahoo_is_read_as_it_is_and_reported_as_unadjusted(shared_data):
    path = shared_data / "raw/yahoo_BHP.AX.csv"
    result = read(path, "yahoo", symbol="BHP.AX")
    assert result.bars.height == 1335
    assert at(result.bars, 2017, 1, 4) == (25.02, 25.549999, 24.959999, 25.459999, 5395237)
    assert reported(result)["not_adjusted_for_dividends"] == 1303
    adjusted = read(path, "yahoo", symbol="BHP.AX", repair=["adjust_for_dividends"])
    assert at(adjusted.bars, 2017, 1, 4)[3] == pytest.approx(17.604614)
    assert at(adjusted.bars, 2022, 4, 9) == at(result.bars, 2022, 4, 9)


COINS = {"ADA": 58732, "BTC": 61246, "DOGE": 48112, "ETH": 61246, "LINK": 52178, "SOL": 38470, "XRP": 58320}


@pytest.mark.parametrize("coin", COINS)
def test_the_exchanges_own_files_need_no_repair_and_keep_their_gaps(shared_data, coin):
    result = read(shared_data / f"crypto/{coin}USDT_1h.parquet", "binance")
    assert result.bars.height == COINS[coin]
    raw = pl.read_parquet(shared_data / f"crypto/{coin}USDT_1h.parquet")
    assert result.bars["time"].to_list() == (raw["timestamp"] + timedelta(hours=1)).to_list()
    assert result.bars["low"].equals(raw["low"])
    assert periods_per_year(result.bars) == pytest.approx(8760)
    gaps = mark_gaps(result.bars, timedelta(hours=1))["segment"].max()
    assert gaps == reported(result)["hole"]
    if coin in ("BTC", "ETH"):
        assert gaps == 27
        first, last = result.bars["time"][0], result.bars["time"][-1]
        assert (last - first) / timedelta(hours=1) + 1 - result.bars.height == 122


def test_panels_say_which_symbol_is_wrong(shared_data):
    universe = shared_data / "crypto/binance_universe_1h.parquet"
    assert defects(universe, "binance") == {"ticker_reused": 1}
    hourly = shared_data / "equities/us_hourly_10.parquet"
    with pytest.raises(DataError, match="1 x suspicious_jump: NVDA 2024-04-22 13:30"):  # half of it split-adjusted
        read(hourly, "plain")
    bars = read(hourly, "plain", repair=["split_at_jumps"]).bars
    assert periods_per_year(bars) == pytest.approx(7 * 252)
    assert defects(shared_data / "equities/asx_daily.parquet", "yahoo") == {"empty_row": 2}


def test_five_hundred_stocks_through_the_store(shared_data, tmp_path):
    path = shared_data / "equities/sp500_daily.parquet"
    result = read(path, "yahoo", repair=["split_at_jumps"])
    assert [one.examples[0][:14] for one in result.repairs if one.kind == "split_at_jumps"] == ["KDP 2018-07-10"]
    assert (result.bars.height, result.bars["symbol"].n_unique()) == (625468, 502)
    assert periods_per_year(result.bars, "XNYS") == pytest.approx(251.65)
    assert periods_per_year(result.bars) == pytest.approx(251.65, abs=0.6)  # 1,259 sessions in five years, as they came
    store = BarStore(tmp_path)
    manifest = store.write("sp500", result.bars, result.meta)
    assert manifest["digest"] == content_digest(result.bars)
    assert store.read("sp500", ["KDP.2", "AAPL"]).equals(result.bars.filter(pl.col("symbol").is_in(["AAPL", "KDP.2"])))
