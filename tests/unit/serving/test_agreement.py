import numpy as np
import pytest

from tradsys.core.errors import BundleError, TradsysError
from tradsys.models.baseline import BaseRate
from tradsys.models.ensembles.compose import Average, SeedAverage
from tradsys.models.linear import LogisticRegression
from tradsys.research.pipeline.requirements import has_members
from tradsys.serving.ensemble import ServedPool
from tradsys.serving.strategy import AgreementMask, View


class Says:
    """A member with fixed probabilities of class 1."""

    lookback = 1

    def __init__(self, *p):
        self.p_N = np.array(p)

    def predict_proba(self, table, rows):
        return np.stack([1 - self.p_N, self.p_N], axis=1)[rows]


def view(spread):
    half = np.full(3, 0.5)
    return View(half, half, None, None, half, half, half, 0.0, spread=spread)


def test_a_pool_tells_how_far_its_members_lie_apart():
    """Two members of weights 1/4 and 3/4 at 0.2 and 0.6: mean 0.5, spread sqrt(0.25 * 0.09 + 0.75 * 0.01)."""
    members = {"a": Says(0.2, 0.5), "b": Says(0.6, 0.5)}
    pool = ServedPool(members, np.array([0.25, 0.75]), None, None, 1)
    mean_NC, spread_NC = pool.mean_and_spread(None, np.arange(2))
    np.testing.assert_allclose(mean_NC[:, 1], [0.5, 0.5], atol=1e-15)
    np.testing.assert_allclose(spread_NC, [[np.sqrt(0.03)] * 2, [0, 0]], atol=1e-9)


def test_members_that_disagree_forbid_an_entry():
    mask = AgreementMask(0.05)
    assert mask.allows(view(np.array([0.01, 0.2, np.nan]))).tolist() == [True, False, False]
    assert "0.05" in mask.describe()
    with pytest.raises(BundleError, match="a mean of several members"):
        mask.allows(view(None))
    with pytest.raises(TradsysError, match="max_spread=0"):
        AgreementMask(0)


def test_only_a_model_of_models_has_members():
    assert has_members(SeedAverage(LogisticRegression(), 2))
    assert has_members(Average({"a": LogisticRegression(), "b": BaseRate()}))
    assert not has_members(LogisticRegression())
