"""Order-book measures against loops written from their definitions, and against look-ahead."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.market.orderbook.measures import (
    DEPTH_COLUMNS,
    QUOTE_COLUMNS,
    depth_measures,
    quote_measures,
    trade_measures,
)

SECOND = 1_000_000


def quotes(rng, n=120, spread=True):
    """A walk of best prices on a grid of ticks, with crossed and damaged books among them."""
    arrived = np.cumsum(rng.integers(0, SECOND, n)) + SECOND
    bid = 100 + 0.1 * rng.integers(-2, 3, n).cumsum()
    ask = bid + 0.1 * rng.integers(1, 4, n)
    values = np.column_stack([bid, rng.integers(1, 9, n) * 0.5, ask, rng.integers(1, 9, n) * 0.5])
    if spread:
        values[rng.random(n) < 0.05, 0] += 1.0  # crossed
        values[rng.random(n) < 0.05, 1] = np.nan
    return arrived, values


def grid(rng, arrived, n=12):
    close = np.sort(rng.choice(np.arange(SECOND, int(arrived[-1]) + 5 * SECOND), n, replace=False))
    opened = close - 4 * SECOND
    opened[1:] = np.maximum(opened[1:], close[:-1])
    return opened, close


def loop_of_quotes(arrived, values, opened, close, stale):
    """Each bar by itself, from all records that arrived by its close."""
    rows = []
    for o, c in zip(opened, close, strict=True):
        good = [
            (a, *v)
            for a, v in zip(arrived.tolist(), values.tolist(), strict=True)
            if a <= c and np.isfinite(v).all() and min(v) > 0 and v[0] < v[2]
        ]
        if not good or c - good[-1][0] > stale:
            rows.append([np.nan] * len(QUOTE_COLUMNS))
            continue
        _, pb, qb, pa, qa = good[-1]
        mid = (pb + pa) / 2
        stood = [(max(g[0], o), h[0] if h else c, g) for g, h in zip(good, [*good[1:], None], strict=True)]
        stood = [(end - begin, g) for begin, end, g in stood if end > begin]
        total = sum(w for w, _ in stood)
        spreads = sum(w * (g[3] - g[1]) / ((g[3] + g[1]) / 2) for w, g in stood) / total
        leans = sum(w * (g[2] - g[4]) / (g[2] + g[4]) for w, g in stood) / total
        flow, queues = 0.0, []
        for before, now in pairwise(good):
            if now[0] <= o:
                continue
            flow += (now[1] >= before[1]) * now[2] - (now[1] <= before[1]) * before[2]
            flow += -(now[3] <= before[3]) * now[4] + (now[3] >= before[3]) * before[4]
            queues.append((now[2] + now[4]) / 2)
        micro = (pa * qb + pb * qa) / (qb + qa)
        row = [(pa - pb) / mid * 1e4, spreads * 1e4, (qb - qa) / (qb + qa), leans]
        rows.append([*row, (micro - mid) / mid * 1e4, flow / np.mean(queues) if queues else 0.0])
    return np.array(rows)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from([SECOND, 3 * SECOND, 10**12]))
def test_quotes_are_the_loop(seed, stale):
    rng = np.random.default_rng(seed)
    arrived, values = quotes(rng)
    opened, close = grid(rng, arrived)
    got, found = quote_measures(arrived, values, opened, close, stale)
    np.testing.assert_allclose(got, loop_of_quotes(arrived, values, opened, close, stale), rtol=1e-9, atol=1e-9)
    inside = arrived <= close[-1]
    finite = np.isfinite(values).all(axis=1)
    assert found.damaged == (inside & ~finite).sum()
    assert found.crossed == (inside & finite & (values[:, 0] >= values[:, 2])).sum()


def test_order_flow_of_the_paper_by_hand():
    """Eq. 4: a rising bid adds its queue, a falling ask takes its own, equal prices give the change."""
    arrived = np.array([1, 2, 3, 4, 5]) * SECOND
    books = [(10.0, 5.0, 10.2, 4.0), (10.1, 3.0, 10.2, 4.0), (10.1, 2.0, 10.2, 7.0), (10.0, 6.0, 10.2, 7.0)]
    values = np.array([*books, (10.0, 6.0, 10.1, 1.0)])
    # 1: bid up +3, ask same -4 +4; 2: bid 2 - 3, ask -7 + 4; 3: bid down -2, ask 0; 4: bid 6 - 6, ask down -1
    expected = [3.0, -1.0 - 3.0, -2.0, -1.0]
    for k, flow in enumerate(expected, 1):
        got, _ = quote_measures(arrived, values, arrived[k : k + 1] - 1, arrived[k : k + 1], 10**12)
        queue = (values[k, 1] + values[k, 3]) / 2
        assert got[0, QUOTE_COLUMNS.index("ofi")] == pytest.approx(flow / queue)


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_depth_is_the_loop(seed):
    rng = np.random.default_rng(seed)
    n, levels = 30, 10
    arrived = np.cumsum(rng.integers(1, SECOND, n))
    bid = 100 - 0.1 * np.cumsum(rng.integers(1, 3, (n, levels)), axis=1)
    ask = 100 + 0.1 * np.cumsum(rng.integers(1, 3, (n, levels)), axis=1)
    size = rng.uniform(0.1, 5, (n, 2, levels))
    values = np.stack([bid, size[:, 0], ask, size[:, 1]], axis=2).reshape(n, -1)
    values[rng.random(n) < 0.1, 0] = 200.0
    close = np.sort(rng.integers(0, int(arrived[-1]) + SECOND, 9))
    got, _ = depth_measures(arrived, values, close, 2 * SECOND)
    for row, c in zip(got, close, strict=True):
        last = [k for k in range(n) if arrived[k] <= c and values[k, 0] < values[k, 2]]
        if not last or c - arrived[last[-1]] > 2 * SECOND:
            assert np.isnan(row).all()
            continue
        k = last[-1]
        mid = (values[k, 0] + values[k, 2]) / 2
        expected = []
        for depth in (5, 10):
            bids, asks = (sum(values[k, 4 * j + at] for j in range(depth)) for at in (1, 3))
            expected.append((bids - asks) / (bids + asks))
        slopes = []
        for at in (0, 2):
            far = [abs(values[k, 4 * j + at] - mid) / mid * 1e4 for j in range(levels)]
            held = np.cumsum([values[k, 4 * j + at + 1] for j in range(levels)])
            slopes.append(np.linalg.lstsq(np.array(far)[:, None], held, rcond=None)[0][0])
        expected += [np.mean(slopes), (slopes[0] - slopes[1]) / sum(slopes)]
        np.testing.assert_allclose(row, expected, rtol=1e-9)
    assert len(DEPTH_COLUMNS) == got.shape[1]


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_trades_are_the_loop(seed):
    rng = np.random.default_rng(seed)
    arrived = np.sort(rng.integers(0, 40 * SECOND, 60))
    values = np.column_stack([np.full(60, 100.0), rng.uniform(0.1, 3, 60), rng.choice([-1.0, 1.0], 60)])
    values[rng.random(60) < 0.1, 1] = np.nan
    opened, close = grid(rng, arrived)
    got, _ = trade_measures(arrived, values, opened, close)
    for row, o, c in zip(got, opened, close, strict=True):
        own = values[(arrived > o) & (arrived <= c) & np.isfinite(values[:, 1])]
        assert row[1] == pytest.approx(own[:, 1].sum(), abs=1e-9)
        if len(own):
            assert row[0] == pytest.approx((own[:, 1] * own[:, 2]).sum() / own[:, 1].sum(), abs=1e-9)
        else:
            assert np.isnan(row[0])


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_what_arrives_after_a_close_changes_nothing_before_it(seed):
    """And the negative control: measured a bar too late, the very same check fails."""
    rng = np.random.default_rng(seed)
    arrived, values = quotes(rng, spread=False)
    opened, close = grid(rng, arrived)
    cut = int(rng.integers(3, len(close)))
    other = values.copy()
    other[arrived > close[cut - 1]] *= [1.5, 3.0, 2.0, 0.2]
    one, two = (quote_measures(arrived, v, opened, close, 10**12)[0] for v in (values, other))
    np.testing.assert_array_equal(one[:cut], two[:cut])
    late = [quote_measures(arrived - 4 * SECOND, v, opened, close, 10**12)[0][:cut] for v in (values, other)]
    changed = ((arrived > close[cut - 1]) & (arrived <= close[cut - 1] + 4 * SECOND)).any()
    assert not changed or not np.array_equal(*late, equal_nan=True)
