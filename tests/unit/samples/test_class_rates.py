"""One base rate: what training samples weigh, for the model, the skill and every command."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.core.headline import HEADLINE, OVER_BASE_RATE
from tradsys.core.tables import FeatureTable, Samples
from tradsys.evidence.classification import evaluate
from tradsys.models.baseline import BaseRate
from tradsys.samples.weights import class_rates


def samples(seed, n=60, n_classes=2):
    rng = np.random.default_rng(seed)
    time = np.datetime64("2024-01-01", "us") + np.arange(n) * np.timedelta64(1, "h")
    table = FeatureTable(
        symbol=np.zeros(n, np.int32), time=time, segment=np.zeros(n, np.int32),
        values=np.zeros((n, 1), np.float32), names=("x",), symbols=("A",),
    )  # fmt: skip
    y = np.append(np.arange(n_classes), rng.integers(0, n_classes, n - n_classes))
    rows = np.arange(n)
    return Samples(table, rows, y, rng.uniform(0.1, 2, n), rows, rows, np.zeros(n))


def test_rates_are_weighted_shares():
    part = samples(1, n_classes=3)
    expected = [part.weight[part.y == c].sum() / part.weight.sum() for c in range(3)]
    assert np.allclose(class_rates(part), expected, rtol=1e-14)
    assert len(class_rates(part, 5)) == 5


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_model_base_rate_has_a_skill_of_exactly_zero(seed):
    """Fitted and measured on unequal weights: the rate that it learned is the rate that it is measured against."""
    train, test = samples(seed), samples(seed + 1)
    proba = BaseRate().fit(train, train).predict_proba(test.table, test.rows)
    found = evaluate(proba, test.y, class_rates(train), time_N=test.time, n_draws=10)
    assert found[OVER_BASE_RATE]["value"] == 0.0
    assert found["brier_skill"]["value"] == 0.0
    assert found[HEADLINE]["value"] == 0.0
