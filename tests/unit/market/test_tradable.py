"""Compiled rules of single bars, where one of them stands for another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tradsys.market.tradable import confirmed, fills_at_open, lies_within, touch

PRICE = st.one_of(st.floats(0.5, 2.0), st.sampled_from([0.9, 1.0, 1.1, np.nan, np.inf, 0.0, -1.0]))
BARS = st.tuples(*[PRICE] * 4, st.sampled_from([0.0, 1.0, np.inf]), PRICE)


@given(BARS, st.sampled_from([1, -1]), st.sampled_from([(1.1, 0.9), (1.5, -np.inf), (np.inf, 0.2)]), st.booleans())
def test_a_bar_within_both_levels_ends_nothing(bar, side, levels, passed):
    """`lies_within` lets a scan pass over bars that `touch` would find nothing in, whatever traded."""
    levels = levels if side > 0 else levels[::-1]
    within = lies_within(bar, levels)
    if within:
        assert touch(bar, side, levels, (False, passed)) == (-1, 0.0, False, passed)
        assert np.isfinite(bar[:4]).all()
    plain = np.isfinite(bar[:4]).all() and min(levels) < bar[2] <= bar[0] <= bar[1] < max(levels)
    assert within == plain


@given(PRICE, st.sampled_from([0.0, np.nan, 1.0, np.inf]), PRICE)
def test_an_open_fills_where_something_traded_at_a_confirmed_price(opened, volume, before):
    believed = np.isnan(before) or before / np.exp(0.66) <= opened <= before * np.exp(0.66)
    assert confirmed(opened, before) == believed
    assert fills_at_open(opened, volume, before) == (volume > 0 and believed)
