# ruff: noqa: D102 -- name, warmup and expr are documented once, in core.protocols.Feature
"""Fractional differencing with a window of fixed width: stationary, yet with memory of the level.

Source: Lopez de Prado 2018, Advances in Financial Machine Learning, chapter 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.features.kernels import kernel
from tradsys.features.registry import Column, register

ORDERS = tuple(round(0.05 * k, 2) for k in range(1, 21))
SHORTEST_TEST = 100  # outputs below which the ADF test has too little power


def ffd_weights(d: float, tol: float) -> Array:
    """Weights of fractional differencing, float64 [K].

    w_0 = 1, w_k = -w_{k-1} (d - k + 1) / k, those before the first |w_k| < tol. w_0 belongs to the newest value. Raises
    DataError unless d >= 0 and 0 < tol < 1. Source: section 5.4.2.
    """
    if not (d >= 0 and 0 < tol < 1):
        raise DataError(f"fracdiff: d = {d}, tol = {tol}; the rule is d >= 0 and 0 < tol < 1; set both")
    weights = [1.0]
    while abs(new := -weights[-1] * (d - len(weights) + 1) / len(weights)) >= tol:
        weights.append(new)
    return np.array(weights)


def ffd(x: Array, d: float, tol: float) -> Array:
    """float64 [n], sum over k of w_k x[t - k].

    NaN on the first K - 1 rows and where a window holds a NaN.
    """
    x = np.asarray(x, dtype=np.float64)
    weights = ffd_weights(d, tol)
    out = np.full(len(x), np.nan)
    if len(x) >= len(weights):
        out[len(weights) - 1 :] = np.convolve(x, weights, mode="valid")
    return out


def relative_weights(d: float, tol: float) -> Array:
    """`ffd_weights` with their sum taken off the oldest weight: float64 [K], sum 0."""
    weights = ffd_weights(d, tol)
    weights[-1] -= weights.sum()
    return weights


def relative_ffd(x: Array, d: float, tol: float) -> Array:
    """`ffd` of each window relative to its own oldest value, float64 [n].

    Adding a constant to x changes nothing. The truncated weights sum to s > 0, so that `ffd` keeps s times the level of
    x. Relative to the oldest value, all values before the window count as equal to it: the weights that were cut off,
    which sum to -s, apply to it in full.
    """
    x = np.asarray(x, dtype=np.float64)
    weights = relative_weights(d, tol)
    out = np.full(len(x), np.nan)
    if len(x) >= len(weights):
        out[len(weights) - 1 :] = np.convolve(x, weights, mode="valid")
    return out


def smallest_d(log_price: Array, *, tol: float, p_value: float = 0.05, grid: Sequence[float] = ORDERS) -> float:
    """First d of the ascending grid whose `ffd` rejects a unit root at `p_value`.

    The level of x does not matter. Augmented Dickey-Fuller with a constant and one lag, as in section 5.5. Raises
    DataError where no d of the grid passes or fewer than 100 values are left to test.
    """
    from statsmodels.tsa.stattools import adfuller  # noqa: PLC0415 - takes two seconds; only training needs it

    for d in sorted(grid):
        series = ffd(log_price, d, tol)
        series = series[np.isfinite(series)]
        if len(series) < SHORTEST_TEST:
            raise DataError(
                f"fracdiff: d = {d} at tol = {tol} leaves {len(series)} of {len(log_price)} prices to test; "
                f"at least {SHORTEST_TEST} are needed; load more history or raise tol"
            )
        test = adfuller(series, maxlag=1, regression="c", autolag=None, result_object=True)
        if test.pvalue < p_value:
            return float(d)
    raise DataError(
        f"fracdiff: no d of {list(grid)} makes {len(log_price)} log prices stationary at p < {p_value}; "
        f"extend the grid to 1 or check the prices"
    )


@register
@dataclass(frozen=True)
class FracDiff(Column, name="ffd"):
    """Fractionally differenced log close, relative to the window's oldest.

    So the unit of the price does not matter. d: order; None until `fit` finds it on training bars. tol: the weights are
    truncated at it; 1.5e-4 keeps at most 371 of them for any d.
    """

    d: float | None = None
    tol: float = 1.5e-4
    p_value: float = 0.05

    @property
    def warmup(self) -> int:
        return len(ffd_weights(self._order(), self.tol)) - 1

    def expr(self) -> pl.Expr:
        return kernel(pl.col("close").log(), "fracdiff", relative_ffd, d=self._order(), tol=self.tol)

    def fit(self, bars: pl.DataFrame) -> Self:
        """A copy with the smallest stationary d of the longest segment in `bars`.

        Itself where d is given. One d for all symbols keeps the column comparable across them; the longest unbroken
        series (the first of equals) gives the test the most power.
        """
        if self.d is not None:
            return self
        runs = bars.group_by("segment", maintain_order=True).agg(pl.col("close").log())
        longest = runs.sort(pl.col("close").list.len(), descending=True, maintain_order=True)["close"][0]
        return replace(self, d=smallest_d(longest.to_numpy(), tol=self.tol, p_value=self.p_value))

    def _order(self) -> float:
        if self.d is None:
            raise DataError("fracdiff: the order d is not fitted; training bars choose it; call FeatureSet.fit first")
        return self.d
