from dataclasses import dataclass, field
from datetime import date, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.features.cross_section import RANK
from tradsys.features.feature_set import FeatureSet
from tradsys.features.market_factor import MarketBeta
from tradsys.features.momentum import Rsi
from tradsys.features.price import LogReturn, SmaDistance
from tradsys.market.calendars import session_date
from tradsys.market.synthetic_panel import SyntheticPanel
from tradsys.ops.daily.day_data import DailyBars, data_notes
from tradsys.research.pipeline.settings import synthetic_note

PANEL = SyntheticPanel(n_symbols=8, n_sessions=420, deaths=0.0, late=0.3, seed=4)
FEATURES = FeatureSet(
    [LogReturn(5), SmaDistance(50), Rsi(14), MarketBeta(60)],
    max_gap_minutes=None,
    market_symbol="MKT",
    ranks=["ret_5"],
)


@dataclass
class Frame:
    """A source that returns the frame it is given."""

    frame: pl.DataFrame
    reported: dict = field(default_factory=lambda: {"kind": "frame"})

    def bars(self):
        return self.frame

    def describe(self):
        return self.reported


def daily(frame: pl.DataFrame, **data) -> DailyBars:
    reported = {"source": Frame(frame), "calendar": "XNYS"} | data
    features = SimpleNamespace(reads_market=False)
    return DailyBars(SimpleNamespace(data=reported, max_gap=None, events=None, features=features))


@pytest.fixture(scope="module")
def holed():
    """The panel with one symbol that traded on every second session for a year."""
    bars = PANEL.bars().select("symbol", "time", "open", "high", "low", "close", "volume")
    odd = pl.int_range(pl.len()).over("symbol") % 2 == 1
    early = session_date() < date(2019, 6, 1)
    return bars.filter(~((pl.col("symbol") == "P0002") & odd & early))


@pytest.mark.parametrize("back", [0, 20])
def test_rows_of_the_window_are_those_of_all_bars(holed, back):
    day = daily(holed).of(date(2019, 8, 30))
    since = day.sessions_back(back)
    window = day.window(FEATURES.warmup + 1, since)
    assert window.height < day.bars.height
    small, whole = FEATURES.table(window), FEATURES.table(day.bars)
    rows = np.flatnonzero((day.bars["time"] >= since).to_numpy())
    mine = np.flatnonzero((window["time"] >= since).to_numpy())
    assert len(mine) == len(rows) == 9 * (back + 1)
    np.testing.assert_allclose(small.values[mine], whole.values[rows], rtol=2e-4, atol=1e-6)
    k = FEATURES.names.index(f"ret_5{RANK}")
    np.testing.assert_array_equal(small.values[mine, k], whole.values[rows, k])


def test_a_window_one_bar_too_short_would_be_seen(holed):
    day = daily(holed.filter(~pl.col("symbol").is_in(["P0002", "P0003"]))).of(date(2019, 8, 30))
    assert np.isfinite(FEATURES.table(day.window(FEATURES.warmup + 1)).values[:, 0]).any()
    with pytest.raises(DataError, match="needs 263 bars of warm-up but MKT has 263"):
        FEATURES.table(day.window(FEATURES.warmup))


def test_a_symbol_with_holes_takes_the_others_further_back(holed):
    day = daily(holed).of(date(2019, 8, 30))
    with_holes = day.window(200)["time"].min()
    without = daily(holed.filter(pl.col("symbol") != "P0002")).of(date(2019, 8, 30)).window(200)["time"].min()
    assert with_holes < without


def window_by_query(bars, n_bars, at):
    """The window by a query over each symbol's times."""
    before = pl.col("time") < at
    needed = (
        bars.group_by("symbol")
        .agg(
            first=pl.col("time").filter(~before).first(),
            start=pl.col("time").filter(before).tail(n_bars - 1).first(),
        )
        .filter(pl.col("first").is_not_null())
        .select(pl.min_horizontal("first", "start").min())
        .item()
    )
    return bars.clear() if needed is None else bars.filter(pl.col("time") >= needed)


@pytest.mark.parametrize("n_bars", [1, 2, 50, 100_000])
@pytest.mark.parametrize("back", [0, 3, 100_000])
def test_a_window_is_that_of_a_query_over_each_symbol(holed, n_bars, back):
    gone = holed.filter(
        (pl.col("symbol") != "P0003") | (pl.col("time") < pl.lit("2019-06-01").str.to_datetime(time_zone="UTC"))
    )
    day = daily(gone).of(date(2019, 8, 30))
    since = day.sessions_back(back)
    assert day.window(n_bars, since).equals(window_by_query(day.bars, n_bars, since))


def test_a_window_after_the_last_bar_is_empty(holed):
    day = daily(holed).of(date(2019, 8, 30))
    assert day.window(5, day.close + timedelta(days=1)).equals(day.bars.clear())


def test_nothing_later_than_the_close_is_known(holed):
    day = daily(holed).of(date(2019, 8, 30))
    assert day.bars["time"].max() == day.close
    assert day.today.height == 9
    prices, later = ("open", "high", "low", "close"), pl.col("time") > day.close
    shifted = holed.with_columns(pl.when(later).then(1.0).otherwise(pl.col(name)).alias(name) for name in prices)
    assert daily(shifted).of(date(2019, 8, 30)).digest == day.digest
    changed = holed.with_columns(volume=pl.when(pl.col("time") == day.close).then(1.0).otherwise(pl.col("volume")))
    assert daily(changed).of(date(2019, 8, 30)).digest != day.digest


def test_sessions_are_those_of_the_calendar(holed):
    bars = daily(holed)
    assert bars.range(date(2019, 8, 30), date(2019, 9, 4)) == [date(2019, 8, 30), date(2019, 9, 3), date(2019, 9, 4)]
    assert bars.count(date(2019, 8, 30), date(2019, 9, 4)) == 2  # the weekend and Labor Day are none
    assert bars.upcoming(date(2019, 8, 30)).date() == date(2019, 9, 3)
    assert bars.last_bar() == holed.select(session_date().max()).item()
    with pytest.raises(DataError, match="2019-09-02 is no session of XNYS; the one before is 2019-08-30, the next"):
        bars.session("2019-09-02")
    with pytest.raises(DataError, match="'soon' is no date"):
        bars.session("soon")
    with pytest.raises(DataError, match="swap them"):
        bars.range(date(2019, 9, 4), date(2019, 8, 30))
    with pytest.raises(DataError, match="no session from 2019-08-31 to 2019-09-01"):
        bars.range(date(2019, 8, 31), date(2019, 9, 1))


def test_a_date_before_the_data_is_one_clear_error(holed):
    with pytest.raises(DataError, match="no bar closed by 2017-01-03; the first is of 2018-01-02"):
        daily(holed).of(date(2017, 1, 3))


def test_data_without_a_calendar_cannot_be_run_daily(holed):
    with pytest.raises(DataError, match="name no calendar"):
        daily(holed, calendar=None)


def test_what_a_reader_must_know_of_the_data_is_said(holed):
    plain = {"source": Frame(holed)}
    assert data_notes(plain, plain["source"].describe()) == []
    assert synthetic_note(plain) is None
    assert "Survivors only" in data_notes({"survivors_only": True}, plain["source"].describe())[0]
    joined = Frame(holed, {"point_in_time": False, "not_point_in_time": ["pe from x.csv: a snapshot"]})
    assert data_notes({}, joined.describe()) == [
        "Not point in time: pe from x.csv: a snapshot. Figures of earlier dates that use these columns have look-ahead."
    ]
    assert synthetic_note({"source": PANEL}).startswith("synthetic panel")
