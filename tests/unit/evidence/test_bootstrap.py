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
    percentile_interval,
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
    found = block_bootstrap_interval(
        lambda a, b: float(np.abs(a - b).max()), series, series, n_draws=20, seed=0
    )
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_rows_need_not_be_sorted_by_time(series):
    time = np.repeat(np.arange(100), 2)
    mixed = np.random.default_rng(1).permutation(200)
    straight = block_bootstrap_interval(np.mean, series, group=time, block_length=3, n_draws=50, seed=0)
    shuffled = block_bootstrap_interval(
        np.mean, series[mixed], group=time[mixed], block_length=3, n_draws=50, seed=0
    )
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
    ],
)
def test_refuses(call, said):
    with pytest.raises(DataError, match=said):
        call()
