import json

import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.evidence.bootstrap import (
    Estimate,
    automatic_block_length,
    automatic_block_lengths,
    bootstrap_draws,
    bootstrap_indices,
    dependence_length,
    dependence_lengths,
    estimate,
    percentile_interval,
    time_groups,
)


@pytest.fixture
def series():
    return np.random.default_rng(0).normal(size=200)


def test_an_undefined_statistic_is_none_with_a_reason_and_json_safe():
    found = estimate(float("nan"), None)
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


@pytest.mark.parametrize("block_length", [1.0, 4.0, 30.0, 500.0])
def test_counts_are_those_of_the_drawn_periods(block_length):
    counts = bootstrap_draws(lambda c: c, 31, block_length, 25, seed=3)
    drawn = [np.bincount(one, minlength=31) for one in bootstrap_indices(31, block_length, 25, seed=3)]
    assert counts.tolist() == np.array(drawn).tolist()


def test_times_are_grouped_in_order():
    order, first = time_groups(np.array([3, 1, 3, 2]))
    assert order.tolist() == [1, 3, 0, 2]
    assert first.tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("n", [8, 60, 500, 1201])
def test_lengths_of_many_series_are_those_of_each(n):
    rng = np.random.default_rng(n)
    noise = rng.normal(size=(n + 20, 5))
    widths = (1, 2, 5, 12, 21)
    smooth = np.column_stack([np.convolve(noise[:, k], np.ones(w), "valid")[:n] for k, w in enumerate(widths)])
    walk = np.cumsum(noise[:n], axis=0)
    for values in (smooth, walk, np.column_stack([smooth, np.zeros(n)])):
        each = [automatic_block_length(column) for column in values.T]
        assert automatic_block_lengths(values) == pytest.approx(np.array(each), rel=1e-9)
        alone = [dependence_length(column, 2.0) for column in values.T]
        assert dependence_lengths(values, 2.0) == pytest.approx(np.array(alone), rel=1e-9)
        assert dependence_length(values, 2.0) == pytest.approx(max(alone), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bootstrap_draws(lambda c: c, 5, 0.5, 3, seed=0), "block length 0.5"),
        (lambda: automatic_block_length(np.r_[np.nan, np.zeros(50)]), "1 values that are not finite"),
        (lambda: automatic_block_length(np.zeros((50, 2))), "one complete series"),
        (lambda: percentile_interval(np.arange(9.0), 1.0), "confidence 1.0"),
    ],
)
def test_refuses(call, said):
    with pytest.raises(DataError, match=said):
        call()
