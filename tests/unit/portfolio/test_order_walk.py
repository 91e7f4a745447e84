import numpy as np

from tradsys.portfolio.order_walk import locate


def test_locate_finds_bars_in_any_order_and_none_where_there_is_none():
    bar_time = np.array([10, 20, 30, 5, 20, 25, 40])
    first = np.array([0, 3, 7])
    rng = np.random.default_rng(0)
    symbol, time = rng.integers(0, 2, 300), 5 * rng.integers(0, 10, 300)
    time[:50].sort()
    known = {(s, t): b for s in (0, 1) for b, t in enumerate(bar_time) if first[s] <= b < first[s + 1]}
    expected = [known.get((s, t), -1) for s, t in zip(symbol, time, strict=True)]
    assert locate(symbol, time, first, bar_time).tolist() == expected
    assert {-1, 0, 6} <= set(expected)
