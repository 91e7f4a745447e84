"""Penalised logistic regression by Newton steps over blocks of rows, so that the rows are never held as float64.

Legend: N samples, F columns, C rows of coefficients: one for two classes (the log-odds of class 1), else one per class.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_softmax

from tradsys.core.tables import Array, Samples

ROWS_AT_ONCE = 4_096  # standardised float64 rows of this many columns stay in a core's cache
STEEPEST = 1e-7  # length of the gradient of the mean loss that counts as an optimum; below, float64 sees no gain


@dataclass(frozen=True, eq=False)
class Standardised:
    """Training rows less their mean over their standard deviation, block by block.

    center_F, spread_F: float64 [F], over the training rows; a constant column has spread 1.
    """

    train: Samples
    center_F: Array
    spread_F: Array

    @classmethod
    def of(cls, train: Samples) -> "Standardised":
        """Measures mean and spread in two passes.

        Columns with NaN or infinite values have a NaN centre.
        """
        n_columns = len(train.table.names)
        center_F, square_F = np.zeros(n_columns), np.zeros(n_columns)
        with np.errstate(invalid="ignore"):
            for x_BF in _raw(train):
                center_F += x_BF.sum(axis=0, dtype=np.float64)
            center_F /= len(train)
            for x_BF in _raw(train):
                square_F += np.square(x_BF - center_F).sum(axis=0)
        spread_F = np.sqrt(square_F / len(train))
        return cls(train, np.where(np.isfinite(center_F), center_F, np.nan), np.where(spread_F > 0, spread_F, 1.0))

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Positions of each block among the samples, and its rows with a column of 1.

        float64 [B, F + 1], in one buffer that the next block overwrites.
        """
        n, n_columns = len(self.train), len(self.center_F)
        buffer = np.ones((min(n, ROWS_AT_ONCE), n_columns + 1))
        per_spread_F = 1 / self.spread_F
        for k, x_BF in enumerate(_raw(self.train)):
            z_BG = buffer[: len(x_BF)]
            np.subtract(x_BF, self.center_F, out=z_BG[:, :-1])
            z_BG[:, :-1] *= per_spread_F
            yield slice(k * ROWS_AT_ONCE, k * ROWS_AT_ONCE + len(x_BF)), z_BG

    def whole(self) -> Array:
        """All rows at once, float64 [N, F]."""
        z_NF = np.empty((len(self.train), len(self.center_F)))
        for at, z_BG in self.blocks():
            z_NF[at] = z_BG[:, :-1]
        return z_NF


def _raw(train: Samples) -> Iterator[Array]:
    for k in range(0, len(train), ROWS_AT_ONCE):
        yield train.table.values[train.rows[k : k + ROWS_AT_ONCE]]


@dataclass(frozen=True, eq=False)
class Optimum:
    """coef_CF [C, F], intercept_C [C]: per standard deviation.

    steps: Newton steps taken; slope: length of the gradient left; reached: whether it counts as an optimum.
    """

    coef_CF: Array
    intercept_C: Array
    steps: int
    slope: float
    reached: bool


def logistic_optimum(rows: Standardised, weight_N: Array, *, n_classes: int, C: float, max_iter: int) -> Optimum:
    """The penalised optimum, by Newton steps in a trust region from zero in float64.

    It minimises sum_n w_n loss_n / N + |coef|^2 / (2 C N).
    weight_N: of mean 1. C: inverse penalty, inf for none; intercepts are not penalised. Each step is one pass over the
    rows; beside them it holds a matrix of (C (F + 1))^2 numbers.
    Source: Conn, Gould and Toint 2000, section 7.3, as scipy's `trust-exact`.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - only fitting needs it
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    objective = _Objective(rows, weight_N, 1 if n_classes == 2 else n_classes, 0.0 if np.isinf(C) else 1 / C)
    with threadpool_limits(1, user_api="blas"):  # products of a block are small: threads wait longer than they work
        found = minimize(
            objective.value_and_slope,
            np.zeros(objective.n_rows * (len(rows.center_F) + 1)),
            jac=True,
            hess=objective.curvature,
            method="trust-exact",
            options={"gtol": STEEPEST, "maxiter": max_iter, "initial_trust_radius": 10.0, "max_trust_radius": 1e6},
        )
    theta_CG = found.x.reshape(objective.n_rows, -1)
    return Optimum(theta_CG[:, :-1], theta_CG[:, -1], found.nit, float(np.linalg.norm(found.jac)), found.success)


class _Objective:
    """Mean loss of coefficients, its gradient and Hessian, from one pass for each point asked.

    A point theta holds, for each row of coefficients, the coefficients and then the intercept: G = F + 1 numbers.
    """

    def __init__(self, rows: Standardised, weight_N: Array, n_rows: int, penalty: float) -> None:
        self.rows, self.weight_N, self.n_rows = rows, weight_N, n_rows
        self.pull = _penalties(n_rows, len(rows.center_F) + 1, penalty / len(weight_N))
        self._at: bytes | None = None
        self._loss, self._slope, self._curvature = 0.0, np.empty(0), np.empty((0, 0))

    def value_and_slope(self, theta: Array) -> tuple[float, Array]:
        self._pass_over(theta)
        return self._loss, self._slope

    def curvature(self, theta: Array) -> Array:
        self._pass_over(theta)
        return self._curvature

    def _pass_over(self, theta: Array) -> None:
        if self._at == theta.tobytes():
            return
        n, n_rows = len(self.weight_N), self.n_rows
        theta_CG = theta.reshape(n_rows, -1)
        loss, slope_CG = 0.0, np.zeros_like(theta_CG)
        curvature_CGCG = np.zeros((*theta_CG.shape, *theta_CG.shape))
        for at, z_BG in self.rows.blocks():
            weight_B, y_B = self.weight_N[at], self.rows.train.y[at]
            loss_B, gap_BC, proba_BC = _losses(z_BG @ theta_CG.T, y_B)
            loss += float(weight_B @ loss_B)
            slope_CG += (gap_BC * weight_B[:, None]).T @ z_BG
            for c, d, sign, bend_B in _bends(proba_BC):
                # numpy squares one matrix with half the work of a product of two
                root_BG = z_BG * np.sqrt(weight_B * bend_B)[:, None]
                curvature_CGCG[c, :, d] += sign * (root_BG.T @ root_BG)
        for c in range(n_rows):
            for d in range(c):
                curvature_CGCG[c, :, d] = curvature_CGCG[d, :, c]
        self._loss = loss / n + 0.5 * float(theta @ self.pull @ theta)
        self._slope = slope_CG.ravel() / n + self.pull @ theta
        self._curvature = curvature_CGCG.reshape(theta.size, theta.size) / n + self.pull
        self._at = theta.tobytes()


def _penalties(n_rows: int, n_numbers: int, penalty: float) -> Array:
    """The quadratic form of the penalty: on the coefficients, and on what a loss of several classes leaves open.

    Adding one vector to every class changes no probability: the sum over the classes is drawn to zero, where a penalty
    on the coefficients has it anyway, so that the optimum is one point.
    """
    of_one = np.full(n_numbers, penalty)
    of_one[-1] = 0.0
    same = np.ones((n_rows, n_rows)) if n_rows > 1 else np.zeros((1, 1))
    return np.kron(np.eye(n_rows), np.diag(of_one)) + np.kron(same, np.eye(n_numbers))


def _losses(logits_BC: Array, y_B: Array) -> tuple[Array, Array, Array]:
    """Log loss [B], its derivative by each logit [B, C] and the probabilities [B, C]."""
    if logits_BC.shape[1] == 1:
        proba_B1 = expit(logits_BC)
        signed_B = np.where(y_B == 1, -1.0, 1.0) * logits_BC[:, 0]
        return np.logaddexp(0.0, signed_B), proba_B1 - y_B[:, None], proba_B1
    log_BC = log_softmax(logits_BC, axis=1)
    proba_BC, at = np.exp(log_BC), np.arange(len(y_B))
    gap_BC = proba_BC.copy()
    gap_BC[at, y_B] -= 1.0
    return -log_BC[at, y_B], gap_BC, proba_BC


def _bends(proba_BC: Array) -> Iterator[tuple[int, int, float, Array]]:
    """Second derivatives of the log loss by logits c <= d: sign and size [B]."""
    n_rows = proba_BC.shape[1]
    for c in range(n_rows):
        yield c, c, 1.0, proba_BC[:, c] * (1 - proba_BC[:, c])
        for d in range(c + 1, n_rows):
            yield c, d, -1.0, proba_BC[:, c] * proba_BC[:, d]
