"""The shift of scores: zero where nothing moved, the hand-worked number where it did."""

import numpy as np
import pytest

from tradsys.ops.trading.watch import population_stability

EVEN = np.linspace(0, 1, 1001)


def test_the_reference_itself_has_no_shift():
    assert population_stability(np.linspace(0.0005, 0.9995, 1000), EVEN) == pytest.approx(0, abs=1e-6)


def test_two_bins_by_hand():
    values = np.repeat([0.25, 0.75], [300, 100])
    want = (0.75 - 0.5) * np.log(0.75 / 0.5) + (0.25 - 0.5) * np.log(0.25 / 0.5)
    assert population_stability(values, EVEN, n_bins=2) == pytest.approx(want)


def test_scores_that_moved_away_raise_the_alarm():
    rng = np.random.default_rng(0)
    assert population_stability(rng.uniform(0, 1, 2000), EVEN) < 0.05
    assert population_stability(rng.uniform(0.4, 1, 2000), EVEN) > 0.25
