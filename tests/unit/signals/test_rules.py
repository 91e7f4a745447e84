import numpy as np
import polars as pl
import pytest

from tradsys.core.errors import DataError, TradsysError
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.signals.rules import Threshold, above, break_even_probability


def test_above_includes_the_level_and_nan_never_signals():
    proba = np.array([0.4, 0.5, 0.6, np.nan])
    assert above(proba, 0.5).tolist() == [0, 1, 1, 0]
    assert above(proba, np.array([0.3, np.nan, 0.7, 0.1])).tolist() == [1, 0, 0, 0]
    assert above(proba, 0.5).dtype == np.int8
    assert above(proba, np.nan).sum() == 0


@pytest.mark.parametrize(
    ("value", "kind"),
    [(0, "probability"), (1, "probability"), (1, "quantile"), (np.nan, "score"), (0.5, "odds")],
)
def test_threshold_refuses_values_out_of_its_range(value, kind):
    with pytest.raises(TradsysError, match="threshold"):
        Threshold(value, kind)


def test_a_quantile_is_read_from_validation_scores_and_others_are_not():
    scores = np.array([np.nan, *range(11)])
    assert Threshold(0.9, "quantile").resolve(scores) == 9
    assert Threshold(-3.5, "score").resolve(scores) == -3.5
    assert Threshold(0.5, "probability").resolve(np.array([])) == 0.5
    assert Threshold(0.9, "quantile").resolve(np.arange(10.0)) == pytest.approx(8.1)
    with pytest.raises(DataError, match="of 9 validation scores"):
        Threshold(0.9, "quantile").resolve(np.arange(9.0))


def test_break_even_probability_makes_the_trade_even():
    take, stop, price = np.array([2.0, 3.0]), np.array([1.0, 3.0]), np.array([100.0, 50.0])
    p = break_even_probability(take, stop, price, 0.003)
    np.testing.assert_allclose(p * take - (1 - p) * stop - 0.003 * price, 0, atol=1e-12)
    assert break_even_probability(2.0, 2.0, 100.0, 0.0) == 0.5
    assert break_even_probability(0.1, 0.1, 100.0, 0.003) > 1
    assert np.isnan(break_even_probability(np.nan, 1.0, 100.0, 0.003))


@pytest.mark.parametrize("costs", [Costs(), Costs(0, 0), Costs(100, 50)])
def test_break_even_is_even_in_a_backtest(make_walk_bars, costs):
    """Wins and losses at that rate cancel, but for the costs' own change with the exit price."""
    bars = make_walk_bars(3).with_columns(open=pl.lit(100.0), close=pl.lit(100.0))
    row = {"side": 1, "size": 1.0, "take_profit": 2.0, "stop_loss": 1.0, "horizon_bars": 1}
    targets = bars[:1].select("symbol", "time", **{k: pl.lit(v) for k, v in row.items()})
    pnl = {}
    for reason, high, low in (("take_profit", 103.0, 100.0), ("stop_loss", 100.0, 98.0)):
        trades = simulate(bars.with_columns(high=pl.lit(high), low=pl.lit(low)), targets, costs).trades
        assert trades["reason"].to_list() == [reason]
        pnl[reason] = (trades["net_pnl"] / trades["quantity"])[0]
    p = break_even_probability(2.0, 1.0, 100.0, costs.round_trip)
    rest = -(costs.round_trip / 2 - costs.fee * costs.slippage) * costs.round_trip * 100  # of second order
    assert p * pnl["take_profit"] + (1 - p) * pnl["stop_loss"] == pytest.approx(rest, abs=1e-12)
