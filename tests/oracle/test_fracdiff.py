"""Fractional differencing against the formula by hand, a plain loop and the book's function."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.tsa.stattools import adfuller

from tradsys.core.errors import DataError
from tradsys.features.fracdiff import ffd, ffd_weights, relative_ffd, smallest_d


def book_ffd(x, d, tol):
    """Lopez de Prado 2018, snippets 5.2 and 5.3: weights newest last, one dot product per row."""
    w, k = [1.0], 1
    while True:
        new = -w[-1] / k * (d - k + 1)
        if abs(new) < tol:
            break
        w.append(new)
        k += 1
    column = np.array(w[::-1])
    out = np.full(len(x), np.nan)
    for t in range(len(w) - 1, len(x)):
        out[t] = float(np.dot(column, x[t - len(w) + 1 : t + 1]))
    return out


def book_ffd_of_windows(x, d, tol):
    """The book's dot product on each window less its own oldest value."""
    n = len(ffd_weights(d, tol))
    out = np.full(len(x), np.nan)
    for t in range(n - 1, len(x)):
        out[t] = book_ffd(x[t - n + 1 : t + 1] - x[t - n + 1], d, tol)[-1]
    return out


@pytest.mark.parametrize(("d", "tol"), [(0.4, 1e-3), (0.15, 1e-3), (0.85, 1e-4), (1.0, 1e-3)])
def test_a_window_relative_to_its_oldest_value_by_hand(d, tol):
    x = np.random.default_rng(1).normal(size=400).cumsum()
    np.testing.assert_allclose(relative_ffd(x, d, tol), book_ffd_of_windows(x, d, tol), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(relative_ffd(x - 18.4, d, tol), relative_ffd(x, d, tol), rtol=0, atol=1e-12)


def test_weights_of_two_fifths_by_hand():
    # w_k = -w_{k-1} (d - k + 1)/k: -0.4; 0.4 (-0.6)/2 = -0.12; -0.064 = 0.12 (-1.6)/3; ...
    np.testing.assert_allclose(ffd_weights(0.4, 0.03), [1, -0.4, -0.12, -0.064, -0.0416], rtol=1e-12)


def test_the_cut_is_before_the_first_weight_below_tol():
    assert len(ffd_weights(0.4, 0.0416)) == 5  # |w_4| = 0.0416 is not below it
    assert len(ffd_weights(0.4, 0.04161)) == 4


@given(st.floats(0.01, 0.99), st.floats(1e-4, 1e-2))
def test_weights_are_binomial_coefficients(d, tol):
    weights = ffd_weights(d, tol)
    for k in range(min(len(weights), 60)):
        binomial = (-1) ** k * math.gamma(d + 1) / (math.gamma(k + 1) * math.gamma(d - k + 1))
        assert weights[k] == pytest.approx(binomial, rel=1e-9)
    assert (np.abs(weights) >= tol).all()


def test_order_one_is_a_difference_and_zero_the_series():
    x = np.random.default_rng(0).normal(size=50).cumsum()
    np.testing.assert_allclose(ffd(x, 1.0, 1e-4)[1:], np.diff(x), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(ffd(x, 0.0, 1e-4), x)


@pytest.mark.parametrize(("d", "tol"), [(0.4, 1e-3), (0.15, 1.5e-4), (0.85, 1e-4), (1.4, 1e-3)])
def test_equals_the_book(d, tol):
    x = np.random.default_rng(1).normal(size=900).cumsum()
    np.testing.assert_allclose(ffd(x, d, tol), book_ffd(x, d, tol), rtol=1e-10, atol=1e-12)


def test_a_nan_blanks_every_window_that_holds_it():
    x = np.random.default_rng(2).normal(size=200)
    x[100] = np.nan
    n_weights = len(ffd_weights(0.4, 1e-2))
    out = ffd(x, 0.4, 1e-2)
    assert np.isnan(out).nonzero()[0].tolist() == [*range(n_weights - 1), *range(100, 100 + n_weights)]


def test_too_short_a_series_is_all_nan():
    assert np.isnan(ffd(np.arange(10.0), 0.4, 1e-4)).all()


def test_smallest_d_is_the_first_that_passes():
    x = np.random.default_rng(3).normal(0, 0.01, size=4000).cumsum() + 5
    grid = [round(0.05 * k, 2) for k in range(1, 21)]
    passes = []
    for d in grid:
        series = book_ffd(x, d, 1e-3)
        test = adfuller(series[~np.isnan(series)], maxlag=1, regression="c", autolag=None, result_object=True)
        passes.append(test.pvalue < 0.05)
    found = smallest_d(x, tol=1e-3, grid=grid)
    assert found == grid[passes.index(True)]
    assert not passes[0], "the walk must need some differencing for this test to say anything"


def test_what_cannot_be_tested_or_made_stationary_is_refused():
    x = np.random.default_rng(4).normal(0, 0.01, size=3000).cumsum()
    with pytest.raises(DataError, match="leaves 51 of 51 prices to test; at least 100"):
        smallest_d(x[:51], tol=1e-3, grid=[0.0])
    with pytest.raises(DataError, match=r"no d of \[0.0\] makes 3000 log prices stationary"):
        smallest_d(x, tol=1e-3, grid=[0.0])
    with pytest.raises(DataError, match="0 < tol < 1"):
        ffd_weights(0.4, 0.0)
