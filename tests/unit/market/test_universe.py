"""Members by what each bar's own past shows."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import walk_bars
from tests.unit.market.macro.test_coins import Frame
from tradsys.core.errors import DataError, TradsysError
from tradsys.labels.events import ClockEvents
from tradsys.market.bars import content_digest
from tradsys.market.universe import Members, PooledBars, decided_span, market_span_note, without_reference


def slow(members, bars):
    """Row by row, as one would by hand."""
    mask = []
    for symbol in bars["symbol"].unique(maintain_order=True):
        rows = bars.filter(symbol=symbol)
        close, volume = rows["close"].to_numpy(), rows["volume"].to_numpy()
        for t in range(rows.height):
            n = members.dollar_volume_bars
            traded = (close * volume)[max(0, t - n + 1) : t + 1]
            mask.append(
                symbol not in members.exclude
                and t + 1 >= members.min_bars
                and (members.min_price is None or close[t] >= members.min_price)
                and (
                    members.min_dollar_volume is None
                    or (len(traded) == n and traded.mean() >= members.min_dollar_volume)
                )
            )
    return np.array(mask)


@pytest.mark.parametrize(
    "members",
    [
        Members(),
        Members(exclude=["BBB", None]),
        Members(min_price=100.1),
        Members(min_dollar_volume=2300.0, dollar_volume_bars=5),
        Members(exclude=["AAA"], min_price=99.0, min_dollar_volume=2000.0, min_bars=9),
    ],
)
def test_as_a_loop_over_rows(members):
    bars = walk_bars(60, ("AAA", "BBB", "CCC"))
    expected = slow(members, bars)
    assert expected.sum() > 0
    assert np.array_equal(members.mask(bars), expected)


@given(st.integers(30, 119))
def test_what_comes_later_changes_no_membership(last):
    bars = walk_bars(60, ("AAA", "BBB"), seed=3)
    members = Members(min_price=99.9, min_dollar_volume=2300.0, dollar_volume_bars=5, min_bars=3)
    later = pl.int_range(pl.len()) > last
    changed = bars.with_columns(
        close=pl.when(later).then(pl.col("close") * 7).otherwise("close"),
        volume=pl.when(later).then(0.0).otherwise("volume"),
    )
    assert np.array_equal(members.mask(bars)[: last + 1], members.mask(changed)[: last + 1])


def test_a_benchmark_spelled_wrong_is_no_member_by_accident():
    with pytest.raises(DataError, match=r"\['SPX'\] are to be excluded but the bars hold no such symbol"):
        Members(exclude=["SPX"]).mask(walk_bars(9, ("AAA", "SPY")))


def test_no_member_at_all_is_an_error():
    with pytest.raises(DataError, match="none of 9 rows is a member"):
        Members(min_price=1e6).mask(walk_bars(9))


@pytest.mark.parametrize("wrong", [{"min_bars": 0}, {"dollar_volume_bars": 0}, {"min_price": -1.0}])
def test_fields_out_of_range(wrong):
    with pytest.raises(TradsysError, match=f"universe: {next(iter(wrong))}="):
        Members(**wrong)


def test_events_never_choose_a_symbol_that_is_only_read(make_walk_bars):
    bars = make_walk_bars(50, ("AAA", "MKT"))
    own = (bars["symbol"] == "AAA").to_numpy()
    assert (without_reference(None, "MKT").mask(bars) == own).all()
    universe = without_reference(Members(min_bars=3), "MKT")
    assert isinstance(universe, Members)
    assert not universe.mask(bars)[~own].any()
    assert without_reference(universe, "MKT") == universe
    clock = ClockEvents(4)
    assert (without_reference(clock, "MKT").mask(bars) == (own & clock.mask(bars))).all()
    assert without_reference(clock, None) is clock


@pytest.mark.parametrize(("cut", "n_outside"), [((0, 20), 0), ((6, 20), 6), ((0, 15), 5), ((3, 18), 5)])
def test_closes_that_the_market_does_not_cover_are_counted(cut, n_outside):
    bars = walk_bars(20, ("AAA", "BBB", "MKT"))
    clock = bars["time"].unique().sort()[cut[0] : cut[1]]
    note = market_span_note(bars.filter((pl.col("symbol") != "MKT") | pl.col("time").is_in(clock.implode())), "MKT")
    assert (f"{n_outside} of their 20 closes are cut" in note) == bool(n_outside)
    assert (f"MKT has bars from {clock[0]:%Y-%m-%d} to {clock[-1]:%Y-%m-%d}" in note) == bool(n_outside)
    assert market_span_note(bars, None) == market_span_note(bars, "SPX") == ""


def test_what_is_compared_lies_between_the_first_and_the_last_decision():
    bars = walk_bars(20, ("AAA", "BBB"))
    clock = bars["time"].unique().sort()
    span = (clock[0], clock[-1])
    assert decided_span(bars, bars, span) == (bars, *span, "")
    assert decided_span(bars, bars.clear(), span) == (bars, *span, "")
    cut, since, until, words = decided_span(bars, bars.filter(pl.col("time").is_between(clock[4], clock[17])), span)
    assert cut["time"].unique().sort().to_list() == clock[4:18].to_list()
    assert (since, until) == (clock[4], clock[17])
    assert words.endswith("strategies and benchmark are compared on the former, 6 closes are cut")


def test_a_pool_is_all_bars_of_its_sources():
    few, many = walk_bars(60, ("AAA", "CCC")), walk_bars(20, ("BBB", "DDD"))
    pool = PooledBars({"few": Frame(few), "many": Frame(many)})
    assert pool.bars().equals(pl.concat([few, many]).sort("symbol", "time"))
    cut = few["time"].unique().sort()[9]
    assert PooledBars(pool.sources, end=str(cut)).bars().equals(pool.bars().filter(pl.col("time") <= cut))
    reported = pool.describe()
    assert (reported["symbols"], reported["synthetic"]) == (["AAA", "BBB", "CCC", "DDD"], False)
    assert reported["digest"] == content_digest(pool.bars()) != PooledBars({"few": Frame(few)}).describe()["digest"]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"a": Frame(walk_bars(20)), "b": Frame(walk_bars(30))}, r"\['AAA'\] are in 'a' and in 'b'.*sources.b.symbols"),
        ({"a": Frame(walk_bars(20)), "b": Frame(walk_bars(20, ("BBB",), minutes=30))}, "different lengths"),
        ({}, "no source is named"),
        ({"a": None}, "must name sources of bars"),
        (None, "must name sources of bars"),
    ],
)
def test_sources_that_make_no_pool_are_refused(sources, words):
    with pytest.raises(DataError, match=words):
        PooledBars(sources).bars()
