"""Shares of what is there, and joins that lose or multiply rows."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.core.errors import DataError
from tradsys.core.tables import FeatureTable
from tradsys.market.coverage import check_join, coverage


def table(n=100, n_symbols=4):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n * n_symbols, 4)).astype(np.float32)
    holes = np.array([0.0, 0.25, 0.5, 0.8])
    for k, share in enumerate(holes):
        values[: int(share * len(values)), k] = [np.nan, np.inf, -np.inf, np.nan][k]
    time = np.datetime64("2019-12-02T21:00", "us") + np.arange(n) * np.timedelta64(24, "h")
    return FeatureTable(
        symbol=np.repeat(np.arange(n_symbols, dtype=np.int32), n),
        time=np.tile(time, n_symbols),
        segment=np.repeat(np.arange(n_symbols, dtype=np.int32), n),
        values=values,
        names=("full", "three_quarters", "half", "fifth"),
        symbols=("A", "B", "C", "D"),
    )


def test_columns_stand_in_their_tiers():
    cov = coverage(table())
    assert cov.by_column["share"].to_list() == pytest.approx([1.0, 0.75, 0.5, 0.2])
    assert cov.by_column["tier"].to_list() == ["90 % or more", "70 to 90 %", "40 to 70 %", "below 40 %"]


@pytest.mark.parametrize(("share", "tier"), [(0.9, "90 % or more"), (0.7, "70 to 90 %"), (0.4, "40 to 70 %")])
def test_a_share_on_the_edge_stands_in_the_fuller_tier(share, tier):
    n = 1000
    x = np.where(np.arange(n) < round(share * n), 1.0, np.nan)
    frame = walk_bars(n).select("symbol", "time").with_columns(x=pl.Series(x))
    assert coverage(frame).by_column["tier"].item() == tier


def test_symbols_and_years_as_a_loop_counts_them():
    given = table()
    cov, finite = coverage(given), np.isfinite(given.values)
    years = given.time.astype("datetime64[Y]").astype(int) + 1970
    for row in cov.by_symbol.rows(named=True):
        part = finite[given.symbol == given.symbols.index(row["symbol"])]
        assert (row["n_rows"], row["share"]) == (len(part), pytest.approx(part.mean()))
        assert part.mean(axis=0)[given.names.index(row["worst"])] == part.mean(axis=0).min()
    for row in cov.by_year.rows(named=True):
        assert row["share"] == pytest.approx(finite[years == row["year"]].mean())
    for row in cov.by_column_year.rows(named=True):
        part = finite[years == row["year"], given.names.index(row["column"])]
        assert row["share"] == pytest.approx(part.mean())
    assert cov.by_column_year.height == 8


def test_a_frame_says_the_same_as_its_table():
    given = table()
    frame = pl.DataFrame({"symbol": np.array(given.symbols)[given.symbol], "time": given.time}).with_columns(
        pl.col("time").dt.replace_time_zone("UTC"),
        *(pl.Series(name, given.values[:, k]) for k, name in enumerate(given.names)),
    )
    ours, theirs = coverage(frame), coverage(given)
    for name in ("by_column", "by_symbol", "by_year", "by_column_year"):
        assert getattr(ours, name).to_dicts() == getattr(theirs, name).to_dicts()


def test_nothing_to_cover():
    with pytest.raises(DataError, match="0 rows and 4 columns"):
        coverage(table(0))


def test_a_join_that_loses_rows_stops_with_the_counts():
    before = walk_bars(3000, ("AAA", "BBB"))
    after = before.filter(pl.int_range(pl.len()) % 4 == 0)
    with pytest.raises(DataError, match="1,500 of 6,000 rows survive the join on fundamentals"):
        check_join(before, after, "fundamentals")
    with pytest.raises(DataError, match="6,001 rows result from 6,000 in the join on macro"):
        check_join(before, pl.concat([before, before[[5]]]), "macro")
    exchanged = pl.concat([before[1:], before[[7]]])  # as many rows, but not the same
    with pytest.raises(DataError, match="5,999 of 6,000 rows survive"):
        check_join(before, exchanged, "macro")
    assert check_join(before, before.reverse(), "macro").equals(before.reverse())


def test_a_wrong_inner_join_of_real_shape_is_caught():
    """The predecessors' defect: an inner join on fundamentals keeps only names and quarters that have them."""
    bars = walk_bars(100, ("AAA", "BBB", "CCC"), minutes=1440)
    pe = pl.DataFrame({"symbol": ["AAA", "AAA"], "time": bars["time"][[3, 9]], "pe": [1.0, 2.0]})
    with pytest.raises(DataError, match="2 of 300 rows survive the join on pe"):
        check_join(bars, bars.join(pe, on=["symbol", "time"]), "pe")
    twice = pl.DataFrame({"symbol": ["AAA", "AAA"], "year": [datetime(2020, 1, 1).year] * 2, "pe": [1.0, 2.0]})
    multiplied = bars.with_columns(year=pl.col("time").dt.year()).join(twice, on=["symbol", "year"], how="left")
    with pytest.raises(DataError, match="400 rows result from 300"):
        check_join(bars, multiplied, "pe")
