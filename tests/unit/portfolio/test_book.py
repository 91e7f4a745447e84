from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.core.errors import DataError, TradsysError
from tradsys.portfolio.book import Book

START = datetime(2021, 1, 4, 21, tzinfo=UTC)


def scores(*days):
    """Days of {symbol: score}."""
    rows = [
        {"symbol": s, "time": START + timedelta(days=t), "score": v} for t, d in enumerate(days) for s, v in d.items()
    ]
    return pl.DataFrame(rows, schema={"symbol": pl.String, "time": pl.Datetime("us", "UTC"), "score": pl.Float64})


def by_day(weights):
    out = {}
    for symbol, time, weight in weights.iter_rows():
        out.setdefault((time - START).days, {})[symbol] = weight
    return out


def test_top_k_holds_the_best_and_keeps_cash_where_fewer_are_scored():
    found = by_day(Book("top_k", k=2).weights(scores({"A": 1, "B": 3, "C": 2}, {"A": 1, "B": float("nan")})))
    assert found == {0: {"B": 0.5, "C": 0.5}, 1: {"A": 0.5, "B": 0.0, "C": 0.0}}


def test_long_short_is_even_and_never_holds_one_name_on_both_sides():
    five, three = {"A": 5, "B": 4, "C": 3, "D": 2, "E": 1}, {"A": 1, "B": 2, "C": 3}
    found = by_day(Book("long_short", k=2).weights(scores(five, three)))
    assert found[0] == {"A": 0.25, "B": 0.25, "D": -0.25, "E": -0.25}
    assert found[1] == {"A": -0.25, "B": 0.0, "C": 0.25, "D": 0.0, "E": 0.0}


def test_rank_weighted_leans_by_rank_with_gross_one():
    found = by_day(Book("rank_weighted").weights(scores({"A": 0.9, "B": 0.5, "C": 0.7, "D": 0.1})))
    assert found[0] == pytest.approx({"A": 0.375, "C": 0.125, "B": -0.125, "D": -0.375})


def test_tranches_are_the_mean_of_the_last_picks():
    found = by_day(
        Book("top_k", k=1, hold_bars=2).weights(scores({"A": 2, "B": 1}, {"A": 1, "B": 2}, {"B": 2}, {"B": 1}))
    )
    assert found == {0: {"A": 0.5}, 1: {"A": 0.5, "B": 0.5}, 2: {"A": 0.0, "B": 1.0}, 3: {"B": 1.0}}


def test_a_close_that_holds_nobody_is_a_decision_all_the_same():
    found = by_day(Book("top_k", k=1).weights(scores({"A": float("nan"), "B": float("nan")})))
    assert found == {0: {"A": 0.0}}


def test_ties_go_by_name():
    assert by_day(Book("top_k", k=1).weights(scores({"B": 1.0, "A": 1.0})))[0] == {"A": 1.0}


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=7, max_size=7), min_size=1, max_size=12),
    st.sampled_from(["top_k", "long_short", "rank_weighted"]),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_no_book_borrows_and_market_neutral_ones_are_neutral(values, kind, k, hold_bars):
    frame = scores(*(dict(zip("ABCDEFG", day, strict=True)) for day in values))
    totals = (
        Book(kind, k, hold_bars)
        .weights(frame)
        .group_by("time")
        .agg(gross=pl.col("weight").abs().sum(), net=pl.col("weight").sum())
    )
    assert (totals["gross"] <= 1 + 1e-9).all()
    if kind != "top_k":
        np.testing.assert_allclose(totals["net"].to_numpy(), 0, atol=1e-9)


@given(st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=3, max_size=8), st.integers(1, 3))
def test_later_scores_change_no_earlier_weight(values, hold_bars):
    frame = scores(*(dict(zip("ABCD", day, strict=True)) for day in values))
    cut = START + timedelta(days=len(values) // 2)
    book = Book("long_short", 1, hold_bars)
    whole = book.weights(frame).filter(pl.col("time") <= cut, pl.col("weight") != 0)
    reported = book.weights(frame.filter(pl.col("time") <= cut)).filter(pl.col("weight") != 0)
    assert whole.equals(reported)


def test_what_no_book_can_be_made_of_is_refused():
    twice = pl.concat([scores({"A": 1.0}), scores({"A": 2.0})])
    with pytest.raises(DataError, match="1 rows share symbol and time"):
        Book().weights(twice)
    for broken in ({"kind": "best"}, {"k": 0}, {"hold_bars": 0}):
        with pytest.raises(TradsysError, match="book: kind="):
            Book(**broken)
