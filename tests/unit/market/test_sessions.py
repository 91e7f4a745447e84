"""Closes of exchanges by hand: summer time, half days, holidays, midnight."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.market.calendars import session_date, session_dates, session_of
from tradsys.market.sessions import close_of, closes, last_closed, time_zone


@pytest.mark.parametrize(
    ("calendar", "session", "close"),
    [
        ("XNYS", date(2020, 3, 6), datetime(2020, 3, 6, 21, tzinfo=UTC)),  # winter time, the last Friday of it
        ("XNYS", date(2020, 3, 9), datetime(2020, 3, 9, 20, tzinfo=UTC)),  # summer time, the next session
        ("XNYS", date(2018, 12, 24), datetime(2018, 12, 24, 18, tzinfo=UTC)),  # half day: 13:00 in New York
        ("XNYS", date(2020, 11, 27), datetime(2020, 11, 27, 18, tzinfo=UTC)),  # the day after Thanksgiving
        ("XASX", date(2019, 9, 16), datetime(2019, 9, 16, 6, tzinfo=UTC)),  # 16:00 in Sydney, southern winter
        ("XASX", date(2020, 2, 14), datetime(2020, 2, 14, 5, tzinfo=UTC)),  # and summer
        ("XASX", date(2019, 12, 24), datetime(2019, 12, 24, 3, 10, tzinfo=UTC)),  # half day: 14:10
        ("24/7", date(2022, 12, 31), datetime(2023, 1, 1, tzinfo=UTC)),
    ],
)
def test_closes_are_those_of_the_exchange(calendar, session, close):
    assert close_of(calendar, session) == close
    assert session_of(close) == session
    assert session_dates(np.array([close.replace(tzinfo=None)], "M8[us]")).item() == session


def test_a_year_of_the_nyse_has_its_sessions_and_no_holiday():
    table = closes("XNYS", date(2022, 1, 1), date(2022, 12, 31))
    assert table.schema == {"session": pl.Date(), "close": pl.Datetime("us", "UTC")}
    assert table.height == 251  # nyse.com: 365 days less 105 of weekends, less nine holidays on weekdays
    holidays = [(1, 17), (2, 21), (4, 15), (5, 30), (6, 20), (7, 4), (9, 5), (11, 24), (12, 26)]
    assert not set(table["session"]) & {date(2022, month, day) for month, day in holidays}
    assert table.select(session_date("close"))["close"].to_list() == table["session"].to_list()


@pytest.mark.parametrize("exchange", ["XNYS", "XASX", "XLON", "XTKS", "XHKG", "XBOM", "XTSE", "BVMF"])
def test_a_close_tells_its_session(exchange):
    table = closes(exchange, date(2018, 1, 1), date(2022, 12, 31))
    assert table.filter(session_date("close") != pl.col("session")).is_empty()
    assert table["close"].is_sorted()


def test_the_last_closed_session_changes_with_the_closing_bell():
    bell = datetime(2020, 3, 9, 20, tzinfo=UTC)
    assert last_closed("XNYS", bell - timedelta(microseconds=1)) == date(2020, 3, 6)
    assert last_closed("XNYS", bell) == date(2020, 3, 9)
    assert last_closed("XNYS", datetime(2020, 1, 1, 12, tzinfo=UTC)) == date(2019, 12, 31)
    assert last_closed("24/7", datetime(2020, 1, 1, tzinfo=UTC)) == date(2019, 12, 31)


def test_the_zone_is_the_exchange_s_own():
    assert (time_zone("XNYS"), time_zone("XASX")) == ("America/New_York", "Australia/Sydney")


def test_wrong_questions_are_one_clear_error():
    with pytest.raises(DataError, match=r"no calendar 'NASDAQQ'; names are"):
        closes("NASDAQQ", date(2020, 1, 1), date(2020, 2, 1))
    with pytest.raises(
        DataError, match="2022-06-20 is no session of XNYS; the one before is 2022-06-17, the next 2022-06-21"
    ):
        close_of("XNYS", date(2022, 6, 20))
    with pytest.raises(DataError, match=r"has sessions until .* needed until 2099-01-01"):
        closes("XNYS", date(2020, 1, 1), date(2099, 1, 1))
    with pytest.raises(DataError, match="the first date is not after the last"):
        closes("XNYS", date(2020, 2, 1), date(2020, 1, 1))
    with pytest.raises(DataError, match="close on another UTC date than their own"):
        closes("XNZE", date(2018, 1, 1), date(2022, 1, 1))
    with pytest.raises(DataError, match=r"cannot date XSAU from 1990: .*earliest date"):
        closes("XSAU", date(1990, 1, 1), date(2022, 1, 1))
