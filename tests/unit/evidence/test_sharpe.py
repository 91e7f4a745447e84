import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.evidence.sharpe import (
    SharpeMoments,
    deflated_sharpe_ratio,
    expected_max_sharpe,
    min_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_ratio,
    trial_variance,
)


@pytest.fixture
def returns_TK():
    return np.random.default_rng(0).normal(0.001, 0.01, size=(250, 4))


@pytest.mark.parametrize(
    "statistic",
    [
        sharpe_ratio,
        probabilistic_sharpe_ratio,
        lambda r: deflated_sharpe_ratio(r, 10, 0.002),
        lambda r: min_track_record_length(r, -0.5),
    ],
)
def test_columns_are_judged_one_by_one(returns_TK, statistic):
    together = statistic(returns_TK)
    assert together.shape == (4,)
    alone = [statistic(returns_TK[:, k]) for k in range(4)]
    assert all(isinstance(v, float) for v in alone)
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_sharpe_has_one_degree_of_freedom_less():
    assert sharpe_ratio([0.01, 0.03]) == pytest.approx(0.02 / (0.01 * np.sqrt(2)))


def test_one_trial_is_not_deflated(returns_TK):
    assert expected_max_sharpe(1, 0.5) == 0
    psr = probabilistic_sharpe_ratio(returns_TK)
    np.testing.assert_array_equal(deflated_sharpe_ratio(returns_TK, 1, 0.5), psr)


def test_luck_grows_with_trials_and_never_falls_below_zero():
    luck = [expected_max_sharpe(n) for n in (1, 1.01, 1.5, 2, 3, 10, 1e6)]
    assert luck == sorted(luck)
    assert luck[0] == luck[1] == 0


def test_a_longer_record_reaches_the_confidence_exactly_at_its_minimum_length():
    moments = SharpeMoments(0.1, 100, -0.5, 5)
    needed = min_track_record_length(moments, 0.02, 0.95)
    at_length = SharpeMoments(0.1, needed, -0.5, 5)
    assert probabilistic_sharpe_ratio(at_length, 0.02) == pytest.approx(0.95, rel=1e-12)


def test_no_record_is_long_enough_below_the_benchmark(returns_TK):
    assert (min_track_record_length(returns_TK, 10.0) == np.inf).all()


def test_trial_variance_counts_with_one_degree_less():
    assert trial_variance([0.1, 0.3]) == pytest.approx(0.02)
    assert trial_variance([0.1]) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: sharpe_ratio([0.1]), "1 periods; at least 2"),
        (lambda: sharpe_ratio([0.1, np.nan]), "1 of 2 returns are not finite"),
        (lambda: sharpe_ratio([0.01] * 5), "returns without variance"),
        (lambda: sharpe_ratio(np.zeros((5, 2))), r"without variance in columns \[0, 1\]"),
        (lambda: sharpe_ratio(np.zeros((5, 2, 2))), "shape"),
        (lambda: probabilistic_sharpe_ratio([0.1, 0.2, 0.3]), "3 periods; at least 4"),
        (lambda: probabilistic_sharpe_ratio(SharpeMoments(1.0, 50, 3.0, 3.0)), "kurtosis"),
        (lambda: expected_max_sharpe(0), "0 trials"),
        (lambda: expected_max_sharpe(5, -1.0), "variance of -1.0"),
        (lambda: trial_variance([]), "M >= 1"),
        (lambda: trial_variance([0.1, np.nan]), "leave out trials that never traded"),
        (lambda: sharpe_ratio([[0.1, 0.2], [0.1]]), "different lengths"),
        (lambda: probabilistic_sharpe_ratio(np.arange(9.0), np.nan), "benchmark of nan"),
        (lambda: min_track_record_length(np.arange(9.0), np.inf), "benchmark of inf"),
        (lambda: min_track_record_length(np.arange(9.0), 0.0, 1.0), "confidence 1.0"),
        (lambda: deflated_sharpe_ratio(np.arange(9.0), np.nan, 0.1), "nan trials"),
    ],
)
def test_refuses(call, said):
    with pytest.raises(DataError, match=said):
        call()
