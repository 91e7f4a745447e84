"""Local stamps over a change of clocks: every bar is read at its end or refused, whoever's bars lie beside it."""

from datetime import UTC, datetime, timedelta
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vendor_forms.forms import VALUES, csv, frame_bytes, random_bars
from tradsys.core.errors import DataError
from tradsys.market.sources.files import read
from tradsys.market.sources.sniff import FormKeys

NOW = datetime(2026, 6, 1, tzinfo=UTC)
# each with a day whose UTC midnight lies before a change of its clocks; Lord Howe's are set by half an hour
CHANGES = {
    "America/New_York": (datetime(2024, 11, 2), datetime(2024, 3, 9)),
    "Europe/Berlin": (datetime(2024, 10, 26), datetime(2024, 3, 30)),
    "Australia/Sydney": (datetime(2024, 4, 6), datetime(2024, 10, 5)),
    "Australia/Lord_Howe": (datetime(2024, 4, 6), datetime(2024, 10, 5)),
}
ORDERS = ("by symbol", "by time", "newest first", "shuffled", "one row twice", "rows missing")


def panel(symbols, minutes, first, seed):
    """Bars of several symbols over two days, `time` their open in UTC; no two opens are alike."""
    parts = [
        random_bars(2880 // minutes, seed + k, minutes, first.replace(tzinfo=UTC)).with_columns(
            symbol=pl.lit(name), open=pl.col("open") + pl.int_range(pl.len()) * 1e-6 + k * 1e-9
        )
        for k, name in enumerate(symbols)
    ]
    return pl.concat(parts).with_columns(high=pl.max_horizontal("high", "open"), low=pl.min_horizontal("low", "open"))


def ordered(rows, order, random):
    if order == "by time":
        return rows.sort("time", "symbol")
    if order == "newest first":
        return rows.sort("time", "symbol", descending=True)
    places = list(range(rows.height))
    if order == "shuffled":
        random.shuffle(places)
    elif order == "one row twice":
        places.append(random.choice(places))
    elif order == "rows missing":
        places = [k for k in places if random.random() > 0.3]
    return rows[places]


def put(folder, rows, zone, kind):
    """The rows with naive stamps of the zone's clock."""
    local = rows.with_columns(pl.col("time").dt.convert_time_zone(zone).dt.replace_time_zone(None))
    if kind == "parquet":
        path = folder / "panel.parquet"
        path.write_bytes(frame_bytes(local, "parquet"))
    else:
        path = folder / "panel.csv"
        stamps = local["time"].dt.strftime("%Y-%m-%d %H:%M").to_list()
        lines = [[r["symbol"], s, *(repr(r[v]) for v in VALUES)] for s, r in zip(stamps, local.to_dicts(), strict=True)]
        path.write_bytes(csv(lines, "Symbol,Date,Open,High,Low,Close,Volume"))
    return path


def check(reader, folder, zone, season, minutes, n, order, kind, seed):
    bars = panel(["AB", "CD", "EF"][:n], minutes, CHANGES[zone][season], seed)
    rows = ordered(bars, order, Random(seed))
    try:
        got = reader(
            put(folder, rows, zone, kind), "plain", bar_minutes=minutes, now=NOW, keys=FormKeys(zone=zone)
        ).bars
    except DataError:
        return None
    ends = {row["open"]: row["time"] + timedelta(minutes=minutes) for row in bars.iter_rows(named=True)}
    assert all(row["time"] >= ends[row["open"]] for row in got.iter_rows(named=True))
    assert got.height == rows.height
    return got


@given(
    zone=st.sampled_from(sorted(CHANGES)),
    season=st.sampled_from([0, 1]),
    minutes=st.sampled_from([5, 15, 30, 60]),
    n=st.integers(1, 3),
    order=st.sampled_from(ORDERS),
    kind=st.sampled_from(["csv", "parquet"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_no_bar_is_early_over_a_change_of_clocks(tmp_path_factory, zone, season, minutes, n, order, kind, seed):
    check(read, tmp_path_factory.mktemp("clocks"), zone, season, minutes, n, order, kind, seed)


@pytest.mark.parametrize("zone", sorted(CHANGES))
@pytest.mark.parametrize("order", ORDERS[:3])
@pytest.mark.parametrize("minutes", [15, 60])
def test_a_table_of_many_symbols_is_read_over_the_hour_that_happens_twice(tmp_path, zone, order, minutes):
    """Both passes are there in file order: nothing is refused, and every bar has its own end."""
    if minutes == 60 and zone == "Australia/Lord_Howe":
        pytest.skip("hours of a clock that is set by half of one are another length")
    got = check(read, tmp_path, zone, 0, minutes, 3, order, "csv", 1)
    assert got is not None
    assert got.height == 3 * 2880 // minutes
    steps = got.select(pl.col("time").diff().over("symbol")).to_series().drop_nulls().unique().to_list()
    assert steps == [timedelta(minutes=minutes)]


def test_one_pass_of_two_symbols_is_not_both_passes_of_one(tmp_path):
    """Neither row tells which of the two hours it is; taken together they looked like one symbol's two."""
    bars = panel(["AB", "CD"], 60, datetime(2024, 11, 2), 1)
    local = pl.col("time").dt.convert_time_zone("America/New_York")
    second = (local.dt.hour() == 1) & (local.dt.dst_offset() == timedelta(0)) & (local.dt.day() == 3)
    path = put(tmp_path, bars.filter(~second), "America/New_York", "csv")
    with pytest.raises(DataError, match="2 x unreadable_value"):
        read(path, "plain", now=NOW, keys=FormKeys(zone="America/New_York"))


def test_a_reader_that_takes_first_passes_fails_the_property(tmp_path, monkeypatch):
    """Negative control."""

    def first_pass(naive, zone, series=None):
        aware = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        return aware.dt.convert_time_zone("UTC")

    monkeypatch.setattr("tradsys.market.sources.stamps.times.localised", first_pass)
    zone = "America/New_York"
    bars = panel(["AB"], 60, CHANGES[zone][0], 1)
    local = pl.col("time").dt.convert_time_zone(zone)
    second = (local.dt.hour() == 1) & (local.dt.dst_offset() == timedelta(0)) & (local.dt.day() == 3)
    first = (local.dt.hour() == 1) & (local.dt.dst_offset() > timedelta(0)) & (local.dt.day() == 3)
    assert bars.filter(first).height == bars.filter(second).height == 1
    path = put(tmp_path, bars.filter(~first), zone, "csv")
    got = read(path, "plain", now=NOW, keys=FormKeys(zone=zone)).bars
    true = bars.filter(second).row(0, named=True)
    assert got.filter(pl.col("open") == true["open"])["time"][0] < true["time"] + timedelta(hours=1)
