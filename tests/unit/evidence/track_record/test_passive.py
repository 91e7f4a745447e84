"""Returns beyond passive holding: nothing is left of being long, all of it of timing, nothing is known too early."""

import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.evidence.track_record.passive import beyond_passive


def test_a_constant_exposure_leaves_its_first_day_alone():
    market = np.random.default_rng(0).normal(0.01, 0.02, 300)
    left = beyond_passive(0.4 * market, np.full(300, 0.4), market)
    assert left[0] == pytest.approx(0.4 * market[0])
    assert np.allclose(left[1:], 0)


def test_random_timing_in_a_rising_market_has_mean_zero():
    rng = np.random.default_rng(1)
    market = rng.normal(0.002, 0.01, (400, 500))
    held = (rng.random((400, 500)) < 0.5).astype(float)
    left = np.array([beyond_passive(h * m, h, m).mean() for h, m in zip(held.T, market.T, strict=True)])
    raw = (held * market).mean(axis=0)
    assert abs(left.mean()) < 4 * left.std() / np.sqrt(500)
    assert raw.mean() > 20 * raw.std() / np.sqrt(500)


def test_what_follows_does_not_change_what_was():
    rng = np.random.default_rng(2)
    returns, held, market = rng.normal(size=(3, 50))
    short = beyond_passive(returns[:30], held[:30], market[:30])
    assert np.array_equal(beyond_passive(returns, held, market)[:30], short)


def test_columns_are_strategies():
    rng = np.random.default_rng(3)
    returns, held, market = rng.normal(size=(20, 2)), rng.normal(size=(20, 2)), rng.normal(size=20)
    both = beyond_passive(returns, held, market)
    assert np.allclose(both[:, 1], beyond_passive(returns[:, 1], held[:, 1], market))


def test_lengths_and_values_are_checked():
    with pytest.raises(DataError, match="one of each"):
        beyond_passive(np.zeros(3), np.zeros(3), np.zeros(2))
    with pytest.raises(DataError, match="finite"):
        beyond_passive(np.zeros(2), np.array([0, np.nan]), np.zeros(2))
