import json

import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.evidence.bootstrap import (
    Estimate,
    automatic_block_length,
    block_bootstrap_interval,
    bootstrap_draws,
    estimate,
    longest_block_length,
    percentile_interval,
    sharpe_draws,
    sharpe_intervals,
    time_groups,
)


@pytest.fixture
def series():
    return np.random.default_rng(0).normal(size=200)


def test_same_seed_same_interval(series):
    def once(seed):
        return block_bootstrap_interval(np.mean, series, n_draws=100, seed=seed)

    assert once(1) == once(1) != once(2)


def test_arrays_are_resampled_together(series):
    found = block_bootstrap_interval(lambda a, b: float(np.abs(a - b).max()), series, series, n_draws=20, seed=0)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_rows_need_not_be_sorted_by_time(series):
    time = np.repeat(np.arange(100), 2)
    mixed = np.random.default_rng(1).permutation(200)
    straight = block_bootstrap_interval(np.mean, series, group=time, block_length=3, n_draws=50, seed=0)
    shuffled = block_bootstrap_interval(np.mean, series[mixed], group=time[mixed], block_length=3, n_draws=50, seed=0)
    assert (shuffled.low, shuffled.high) == pytest.approx((straight.low, straight.high))


def test_wider_confidence_is_a_wider_interval(series):
    narrow = block_bootstrap_interval(np.mean, series, confidence=0.5, seed=0)
    wide = block_bootstrap_interval(np.mean, series, confidence=0.99, seed=0)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_too_few_blocks_give_no_interval(series):
    found = block_bootstrap_interval(np.mean, series, min_block=21, seed=0)
    assert found.value == pytest.approx(series.mean())
    assert found.low is found.high is None
    assert "fewer than 10 blocks of 21" in found.reason


def test_an_undefined_statistic_is_none_with_a_reason_and_json_safe(series):
    found = block_bootstrap_interval(lambda a: float("nan"), series, n_draws=5, seed=0)
    assert found == Estimate(None, reason="not defined on these samples")
    json.dumps(found.as_dict(), allow_nan=False)


def test_mostly_undefined_draws_give_no_interval():
    draws = np.r_[np.full(10, np.nan), np.arange(90.0)]
    assert percentile_interval(draws) is None
    assert "more than 5%" in estimate(1.0, draws).reason
    assert percentile_interval(np.r_[np.nan, np.arange(99.0)]) is not None


@pytest.mark.parametrize("values", [np.zeros(50), np.full(50, 0.3), np.arange(3.0)])
def test_constant_or_short_series_fall_back_to_the_shortest_block(values):
    assert automatic_block_length(values) == 1
    assert automatic_block_length(values, 7) == 7


@pytest.mark.parametrize("block_length", [1.0, 3.5, 50.0, 1000.0])
def test_every_draw_has_all_its_periods(block_length):
    counts = bootstrap_draws(lambda c: c, 50, block_length, 40, seed=0)
    assert (counts.sum(axis=1) == 50).all()
    assert (counts >= 0).all()


def test_times_are_grouped_in_order():
    order, first = time_groups(np.array([3, 1, 3, 2]))
    assert order.tolist() == [1, 3, 0, 2]
    assert first.tolist() == [0, 1, 2, 4]


def test_one_strategy_among_many_has_the_interval_it_has_alone():
    returns = np.random.default_rng(3).normal(0.001, 0.01, size=(300, 4))
    together = sharpe_intervals(returns, block_length=4, n_draws=200, seed=5)
    alone = [sharpe_intervals(returns[:, k], block_length=4, n_draws=200, seed=5)[0] for k in range(4)]
    for a, b in zip(together, alone, strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), rel=1e-12)
    draws = sharpe_draws(returns[:, 2], 4, 200, seed=5)
    assert (together[2].low, together[2].high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), rel=1e-12)


def test_idle_strategies_and_short_records_have_reasons_instead_of_intervals():
    returns = np.random.default_rng(4).normal(0.001, 0.01, size=(300, 3))
    returns[:, 1] = 0
    found = sharpe_intervals(returns, n_draws=50, seed=0)
    assert found[1] == Estimate(None, reason=found[1].reason)
    assert "never traded" in found[1].reason
    assert found[0].low < found[0].value < found[0].high
    short = sharpe_intervals(returns, min_block=40, seed=0)
    assert short[0].value == found[0].value
    assert (short[0].low, short[0].reason) == (None, "300 periods hold fewer than 10 blocks of 40; more are needed")


@pytest.mark.parametrize("n", [8, 60, 500, 1201])
def test_block_length_of_many_is_the_longest_of_each(n):
    rng = np.random.default_rng(n)
    noise = rng.normal(size=(n + 20, 5))
    widths = (1, 2, 5, 12, 21)
    smooth = np.column_stack([np.convolve(noise[:, k], np.ones(w), "valid")[:n] for k, w in enumerate(widths)])
    walk = np.cumsum(noise[:n], axis=0)
    for values in (smooth, walk, np.column_stack([smooth, np.zeros(n)])):
        each = [automatic_block_length(column) for column in values.T]
        assert longest_block_length(values) == pytest.approx(max(each), rel=1e-9)
        for column, length in zip(values.T, each, strict=True):
            assert longest_block_length(column[:, None]) == pytest.approx(length, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: block_bootstrap_interval(np.mean, np.zeros(5), np.zeros(4), seed=0), r"lengths \[4, 5\]"),
        (
            lambda: block_bootstrap_interval(np.mean, np.zeros(5), group=np.zeros(4), seed=0),
            r"lengths \[4, 5\]",
        ),
        (lambda: block_bootstrap_interval(np.mean, np.zeros(0), seed=0), r"lengths \[0\]"),
        (lambda: block_bootstrap_interval(np.mean, np.zeros((50, 2)), seed=0), "several columns"),
        (lambda: bootstrap_draws(lambda c: c, 5, 0.5, 3, seed=0), "block length 0.5"),
        (lambda: automatic_block_length(np.r_[np.nan, np.zeros(50)]), "1 values that are not finite"),
        (lambda: automatic_block_length(np.zeros((50, 2))), "one whole series"),
        (lambda: block_bootstrap_interval(np.mean, np.r_[np.nan, np.zeros(50)], seed=0), "not finite"),
        (lambda: percentile_interval(np.arange(9.0), 1.0), "confidence 1.0"),
        (lambda: sharpe_intervals(np.full((9, 2), np.nan), seed=0), "18 of 18 returns are not finite"),
        (lambda: sharpe_intervals(np.zeros((1, 2)), seed=0), "at least 2"),
    ],
)
def test_refuses(call, said):
    with pytest.raises(DataError, match=said):
        call()
