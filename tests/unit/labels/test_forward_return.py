import math

import numpy as np
import polars as pl
import pytest

from tradsys.core.protocols import Labeller
from tradsys.labels.forward_return import ForwardReturn, forward_return


@pytest.mark.parametrize("horizon", [1, 5, 24])
def test_equals_a_loop(make_walk_bars, horizon):
    bars = make_walk_bars(200, ("AAA", "BBB"), seed=3).with_columns(
        segment=pl.Series(np.repeat([0, 1, 2], [90, 110, 200]), dtype=pl.UInt32)
    )
    close = bars["close"].to_numpy().copy()
    close[[40, 150]] = np.nan
    bars = bars.with_columns(close=pl.Series(close))
    labels = forward_return(bars, horizon_bars=horizon)
    open_, segment = bars["open"].to_list(), bars["segment"].to_list()
    for t in range(bars.height):
        exit_ = t + horizon
        if exit_ >= bars.height or segment[exit_] != segment[t] or math.isnan(close[exit_]):
            assert (labels.y[t], labels.end[t], labels.weight[t]) == (-1, -1, 0)
            assert math.isnan(labels.ret[t])
        else:
            ret = math.log(close[exit_] / open_[t + 1])
            assert labels.ret[t] == pytest.approx(ret, abs=1e-15)
            assert (labels.y[t], labels.end[t], labels.weight[t]) == (int(ret > 0), exit_, 1)
    assert labels.y.dtype == labels.end.dtype == np.int64


def test_no_gain_is_not_a_gain(make_walk_bars):
    bars = make_walk_bars(5).with_columns(open=pl.lit(100.0), close=pl.lit(100.0))
    assert ForwardReturn(horizon_bars=2).label(bars).y.tolist() == [0, 0, 0, -1, -1]


def test_horizon_longer_than_the_bars(make_walk_bars):
    assert (ForwardReturn(horizon_bars=24).label(make_walk_bars(10)).y == -1).all()


def test_refuses_no_horizon(make_walk_bars):
    with pytest.raises(ValueError, match="horizon_bars=0; it must be a whole number"):
        forward_return(make_walk_bars(10), horizon_bars=0)


def test_a_side_turns_the_return_round_and_none_is_no_sample(make_walk_bars):
    bars = make_walk_bars(60, ("AAA", "BBB"), seed=5)
    side = np.random.default_rng(0).choice(np.array([-1, 0, 1], dtype=np.int8), 120)
    long, mixed = ForwardReturn(horizon_bars=4).label(bars), ForwardReturn(horizon_bars=4).label(bars, side)
    for t in range(120):
        if side[t] == 0 or long.end[t] < 0:
            assert (mixed.y[t], mixed.end[t], mixed.weight[t]) == (-1, -1, 0)
        else:
            assert mixed.ret[t] == side[t] * long.ret[t]
            assert (mixed.y[t], mixed.end[t]) == (int(side[t] * long.ret[t] > 0), t + 4)
    assert {0, 1} <= set(mixed.y[side == -1])


def test_no_move_is_no_gain_for_a_short_either(make_walk_bars):
    bars = make_walk_bars(4).with_columns(open=pl.lit(100.0), close=pl.lit(100.0))
    assert forward_return(bars, horizon_bars=1, side=-1).y.tolist() == [0, 0, 0, -1]


def test_it_is_a_labeller_whose_card_is_json():
    label = ForwardReturn(horizon_bars=20)
    assert isinstance(label, Labeller)
    assert label.card() == {
        "kind": "forward_return", "horizon_bars": 20, "atr_bars": 14, "classes": ["no gain", "gain"],
    }  # fmt: skip
