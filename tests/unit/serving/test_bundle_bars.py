from datetime import timedelta

import polars as pl
import pytest

from tests.small_bundle import hourly_bars, logistic_bundle
from tradsys.core.errors import DataError


@pytest.fixture
def bundle(tmp_path):
    return logistic_bundle(tmp_path / "bundle", bar_minutes=60.0)


def quarters_after(bars: pl.DataFrame, n_hours: int) -> pl.DataFrame:
    """Bars of one symbol whose steps are quarters of an hour after the first n_hours."""
    late = pl.max_horizontal(pl.int_range(pl.len()) - n_hours, 0)
    return bars.with_columns(pl.col("time") - late * timedelta(minutes=45))


def test_bars_that_turn_shorter_are_refused_although_most_are_hours(bundle):
    bars = quarters_after(hourly_bars(320, ("A",)), 300)
    with pytest.raises(DataError, match=r"A has bars shorter than 60 minutes, .* to 2024-01-13 13:30"):
        bundle.predict(bars)
    assert bundle.predict(bars[:301]).height


def test_one_early_close_and_a_gap_are_no_other_length(bundle):
    bars = hourly_bars(320, ("A", "B"))
    early = (pl.col("symbol") == "A") & (pl.int_range(pl.len()) == 290)
    moved = bars.with_columns(time=pl.when(early).then(pl.col("time") - timedelta(minutes=30)).otherwise("time"))
    assert bundle.predict(moved.filter(pl.int_range(pl.len()) != 310)).height


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b.to_pandas(), r"a pandas\.DataFrame was given; bars are a polars DataFrame"),
        (lambda b: b.lazy(), r"a polars\.LazyFrame was given; bars are a polars DataFrame"),
        (lambda b: b.reverse(), "bars of 320 not later than the one before; bars are sorted"),
        (lambda b: pl.concat([b, b.tail(1)]), "1 bar of 321 not later than the one before"),
        (lambda b: b.with_columns(pl.col("close").cast(pl.String)), "features: close is String; columns that features"),
    ],
)
def test_what_are_no_bars_is_refused_in_one_line(bundle, change, says):
    with pytest.raises(DataError, match=says):
        bundle.predict(change(hourly_bars(320, ("A",))))


@pytest.mark.parametrize("column", ["symbol", "time"])
def test_a_bar_without_symbol_or_time_is_refused(bundle, column):
    hit = pl.int_range(pl.len()) == 60
    bars = hourly_bars(320, ("A", "B")).with_columns(pl.when(~hit).then(pl.col(column)).alias(column))
    with pytest.raises(DataError, match="unsorted or with a time twice"):
        bundle.predict(bars)
