import numpy as np
import pytest

from tests.unit.models.test_linear import make_samples
from tradsys.core.errors import TrainingError
from tradsys.models.linear import LogisticRegression
from tradsys.models.probe import LinearProbe


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [0.01, 1.0])
def test_at_gamma_zero_it_is_the_logistic_regression(n_classes, C):
    samples = make_samples(n_classes=n_classes)
    none = samples.take(np.arange(0))
    probe = LinearProbe(C=C, gamma=0.0).fit(samples, none)
    logistic = LogisticRegression(C=C).fit(samples, none)
    ours, theirs = (m.predict_proba(samples.table, samples.rows) for m in (probe, logistic))
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert probe.coef_.shape == logistic.coef_.shape


def test_gamma_draws_probabilities_to_the_middle_and_keeps_the_order():
    samples = make_samples(2000)
    none = samples.take(np.arange(0))
    plain, focal = (
        LinearProbe(gamma=g).fit(samples, none).predict_proba(samples.table, samples.rows)[:, 1] for g in (0.0, 2.0)
    )
    assert np.abs(focal - 0.5).mean() < 0.9 * np.abs(plain - 0.5).mean()
    assert np.corrcoef(plain.argsort().argsort(), focal.argsort().argsort())[0, 1] > 0.99


def test_it_is_the_minimum_of_the_penalised_focal_loss():
    samples = make_samples()
    C, gamma = 0.1, 2.0
    probe = LinearProbe(C=C, gamma=gamma).fit(samples, samples.take(np.arange(0)))
    x = samples.table.values.astype(np.float64)
    weight = samples.weight / samples.weight.mean()

    def objective(coef, intercept):
        p = 1 / (1 + np.exp(-(x @ coef + intercept)))
        p_t = np.where(samples.y == 1, p, 1 - p)
        return np.average(-((1 - p_t) ** gamma) * np.log(p_t), weights=weight) + ((coef * x.std(axis=0)) ** 2).sum() / (
            2 * C * len(x)
        )

    best = objective(probe.coef_[0], probe.intercept_[0])
    for k in range(4):
        for step in (-1e-2, 1e-2):
            assert objective(probe.coef_[0] + step * np.eye(4)[k], probe.intercept_[0]) > best
    assert min(objective(probe.coef_[0], probe.intercept_[0] + s) for s in (-1e-2, 1e-2)) > best


def test_what_cannot_be_fitted_is_refused():
    samples = make_samples()
    none = samples.take(np.arange(0))
    with pytest.raises(TrainingError, match=r"probe: slope .* after 1 steps at C=1.0, gamma=2.0; .*lower C"):
        LinearProbe(max_iter=1).fit(samples, none)
    with pytest.raises(TrainingError, match="gamma=-1"):
        LinearProbe(gamma=-1)
    with pytest.raises(TrainingError, match="C=0"):
        LinearProbe(C=0)
