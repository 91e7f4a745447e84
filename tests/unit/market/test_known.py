"""Values beside prices, from the moment they were known on."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import walk_bars
from tradsys.core.errors import DataError
from tradsys.market.bars import content_digest
from tradsys.market.calendars import session_date
from tradsys.market.known import JoinedBars, KnownSource, join_known
from tradsys.market.sessions import closes


@dataclass(frozen=True)
class Bars:
    """A source that holds a frame."""

    frame: pl.DataFrame

    def bars(self):
        return self.frame

    def describe(self):
        return {"kind": "frame", "digest": "replaced", "synthetic": True}


def daily(first=date(2020, 1, 2), last=date(2020, 12, 31), symbols=("AAA", "BBB")):
    close = closes("XNYS", first, last)["close"]
    frames = [walk_bars(len(close), (symbol,)).with_columns(time=close) for symbol in symbols]
    return pl.concat(frames)


def monthly(n=14, first=date(2019, 11, 1)):
    """A CPI whose value is the number of its month, dated at the month's start as FRED does."""
    dates = [date(first.year + (first.month - 1 + k) // 12, (first.month - 1 + k) % 12 + 1, 1) for k in range(n)]
    return pl.DataFrame({"date": dates, "series": "CPI", "value": [d.year * 12.0 + d.month for d in dates]})


def cpi_of(tmp_path, frame, **options):
    frame.write_parquet(tmp_path / "fred.parquet")
    given = {"layout": "series", "columns": {"CPI": "cpi"}, "period": "month", "lag_days": 45} | options
    return KnownSource(str(tmp_path / "fred.parquet"), **given)


@given(st.integers(0, 2**31), st.booleans())
def test_the_join_is_the_loop(seed, by_symbol):
    rng = np.random.default_rng(seed)
    bars = daily(last=date(2020, 2, 14))
    n = 12
    start = datetime(2019, 12, 20, tzinfo=UTC)
    known = pl.DataFrame(
        {
            "available_at": [start + timedelta(hours=int(h)) for h in rng.choice(1500, n, replace=False)],
            "symbol": rng.choice(["AAA", "BBB", "ZZZ"], n),
            "pe": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
        },
        schema_overrides={"available_at": pl.Datetime("us", "UTC")},
    )
    max_age = timedelta(days=9) if rng.random() < 0.5 else None
    joined = join_known(bars, known, ["pe"], by_symbol=by_symbol, max_age=max_age)
    assert joined.drop("pe").equals(bars)
    for row in joined.rows(named=True):
        seen = [
            (k["available_at"], k["pe"])
            for k in known.rows(named=True)
            if k["available_at"] <= row["time"]
            and not np.isnan(k["pe"])
            and (k["symbol"] == row["symbol"] or not by_symbol)
        ]
        at, value = max(seen) if seen else (None, None)
        assert row["pe"] == (None if at is None or (max_age and row["time"] - at > max_age) else value)


def test_a_value_is_used_at_the_very_moment_it_is_known_and_not_before():
    bars = daily(last=date(2020, 1, 10), symbols=("AAA",))
    bell = bars["time"][3]
    for at, expected in ((bell, [None, None, None, 7.0]), (bell + timedelta(microseconds=1), [None] * 4)):
        known = pl.DataFrame({"available_at": pl.Series([at]).cast(pl.Datetime("us", "UTC")), "pe": [7.0]})
        assert join_known(bars, known, ["pe"], by_symbol=False)["pe"][:4].to_list() == expected


def test_a_month_is_known_45_days_after_it_is_over(tmp_path):
    source = cpi_of(tmp_path, monthly())
    frame = source.frame()
    assert frame.filter(cpi=2020 * 12 + 5)["available_at"].item() == datetime(2020, 7, 16, tzinfo=UTC)
    joined = JoinedBars(Bars(daily()), {"cpi": source}).bars()
    used = joined.with_columns(session=session_date()).filter(cpi=2020 * 12 + 5)["session"]
    assert (used.min(), used.max()) == (date(2020, 7, 16), date(2020, 8, 14)), "until June's is known, on 15 August"


def test_joining_by_reference_date_would_look_ahead(tmp_path):
    """The negative control: the vendor's own date puts May's inflation on the first of May."""
    bars = Bars(daily())
    honest = JoinedBars(bars, {"cpi": cpi_of(tmp_path, monthly())}).bars()
    naive = JoinedBars(bars, {"cpi": cpi_of(tmp_path, monthly(), period="day", lag_days=0)}).bars()

    def share_known_too_early(joined):
        month = (joined["time"].dt.year() * 12 + joined["time"].dt.month()).cast(pl.Float64)
        return float((joined["cpi"] >= month).mean())  # a month's value on a day of that month, or before it

    assert share_known_too_early(naive) > 0.95
    assert share_known_too_early(honest) == 0.0


@given(st.integers(5, 80))
def test_what_became_known_later_changes_nothing_before(at):
    bars = daily(last=date(2020, 6, 30), symbols=("AAA",))
    moments = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=4 * k, hours=k) for k in range(40)]
    known = pl.DataFrame(
        {"available_at": moments, "x": np.arange(40.0)}, schema_overrides={"available_at": pl.Datetime("us", "UTC")}
    )
    cut = bars["time"][at]
    past = join_known(
        bars.filter(pl.col("time") <= cut), known.filter(pl.col("available_at") <= cut), ["x"], by_symbol=False
    )
    assert past.equals(join_known(bars, known, ["x"], by_symbol=False).filter(pl.col("time") <= cut))


def test_an_old_value_is_no_longer_used(tmp_path):
    ended = monthly(4)  # the series breaks off after February, known on 15 April
    joined = JoinedBars(Bars(daily(symbols=("AAA",))), {"cpi": cpi_of(tmp_path, ended, max_age_days=100)}).bars()
    last = joined.with_columns(session=session_date()).drop_nulls("cpi")["session"].max()
    assert last == date(2020, 7, 23), "15 April and 100 days are 24 July 00:00"


def test_a_wide_file_by_symbol_with_its_own_moments(tmp_path):
    frame = pl.DataFrame(
        {
            "Ticker": ["AAA", "AAA", "BBB"],
            "available_at": [datetime(2020, 2, 3, 21, 30), datetime(2020, 5, 4, 12), datetime(2020, 3, 2, 12)],
            "EPS": [1.5, 2.5, 9.0],
        }
    ).with_columns(pl.col("available_at").dt.replace_time_zone("UTC"))
    frame.write_parquet(tmp_path / "eps.parquet")
    source = KnownSource(str(tmp_path / "eps.parquet"), "wide", {"EPS": "eps"})
    joined = JoinedBars(Bars(daily()), {"eps": source}).bars().with_columns(session=session_date())
    assert joined.filter(symbol="AAA", eps=1.5)["session"].min() == date(2020, 2, 4), (
        "it came after the bell of the 3rd"
    )
    assert joined.filter(symbol="AAA", eps=2.5)["session"].min() == date(2020, 5, 4)
    assert joined.filter(symbol="BBB")["eps"].drop_nulls().unique().to_list() == [9.0]
    reported = JoinedBars(Bars(daily()), {"eps": source}).describe()
    assert reported["known"] == ["eps from eps.parquet: known as filed"]


def test_a_snapshot_needs_the_flag_and_is_reported(tmp_path):
    pl.DataFrame({"Symbol": ["AAA"], "P/E": [12.0]}).write_csv(tmp_path / "now.csv")
    options = {"path": str(tmp_path / "now.csv"), "layout": "snapshot", "columns": {"P/E": "pe"}}
    with pytest.raises(DataError, match=r"now.csv is a snapshot without history.*allow_snapshot: true"):
        KnownSource(**options)
    joined = JoinedBars(Bars(daily()), {"pe": KnownSource(**options, allow_snapshot=True)})
    assert joined.bars().filter(symbol="AAA")["pe"].unique().to_list() == [12.0]
    assert joined.bars().filter(symbol="BBB")["pe"].null_count() == daily().filter(symbol="BBB").height
    reported = joined.describe()
    assert reported["point_in_time"] is False
    assert "NOT POINT IN TIME" in reported["known"][0]
    assert reported["not_point_in_time"] == reported["known"]


def test_the_digest_is_of_the_joined_content(tmp_path):
    bars = Bars(daily())
    plain = cpi_of(tmp_path, monthly())
    reported = JoinedBars(bars, {"cpi": plain}).describe()
    assert reported["digest"] == content_digest(JoinedBars(bars, {"cpi": plain}).bars())
    assert (reported["point_in_time"], reported["not_point_in_time"]) == (True, [])
    later = JoinedBars(bars, {"cpi": cpi_of(tmp_path, monthly(), lag_days=60)}).describe()
    assert later["digest"] != reported["digest"], "another lag is other data"
    revised = monthly().with_columns(value=pl.col("value") + (pl.col("date") == date(2020, 1, 1)).cast(pl.Float64))
    assert JoinedBars(bars, {"cpi": cpi_of(tmp_path, revised)}).describe()["digest"] != reported["digest"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "long"}, "layout 'long'"),
        ({"period": "fortnight"}, "period 'fortnight'"),
        ({"columns": {}}, "at least one column"),
        ({"columns": {"CPI": "close"}}, r"columns \['close'\] are named twice or are columns of bars"),
        ({"columns": {"CPI": "x", "PPI": "x"}}, r"columns \['x'\] are named twice"),
        ({"lag_days": -1}, "no value is available before its period ends"),
    ],
)
def test_fields_that_do_not_fit(tmp_path, options, words):
    with pytest.raises(DataError, match=words):
        cpi_of(tmp_path, monthly(), **options)


@pytest.mark.parametrize(
    ("frame", "options", "words"),
    [
        (monthly(), {"columns": {"PCE": "x"}}, r"no \['PCE'\] in layout 'series'; the file has \['CPI'\]"),
        (monthly(), {"lag_days": None}, "needs lag_days"),
        (pl.concat([monthly(), monthly(1)]), {}, "2 rows repeat a date of a series"),
        (monthly().drop("date"), {}, r"no \['date'\]"),
        (monthly().with_columns(date=pl.lit("soon")), {}, "have no known format; give date_format="),
    ],
)
def test_files_that_do_not_fit(tmp_path, frame, options, words):
    with pytest.raises(DataError, match=words):
        cpi_of(tmp_path, frame, **options).frame()


def test_moments_without_a_zone_are_refused(tmp_path):
    frame = pl.DataFrame({"available_at": [datetime(2020, 1, 1)], "EPS": [1.0]})
    frame.write_parquet(tmp_path / "eps.parquet")
    with pytest.raises(DataError, match="without a zone"):
        KnownSource(str(tmp_path / "eps.parquet"), "wide", {"EPS": "eps"}).frame()


def test_two_values_known_at_one_moment_are_refused():
    at = pl.Series([datetime(2020, 1, 3, tzinfo=UTC)] * 2).cast(pl.Datetime("us", "UTC"))
    with pytest.raises(DataError, match="2 rows of pe share their available_at with another row"):
        join_known(daily(), pl.DataFrame({"available_at": at, "pe": [1.0, 2.0]}), ["pe"], by_symbol=False)
    with pytest.raises(DataError, match=r"already in the bars \['volume'\]"):
        join_known(daily(), pl.DataFrame({"available_at": at, "volume": [1.0, 2.0]}), ["volume"], by_symbol=False)


def test_fred_s_inflation_is_never_used_before_its_release(shared_data):
    """Release dates from the Bureau of Labor Statistics' schedule: month -> day on which its CPI came out."""
    released = {
        date(2018, 12, 1): date(2019, 1, 11),
        date(2020, 3, 1): date(2020, 4, 10),
        date(2022, 6, 1): date(2022, 7, 13),
    }
    path = str(shared_data / "macro" / "fred.parquet")
    frame = KnownSource(path, "series", {"CPIAUCSL": "cpi"}, lag_days=45, period="month").frame()
    values = pl.read_parquet(path).filter(series="CPIAUCSL").with_columns(pl.col("date").cast(pl.Date))
    for month, day in released.items():
        value = values.filter(date=month)["value"].item()
        assert frame.filter(cpi=value)["available_at"].min().date() > day


def test_a_day_s_rate_is_never_used_before_the_next_business_day_s_release(shared_data):
    """The H.15 of a day comes out on the next day for which there are rates, by 16:15 in New York: 21:15 UTC."""
    path = str(shared_data / "macro" / "fred.parquet")
    dates = pl.read_parquet(path).filter(series="DGS10").sort("date")["date"].cast(pl.Date).to_list()
    available = KnownSource(path, "series", {"DGS10": "rate_10y"}, lag_days=4).frame()["available_at"].to_list()
    too_early = [
        (day, following, at)
        for day, following, at in zip(dates[:-1], dates[1:], available[:-1], strict=True)
        if at < datetime.combine(following, time(21, 15), UTC)
    ]
    assert too_early == []


@pytest.mark.parametrize(
    ("text", "options", "at", "value"),
    [
        ("date,V\n2024-01-01,.\n2024-01-02,3.95\n", {}, "2024-01-03 00:00", 3.95),
        ("observation_date,V\n2024-01-02,3.95\n", {}, "2024-01-03 00:00", 3.95),
        ("Date;V\n02.01.2024;3,95\n03.01.2024;4,5\n", {}, "2024-01-03 00:00", 3.95),
        ('date,V\n2024-01-02,"1,234.5"\n', {}, "2024-01-03 00:00", 1234.5),
        ("date,V\n2024-01-02,3.1 %\n", {}, "2024-01-03 00:00", 3.1),
        ("date,V\n20240102,3.1\n", {}, "2024-01-03 00:00", 3.1),
        ("date,V\n2024-01-02 00:00:00+09:00,33288.3\n", {}, "2024-01-02 15:00", 33288.3),
        ("date,V\n2024-01-02,33288.3\n", {"zone": "Asia/Tokyo"}, "2024-01-02 15:00", 33288.3),
        ("date,V\n2024-03-10,1.5\n", {"zone": "America/New_York"}, "2024-03-11 04:00", 1.5),
        ("date,V\n03/04/2024,1.5\n", {"date_format": "%d/%m/%Y"}, "2024-04-04 00:00", 1.5),
    ],
)
def test_known_series_are_read_as_bars_are(tmp_path, text, options, at, value):
    (tmp_path / "v.csv").write_text(text)
    frame = KnownSource(str(tmp_path / "v.csv"), "wide", {"V": "v"}, lag_days=0, **options).frame().drop_nulls()
    assert f"{frame['available_at'][0]:%Y-%m-%d %H:%M}" == at
    assert frame["v"][0] == value


def test_a_value_that_is_no_number_is_named(tmp_path):
    (tmp_path / "v.csv").write_text("date,V\n2024-01-02,high\n")
    with pytest.raises(DataError, match="V 'high' is no number"):
        KnownSource(str(tmp_path / "v.csv"), "wide", {"V": "v"}, lag_days=0).frame()


@pytest.mark.parametrize(
    "wrong",
    [
        {"lag_days": -1},
        {"lag_days": 1.5},
        {"max_age_days": 0},
        {"revised": "no"},
        {"zone": 9},
        {"columns": ["cpi"]},
        {"columns": {"CPI": 3}},
    ],
)
def test_a_known_file_refuses_values_of_another_kind_by_key(wrong):
    given = {"path": "cpi.csv", "layout": "series", "columns": {"CPI": "cpi"}} | wrong
    with pytest.raises(DataError, match=rf"known: cpi\.csv: {next(iter(wrong))}="):
        KnownSource(**given)


def test_joined_bars_refuse_what_is_no_source():
    with pytest.raises(DataError, match=r"set data\.source\.known\.NAME"):
        JoinedBars(None, ["cpi.csv"])
