"""Daily data as the commands in conf/data bring them in: run word for word, on a few names of the real files."""

import re
import shlex
from datetime import UTC, date, datetime

import polars as pl
import pytest

from tests.conftest import REPO
from tests.integration.conftest import inside
from tradsys.config.compose import build, compose
from tradsys.core.errors import DataError
from tradsys.fetch import work as fetch
from tradsys.market.known import JoinedBars

NAMES = ["AAPL", "AMCR", "KDP", "MSFT", "GEHC"]
FILES = {
    "sp500_daily.parquet": ("equities", NAMES),
    "market_daily.parquet": ("macro", ["SPY", "VIX"]),
    "asx200_daily_2019-09_2020-02.parquet": ("equities", ["A2M.AX", "BHP.AX", "CUV.AX"]),
    "asx_daily.parquet": ("equities", ["BHP.AX", "^AXJO"]),
    "binance_universe_1h.parquet": ("crypto", ["BTCUSDT", "LUNAUSDT", "FTTUSDT"]),
}


def commands(name):
    """The arguments of each `python -m tradsys.fetch` in the header of conf/data/NAME.yaml."""
    text = (REPO / "conf" / "data" / f"{name}.yaml").read_text()
    comment = re.sub(r"\\\n#\s*", " ", "\n".join(line for line in text.splitlines() if line.startswith("#")))
    return [shlex.split(line)[3:] for line in re.findall(r"python -m tradsys\.fetch.*", comment)]


@pytest.fixture
def place(shared_data, tmp_path):
    """A folder with the first names of each vendor's file."""
    for file, (folder, names) in FILES.items():
        rows = pl.read_parquet(shared_data / folder / file)
        rows.filter(pl.col("symbol").is_in(names)).write_parquet(tmp_path / file)
    known = tmp_path / "data" / "known"
    known.mkdir(parents=True)
    for file in ("macro/fred.parquet", "fundamentals/sp500_constituents_financials.csv"):
        (known / file.split("/")[1]).write_bytes((shared_data / file).read_bytes())
    return tmp_path


def source(*overrides):
    return build(compose("train", list(overrides)))["data"]["source"]


def bring_in(name):
    found = commands(name)
    assert found, f"conf/data/{name}.yaml says how its data come in"
    for argv in found:
        fetch(argv)


def test_us_names_stand_at_the_close_of_new_york(place):
    with inside(place):
        bring_in("us_daily")
        bars = source("data=us_daily").bars()
    assert bars["symbol"].unique().sort().to_list() == ["AAPL", "AMCR", "GEHC", "KDP", "KDP.2", "MSFT", "SPY"]
    aapl, spy = bars.filter(symbol="AAPL"), bars.filter(symbol="SPY")
    assert aapl["time"].to_list() == spy["time"].to_list(), "the benchmark has the members' sessions, no others"
    assert (aapl["time"][0], aapl["time"][-1]) == (
        datetime(2018, 1, 2, 21, tzinfo=UTC),
        datetime(2022, 12, 30, 21, tzinfo=UTC),
    )


def test_the_panel_joins_what_was_known_and_a_snapshot_only_when_allowed(place):
    with inside(place):
        bring_in("us_daily")
        panel = source("data=us_panel")
        bars, reported = panel.bars(), panel.describe()
        with pytest.raises(DataError, match=r"snapshot without history.*allow_snapshot: true"):
            source("data=us_panel_snapshot")
        flagged = source("data=us_panel_snapshot", "data.allow_snapshot=true")
        assert isinstance(flagged, JoinedBars)
        assert flagged.describe()["point_in_time"] is False
        pe = flagged.bars().filter(symbol="AAPL")["pe"]
    assert pe.n_unique() == 1
    assert reported["point_in_time"] is True
    assert bars.columns[7:] == ["rate_10y", "rate_2y", "yield_curve", "cpi", "unemployment"]
    assert bars.null_count().sum_horizontal().item() == 0
    # the unemployment of April 2020, 14.8 %, was published on 8 May; here it is used from 15 June on
    jump = bars.filter(pl.col("unemployment") > 14, symbol="AAPL")["time"].min()
    assert jump == datetime(2020, 6, 15, 20, tzinfo=UTC)


def test_asx_names_stand_at_the_close_of_sydney(place):
    with inside(place):
        bring_in("asx_daily")
        bars = source("data=asx_daily").bars()
    assert bars["symbol"].unique().sort().to_list() == ["A2M.AX", "BHP.AX", "CUV.AX", "^AXJO"]
    assert bars["time"].n_unique() == 106
    assert bars.filter(pl.col("time").dt.date() == date(2019, 12, 24))["time"].dt.hour().unique().to_list() == [3]


def test_coins_are_days_with_the_dead_among_them(place):
    with inside(place):
        bring_in("coins_daily")
        bars = source("data=coins_daily").bars()
    lasts = dict(bars.group_by("symbol").agg(pl.col("time").max()).iter_rows())
    assert lasts == {
        "BTCUSDT": datetime(2023, 1, 1, tzinfo=UTC),
        "FTTUSDT": datetime(2022, 11, 16, tzinfo=UTC),
        "LUNAUSDT": datetime(2022, 5, 14, tzinfo=UTC),
        "LUNAUSDT.2": datetime(2023, 1, 1, tzinfo=UTC),
    }
