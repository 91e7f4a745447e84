"""Labels fill where the simulator does: never in a bar without trades; a death has the outcome of its rule."""

import math

import numpy as np
import polars as pl
import pytest

from tests.oracle.test_triple_barrier import frame
from tradsys.core.errors import TradsysError
from tradsys.labels.forward_return import forward_return
from tradsys.labels.stored import label_of_card
from tradsys.labels.triple_barrier import TripleBarrier, triple_barrier
from tradsys.market.true_range import atr
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate

ATR_BARS = 2


def bars_of(rows, volume=None, symbol="AAA"):
    found = frame(rows, symbol=symbol)
    return found if volume is None else found.with_columns(volume=pl.Series(volume, dtype=pl.Float64))


def traded(bars, t, upper, lower, horizon, side=1):
    """Log return of the simulator's trade decided at bar t with the label's barriers, and when it left."""
    unit = atr(bars, ATR_BARS)[t]
    wanted = pl.DataFrame({"symbol": bars["symbol"][t : t + 1], "time": bars["time"][t : t + 1], "side": [side],
                           "size": [0.5], "take_profit": [upper * unit], "stop_loss": [lower * unit],
                           "horizon_bars": [horizon]})  # fmt: skip
    trades = simulate(bars, wanted, Costs(0, 0)).trades
    if trades.is_empty():
        return None, None
    trade = trades.row(0, named=True)
    return side * math.log(trade["exit_price"] / trade["entry_price"]), trade["exit_time"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("side", [1, -1])
def test_labels_are_the_simulators_trades_through_bars_that_did_not_trade(seed, side):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 60)))
    opened = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, 0.004, 60))
    rows = np.stack([opened, np.maximum(opened, close) * 1.004, np.minimum(opened, close) * 0.996, close], axis=1)
    bars = bars_of(rows, np.where(rng.random(60) < 0.3, 0.0, 5.0))
    labels = triple_barrier(bars, upper=1.2, lower=1.0, horizon_bars=5, atr_bars=ATR_BARS, side=side)
    n_seen = 0
    for t in range(ATR_BARS, 59):
        ret, left = traded(bars, t, 1.2, 1.0, 5, side)
        assert (labels.end[t] < 0) == (ret is None)
        if ret is not None:
            assert labels.ret[t] == pytest.approx(ret)
            assert bars["time"][int(labels.end[t])] == left
            n_seen += 1
    assert n_seen > 40


def test_a_label_never_fills_where_nothing_traded():
    flat = [(100.0, 101.0, 99.0, 100.0)] * 4
    # the first bar after the decision did not trade at 90; the order fills at 100, and 104 comes later
    rows = [*flat, (90.0, 90.0, 90.0, 90.0), (100.0, 100.5, 99.5, 100.0), (100.0, 104.0, 99.5, 103.0)]
    bars = bars_of(rows, [1, 1, 1, 1, 0, 1, 1])
    labels = triple_barrier(bars, upper=1, lower=9, horizon_bars=2, atr_bars=ATR_BARS)
    assert labels.end[3] == 6
    assert labels.ret[3] == pytest.approx(math.log(1 + atr(bars, ATR_BARS)[3] / 100))
    # a timeout waits for the next open that can fill
    bars = bars_of([*flat, *flat[:2], (100.0, 100.0, 100.0, 100.0), (98.0, 98.5, 97.5, 98.0)], [1] * 6 + [0, 1])
    labels = forward_return(bars, horizon_bars=3)
    assert labels.end[3] == 7
    assert labels.ret[3] == pytest.approx(math.log(0.98))


def test_a_name_that_dies_has_an_outcome():
    living = bars_of([(10.0, 10.1, 9.9, 10.0)] * 30, symbol="LIVE")
    dying = bars_of([(10.0, 10.1, 9.9, 10.0)] * 9 + [(9.9, 9.95, 9.85, 9.9)], symbol="DEAD")
    both = pl.concat([dying, living])
    terms = {"upper": 50.0, "lower": 40.0, "horizon_bars": 8, "atr_bars": ATR_BARS}
    known = triple_barrier(both, **terms, dead_after_bars=5, delisting_return=-0.3)
    assert known.end[5] == 9
    assert known.y[5] == 0
    assert known.ret[5] == pytest.approx(math.log(9.9 * 0.7 / 10))
    short = triple_barrier(both, **terms, dead_after_bars=5, delisting_return=-0.3, side=-1)
    assert short.ret[5] == pytest.approx(-math.log(9.9 / 10))  # a short gains nothing by the death
    assert known.end[9] == -1  # nobody enters after the last bar
    assert known.end[38] == -1  # the living end with the data
    assert (triple_barrier(both, **terms, dead_after_bars=25).end[5:10] < 0).all()
    assert (triple_barrier(both, **terms).end[5:10] < 0).all()


def test_the_card_keeps_how_deaths_are_labelled():
    label = TripleBarrier(dead_after_bars=10, delisting_return=-0.3)
    assert label_of_card(label.card()) == label
    assert label_of_card(TripleBarrier().card()) == TripleBarrier()
    with pytest.raises(TradsysError, match="delisting_return"):
        TripleBarrier(dead_after_bars=10, delisting_return=-1.0)
