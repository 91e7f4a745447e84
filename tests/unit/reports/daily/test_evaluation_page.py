"""The page of a walk-forward: with a market held beside, without one, and where spans differ."""

from tests.unit.reports.sample_pages import evaluation, faults
from tradsys.reports.daily.evaluation_page import render


def test_books_without_a_market_symbol_have_a_page_that_says_so():
    without = evaluation()
    reference = without["benchmark"]["name"]
    curves = {name: curve for name, curve in without["equity"]["curves"].items() if name != reference}
    page = render(without | {"benchmark": None, "equity": without["equity"] | {"curves": curves}})
    assert "data.market_symbol is null: there is no benchmark" in page
    assert "The last line is the market" not in page
    assert reference not in page
    assert all(row["name"] in page for row in without["strategies"])
    assert faults(page) == []


def test_a_span_that_was_cut_is_said_with_the_series_that_cut_it():
    words = "compared from 2021-01-04 to 2021-12-30, the days that all have: hold SPY has closes from 2021-01-04"
    page = render(evaluation() | {"span": {"first": "", "last": "", "cut": {}, "words": words}})
    assert f"All are {words}." in page
    assert "The last line is the market" in page
