"""Daily series beside bars round the clock: no value before its session closed and the vendor showed it."""

import bisect
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import walk_bars
from tradsys.core.errors import DataError
from tradsys.market.known import JoinedBars
from tradsys.market.macro.session_series import SessionClock, SessionSeries

NEW_YORK = ZoneInfo("America/New_York")
# (session, its close in New York): days around holidays, half days and changes of the clock
REAL_DAYS = {
    date(2020, 11, 25): "16:00",  # the day before Thanksgiving
    date(2020, 11, 27): "13:00",  # half day
    date(2020, 12, 24): "13:00",
    date(2021, 3, 12): "16:00",  # the last session of winter time, closes at 21:00 UTC
    date(2021, 3, 15): "16:00",  # the first of summer time, closes at 20:00 UTC
    date(2021, 7, 2): "16:00",  # before the three days around 4 July
    date(2021, 11, 5): "16:00",
    date(2021, 11, 8): "16:00",
}
HOLIDAYS = (date(2020, 11, 26), date(2020, 12, 25), date(2021, 7, 5))


@dataclass(frozen=True)
class Frame:
    """A source that holds a frame."""

    frame: pl.DataFrame

    def bars(self):
        return self.frame

    def describe(self):
        return {"kind": "frame", "digest": "replaced"}


def hourly(first, last):
    times = pl.datetime_range(first, last, "1h", time_unit="us", time_zone="UTC", eager=True)
    return walk_bars(len(times)).with_columns(time=times)


def series(path, **options):
    return SessionSeries(str(path), **({"series": "NASDAQ100", "name": "nasdaq"} | options))


def written(tmp_path, days, values=None, symbol="NASDAQ100", name="daily.parquet"):
    values = [100.0 + k for k in range(len(days))] if values is None else values
    frame = pl.DataFrame({"date": days, "symbol": symbol, "close": values}, schema_overrides={"date": pl.Date})
    frame.write_parquet(tmp_path / name)
    return tmp_path / name


@pytest.fixture(scope="module")
def real(shared_data):
    path = shared_data / "macro" / "market_daily.parquet"
    if not path.exists():
        pytest.skip("macro/market_daily.parquet is not among the shared data")
    return path


def naive_join(bars, path):
    """What a join on dates does: the day's close beside every bar of that UTC date."""
    daily = pl.read_parquet(path).filter(symbol="NASDAQ100").select(day=pl.col("date").dt.date(), nasdaq="close")
    return bars.with_columns(day=pl.col("time").dt.date()).join(daily, on="day", how="left", maintain_order="left")


def known_too_early(joined, path):
    """Bars that end before the close of the session whose value they hold, by REAL_DAYS' own table of closes."""
    values = pl.read_parquet(path).filter(symbol="NASDAQ100")
    value_of = dict(zip(values["date"].dt.date(), values["close"], strict=True))
    early = 0
    for day, close in REAL_DAYS.items():
        final = datetime.combine(day, datetime.strptime(close, "%H:%M").time(), NEW_YORK).astimezone(UTC)
        early += joined.filter((pl.col("nasdaq") == value_of[day]) & (pl.col("time") < final)).height
    return early


def test_a_join_on_dates_leaks_around_holidays_and_clock_changes_and_this_one_does_not(real):
    bars = hourly(datetime(2020, 11, 20, tzinfo=UTC), datetime(2021, 11, 15, tzinfo=UTC))
    honest = series(real).join(bars)
    assert known_too_early(honest, real) == 0
    assert known_too_early(naive_join(bars, real), real) >= 18 * len(REAL_DAYS), "18 to 21 hours of each day"
    for day in HOLIDAYS:  # nothing new on a holiday: the value of the session before, growing older
        held = honest.filter(pl.col("time").dt.date() == day)["nasdaq"].unique().to_list()
        assert len(held) == 1
    fixed = honest.with_columns(  # one hour of the day the whole year: 20:00 UTC is right in summer, early in winter
        nasdaq=naive_join(bars, real)["nasdaq"].set(bars["time"].dt.hour() < 20, None)
    )
    assert known_too_early(fixed, real) > 0, "the negative control of a fixed hour"


def test_each_value_is_used_from_its_close_and_the_delay(real):
    bars = hourly(datetime(2020, 11, 20, tzinfo=UTC), datetime(2021, 11, 15, tzinfo=UTC))
    joined = series(real, delay_minutes=60).join(bars)
    values = dict(
        pl.read_parquet(real).filter(symbol="NASDAQ100").select(pl.col("date").dt.date(), "close").iter_rows()
    )
    for day, close in REAL_DAYS.items():
        final = datetime.combine(day, datetime.strptime(close, "%H:%M").time(), NEW_YORK).astimezone(UTC)
        first = joined.filter(nasdaq=values[day])
        assert first["time"].min() == final + timedelta(hours=1), day
        assert first["nasdaq_age"].to_list()[:3] == [0.0, 1.0, 2.0]


def test_the_naive_join_predicts_the_coming_hours_of_bitcoin_and_this_one_does_not(real, shared_data):
    """NASDAQ-100 and BTC move together within a day; a value from the day's end predicts the day only by look-ahead."""
    btc = pl.read_parquet(shared_data / "crypto" / "BTCUSDT_1h.parquet").with_columns(
        symbol=pl.lit("BTC"), time=pl.col("timestamp").dt.cast_time_unit("us") + pl.duration(hours=1)
    )
    zone = btc.schema["time"].time_zone
    btc = btc.with_columns(pl.col("time").dt.replace_time_zone("UTC") if zone is None else pl.col("time"))
    btc = btc.filter(pl.col("time").dt.year().is_between(2021, 2022))
    ahead = (pl.col("close").shift(-12) / pl.col("close")).log().alias("ahead")
    at_noon = (pl.col("time").dt.hour() == 12) & (pl.col("time").dt.weekday() <= 5)

    def correlation(joined, column):
        rows = joined.select(ahead, column, "time").filter(at_noon).drop_nulls()
        return float(np.corrcoef(rows["ahead"], rows[column])[0, 1])

    daily = pl.read_parquet(real).filter(symbol="NASDAQ100").sort("date")
    daily = daily.select(day=pl.col("date").dt.date(), change=pl.col("close").log().diff())
    naive = btc.with_columns(day=pl.col("time").dt.date()).join(daily, on="day", how="left", maintain_order="left")
    assert correlation(naive, "change") > 0.3
    assert abs(correlation(series(real).join(btc), "nasdaq_1s")) < 0.15


def test_changes_are_over_sessions_and_not_over_days(tmp_path):
    days = [date(2021, 7, 1), date(2021, 7, 2), date(2021, 7, 6), date(2021, 7, 7)]
    path = written(tmp_path, days, [100.0, 110.0, 121.0, 110.0])
    joined = series(path, sessions=[1, 2]).join(
        hourly(datetime(2021, 7, 5, tzinfo=UTC), datetime(2021, 7, 8, tzinfo=UTC))
    )
    by_time = {row["time"]: row for row in joined.rows(named=True)}
    holiday, later = by_time[datetime(2021, 7, 5, 12, tzinfo=UTC)], by_time[datetime(2021, 7, 6, 21, tzinfo=UTC)]
    assert holiday["nasdaq_1s"] == pytest.approx(np.log(1.1)), "on the holiday Friday's change stands"
    assert holiday["nasdaq_age"] == 12 + 24 * 3 - 21, "since Friday 21:00 UTC, an hour after the close"
    assert later["nasdaq_1s"] == pytest.approx(np.log(1.1)), "Friday to Tuesday is one session"
    assert later["nasdaq_2s"] == pytest.approx(np.log(1.21))
    night = hourly(datetime(2021, 7, 7, 22, tzinfo=UTC), datetime(2021, 7, 8, tzinfo=UTC))
    points = series(path, sessions=[1], change="points").join(night)
    assert points["nasdaq_1s"].unique().to_list() == [-11.0]


@given(st.integers(0, 2**31))
def test_the_join_is_the_loop_and_the_future_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        days = [date(2021, 3, 1) + timedelta(days=int(k)) for k in np.flatnonzero(rng.random(40) < 0.8)]
        days = [d for d in days if d.weekday() < 5]
        values = rng.uniform(50, 150, len(days)).tolist()
        settles = [None, "17:00"][rng.integers(2)]
        delay = float(rng.integers(0, 300))
        path = written(Path(folder), days, values)
        source = series(path, sessions=[1], delay_minutes=delay, settles=settles, max_age_days=4.0)
        bars = hourly(datetime(2021, 3, 5, tzinfo=UTC), datetime(2021, 4, 9, tzinfo=UTC))
        joined = source.join(bars)
        known = []
        for day, value in zip(days, values, strict=True):
            if day == date(2021, 4, 2):  # Good Friday: no session
                continue
            at = datetime(day.year, day.month, day.day, 17 if settles else 16, tzinfo=NEW_YORK).astimezone(UTC)
            known.append((at + timedelta(minutes=delay), value))
        for row in joined.rows(named=True):
            n_seen = bisect.bisect_right(known, row["time"], key=lambda one: one[0])
            at, value = known[n_seen - 1] if n_seen else (None, None)
            fresh = at is not None and row["time"] - at <= timedelta(days=4)
            assert row["nasdaq"] == (value if fresh else None)
            if fresh and n_seen > 1:
                assert row["nasdaq_1s"] == pytest.approx(np.log(value / known[n_seen - 2][1]))
        cut = bars["time"][int(rng.integers(100, bars.height))]
        day_of_cut = cut.astimezone(NEW_YORK).date()
        past = [(d, v) for d, v in zip(days, values, strict=True) if d <= day_of_cut]
        changed = written(Path(folder), [d for d, _ in past], [v for _, v in past], name="past.parquet")
        again = series(changed, sessions=[1], delay_minutes=delay, settles=settles, max_age_days=4.0)
        assert again.join(bars.filter(pl.col("time") <= cut)).equals(joined.filter(pl.col("time") <= cut))


def test_weekends_and_holidays_are_marked_and_nights_are_not():
    bars = hourly(datetime(2021, 7, 1, tzinfo=UTC), datetime(2021, 7, 7, 23, tzinfo=UTC))
    marked = SessionClock().join(bars)
    by_time = {row["time"]: row for row in marked.rows(named=True)}

    def at(day, hour):
        return by_time[datetime(2021, 7, day, hour, tzinfo=UTC)]

    assert at(2, 3)["weekend"] == 0.0, "the night before Friday's session"
    assert at(2, 19)["weekend_hours"] == 0.0, "within the session"
    assert at(3, 12)["weekend"] == at(5, 12)["weekend"] == 1.0, "Saturday, and Monday the holiday"
    assert at(5, 12)["weekend_hours"] == 2 * 24 + 16, "since Friday 20:00 UTC"
    assert at(6, 13)["weekend"] == 1.0, "until Tuesday's open at 13:30 UTC"
    assert at(6, 14)["weekend"] == 0.0


def test_bars_of_a_live_feed_get_the_same_columns_from_the_same_object(real):
    bars = hourly(datetime(2021, 3, 9, tzinfo=UTC), datetime(2021, 3, 17, tzinfo=UTC))  # over a change of the clock
    source = JoinedBars(Frame(bars), {"nasdaq": series(real), "clock": SessionClock()})
    stored, reported = source.bars(), source.describe()
    live = pl.concat([source.join(bars[k : k + 1]) for k in range(bars.height)])
    assert live.equals(stored)
    assert reported["point_in_time"]
    assert "60 minutes after the close of its XNYS session" in reported["known"][0]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"series": "DXX"}, r"no series 'DXX'; it has \['NASDAQ100'\]"),
        ({"value": "last"}, r"no \['last'\]"),
        ({"settles": "5pm"}, "settles='5pm' is no time of day"),
        ({"calendar": "XNYZ"}, "no calendar 'XNYZ'"),
        ({"change": "percent"}, "change must be one of"),
        ({"sessions": [0]}, "whole numbers from 1"),
        ({"name": "close"}, "no column of bars"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, options, match):
    path = written(tmp_path, [date(2021, 3, 1), date(2021, 3, 2)])
    with pytest.raises(DataError, match=match) as refused:
        series(path, **options).join(hourly(datetime(2021, 3, 1, tzinfo=UTC), datetime(2021, 3, 2, tzinfo=UTC)))
    assert "\n" not in str(refused.value)


def test_a_date_that_stands_twice_and_a_logarithm_of_nothing_are_refused(tmp_path):
    bars = hourly(datetime(2021, 3, 3, tzinfo=UTC), datetime(2021, 3, 4, tzinfo=UTC))
    twice = written(tmp_path, [date(2021, 3, 1), date(2021, 3, 1)])
    with pytest.raises(DataError, match="2 rows of one date, such as 2021-03-01"):
        series(twice).join(bars)
    below = written(tmp_path, [date(2021, 3, 1), date(2021, 3, 2)], [1.0, -1.0])
    with pytest.raises(DataError, match="use change: points"):
        series(below).join(bars)
