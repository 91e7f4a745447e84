"""Age since listing as a class: by hand, the same bar by bar, never from what comes later."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tests.conftest import walk_bars
from tests.unit.market.macro.test_coins import Frame
from tradsys.core.errors import DataError
from tradsys.market.macro.listing import ListingAge

DAYS = 24
START = datetime(2020, 1, 1, 1, tzinfo=UTC)


def late(bars, **days):
    """The bars without those of a symbol's first days."""
    for symbol, n in days.items():
        bars = bars.filter((pl.col("symbol") != symbol) | (pl.col("time") >= START + timedelta(days=n)))
    return bars


@pytest.fixture(scope="module")
def store():
    """AAA is there from the first bar, BBB from its second day, CCC and DDD are seen to be listed."""
    return late(walk_bars(40 * DAYS, ("AAA", "BBB", "CCC", "DDD")), BBB=1, CCC=5, DDD=30)


def age(*frames, **settings):
    sources = {f"s{k}": Frame(frame) for k, frame in enumerate(frames)}
    return ListingAge(sources, **{"first_days": 3, "classes": 4} | settings)


def test_the_class_is_the_loop(store):
    """Bounds at 3, 6 and 12 days; of AAA and BBB nobody knows more than that they are at least so old."""
    joined = age(store).join(store)
    assert joined.select(store.columns).equals(store)
    first = {"AAA": 0, "BBB": 1, "CCC": 5, "DDD": 30}
    for row in joined.rows(named=True):
        days = (row["time"] - START) / timedelta(days=1) - first[row["symbol"]]
        code = 1 + sum(days >= bound for bound in (3, 6, 12))
        expected = code if row["symbol"] in ("CCC", "DDD") or code == 4 else 0
        assert row["age_class"] == expected, row
    assert set(joined.filter(symbol="CCC")["age_class"]) == {1, 2, 3, 4}


def test_what_comes_later_changes_nothing_before_and_a_class_of_the_life_would(store):
    def peeking(bars):
        """The negative control: how long a name is there in all, which nobody knows before it ends."""
        span = (pl.col("time").max() - pl.col("time").min()).dt.total_days().over("symbol")
        return bars.with_columns(age_class=span.cast(pl.Float64))

    cut = START + timedelta(days=20)
    early = store.filter(pl.col("time") <= cut)
    for join, causal in ((lambda bars: age(bars).join(bars), True), (peeking, False)):
        assert join(early).equals(join(store).filter(pl.col("time") <= cut)) is causal


def test_bar_by_bar_is_the_batch(store):
    columns = age(store)
    batch = columns.join(store)
    for moment in store["time"].unique().sort()[::97]:
        newest = store.filter(pl.col("time").is_between(moment - timedelta(hours=5), moment))
        assert columns.join(newest).equals(batch.filter(pl.col("time").is_between(moment - timedelta(hours=5), moment)))


def test_a_name_of_several_sources_counts_from_its_earliest_bar_and_a_stranger_has_no_age(store):
    universe = walk_bars(20 * DAYS, ("CCC", "EEE")).with_columns(pl.col("time") + timedelta(days=20))
    bars = pl.concat([universe, walk_bars(10, ("ZZZ",))]).sort("symbol", "time")
    joined = age(store, universe).join(bars)
    assert set(joined.filter(symbol="CCC")["age_class"]) == {4.0}  # seen in the other source, 15 days before
    assert joined.filter(symbol="EEE")["age_class"].to_list() == [0.0] * 12 * DAYS + [4.0] * 8 * DAYS
    assert set(joined.filter(symbol="ZZZ")["age_class"]) == {0.0}


def test_no_class_before_the_first_known_bar(store):
    bars = walk_bars(40 * DAYS, ("DDD",))
    joined = age(store).join(bars)
    assert set(joined.filter(pl.col("time") < START + timedelta(days=30))["age_class"]) == {0.0}


@pytest.mark.parametrize("settings", [{"first_days": 0}, {"classes": 1}])
def test_impossible_classes_are_named(settings, store):
    with pytest.raises(ValueError, match=next(iter(settings))):
        age(store, **settings)


def test_a_column_that_is_there_is_refused(store):
    with pytest.raises(DataError, match="age_class"):
        age(store).join(age(store).join(store))
