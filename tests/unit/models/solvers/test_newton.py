import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as SklearnLogistic

from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.solvers.newton import ROWS_AT_ONCE, Standardised, _Objective, logistic_optimum


def samples_of(n: int, n_classes: int, seed: int = 0) -> Samples:
    """Rows in no order, of a table twice as long, with columns of other units and far offsets."""
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(2 * n, 5)) * [1, 1e3, 1e-3, 5, 1] + [0, 5e3, 1, -7, 2]).astype(np.float32)
    rows = rng.permutation(2 * n)[:n]
    logits = values[rows][:, [0, 3]] @ rng.normal(size=(2, n_classes)) * 0.3 + rng.gumbel(size=(n, n_classes))
    codes, time = np.zeros(2 * n, dtype=np.int32), np.arange(2 * n).astype("datetime64[us]")
    table = FeatureTable(codes, time, codes, values, tuple("abcde"), ("AAA",))
    return Samples(table, rows, logits.argmax(axis=1), rng.uniform(0.2, 1, n), rows, rows, np.zeros(n))


def standardised(samples: Samples) -> np.ndarray:
    x = samples.table.values[samples.rows].astype(np.float64)
    return (x - x.mean(axis=0)) / x.std(axis=0)


@pytest.mark.parametrize("n", [1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 3])
def test_blocks_together_are_the_standardised_rows(n):
    samples = samples_of(n, 2)
    rows = Standardised.of(samples)
    got, at = np.full((n, 6), np.nan), []
    for where, z_BG in rows.blocks():
        got[where] = z_BG
        at += range(n)[where]
    assert at == list(range(n))
    np.testing.assert_array_equal(got[:, -1], 1)
    if n > 1:
        np.testing.assert_allclose(got[:, :-1], standardised(samples), atol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_slope_and_curvature_are_the_derivatives_of_the_loss(n_classes):
    samples = samples_of(300, n_classes)
    objective = _Objective(Standardised.of(samples), samples.weight, 1 if n_classes == 2 else n_classes, 2.0)
    theta = np.random.default_rng(1).normal(size=objective.n_rows * 6)
    step = 1e-6
    for k in range(len(theta)):
        ahead, behind = theta.copy(), theta.copy()
        ahead[k] += step
        behind[k] -= step
        rise = (objective.value_and_slope(ahead)[0] - objective.value_and_slope(behind)[0]) / (2 * step)
        assert objective.value_and_slope(theta)[1][k] == pytest.approx(rise, abs=1e-7)
        want = (objective.value_and_slope(ahead)[1] - objective.value_and_slope(behind)[1]) / (2 * step)
        np.testing.assert_allclose(objective.curvature(theta)[k], want, atol=1e-7)


@pytest.mark.parametrize("C", [0.01, 1.0, np.inf])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_optimum_over_several_blocks_is_scikit_learns(n_classes, C):
    samples = samples_of(2 * ROWS_AT_ONCE + 77, n_classes)
    weight = samples.weight / samples.weight.mean()
    found = logistic_optimum(Standardised.of(samples), weight, n_classes=n_classes, C=C, max_iter=50)
    oracle = SklearnLogistic(C=C, solver="lbfgs", tol=1e-12, max_iter=10_000)
    oracle.fit(standardised(samples), samples.y, sample_weight=weight)
    assert found.reached
    assert found.steps < 20
    np.testing.assert_allclose(found.coef_CF, oracle.coef_, atol=2e-5)
    np.testing.assert_allclose(found.intercept_C, oracle.intercept_, atol=2e-5)


def test_too_few_steps_are_not_called_an_optimum():
    samples = samples_of(500, 2)
    found = logistic_optimum(Standardised.of(samples), samples.weight, n_classes=2, C=np.inf, max_iter=1)
    assert not found.reached
    assert found.steps == 1
    assert found.slope > 1e-5
