import math

import numpy as np
import polars as pl
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.labels.triple_barrier import triple_barrier
from tradsys.market.true_range import atr

PRICES = ("open", "high", "low", "close")


def frame(rows, segment=None, symbol="AAA"):
    time = np.datetime64("2020-01-01T01", "us") + np.arange(len(rows)) * np.timedelta64(60, "m")
    bars = pl.DataFrame(np.asarray(rows, dtype=float).reshape(-1, 4), schema=PRICES).select(
        pl.lit(symbol).alias("symbol"),
        pl.Series("time", time).dt.replace_time_zone("UTC"),
        *PRICES,
        volume=pl.lit(1.0),
    )
    return bars if segment is None else bars.with_columns(segment=pl.Series(segment, dtype=pl.UInt32))


def rough_bars(n, seed, *, tick=0.0, p_nan=0.004, p_gap=0.15, n_segments=6):
    """Opening gaps, wide bars that reach both barriers, NaNs, segments; ticks give exact touches."""
    rng = np.random.default_rng(seed)
    rows, price, spread = [], 100.0, 0.004
    for _ in range(n):
        if rng.random() < 0.02:
            spread = rng.choice([0.0005, 0.002, 0.004])
        start = price * math.exp(rng.normal(0, 0.02)) if rng.random() < p_gap else price
        path = start * np.exp(np.cumsum(rng.normal(0, spread * rng.choice([1, 4]), 5)))
        bar = [start, max(start, path.max()), min(start, path.min()), path[-1]]
        price = bar[3]
        rows.append([round(x / tick) * tick for x in bar] if tick else bar)
    rows = np.array(rows)
    whole = rng.random(n) < p_nan / 2
    rows[whole] = np.nan
    rows[rng.random((n, 4)) < p_nan / 8] = np.nan
    cuts = np.sort(rng.choice(np.arange(1, n), size=min(n_segments - 1, n - 1), replace=False))
    return frame(rows, segment=np.searchsorted(cuts, np.arange(n), side="right"))


def atr_by_talib(bars, atr_bars):
    """TA-Lib on each unbroken run of finite bars by itself."""
    out = np.full(bars.height, np.nan)
    hlc = bars.select("high", "low", "close").to_numpy().astype(float)
    segment = bars["segment"].to_list()
    run = []
    for t in range(bars.height + 1):
        broken = t == bars.height or np.isnan(hlc[t]).any()
        if run and (broken or segment[t] != segment[run[-1]]):
            out[run] = talib.ATR(*np.ascontiguousarray(hlc[run].T), timeperiod=atr_bars) if len(run) > 1 else np.nan
            run = []
        if not broken:
            run.append(t)
    return out


def walk(bars, *, upper, lower, horizon_bars, atr_bars, ternary=False, side=1):
    """The rule, one bar at a time, nothing clever."""
    o, h, low_, c = (bars[p].to_list() for p in PRICES)
    segment = bars["segment"].to_list()
    atr_ = atr_by_talib(bars, atr_bars).tolist()
    n = bars.height
    y, end, ret = [-1] * n, [-1] * n, [math.nan] * n
    for t in range(n):
        if math.isnan(atr_[t]) or t + 1 >= n or segment[t + 1] != segment[t]:
            continue
        entry = o[t + 1]
        profit = entry + side * upper * atr_[t]
        stop = entry - side * lower * atr_[t]
        for j in range(t + 1, t + horizon_bars + 1):
            if j >= n or segment[j] != segment[t] or any(math.isnan(x) for x in (o[j], h[j], low_[j], c[j])):
                break
            best, worst = (h[j], low_[j]) if side == 1 else (low_[j], h[j])
            if side * (o[j] - stop) <= 0:
                kind, fill = 0, o[j]
            elif side * (o[j] - profit) >= 0:
                kind, fill = 2, o[j]
            elif side * (worst - stop) <= 0:
                kind, fill = 0, stop
            elif side * (best - profit) >= 0:
                kind, fill = 2, profit
            elif j == t + horizon_bars:
                kind, fill = 1, c[j]
            else:
                continue
            y[t] = kind if ternary else int(kind == 2)
            end[t], ret[t] = j, side * math.log(fill / entry)
            break
    return np.array(y), np.array(end), np.array(ret)


def assert_same(bars, **p):
    labels = triple_barrier(bars, **p)
    y, end, ret = walk(bars, **p)
    np.testing.assert_array_equal(labels.y, y)
    np.testing.assert_array_equal(labels.end, end)
    np.testing.assert_allclose(labels.ret, ret, rtol=1e-9, atol=1e-14)
    np.testing.assert_array_equal(labels.weight, (y >= 0).astype(float))
    assert labels.y.dtype == np.int64
    assert labels.end.dtype == np.int64
    assert labels.ret.dtype == np.float64
    return labels


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("ternary", [False, True])
def test_equals_the_bar_walk(side, ternary):
    bars = rough_bars(3000, seed=1)
    labels = assert_same(bars, upper=1.5, lower=1.0, horizon_bars=24, atr_bars=14, ternary=ternary, side=side)
    assert set(np.unique(labels.y)) == ({-1, 0, 1, 2} if ternary else {-1, 0, 1})
    assert (labels.y >= 0).mean() > 0.5


def test_rough_bars_hold_every_case():
    """Else the comparison above proves less than it says."""
    bars = rough_bars(3000, seed=1)
    o, h, low_, _ = (bars[p].to_numpy() for p in PRICES)
    labels = triple_barrier(bars, upper=1.5, lower=1.0, horizon_bars=24, atr_bars=14)
    t = np.flatnonzero(labels.y >= 0)
    entry, size, end = o[t + 1], atr(bars, 14)[t], labels.end[t]
    profit, stop = entry + 1.5 * size, entry - size
    assert np.isnan(o).sum() >= 3
    assert ((o[end] > profit) & (end > t + 1)).sum() >= 10
    assert (o[end] < stop).sum() >= 10
    assert ((o[end] < profit) & (o[end] > stop) & (h[end] >= profit) & (low_[end] <= stop)).sum() >= 3
    assert ((h[end] < profit) & (low_[end] > stop)).sum() >= 3


PARAMETERS = st.fixed_dictionaries(
    {
        "upper": st.sampled_from([0.5, 1.0, 2.0, math.inf]),
        "lower": st.sampled_from([0.5, 1.0, 3.0, math.inf]),
        "horizon_bars": st.integers(1, 30),
        "atr_bars": st.integers(1, 8),
        "ternary": st.booleans(),
        "side": st.sampled_from([1, -1]),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 120), st.sampled_from([0.0, 0.5]), PARAMETERS)
def test_equals_the_bar_walk_anywhere(seed, n, tick, parameters):
    assert_same(rough_bars(n, seed, tick=tick, p_nan=0.02), **parameters)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 200), atr_bars=st.integers(1, 30))
def test_atr_equals_talib(seed, n, atr_bars):
    bars = rough_bars(n, seed, p_nan=0.01)
    np.testing.assert_allclose(atr(bars, atr_bars), atr_by_talib(bars, atr_bars), rtol=1e-12)


# Hand-worked: three flat bars of range 2 around 100 make ATR(2) = 2 at row 2; the position enters at open[3].
QUIET = [(100, 101, 99, 100)] * 3


def outcome(*later, **p):
    p = {"upper": 1.0, "lower": 1.0, "horizon_bars": 3, "atr_bars": 2, **p}
    labels = triple_barrier(frame([*QUIET, *later]), **p)
    return int(labels.y[2]), int(labels.end[2]), float(labels.ret[2])


CALM = (100, 101, 99, 100)


@pytest.mark.parametrize(
    ("later", "y", "end", "fill"),
    [
        ([(100, 102, 99, 100)], 1, 3, 102),  # the entry bar itself, exact touch
        ([(100, 101, 98, 100)], 0, 3, 98),
        ([(100, 101.999, 98.001, 100), CALM, CALM], 0, 5, 100),  # a hair short on both sides: timeout
        ([(100, 103, 97, 102)], 0, 3, 98),  # both in one bar
        ([CALM, (105, 106, 97, 105)], 1, 4, 105),  # opens beyond, though the stop is reached later in the bar
        ([CALM, (95, 103, 94, 95)], 0, 4, 95),
        ([CALM, (102, 102, 97, 99)], 1, 4, 102),  # opens exactly at the barrier
        ([CALM, CALM, (100, 101, 99, 100.5)], 0, 5, 100.5),  # timeout above the entry is still y = 0
        ([CALM, CALM, (100, 102, 99, 100)], 1, 5, 102),  # last bar of the horizon
    ],
)
def test_by_hand(later, y, end, fill):
    got = outcome(*later)
    assert got[:2] == (y, end)
    assert got[2] == pytest.approx(math.log(fill / 100), abs=1e-15)


def test_ternary_codes_by_hand():
    assert outcome((100, 102, 99, 100), ternary=True)[0] == 2
    assert outcome((100, 101, 98, 100), ternary=True)[0] == 0
    assert outcome(CALM, CALM, CALM, ternary=True)[0] == 1


def test_short_by_hand():
    """Profit lies below; a bar that reaches both met the stop above."""
    y, _, ret = outcome((100, 101, 97, 100), upper=1.5, lower=1.0, side=-1)
    assert (y, ret) == (1, pytest.approx(math.log(100 / 97)))
    y, _, ret = outcome((100, 102, 97, 100), upper=1.5, lower=1.0, side=-1)
    assert (y, ret) == (0, pytest.approx(-math.log(102 / 100)))


NAN = (math.nan,) * 4


@pytest.mark.parametrize(
    "later",
    [
        [CALM, CALM],  # ends before horizon or touch
        [],  # no bar to enter on
        [NAN, CALM, CALM, CALM],
        [CALM, NAN, (100, 110, 90, 100)],
        [CALM, CALM, (100, 101, 99, math.nan)],
        [CALM, CALM, (math.nan, 101, 99, 100)],
    ],
)
def test_unlabelled_by_hand(later):
    y, end, ret = outcome(*later)
    assert (y, end) == (-1, -1)
    assert math.isnan(ret)


def test_nan_after_the_touch_does_not_matter():
    assert outcome((100, 102, 99, 100), NAN)[:2] == (1, 3)


def test_touch_counts_though_the_horizon_is_cut():
    assert outcome(CALM, (100, 102, 99, 100))[:2] == (1, 4)


def test_no_position_spans_a_segment():
    bars = frame([*QUIET, CALM, (100, 110, 99, 100), CALM], segment=[0, 0, 0, 0, 1, 1])
    labels = triple_barrier(bars, upper=1.0, lower=1.0, horizon_bars=3, atr_bars=2)
    assert (labels.y == -1).all()


def test_a_panel_is_its_symbols_one_by_one():
    parts = [rough_bars(300, seed=k).drop("segment").with_columns(symbol=pl.lit(f"S{k}")) for k in range(3)]
    p = {"upper": 1.5, "lower": 1.5, "horizon_bars": 24, "atr_bars": 14}
    together = triple_barrier(pl.concat(parts), **p)
    alone = [triple_barrier(part, **p) for part in parts]
    np.testing.assert_array_equal(together.y, np.concatenate([a.y for a in alone]))
    np.testing.assert_array_equal(together.ret, np.concatenate([a.ret for a in alone]))
    shifted = [np.where(a.end >= 0, a.end + 300 * k, -1) for k, a in enumerate(alone)]
    np.testing.assert_array_equal(together.end, np.concatenate(shifted))
