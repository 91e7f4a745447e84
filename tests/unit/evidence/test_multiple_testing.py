from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from tradsys.core.errors import DataError
from tradsys.evidence.multiple_testing import holm, wilson_interval

p_lists = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=20)


@given(st.integers(0, 50), st.integers(1, 50), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels(successes, more, confidence):
    n = successes + more - 1 if successes else more
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(expected, abs=1e-12)


def test_three_wins_of_three_are_not_a_certainty():
    low, high = wilson_interval(3, 3)
    assert low == pytest.approx(0.4385, abs=1e-4)
    assert high == 1


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(successes, n, low, high):
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


# Benjamini & Hochberg 1995, section 3.2: fifteen comparisons of two treatments after a heart attack
INFARCTION = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528]
INFARCTION += [0.759, 1.0]


def test_holm_as_published():
    # there: control of the family-wise error at 0.05 rejects the three smallest
    assert int((holm(INFARCTION) <= 0.05).sum()) == 3


def test_nothing_is_known_of_no_trades():
    assert wilson_interval(0, 0) == (0, 1)


@given(p_values=p_lists)
def test_holm_equals_statsmodels(p_values):
    # statsmodels collects garbage at every call, which takes half a second in the process of a whole test run
    with mock.patch("gc.collect"):
        expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(holm(p_values), expected, rtol=1e-12)


def test_ties_and_ones_keep_their_places():
    assert holm([0.02, 1.0, 0.02, 0.5]).tolist() == [0.08, 1.0, 0.08, 1.0]


def test_holm_costs_no_garbage_collection():
    with mock.patch("gc.collect", side_effect=AssertionError("the collector ran")):
        holm([0.1, 0.2])


@pytest.mark.parametrize("p_values", [[], [0.1, np.nan], [1.2], [[0.1]]])
def test_refuses_what_is_no_p_value(p_values):
    with pytest.raises(DataError, match="p-values"):
        holm(p_values)


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_refuses_impossible_counts(successes, n):
    with pytest.raises(DataError, match="0 <= successes <= n"):
        wilson_interval(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, float("nan")])
def test_refuses_impossible_confidence(confidence):
    with pytest.raises(DataError, match="between 0 and 1"):
        wilson_interval(1, 3, confidence)
