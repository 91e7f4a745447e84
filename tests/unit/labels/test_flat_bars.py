"""Bars that do not move give no distance: no kind of label, exit or plan measures in a unit of zero."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import walk_bars
from tradsys.labels.events import cusum_events
from tradsys.labels.expansion import RangeExpansion
from tradsys.labels.mean_reached import MeanReached
from tradsys.labels.triple_barrier import TripleBarrier, first_touch
from tradsys.market.true_range import atr, usable_unit
from tradsys.serving import exits

PRICES = ("open", "high", "low", "close")
INF = float("inf")
IN_ATRS = [
    TripleBarrier(atr_bars=5, horizon_bars=6),
    TripleBarrier(atr_bars=5, horizon_bars=6, ternary=True),
    TripleBarrier(atr_bars=5, horizon_bars=6, side=-1),
    TripleBarrier(atr_bars=5, horizon_bars=6, upper=INF),
    TripleBarrier(atr_bars=5, horizon_bars=6, lower=INF),
    TripleBarrier(atr_bars=5, horizon_bars=6, upper=INF, lower=INF),
    MeanReached(atr_bars=5, horizon_bars=6, mean_bars=5),
    MeanReached(atr_bars=5, horizon_bars=6, mean_bars=5, lower=INF),
    RangeExpansion(atr_bars=5, horizon_bars=6, band_bars=8),
    RangeExpansion(atr_bars=5, horizon_bars=6, band_bars=8, upper=INF, lower=INF),
]


def flat_then_moving(n_flat: int, n_moving: int = 60, price: float = 5.0) -> pl.DataFrame:
    bars = walk_bars(n_flat + n_moving)
    late = pl.int_range(pl.len()) >= n_flat
    return bars.with_columns(pl.when(late).then(pl.col(p)).otherwise(pl.lit(price)).alias(p) for p in PRICES)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("profit", "stop"),
    [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 1.0), (1e-18, 1e-18), (1.0, np.nan), (np.nan, 1.0), (INF, 0.0)],
)
def test_the_walk_gives_no_outcome_to_a_barrier_on_the_entry(profit, stop, sign):
    flat = np.full((12, 4), 100.0)
    starts = np.arange(12) == 0
    distances = (np.full(12, profit), np.full(12, stop))
    outcome, end, ret = first_touch(flat, starts, np.full(12, sign, np.int8), distances, 4)
    assert (outcome == -1).all()
    assert (end == -1).all()
    assert np.isnan(ret).all()


@pytest.mark.parametrize("label", IN_ATRS, ids=lambda label: str(label)[:60])
def test_no_label_where_the_bars_behind_it_did_not_move(label):
    bars = flat_then_moving(40)
    labels = label.label(bars)
    unit = usable_unit(atr(bars, 5), bars["close"].to_numpy())
    assert np.isnan(unit[:40]).all()
    assert (labels.y[:40] == -1).all()
    assert (labels.end[:40] == -1).all()
    assert np.isnan(labels.ret[:40]).all()
    assert (labels.weight[:40] == 0).all()
    assert (labels.y[40:] >= 0).any(), "and what moves is still labelled"


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    side=st.sampled_from([1, -1]),
    kind=st.sampled_from(["barrier", "mean", "expansion"]),
    price=st.sampled_from([1e-6, 0.37, 100.0, 3e5]),
)
def test_every_label_has_a_unit_above_zero_and_a_stop_below_the_entry(data, side, kind, price):
    runs = data.draw(st.lists(st.tuples(st.booleans(), st.integers(1, 70)), min_size=1, max_size=5))
    moving = np.repeat([m for m, _ in runs], [n for _, n in runs])
    rng = np.random.default_rng(len(moving))
    close = price * np.exp(np.cumsum(np.where(moving, rng.normal(0, 0.01, len(moving)), 0.0)))
    open_ = np.append(close[0], close[:-1])
    spread = np.where(moving, 1.002, 1.0)
    bars = walk_bars(len(moving)).with_columns(
        open=pl.Series(open_),
        high=pl.Series(np.maximum(open_, close) * spread),
        low=pl.Series(np.minimum(open_, close) / spread),
        close=pl.Series(close),
    )
    label = {
        "barrier": TripleBarrier(atr_bars=3, horizon_bars=5),
        "mean": MeanReached(atr_bars=3, horizon_bars=5, mean_bars=4),
        "expansion": RangeExpansion(atr_bars=3, horizon_bars=5, band_bars=6),
    }[kind]
    labelled = np.flatnonzero(label.label(bars, np.full(len(moving), side, np.int8)).y >= 0)
    width = atr(bars, 3)
    assert (width[labelled] > 1e-9 * close[labelled]).all()
    entry = open_[labelled + 1]
    assert (entry - 1.5 * width[labelled] < entry).all()


def test_exits_of_a_flat_name_are_unknown():
    frame = pl.DataFrame({"close": [100.0] * 4, "mean": [101.0] * 4, "atr": [0.0, 1e-12, np.inf, 2.0]})
    for label in (TripleBarrier(), RangeExpansion(), MeanReached()):
        assert np.isnan(exits.distances(label.card(), frame)[1]).tolist() == [True, True, True, False]


def test_moves_counted_in_deviations_need_one_above_zero():
    bars = flat_then_moving(30, 30)
    events = cusum_events(bars, 0.5, vol_bars=10)
    assert not events[:30].any()
    assert events[31:].any()
    drift = bars.with_columns(close=pl.Series(100.0 * 2.0 ** np.arange(60)))  # equal returns: a deviation of zero
    assert not cusum_events(drift, 0.5, vol_bars=10).any()


def test_names_without_a_usable_range_are_not_planned():
    from tests.unit.ops.daily.test_trade_plan import forecasts, plan, vol

    frame = forecasts(A=0.6, B=0.7, C=0.65).with_columns(
        atr=pl.when(pl.col("symbol") == "B").then(0.0).otherwise(pl.col("atr"))
    )
    assert plan(frame, vol(("A", 0.2), ("B", 0.2), ("C", 0.2)))["symbol"].to_list() == ["C", "A"]
