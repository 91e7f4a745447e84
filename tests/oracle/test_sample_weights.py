"""Sample weights of Lopez de Prado 2018, chapter 4: his worked numbers, his snippets as loops, slow copies."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.core.errors import TradsysError
from tradsys.samples.sequential_bootstrap import sequential_bootstrap
from tradsys.samples.weights import (
    average_uniqueness,
    return_attribution,
    time_decay,
)

# section 4.5.3: labels over returns 1..3, 3..4 and 5..6 of six
BOOK_START, BOOK_END = np.array([0, 2, 4]), np.array([2, 3, 5])


def test_the_worked_example_of_the_book():
    np.testing.assert_allclose(slow_probabilities(BOOK_START, BOOK_END, []), np.full(3, 1 / 3) * [1, 1, 1])
    # after the second label was drawn: 5/14, 3/14, 6/14
    np.testing.assert_allclose(slow_probabilities(BOOK_START, BOOK_END, [1]), np.array([5, 3, 6]) / 14)


def slow_probabilities(start, end, drawn):
    """Snippet 4.4 and 4.5: average uniqueness of each candidate beside what was drawn, bar by bar."""
    unique = []
    for i in range(len(start)):
        shares = []
        for bar in range(start[i], end[i] + 1):
            others = sum(start[j] <= bar <= end[j] for j in drawn)
            shares.append(1 / (1 + others))
        unique.append(np.mean(shares))
    return np.array(unique) / np.sum(unique)


def slow_bootstrap(start, end, uniform):
    drawn = []
    for u in uniform:
        drawn.append(int(np.searchsorted(np.cumsum(slow_probabilities(start, end, drawn)), u, side="right")))
    return np.array(drawn)


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=14)


@settings(max_examples=60, deadline=None)
@given(found=spans, seed=st.integers(0, 2**32 - 1))
def test_the_bootstrap_equals_a_slow_copy_draw_by_draw(found, seed):
    start = np.array([s for s, _ in found])
    end = start + np.array([n for _, n in found])
    order = np.argsort(start, kind="stable")
    fast = sequential_bootstrap(start, end, seed=seed)
    uniform = np.random.default_rng(seed).random(len(start))
    slow = order[np.minimum(slow_bootstrap(start[order], end[order], uniform), len(start) - 1)]
    np.testing.assert_array_equal(fast, slow)


def test_a_thousand_labels_in_blocks_equal_the_slow_copy():
    rng = np.random.default_rng(0)
    start = np.sort(rng.integers(0, 2000, 700))
    end = start + rng.integers(0, 6, 700)
    fast = sequential_bootstrap(start, end, n_draws=40, seed=5)
    np.testing.assert_array_equal(fast, slow_bootstrap(start, end, np.random.default_rng(5).random(40)))


def test_it_draws_more_unique_samples_than_a_plain_bootstrap():
    # the Monte Carlo experiment of section 4.5.4: uniqueness rises from about 0.6 to about 0.7
    rng = np.random.default_rng(1)
    plain, sequential = [], []
    for k in range(200):
        start = rng.integers(0, 100, 10)
        end = start + rng.integers(1, 6, 10)
        iid = rng.integers(0, 10, 10)
        drawn = sequential_bootstrap(start, end, seed=k)
        plain.append(average_uniqueness(start[iid], end[iid]).mean())
        sequential.append(average_uniqueness(start[drawn], end[drawn]).mean())
    assert np.mean(sequential) > np.mean(plain) + 0.05


def slow_attribution(start, end, step):
    """Snippet 4.10: the sum of returns over concurrency, in absolute value."""
    out = []
    for a, b in zip(start, end, strict=True):
        total = 0.0
        for bar in range(a, b + 1):
            alive = sum(s <= bar <= e for s, e in zip(start, end, strict=True))
            total += (0.0 if np.isnan(step[bar]) else step[bar]) / alive
        out.append(abs(total))
    return np.array(out)


@settings(max_examples=60, deadline=None)
@given(found=spans, seed=st.integers(0, 1000))
def test_return_attribution_equals_a_loop(found, seed):
    start = np.array([s for s, _ in found]) + 3
    end = start + np.array([n for _, n in found])
    step = np.random.default_rng(seed).normal(0, 0.01, 60)
    step[[0, 20]] = np.nan
    np.testing.assert_allclose(
        return_attribution(start, end, step), slow_attribution(start, end, step), rtol=1e-9, atol=1e-15
    )


def decay_by_the_book(unique, last):
    """Snippet 4.11, getTimeDecay, word by word."""
    weight = pd.Series(unique).sort_index().cumsum()
    slope = (1.0 - last) / weight.iloc[-1] if last >= 0 else 1.0 / ((last + 1) * weight.iloc[-1])
    const = 1.0 - slope * weight.iloc[-1]
    weight = const + slope * weight
    weight[weight < 0] = 0
    return weight.to_numpy()


@pytest.mark.parametrize("oldest", [1.0, 0.75, 0.5, 0.0, -0.25, -0.5])
def test_time_decay_is_the_books(oldest):
    unique = np.random.default_rng(3).uniform(0.05, 1, 300)
    np.testing.assert_allclose(
        time_decay(unique, np.arange(300), oldest), decay_by_the_book(unique, oldest), rtol=1e-9, atol=1e-12
    )


def test_decay_knows_time_and_not_order():
    unique, time = np.random.default_rng(3).uniform(0.05, 1, 60), np.repeat(np.arange(20), 3)
    factor = time_decay(unique, time, 0.2)
    shuffled = np.random.default_rng(4).permutation(60)
    np.testing.assert_allclose(time_decay(unique[shuffled], time[shuffled], 0.2), factor[shuffled])
    assert (factor.reshape(20, 3) == factor[::3, None]).all()
    assert factor.max() == 1


@pytest.mark.parametrize("wrong", [-1.0, 1.5, float("nan"), True, "0.5"])
def test_decay_out_of_range_is_named(wrong):
    with pytest.raises(TradsysError, match=r"time_decay=.*lies in \(-1, 1\]"):
        time_decay(np.ones(3), np.arange(3), wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sequential_bootstrap(np.array([], dtype=int), np.array([], dtype=int), n_draws=3),
        lambda: sequential_bootstrap(np.array([0]), np.array([1]), n_draws=-1),
        lambda: return_attribution(np.array([0]), np.array([9]), np.zeros(5)),
    ],
)
def test_refuses(call):
    with pytest.raises(ValueError, match=r"bootstrap|attribution"):
        call()


def test_nothing_from_nothing():
    none = np.array([], dtype=int)
    assert sequential_bootstrap(none, none).shape == (0,)
    assert return_attribution(none, none, np.zeros(3)).shape == (0,)
    assert time_decay(np.array([]), none, 0.5).shape == (0,)
