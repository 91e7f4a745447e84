import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from tradsys.core.errors import DataError
from tradsys.evidence.multiple import benjamini_yekutieli, holm, wilson_interval

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@given(st.integers(0, 50), st.integers(1, 50), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels(successes, more, confidence):
    n = successes + more - 1 if successes else more
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(expected, abs=1e-12)


def test_three_wins_of_three_are_not_a_certainty():
    low, high = wilson_interval(3, 3)
    assert low == pytest.approx(0.4385, abs=1e-4)
    assert high == 1


def test_nothing_is_known_of_no_trades():
    assert wilson_interval(0, 0) == (0, 1)


@settings(max_examples=20)
@given(p_lists)
def test_holm_equals_statsmodels(p_values):
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], rtol=1e-12)


@given(p_lists)
def test_benjamini_yekutieli_equals_statsmodels(p_values):
    expected = multipletests(p_values, method="fdr_by")[1]
    np.testing.assert_allclose(benjamini_yekutieli(p_values), expected, rtol=1e-12)


@pytest.mark.parametrize("adjust", [holm, benjamini_yekutieli])
@pytest.mark.parametrize("p_values", [[], [0.1, np.nan], [1.2], [[0.1]]])
def test_refuses_what_is_no_p_value(adjust, p_values):
    with pytest.raises(DataError, match="p-values"):
        adjust(p_values)


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_refuses_impossible_counts(successes, n):
    with pytest.raises(DataError, match="0 <= successes <= n"):
        wilson_interval(successes, n)
