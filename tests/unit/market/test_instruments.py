"""Hours to UTC days, and lives that end."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.core.errors import DataError
from tradsys.market.instruments import ended, resample
from tradsys.market.sources.files import read


def hours(first, n, symbol="AAA"):
    """Hourly bars; the first opens at `first`."""
    bars = walk_bars(n, (symbol,))
    return bars.with_columns(time=pl.lit(first).dt.replace_time_zone("UTC") + pl.duration(hours=pl.int_range(n) + 1))


def test_days_are_those_of_a_loop_over_hours():
    bars = pl.concat([hours(datetime(2021, 1, 1), 24 * 4, "AAA"), hours(datetime(2021, 1, 2, 5), 24 * 2, "BBB")])
    days, _ = resample(bars, "1d")
    expected = []
    for symbol in ("AAA", "BBB"):
        rows = bars.filter(symbol=symbol)
        for day in range(1, 5):
            inside = [row for row in rows.rows(named=True) if (row["time"] - timedelta(hours=1)).day == day]
            if inside:
                expected.append(
                    {
                        "symbol": symbol,
                        "time": datetime(2021, 1, day + 1, tzinfo=UTC),
                        "open": inside[0]["open"],
                        "high": max(row["high"] for row in inside),
                        "low": min(row["low"] for row in inside),
                        "close": inside[-1]["close"],
                        "volume": pytest.approx(sum(row["volume"] for row in inside)),
                    }
                )
    assert days.rows(named=True) == expected


def test_days_within_which_the_data_begin_or_end_are_dropped_for_all():
    bars = pl.concat([hours(datetime(2021, 1, 1, 20), 24 * 3, "AAA"), hours(datetime(2021, 1, 1, 20), 24 * 3, "BBB")])
    days, notes = resample(bars, "1d")
    assert [time.day for time in days.filter(symbol="AAA")["time"]] == [3, 4]
    assert {note.kind: note.count for note in notes} == {"resampled_to_days": 144, "partial_day_dropped": 4}


def test_a_death_at_noon_keeps_its_last_day():
    dead = hours(datetime(2021, 1, 1), 24 + 13, "DEAD")
    days, notes = resample(pl.concat([hours(datetime(2021, 1, 1), 24 * 10), dead]), "1d")
    last = days.filter(symbol="DEAD")
    assert last["close"][-1] == dead["close"][-1]
    assert (last.height, last["time"][-1]) == (2, datetime(2021, 1, 3, tzinfo=UTC))
    assert {note.kind: note.count for note in notes}["thin_day"] == 1
    assert ended(days, timedelta(days=3)) == {"DEAD": datetime(2021, 1, 3, tzinfo=UTC)}
    assert ended(days, timedelta(days=8)) == {}, "eight days before the end is not more than eight"


@pytest.mark.parametrize(
    ("bars", "rule", "words"),
    [
        (walk_bars(50), "1w", r"the rules are \['1d'\]"),
        (walk_bars(50, minutes=1440), "1d", "resampling needs several equal bars a day"),
        (walk_bars(50, minutes=7), "1d", "resampling needs several equal bars a day"),
        (hours(datetime(2021, 1, 1, 20), 20), "1d", "no complete UTC day"),
    ],
)
def test_what_makes_no_days(bars, rule, words):
    with pytest.raises(DataError, match=words):
        resample(bars, rule)


def test_the_universe_of_coins_keeps_its_dead_and_splits_luna(shared_data):
    path = shared_data / "crypto" / "binance_universe_1h.parquet"
    result = read(path, "binance", repair=["split_reused_ticker"], resample="1d")
    days = result.bars
    assert (days["symbol"].n_unique(), result.meta["bar_minutes"]) == (41, 1440)
    old, new = days.filter(symbol="LUNAUSDT"), days.filter(symbol="LUNAUSDT.2")
    assert (old["time"][-1], new["time"][0]) == (datetime(2022, 5, 14, tzinfo=UTC), datetime(2022, 6, 1, tzinfo=UTC))
    assert old["close"][-1] < 1e-3 < new["open"][0]
    hourly = pl.read_parquet(path).filter(symbol="FTTUSDT").sort("timestamp")
    assert days.filter(symbol="FTTUSDT")["close"][-1] == hourly["close"][-1], "its last hours are not cut off"
    dead = ended(days, timedelta(days=10))
    assert {"LUNAUSDT", "FTTUSDT", "USTUSDT", "SRMUSDT", "BTTUSDT"} <= set(dead)
    assert not {"LUNAUSDT.2", "BTCUSDT"} & set(dead)
    btc = days.filter(symbol="BTCUSDT")
    assert btc.select(pl.col("time").diff().drop_nulls().n_unique()).item() == 1
