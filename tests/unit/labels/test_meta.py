import math

import numpy as np
import pytest

from tradsys.labels.meta import pays


def test_by_hand():
    ret = np.array([0.004, 0.003, 0.002, -0.01, math.nan])
    assert pays(ret, 0.003).tolist() == [1, 0, 0, 0, -1]
    assert pays(ret, 0.0).tolist() == [1, 1, 1, 0, -1]
    assert pays(ret, 0.003).dtype == np.int64


@pytest.mark.parametrize("cost", [-0.001, math.nan, math.inf])
def test_refuses_wrong_costs(cost):
    with pytest.raises(ValueError, match="0 <= cost < inf"):
        pays(np.zeros(3), cost)
