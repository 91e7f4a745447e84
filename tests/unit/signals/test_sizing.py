import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tradsys.core.errors import TradsysError
from tradsys.signals.sizing import fixed, kelly_fraction, volatility_target


def test_fixed_is_the_same_for_all():
    assert fixed(0.25, 3).tolist() == [0.25] * 3
    for wrong in (0, 1.5, np.nan):
        with pytest.raises(TradsysError, match="fixed"):
            fixed(wrong, 3)


def test_volatility_target_scales_inversely_up_to_the_cap():
    sizes = volatility_target(np.array([0.02, 0.04, 0.001, 0.0, -1.0, np.nan, np.inf]), 0.01)
    assert sizes.tolist() == [0.5, 0.25, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert volatility_target(0.001, 0.01, cap=0.3) == 0.3
    with pytest.raises(TradsysError, match="target=0"):
        volatility_target(0.01, 0)


@pytest.mark.parametrize(("p", "win", "loss"), [(0.6, 0.9, 0.8), (0.4, 2.0, 0.9), (0.7, 0.5, 0.9)])
def test_full_kelly_maximises_growth(p, win, loss):
    def shrinkage(f: float) -> float:
        return -(p * np.log1p(f * win) + (1 - p) * np.log1p(-f * loss))

    best = minimize_scalar(shrinkage, bounds=(0, 1), method="bounded", options={"xatol": 1e-9}).x
    assert kelly_fraction(p, win, loss, fraction=1.0) == pytest.approx(best, abs=1e-6)
    assert kelly_fraction(p, win, loss) == pytest.approx(best / 2, abs=1e-6)


def test_kelly_is_capped_and_never_stakes_on_a_losing_or_unknown_bet():
    sizes = kelly_fraction(np.array([0.9, 0.3, np.nan, 0.9]), np.array([0.01, 0.01, 0.01, np.nan]), 0.01)
    assert sizes.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert kelly_fraction(0.9, 0.01, 0.01, cap=0.4) == 0.4
    assert kelly_fraction(0.9, 0.01, 0.0) == 0.0
    with pytest.raises(TradsysError, match="fraction=2"):
        kelly_fraction(0.6, 1.0, 1.0, fraction=2)
