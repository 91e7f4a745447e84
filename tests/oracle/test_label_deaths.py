"""A name that dies within a label's horizon gets the outcome of the death rule, whatever the kind of label."""

import math

import numpy as np
import polars as pl
import pytest

from tests.oracle.test_deaths import enter, panel
from tests.oracle.test_simulator import rough_bars
from tradsys.labels.expansion import RangeExpansion
from tradsys.labels.explosion import Explosion
from tradsys.labels.forward_return import ForwardReturn, forward_return
from tradsys.labels.mean_reached import MeanReached
from tradsys.labels.stored import KINDS, label_of_card
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate

DEATH = {"dead_after_bars": 3, "delisting_return": -0.3}
LABELS = (
    TripleBarrier(horizon_bars=4, atr_bars=2, **DEATH),
    ForwardReturn(horizon_bars=4, **DEATH),
    MeanReached(mean_bars=3, horizon_bars=4, atr_bars=2, **DEATH),
    RangeExpansion(horizon_bars=4, band_bars=3, atr_bars=2, **DEATH),
    Explosion(horizon_bars=4, **DEATH),
)


@pytest.mark.parametrize("side", [1, -1])
def test_a_timed_position_in_a_name_that_dies_is_the_simulators(side):
    """In at 100: three bars to the horizon, or out at 80 * 0.7 = 56 (a short at 80) where the name ends before it."""
    bars = panel()
    found = forward_return(bars, horizon_bars=3, side=side, **DEATH)
    worth = 56.0 if side > 0 else 80.0
    exits = [100.0, 80.0, worth, worth]
    assert found.ret[:4] == pytest.approx([side * math.log(price / 100) for price in exits])
    assert found.end[:5].tolist() == [3, 4, 4, 4, -1]  # nobody can enter after the last bar
    assert forward_return(bars, horizon_bars=3, side=side).end[:5].tolist() == [3, 4, -1, -1, -1]
    for t in range(4):
        wanted = enter(bars, t, side).with_columns(horizon_bars=pl.lit(3))
        trade = simulate(bars, wanted, Costs(0, 0, **DEATH)).trades.row(0, named=True)
        assert math.log(trade["exit_price"] / trade["entry_price"]) * side == pytest.approx(found.ret[t])


def test_timed_labels_are_the_simulators_trades_on_rough_bars_with_holes():
    """Holes that are deaths and holes that are none, bars without trades, several symbols."""
    n_dead = n_seen = 0
    row = {"side": 1, "size": 1.0, "take_profit": np.inf, "stop_loss": np.inf, "horizon_bars": 4}
    for seed in range(6):
        bars = rough_bars(np.random.default_rng(seed), ["A", "B", "C"])
        found = forward_return(bars, horizon_bars=4, **DEATH)
        for t in np.flatnonzero(found.end >= 0):
            wanted = bars[int(t)].select("symbol", "time", **{k: pl.lit(v) for k, v in row.items()})
            trade = simulate(bars, wanted, Costs(0, 0, **DEATH)).trades.row(0, named=True)
            assert math.log(trade["exit_price"] / trade["entry_price"]) == pytest.approx(found.ret[t])
            n_seen, n_dead = n_seen + 1, n_dead + (trade["reason"] == "delisted")
    assert n_dead > 10
    assert n_seen > 100


def test_the_range_of_a_name_that_dies_ends_with_its_worth():
    bars = panel(n=30, died=20).with_columns(high=pl.col("high") + (pl.int_range(pl.len()) % 7).cast(pl.Float64))
    label = RangeExpansion(horizon_bars=4, band_bars=3, width=0.5, upper=50, lower=50, atr_bars=2, **DEATH)
    found = label.label(bars)
    assert found.end[17:21].tolist() == [20, 20, 20, -1]
    assert found.y[17:20].tolist() == [1, 1, 1]  # from 102 down to 56
    assert found.ret[17:20] == pytest.approx([math.log(56 / 100)] * 3)
    plain = RangeExpansion(horizon_bars=4, band_bars=3, width=0.5, upper=50, lower=50, atr_bars=2).label(bars)
    assert plain.end[17:21].tolist() == [-1] * 4


@pytest.mark.parametrize("label", LABELS, ids=lambda one: type(one).__name__)
def test_every_kind_labels_the_last_bars_of_the_dead_and_its_card_keeps_the_rule(label):
    assert {type(one) for one in LABELS} == set(KINDS.values())
    rng = np.random.default_rng(3)
    bars = panel(n=40, died=30)
    move = pl.Series(np.exp(rng.normal(0, 0.02, bars.height)))
    bars = bars.with_columns(
        high=pl.col("high") * 1.01 * move.clip(1.0), low=pl.col("low") * 0.97 * move.clip(None, 1.0)
    )
    bars = bars.with_columns(
        close=pl.col("low") + (pl.col("high") - pl.col("low")) * pl.Series(rng.random(bars.height))
    )
    side = np.where(np.arange(bars.height) % 2, 1, -1).astype(np.int8) if isinstance(label, MeanReached) else None
    found = label.label(bars, side)
    late = np.arange(26, 30)  # their horizon ends after the death
    assert (found.end[late] >= 0).any()
    assert found.end[late].max() == 30
    again = label_of_card(label.card())
    assert again == label
