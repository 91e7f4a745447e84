"""Sides and the labels along them, against a walk over bars that does nothing clever."""

import itertools
import math
import statistics

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tests.oracle.test_triple_barrier import PRICES, atr_by_talib, rough_bars
from tradsys.features.feature_set import FeatureSet
from tradsys.features.side import BreakoutSide, MomentumSide, ReversionSide
from tradsys.labels.expansion import range_expansion
from tradsys.labels.mean_reached import MeanReached, mean_reached
from tradsys.labels.triple_barrier import triple_barrier


def momentum(rows, t, bars, dead_zone):
    closes = [rows[k][3] for k in range(t - bars, t + 1)]
    steps = [math.log(b / a) for a, b in itertools.pairwise(closes)]
    move = sum(steps) / (statistics.stdev(steps) * math.sqrt(bars))
    return 0 if abs(move) < dead_zone else math.copysign(1, move)


def reversion(rows, t, bars, stretch):
    closes = [rows[k][3] for k in range(t - bars + 1, t + 1)]
    z = (closes[-1] - statistics.mean(closes)) / statistics.stdev(closes)
    return 0 if abs(z) < stretch else -math.copysign(1, z)


def breakout(rows, t, bars):
    before = rows[t - bars : t]
    close = rows[t][3]
    return 1 if close > max(r[1] for r in before) else -1 if close < min(r[2] for r in before) else 0


@pytest.mark.parametrize(
    ("feature", "walk", "first"),
    [
        (MomentumSide(12, 0.5), lambda rows, t: momentum(rows, t, 12, 0.5), 12),
        (MomentumSide(5), lambda rows, t: momentum(rows, t, 5, 0.0), 5),
        (ReversionSide(20, 1.5), lambda rows, t: reversion(rows, t, 20, 1.5), 19),
        (BreakoutSide(10), lambda rows, t: breakout(rows, t, 10), 10),
    ],
)
def test_sides_equal_a_loop(feature, walk, first):
    bars = walk_bars(600, ("AAA", "BBB"), seed=3)
    got = FeatureSet([feature], max_gap_minutes=None).table(bars).values[:, 0].reshape(2, 600)
    for mine, symbol in zip(got, ("AAA", "BBB"), strict=True):
        rows = bars.filter(pl.col("symbol") == symbol).select(PRICES).rows()
        assert np.isnan(mine[:first]).all()
        np.testing.assert_array_equal(mine[first:], [walk(rows, t) for t in range(first, 600)])
    wanted = {-1, 1} if feature == MomentumSide(5) else {-1, 0, 1}
    assert set(got[:, first:].ravel()) == wanted
    assert feature.name == "side"


@pytest.mark.parametrize("feature", [MomentumSide(6), ReversionSide(6, 1.0), BreakoutSide(6)])
def test_a_flat_market_has_no_opinion(feature):
    flat = walk_bars(40).with_columns(pl.lit(5.0).alias(p) for p in PRICES)
    values = FeatureSet([feature], max_gap_minutes=None).table(flat).values[feature.warmup :, 0]
    assert np.isnan(values).all() or (values == 0).all()


@pytest.mark.parametrize(
    "wrong",
    [lambda: MomentumSide(1), lambda: MomentumSide(5, -0.1), lambda: ReversionSide(5, 0.0), lambda: BreakoutSide(0)],
)
def test_sides_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"set features\.extra"):
        wrong()


# ------------------------------------------------------------------ mean reached


def mixed_sides(n, seed=0):
    return np.random.default_rng(seed).choice(np.array([-1, 0, 1]), n, p=[0.45, 0.1, 0.45])


def walk_to_the_mean(bars, side, *, mean_bars, lower, horizon_bars, atr_bars):
    o, h, low_, c = (bars[p].to_list() for p in PRICES)
    segment, atr_ = bars["segment"].to_list(), atr_by_talib(bars, atr_bars).tolist()
    n = bars.height
    y, end, ret = [-1] * n, [-1] * n, [math.nan] * n
    for t in range(n - 1):
        window = range(t - mean_bars + 1, t + 1)
        if window[0] < 0 or any(segment[k] != segment[t] or math.isnan(c[k]) for k in window):
            continue
        s, way = int(side[t]), sum(c[k] for k in window) / mean_bars - c[t]
        if s == 0 or s * way <= 0 or math.isnan(atr_[t]) or segment[t + 1] != segment[t]:
            continue
        entry = o[t + 1]
        profit, stop = entry + way, entry - s * lower * atr_[t]
        for j in range(t + 1, t + horizon_bars + 1):
            if j >= n or segment[j] != segment[t] or any(math.isnan(x) for x in (o[j], h[j], low_[j], c[j])):
                break
            best, worst = (h[j], low_[j]) if s == 1 else (low_[j], h[j])
            if s * (o[j] - stop) <= 0:
                won, fill = 0, o[j]
            elif s * (o[j] - profit) >= 0:
                won, fill = 1, o[j]
            elif s * (worst - stop) <= 0:
                won, fill = 0, stop
            elif s * (best - profit) >= 0:
                won, fill = 1, profit
            elif j == t + horizon_bars:
                won, fill = 0, c[j]
            else:
                continue
            y[t], end[t], ret[t] = won, j, s * math.log(fill / entry)
            break
    return np.array(y), np.array(end), np.array(ret)


@pytest.mark.parametrize("seed", [1, 2])
def test_mean_reached_equals_the_bar_walk(seed):
    bars, p = rough_bars(1500, seed), {"mean_bars": 20, "lower": 1.5, "horizon_bars": 24, "atr_bars": 14}
    side = mixed_sides(1500, seed)
    labels = mean_reached(bars, **p, side=side)
    y, end, ret = walk_to_the_mean(bars, side, **p)
    np.testing.assert_array_equal(labels.y, y)
    np.testing.assert_array_equal(labels.end, end)
    np.testing.assert_allclose(labels.ret, ret, rtol=1e-9, atol=1e-13)
    np.testing.assert_array_equal(labels.weight, (y >= 0).astype(float))
    for s in (1, -1):
        assert {0, 1} <= set(y[side == s])
    assert (y[side == 0] == -1).all()


def test_without_a_side_all_are_long_and_need_a_mean_above():
    bars = walk_bars(400, seed=2)
    labels = MeanReached(mean_bars=10).label(bars)
    close = bars["close"].to_numpy()
    above = np.array([np.mean(close[max(0, t - 9) : t + 1]) > close[t] for t in range(400)])
    assert not (labels.y[~above] >= 0).any()
    assert (labels.y[above] >= 0).sum() > 100


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"lower": 0.0}, r"lower=.*must be a number in \(0, inf\]"),
        ({"mean_bars": 0}, "mean_bars=0; it must be a whole number"),
        ({"side": 2}, "side is 1"),
    ],
)
def test_mean_reached_refuses_wrong_parameters(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        mean_reached(
            walk_bars(50), **{"mean_bars": 9, "lower": 1.0, "horizon_bars": 5, "atr_bars": 3, "side": 1, **wrong}
        )


# ------------------------------------------------------------------ expansion


def walk_ranges(bars, *, horizon_bars, band_bars, width):
    """y [R] by loops over bars; the ATR's warm-up is shorter than the band's here."""
    o, h, low_, c = (bars[p].to_list() for p in PRICES)
    segment, n = bars["segment"].to_list(), bars.height

    def log_range(first, last, whole=False):
        """None where a bar is missing; `whole` asks for open and close, too."""
        if first < 0 or last >= n or segment[first] != segment[last]:
            return None
        read = (o, h, low_, c) if whole else (h, low_)
        if any(math.isnan(x[k]) for x in read for k in range(first, last + 1)):
            return None
        return math.log(max(h[first : last + 1]) / min(low_[first : last + 1]))

    y = [-1] * n
    for t in range(n):
        past = [log_range(k - horizon_bars + 1, k) for k in range(t - band_bars + 1, t + 1)]
        ahead = log_range(t + 1, t + horizon_bars, whole=True)
        first = t - band_bars - horizon_bars + 2
        if ahead is None or None in past or segment[first] != segment[t + 1]:
            continue
        y[t] = int(ahead > statistics.mean(past) + width * statistics.stdev(past))
    return np.array(y)


BAND = {"horizon_bars": 6, "band_bars": 15, "width": 0.5}


def test_expansion_equals_the_bar_walk():
    bars, side = rough_bars(2500, seed=4, n_segments=4), mixed_sides(2500)
    labels = range_expansion(bars, **BAND, upper=2.0, lower=1.0, atr_bars=5, side=side)
    y = walk_ranges(bars, **BAND)
    np.testing.assert_array_equal(np.where(np.isnan(atr_by_talib(bars, 5)), -1, y), labels.y)
    known = labels.y >= 0
    assert known.sum() > 1000
    assert {0, 1} == set(labels.y[known])
    np.testing.assert_array_equal(labels.end, np.where(known, np.arange(2500) + 6, -1))
    np.testing.assert_array_equal(np.isfinite(labels.ret), known)


def test_an_expansions_return_is_that_of_its_exits_and_none_without_a_side():
    bars, side = rough_bars(1500, seed=5), mixed_sides(1500)
    for upper, lower in ((2.0, 1.0), (math.inf, math.inf)):
        labels = range_expansion(bars, **BAND, upper=upper, lower=lower, atr_bars=5, side=side)
        along = triple_barrier(bars, upper=upper, lower=lower, horizon_bars=6, atr_bars=5, side=side)
        taken = (labels.y >= 0) & (side != 0)
        np.testing.assert_array_equal(labels.ret[taken], along.ret[taken])
        assert (labels.ret[(labels.y >= 0) & (side == 0)] == 0).all()
    o, c = bars["open"].to_numpy(), bars["close"].to_numpy()
    rows = np.flatnonzero(taken)
    np.testing.assert_allclose(labels.ret[rows], side[rows] * np.log(c[rows + 6] / o[rows + 1]), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"band_bars": 1}, r"whole number in \[2, inf\)"),
        ({"width": math.nan}, r"number in \(0, inf\)"),
        ({"upper": 0}, r"number in \(0, inf\]"),
    ],
)
def test_expansion_refuses_wrong_parameters(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        range_expansion(walk_bars(50), **{**BAND, "upper": 1.0, "lower": 1.0, "atr_bars": 3, **wrong})


@pytest.mark.parametrize("make", [lambda b: mean_reached(b, mean_bars=10, lower=1.0, horizon_bars=8, atr_bars=5),
                                  lambda b: range_expansion(b, **BAND, upper=2.0, lower=1.0, atr_bars=5)])  # fmt: skip
def test_later_bars_never_change_a_resolved_label(make):
    bars = walk_bars(300, seed=9)
    whole, early = make(bars), make(bars.head(200))
    known = np.flatnonzero((whole.end >= 0) & (whole.end < 200))
    assert len(known) > 50
    for name in ("y", "end", "ret"):
        np.testing.assert_array_equal(getattr(early, name)[known], getattr(whole, name)[known])
    assert (early.y[200:] >= 0).sum() == 0
