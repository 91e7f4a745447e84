from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.core.clock import utc, utc64
from tradsys.core.errors import DataError

ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))


@given(moment=MOMENTS, zone=st.sampled_from(ZONES), offset=st.integers(-14 * 60, 14 * 60))
def test_one_moment_in_every_form_is_one_answer(moment, zone, offset):
    local, naive = moment.astimezone(ZoneInfo(zone)), moment.replace(tzinfo=None)
    forms = [
        moment, local, naive, moment.astimezone(timezone(timedelta(minutes=offset))),
        local.isoformat(), naive.isoformat(), moment.isoformat().replace("+00:00", "Z"),
        pd.Timestamp(local), pd.Timestamp(naive), np.datetime64(naive, "us"), np.datetime64(naive, "ns"),
    ]  # fmt: skip
    assert [utc(form) for form in forms] == [moment] * len(forms)
    assert {type(utc(form)) for form in forms} == {datetime}
    assert {utc(form).isoformat() for form in forms} == {moment.isoformat()}
    assert {utc64(form) for form in forms} == {np.datetime64(naive, "us")}
    assert utc64(local).dtype == np.dtype("datetime64[us]")


def test_a_date_is_its_midnight_and_digits_below_a_microsecond_are_cut():
    assert (
        utc(date(2024, 3, 1))
        == utc("2024-03-01")
        == utc(np.datetime64("2024-03-01"))
        == datetime(2024, 3, 1, tzinfo=UTC)
    )
    assert utc64(np.datetime64("2024-03-01T00:00:00.000000999", "ns")) == np.datetime64("2024-03-01", "us")


@pytest.mark.parametrize(
    "wrong",
    ["yesterday", "", "2024-13-01", np.datetime64("NaT"), pd.NaT, None, 1_700_000_000, 1.5, np.datetime64(10**15, "s")],
    ids=str,
)
def test_what_is_no_moment_is_refused_by_name(wrong):
    with pytest.raises(DataError, match=r"since: .* is no moment"):
        utc(wrong, "since")


def test_a_moment_beyond_the_calendar_is_refused():
    with pytest.raises(DataError, match="is no moment"):
        utc(datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))))
