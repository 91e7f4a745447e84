"""Average uniqueness against the definition, bar by bar."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.samples.weights import average_uniqueness


def slow_uniqueness(start, end):
    out = []
    for s, e in zip(start, end, strict=True):
        shares = []
        for bar in range(s, e + 1):
            shares.append(1 / sum(a <= bar <= b for a, b in zip(start, end, strict=True)))
        out.append(sum(shares) / len(shares))
    return np.array(out)


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=40)


@given(spans)
def test_equals_the_double_loop(spans):
    start = np.array([s for s, _ in spans])
    end = start + np.array([n for _, n in spans])
    np.testing.assert_allclose(average_uniqueness(start, end), slow_uniqueness(start, end), rtol=1e-12)


def test_worked_by_hand():
    # bars     0  1  2  3  4
    # a        x  x  x
    # b              x  x
    # c                       (bar 6 alone)
    # count    1  1  2  1
    got = average_uniqueness(np.array([0, 2, 6]), np.array([2, 3, 6]))
    np.testing.assert_allclose(got, [(1 + 1 + 1 / 2) / 3, (1 / 2 + 1) / 2, 1.0])


def test_equal_spans_share_alike():
    got = average_uniqueness(np.array([5, 5, 5, 5]), np.array([9, 9, 9, 9]))
    np.testing.assert_allclose(got, 0.25)


def test_duplicate_starts_with_unequal_ends():
    start, end = np.array([3, 3, 3]), np.array([3, 5, 9])
    np.testing.assert_allclose(average_uniqueness(start, end), slow_uniqueness(start, end))


def test_far_from_zero_and_unsorted():
    rng = np.random.default_rng(0)
    start = rng.permutation(300) + 1_000_000
    end = start + rng.integers(0, 30, 300)
    np.testing.assert_allclose(average_uniqueness(start, end), slow_uniqueness(start, end), rtol=1e-10)


def test_no_labels():
    assert average_uniqueness(np.array([], dtype=int), np.array([], dtype=int)).shape == (0,)


def test_an_end_before_its_start_is_refused():
    with pytest.raises(ValueError, match=r"1 labels end before they start, first at 1 with 5\.\.-1"):
        average_uniqueness(np.array([0, 5]), np.array([3, -1]))


@pytest.mark.parametrize(
    ("start", "end"),
    [(np.array([0.0]), np.array([1.0])), (np.array([0, 1]), np.array([1])), (np.zeros((2, 2), int),) * 2],
)
def test_other_bad_spans_are_refused(start, end):
    with pytest.raises(ValueError, match="uniqueness"):
        average_uniqueness(start, end)
