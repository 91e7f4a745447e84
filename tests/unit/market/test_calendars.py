from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.market.calendars import days_in_a_year, periods_per_year, sessions_per_year
from tradsys.market.sessions import closes


def bars_at(times, symbol="AAA"):
    times = pl.Series(times, dtype=pl.Datetime("us", "UTC")).sort()
    one = pl.Series([1.0] * len(times))
    return pl.DataFrame({"symbol": [symbol] * len(times), "time": times, **dict.fromkeys(("open", "close"), one)})


def every(minutes, days, start=datetime(2021, 1, 1, tzinfo=UTC)):
    n = int(days * 1440 / minutes)
    return [start + timedelta(minutes=minutes * (k + 1)) for k in range(n)]


def weekdays(n_days, start=date(2021, 1, 4)):
    return [d for d in (start + timedelta(days=k) for k in range(n_days)) if d.weekday() < 5]


def midnight(day):
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@pytest.mark.parametrize(("minutes", "expected"), [(60, 8760), (15, 35040), (1440, 365), (240, 2190)])
def test_markets_that_never_close_have_365_days(minutes, expected):
    assert periods_per_year(bars_at(every(minutes, 60))) == pytest.approx(expected)


def test_outages_do_not_change_the_year():
    times = [t for t in every(60, 90) if not (t.month == 2 and t.day == 9)]
    assert periods_per_year(bars_at(times)) == pytest.approx(8760)


def test_less_than_a_year_of_weekdays_counts_252_whether_stamped_midnight_or_close():
    closes = [midnight(d) + timedelta(days=1) for d in weekdays(200)]
    assert periods_per_year(bars_at(closes)) == pytest.approx(252)
    assert periods_per_year(bars_at([t - timedelta(hours=3) for t in closes])) == pytest.approx(252)


def test_session_hours_count_as_bars_of_the_session():
    times = [
        midnight(d) + timedelta(hours=14, minutes=30) + timedelta(hours=h + 1) for d in weekdays(60) for h in range(7)
    ]
    assert periods_per_year(bars_at(times)) == pytest.approx(7 * 252)


def test_a_session_across_utc_midnight_counts_the_same():
    times = [midnight(d) - timedelta(hours=1) + timedelta(hours=h + 1) for d in weekdays(60) for h in range(6)]
    assert periods_per_year(bars_at(times)) == pytest.approx(6 * 252)


def test_foreign_exchange_trades_24_hours_on_five_days():
    first = datetime(2021, 1, 3, 22, tzinfo=UTC)
    times = [first + timedelta(days=7 * w, hours=h + 1) for w in range(8) for h in range(120)]
    assert periods_per_year(bars_at(times)) == pytest.approx(24 * 252)


def test_weekly_and_monthly_bars():
    weekly = [datetime(2020, 1, 4, tzinfo=UTC) + timedelta(days=7 * k) for k in range(100)]
    monthly = [datetime(2020 + k // 12, k % 12 + 1, 1, tzinfo=UTC) for k in range(48)]
    assert periods_per_year(bars_at(weekly)) == pytest.approx(52.14, abs=0.01)
    assert periods_per_year(bars_at(monthly)) == pytest.approx(12, abs=0.02)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (every(60, 3), 8760),  # three days of hours, no weekend in sight: round the clock
        (every(60, 8), 8760),
        ([midnight(d) + timedelta(days=1) for d in weekdays(9)], 252),
        ([midnight(d) + timedelta(hours=15 + h) for d in weekdays(5) for h in range(7)], 1764),
    ],
)
def test_short_spans_still_give_the_right_year(times, expected):
    assert periods_per_year(bars_at(times)) == pytest.approx(expected)


def test_one_dead_symbol_does_not_bend_a_panel():
    panel = pl.concat([bars_at(every(60, 60), s) for s in ("A", "B", "C")] + [bars_at(every(60, 3), "D")])
    assert periods_per_year(panel) == pytest.approx(8760)


def test_one_bar_has_no_calendar():
    with pytest.raises(DataError, match="needs two"):
        periods_per_year(bars_at(every(60, 1)[:1]))


# counted from exchange_calendars by hand: sessions of 2005 to 2024 over 20; CME futures trade through most holidays
@pytest.mark.parametrize(
    ("calendar", "expected"), [("XNYS", 251.65), ("XTKS", 244.85), ("XASX", 253.0), ("24/7", 365.0), ("24/5", 260.9)]
)
def test_an_exchange_holds_its_own_number_of_sessions_a_year(calendar, expected):
    assert sessions_per_year(calendar) == pytest.approx(expected, abs=0.05)


def test_a_calendar_that_begins_late_counts_its_own_whole_years():
    assert sessions_per_year("XSAU") == pytest.approx(248.3, abs=1.5)
    with pytest.raises(DataError, match="no calendar 'NOPE'"):
        sessions_per_year("NOPE")


@pytest.mark.parametrize("calendar", ["XNYS", "XTKS", "XASX"])
@pytest.mark.parametrize("hole", [False, True])
def test_sessions_of_years_are_counted_with_and_without_the_calendar(calendar, hole):
    time = closes(calendar, date(2015, 1, 1), date(2022, 12, 31))["close"]
    if hole:
        time = time.filter((time < datetime(2018, 2, 1, tzinfo=UTC)) | (time > datetime(2018, 12, 28, tzinfo=UTC)))
    assert days_in_a_year(time, calendar) == sessions_per_year(calendar)
    assert days_in_a_year(time) == pytest.approx(sessions_per_year(calendar), abs=1.2)  # their own years, not the mean


def test_hourly_sessions_follow_the_calendar_and_a_coin_does_not():
    times = [midnight(d) + timedelta(hours=14, minutes=30 + 60 * (h + 1)) for d in weekdays(60) for h in range(7)]
    assert periods_per_year(bars_at(times), "XTKS") == pytest.approx(7 * 244.85)
    assert periods_per_year(bars_at(every(60, 60)), "XNYS") == pytest.approx(8760)
    days = bars_at([midnight(d) + timedelta(hours=6) for d in weekdays(9)])
    assert periods_per_year(days, "XTKS") == pytest.approx(244.85)


def test_the_order_of_rows_does_not_change_the_year():
    one, other = bars_at(every(60, 60), "AAA"), bars_at(every(60, 45), "BBB")
    ordered = pl.concat([one, other])
    assert periods_per_year(ordered.sort("time", "symbol")) == periods_per_year(ordered) == pytest.approx(8760)
