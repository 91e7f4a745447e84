import numpy as np
import pytest

from tradsys.core.errors import TradsysError
from tradsys.signals.sizing import fixed, volatility_target


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
