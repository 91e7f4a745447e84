"""The market factor against a regression by numpy, window by window."""

import numpy as np
import polars as pl
import pytest

from tradsys.features.feature_set import FeatureSet
from tradsys.features.market_factor import MarketResidual, MarketResidualSum

MARKET = "AAA"


def regressed(own: np.ndarray, market: np.ndarray, bars: int, beta_bars: int) -> np.ndarray:
    """What the residual must be [R]: one least-squares slope per row, NaN before both spans are full."""
    x, y = np.diff(np.log(market)), np.diff(np.log(own))
    out = np.full(len(own), np.nan)
    for t in range(max(bars, beta_bars), len(own)):
        beta = np.polyfit(x[t - beta_bars : t], y[t - beta_bars : t], 1)[0]
        out[t] = np.log(own[t] / own[t - bars]) - beta * np.log(market[t] / market[t - bars])
    return out


@pytest.mark.parametrize(("bars", "beta_bars"), [(1, 20), (6, 20), (20, 20), (31, 20)])
def test_residual_is_the_return_beyond_a_regression_on_the_market(make_walk_bars, bars, beta_bars):
    panel = make_walk_bars(120, (MARKET, "BBB"), seed=3)
    table = FeatureSet([MarketResidualSum(bars, beta_bars)], max_gap_minutes=360, market_symbol=MARKET).table(panel)
    closes = {name: panel.filter(pl.col("symbol") == name)["close"].to_numpy() for name in (MARKET, "BBB")}
    mine = table.values[table.symbol == table.symbols.index("BBB"), 0]
    np.testing.assert_allclose(mine, regressed(closes["BBB"], closes[MARKET], bars, beta_bars), rtol=2e-6, atol=1e-8)
    own = table.values[table.symbol == table.symbols.index(MARKET), 0]
    assert (own[max(bars, beta_bars) :] == 0).all()  # against itself beta is 1, to the bit


def test_over_one_bar_it_is_the_one_bar_residual(make_walk_bars):
    panel = make_walk_bars(300, (MARKET, "BBB"), seed=4)
    both = FeatureSet([MarketResidual(48), MarketResidualSum(1, 48)], max_gap_minutes=360, market_symbol=MARKET)
    one, same = both.table(panel).values.T
    np.testing.assert_array_equal(one, same)


def test_where_the_market_has_no_bar_nothing_is_known(make_walk_bars):
    panel = make_walk_bars(120, (MARKET, "BBB"), seed=5)
    gone = panel["time"].unique().sort()[60]
    holed = panel.filter((pl.col("symbol") == "BBB") | (pl.col("time") != gone))
    table = FeatureSet([MarketResidualSum(6, 20)], max_gap_minutes=360, market_symbol=MARKET).table(holed)
    mine = table.values[table.symbol == table.symbols.index("BBB"), 0]
    # the missing close is in the span of two returns of one bar, and these in 20 betas each
    assert np.isfinite(mine[20:60]).all()
    assert np.isnan(mine[60:81]).all()
    assert np.isfinite(mine[81:]).all()
