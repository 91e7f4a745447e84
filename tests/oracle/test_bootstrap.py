"""The stationary bootstrap against arch and its own law (Politis & Romano 1994)."""

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap, optimal_block_length

from tradsys.evidence.bootstrap import (
    automatic_block_length,
    bootstrap_draws,
    bootstrap_indices,
)


def moving_average(rng, n, width):
    return np.convolve(rng.normal(size=n + width - 1), np.ones(width) / np.sqrt(width), mode="valid")


def test_counts_and_indices_are_the_same_draws_whatever_the_chunk():
    indices = np.array(list(bootstrap_indices(60, 4.0, 50, seed=3)))
    counted = np.array([np.bincount(row, minlength=60) for row in indices])
    for cells in (1, 10**6, 10**5):
        whole = bootstrap_draws(lambda c: c, 60, 4.0, 50, seed=3, cells_per_draw=cells)
        np.testing.assert_array_equal(whole, counted)


def test_blocks_have_geometric_length_and_uniform_starts():
    # Politis & Romano 1994, section 2: a block goes on with probability 1 - 1/b, around the end
    indices = np.array(list(bootstrap_indices(40, 5.0, 4000, seed=1)))
    goes_on = (np.diff(indices, axis=1) % 40 == 1).mean()
    assert goes_on == pytest.approx(1 - 1 / 5 + 1 / 5 / 40, abs=0.004)
    frequency = np.bincount(indices.ravel(), minlength=40) / indices.size
    assert frequency == pytest.approx(np.full(40, 1 / 40), abs=0.002)


def test_spread_of_the_mean_equals_archs():
    series = moving_average(np.random.default_rng(0), 400, 5)
    ours = bootstrap_draws(lambda c: c @ series / 400, 400, 8.0, 4000, seed=1)
    theirs = StationaryBootstrap(8, series, seed=2).apply(np.mean, 4000).ravel()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * theirs.std() / np.sqrt(2000))


def test_automatic_length_is_archs_but_at_least_one():
    rng = np.random.default_rng(1)
    series = moving_average(rng, 500, 10)
    assert automatic_block_length(series) == optimal_block_length(series)["stationary"].iloc[0]
    assert automatic_block_length(series, 40) == 40
    assert automatic_block_length(rng.normal(size=5000)) >= 1
