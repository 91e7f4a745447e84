"""Common ratios and tail statistics of a track record, each with an interval over dependent time.

All are of simple returns [T] per period, after costs. Smooth functions of sums get Student's interval over slow cosines
(`cosines`); a quantile gets the quantiles at the ends of the interval of its level (Woodruff 1952). A ratio with a
zero denominator has a reason instead. Sources: Sortino & Price 1994; Young 1991 (Calmar); Keating & Shadwick 2002
(omega); Rockafellar & Uryasev 2000, eq. 4 (CVaR).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import UNMOVED, Estimate
from tradsys.evidence.cosines import Spread, spread, spread_of_means, student_quantile
from tradsys.evidence.sharpe import FLAT_RETURN, active_periods, checked_returns

TAIL = 0.05
# returns beyond a quantile below which its position is too uncertain
MIN_TAIL = 10
UNDER_A_YEAR = "a record under one year is not annualised"
PATH = "a drawdown belongs to one path and deepens with its length, so no interval has a measured coverage"


def risk_statistics(
    returns_T: Array,
    *,
    periods_per_year: float,
    cagr: float | None,
    max_drawdown: float,
    exposure_T: Array | None = None,
    min_block: float = 1.0,
    confidence: float = 0.95,
    too_little: str | None = None,
) -> dict[str, Estimate]:
    """Risk ratios and tail measures of one record, each with its interval.

    sortino, calmar, omega, tail_ratio, value_at_risk, cvar, exposure_adjusted_return.
    sortino: yearly, mean over the root mean square of returns below zero. calmar: cagr over the deepest drawdown,
    without an interval. omega: gains over losses, around zero. tail_ratio: the 95 % quantile over the size of the 5 %
    quantile. value_at_risk, cvar: the 5 % quantile of the returns per period, and their mean at or below it; losses are
    negative. exposure_adjusted_return: yearly mean return over mean absolute exposure, as if always fully invested;
    exposure_T: position over equity. cagr: None for a record under one year, which has no return
    of a year. too_little: why these returns carry no interval at all. Raises DataError on NaN.
    """
    returns = checked_returns(returns_T, "risk", least=1)
    if returns.ndim != 1 or (exposure_T is not None and exposure_T.shape != returns.shape):
        raise DataError(
            f"risk: returns {returns.shape}, exposure {None if exposure_T is None else exposure_T.shape}; give [T] each"
        )
    settings: dict[str, Any] = {"min_block": min_block, "confidence": confidence, "too_little": too_little}
    loss_T, gain_T = np.minimum(returns, 0), np.maximum(returns, 0)
    scale = np.sqrt(periods_per_year)
    out = {
        "sortino": _ratio_estimate(
            returns, np.column_stack([returns, loss_T**2]), lambda s: scale * s[:, 0] / np.sqrt(s[:, 1]),
            "no period lost, so there is no downside to divide by", **settings,
        ),
        "calmar": _calmar(cagr, max_drawdown),
        "omega": _from_zero(_ratio_estimate(
            returns, np.column_stack([gain_T, -loss_T]), lambda s: s[:, 0] / s[:, 1],
            "no period lost, so there is no loss to divide by", **settings,
        )),
    }  # fmt: skip
    out |= _tails(returns, **settings)
    if exposure_T is None or cagr is None:
        why = "exposure was not recorded" if exposure_T is None else UNDER_A_YEAR
        out["exposure_adjusted_return"] = Estimate(None, reason=why)
    else:
        out["exposure_adjusted_return"] = _ratio_estimate(
            returns, np.column_stack([returns, np.abs(exposure_T)]), lambda s: periods_per_year * s[:, 0] / s[:, 1],
            "there was no exposure", **settings,
        )  # fmt: skip
    return out


def _ratio_estimate(
    returns: Array, columns_T2: Array, of_means: Callable[[Array], Array], undefined: str, *, min_block: float,
    confidence: float, too_little: str | None,
) -> Estimate:  # fmt: skip
    """A function of two means, of which the second must not be zero."""
    if columns_T2[:, 1].sum() <= FLAT_RETURN * len(returns) ** (columns_T2[:, 1].max() > FLAT_RETURN):
        return Estimate(None, reason=undefined)
    found = spread(
        lambda weight_dT: of_means(weight_dT @ columns_T2 / len(returns))[:, None],
        len(returns), returns, min_block=min_block, cells=2,
    )  # fmt: skip
    return found.estimates(confidence, [too_little])[0]


def _from_zero(estimate: Estimate) -> Estimate:
    """The estimate of a non-negative quantity, with its interval cut at zero."""
    return estimate if estimate.low is None else replace(estimate, low=max(0.0, estimate.low))


def _calmar(cagr: float | None, max_drawdown: float) -> Estimate:
    if cagr is None:
        return Estimate(None, reason=UNDER_A_YEAR)
    if not max_drawdown > 0:
        return Estimate(None, reason="there was no drawdown to divide by")
    return Estimate(cagr / max_drawdown, reason=PATH)


def _tails(returns: Array, *, min_block: float, confidence: float, too_little: str | None) -> dict[str, Estimate]:
    """tail_ratio, value_at_risk and cvar, from the lower and the upper quantile."""
    levels = np.array([TAIL, 1 - TAIL])
    low, high = (float(q) for q in np.quantile(returns, levels))
    below_T2 = (returns[:, None] <= np.array([low, high])).astype(np.float64)
    found = spread_of_means(below_T2, min_block=min_block)
    beyond = int(below_T2[:, 0].sum())
    reason = too_little or found.reason
    if reason is None and min(beyond, active_periods(returns)) < MIN_TAIL:
        reason = f"{beyond} of {len(returns)} returns lie in the tail; an interval needs {MIN_TAIL}"
    worst = Estimate(low, reason=reason)
    if reason is None:
        bounds = _woodruff(returns, TAIL, float(found.error_M[0]), found.degrees, confidence)
        # equal returns around the quantile leave its position undetermined
        worst = Estimate(low, *bounds) if bounds[0] < bounds[1] else Estimate(low, reason=UNMOVED)
    mean_beyond = low - np.maximum(low - returns, 0) / TAIL
    cvar = spread_of_means(mean_beyond, min_block=min_block).estimates(confidence, [reason])[0]
    return {
        "tail_ratio": _tail_ratio(returns, (low, high), found, reason, confidence),
        "value_at_risk": worst,
        "cvar": cvar,
    }


def _woodruff(returns: Array, level: float, error: float, degrees: int, confidence: float) -> tuple[float, float]:
    """Quantiles at the ends of the interval of their level."""
    half = student_quantile(confidence, degrees) * error
    low, high = np.quantile(returns, np.clip([level - half, level + half], 0.0, 1.0))
    return float(low), float(high)


def _tail_ratio(
    returns: Array, quantiles: tuple[float, float], levels: Spread, reason: str | None,
    confidence: float,
) -> Estimate:  # fmt: skip
    """The upper over the size of the lower quantile, its interval on a log scale by the delta method."""
    low, high = quantiles
    if not low < -FLAT_RETURN or not high > FLAT_RETURN:
        return Estimate(None, reason="one of the two tails is empty: a quantile is not beyond zero")
    value = high / -low
    if reason is not None:
        return Estimate(value, reason=reason)
    half_M = student_quantile(confidence, levels.degrees) * levels.error_M
    if not (half_M > 0).all():
        return Estimate(value, reason=UNMOVED)
    # returns per unit of level around each quantile: the inverse of the density
    wide = [
        np.subtract(*np.quantile(returns, np.clip([q + h, q - h], 0, 1))) / (2 * h)
        for q, h in zip((TAIL, 1 - TAIL), half_M, strict=True)
    ]
    slope_B = -levels.slope_BM[:, 1] * wide[1] / high + levels.slope_BM[:, 0] * wide[0] / low
    half = student_quantile(confidence, levels.degrees) * float(np.sqrt((slope_B**2).mean()))
    if half == 0:
        return Estimate(value, reason=UNMOVED)
    return Estimate(value, value * np.exp(-half), value * np.exp(half))
