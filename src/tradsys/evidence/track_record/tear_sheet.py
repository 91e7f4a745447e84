"""Tear sheet of a record over time: months, rolling windows, drawdowns, trades, hours and weekdays.

Plain arrays in, JSON out; numbers or None, never NaN. Estimates come as {value, low, high, reason}; plain
counts, such as a month's return or a drawdown's dates, have no interval.
Legend: T days, B bars, M closed trades.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from tradsys.core.headline import EstimateRow
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.cosines import mean_interval, sharpe_intervals
from tradsys.evidence.multiple_testing import wilson_interval
from tradsys.evidence.sharpe import checked_returns
from tradsys.evidence.track_record.drawdowns import falls

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WINDOW_DAYS = 63  # a quarter of sessions
N_POINTS = 160  # of a line over time
N_EPISODES = 8
N_BINS = 31
LEAST_IN_GROUP = 30  # values below which a group's mean has no interval


class YearRow(TypedDict):
    """Compounded returns of a year and of its months [12].

    None for a month without a day.
    """

    year: int
    months: list[float | None]
    total: float


class Months(TypedDict):
    """Returns by month and year, the mean month and the share of months above zero."""

    years: list[YearRow]
    mean: EstimateRow
    positive: EstimateRow


class Line(TypedDict):
    """A number at each of some days; low and high where it has an interval."""

    value: list[float | None]
    low: NotRequired[list[float | None]]
    high: NotRequired[list[float | None]]


class Rolling(TypedDict):
    """Yearly figures of the last `window` days, at each `time`.

    reason: why there is none; then there is no line.
    """

    window: int
    reason: str | None
    time: list[str]
    sharpe: NotRequired[Line]
    volatility: NotRequired[Line]


class Drawdown(TypedDict):
    """A fall from a peak.

    depth: in (0, 1]. peak: last day at the high, None before the first day. recovered: first day back at it, None while
    it lasts. days: from the peak to recovery or the end.
    """

    depth: float
    peak: str | None
    trough: str
    recovered: str | None
    days: int


class Activity(TypedDict):
    """Mean exposure and summed turnover of stretches of days.

    time: the first day of each.
    """

    days_per_point: float
    time: list[str]
    exposure: list[float]
    turnover: list[float]


class TradeDistribution(TypedDict):
    """Histogram of net returns, and the mean trade with its interval.

    Edges [K + 1] and counts [K].
    """

    n: int
    edges: list[float]
    counts: list[int]
    mean: EstimateRow
    median: NotRequired[float]
    best: NotRequired[float]
    worst: NotRequired[float]


class GroupRow(TypedDict):
    """Mean of the n values of a group."""

    name: str
    n: int
    mean: EstimateRow


def monthly_returns(days_T: Array, returns_T: Array, confidence: float = 0.95) -> Months:
    """Compounded return of each month and year, and the mean month with its interval.

    days_T: dates, datetime64 [T].
    """
    returns_T = checked_returns(returns_T, "tear sheet", least=0)
    month_T = np.asarray(days_T).astype("datetime64[M]").astype(int)
    found = {int(m): _compounded(returns_T[month_T == m]) for m in np.unique(month_T)}
    years: list[YearRow] = [
        {
            "year": 1970 + year,
            "months": [found.get(12 * year + k) for k in range(12)],
            "total": _compounded(returns_T[month_T // 12 == year]),
        }
        for year in sorted({m // 12 for m in found})
    ]
    values = np.array(list(found.values()))
    if not len(values):
        none = Estimate(None, reason="no month").as_dict()
        return {"years": [], "mean": none, "positive": none}
    won = int((values > 0).sum())
    low, high = wilson_interval(won, len(values), confidence)
    positive = Estimate(won / len(values), low, high)
    return {"years": years, "mean": _mean_with_interval(values, confidence, "months"), "positive": positive.as_dict()}


def rolling(
    days_T: Array, returns_T: Array, periods_per_year: float, window: int = WINDOW_DAYS, confidence: float = 0.95
) -> Rolling:
    """Yearly Sharpe ratio and volatility of the last `window` days.

    At up to 160 days; the ratio has its interval. A window without 20 effective blocks has a Sharpe and no interval.
    Volatility has none: its intervals covered the true value in only 0.54 to 0.88 of fat-tailed or clustered records,
    whatever their scale.
    """
    returns_T = checked_returns(returns_T, "tear sheet", least=0)
    n = len(returns_T)
    if n < window:
        return {"window": window, "reason": f"{n} days; a window has {window}", "time": []}
    at = _thinned_places(np.arange(window - 1, n))
    scale = float(np.sqrt(periods_per_year))
    sharpes, deviations = [], []
    for end in at:
        part = returns_T[end - window + 1 : end + 1]
        sharpes.append(sharpe_intervals(part, confidence=confidence)[0])
        deviations.append(Estimate(float(part.std(ddof=1))))
    return {
        "window": window,
        "reason": None,
        "time": [str(days_T[i]) for i in at],
        "sharpe": _columns(sharpes, scale),
        "volatility": {"value": _columns(deviations, scale)["value"]},
    }


def drawdown_episodes(days_T: Array, returns_T: Array, most: int = N_EPISODES) -> list[Drawdown]:
    """The deepest falls from a peak, deepest first."""
    days = np.asarray(days_T).astype("datetime64[D]")
    found: list[Drawdown] = []
    for one in falls(returns_T):
        from_day = days[one.peak - 1] if one.peak else days[0] - np.timedelta64(1, "D")
        to_day = days[one.end - 1]
        found.append(
            {
                "depth": one.depth,
                "peak": str(days[one.peak - 1]) if one.peak else None,
                "trough": str(days[one.trough - 1]),
                "recovered": str(to_day) if one.recovered else None,
                "days": int((to_day - from_day).astype(int)),
            }
        )
    return sorted(found, key=lambda one: -one["depth"])[:most]


def activity(days_T: Array, exposure_T: Array, turnover_T: Array) -> Activity:
    """Mean exposure and summed turnover of at most 160 equal stretches."""
    n = len(exposure_T)
    edges = np.unique(np.linspace(0, n, min(n, N_POINTS) + 1).astype(int))
    return {
        "days_per_point": float(np.diff(edges).mean()) if n else 0.0,
        "time": [str(days_T[k]) for k in edges[:-1]],
        "exposure": [float(part.mean()) for part in np.split(exposure_T, edges[1:-1])] if n else [],
        "turnover": [float(part.sum()) for part in np.split(turnover_T, edges[1:-1])] if n else [],
    }


def trade_distribution(net_M: Array, confidence: float = 0.95) -> TradeDistribution:
    """Histogram of trades' net returns over their central 98 %, and the mean.

    The outer bins hold the rest. net_M: in order of exit.
    """
    net_M = checked_returns(net_M, "tear sheet, trades", least=0)
    n = len(net_M)
    if not n:
        return {"n": 0, "edges": [], "counts": [], "mean": Estimate(None, reason="no trade was closed").as_dict()}
    low, high = np.quantile(net_M, [0.01, 0.99])
    low, high = (low - 1e-4, high + 1e-4) if high - low < 1e-9 else (low, high)
    counts, edges = np.histogram(np.clip(net_M, low, high), bins=min(N_BINS, max(5, n // 4)), range=(low, high))
    return {
        "n": n,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "mean": _mean_with_interval(net_M, confidence, "trades"),
        "median": float(np.median(net_M)),
        "best": float(net_M.max()),
        "worst": float(net_M.min()),
    }


def by_group(
    values: Array, group: Sequence[Any] | Array, names: Mapping[Any, str], confidence: float = 0.95
) -> list[GroupRow]:
    """Mean of each group with simultaneous intervals.

    At `confidence` none of the groups' means lies outside. values: in time order. names: group -> its name, in the
    order of the result; a group without a value has a reason. Bonferroni over the groups that have values, so a best
    hour of 24 is not chance.
    """
    codes = np.asarray(group)
    parts = {name: values[codes == key] for key, name in names.items()}
    n_used = max(1, sum(len(part) >= LEAST_IN_GROUP for part in parts.values()))
    level = 1 - (1 - confidence) / n_used
    return [
        {"name": name, "n": len(part), "mean": _mean_with_interval(part, level, "values")}
        for name, part in parts.items()
    ]


def _mean_with_interval(values: Array, confidence: float, kind: str) -> EstimateRow:
    """Mean with its interval; below 30 values a reason instead of the interval."""
    if not len(values):
        return Estimate(None, reason=f"no {kind}").as_dict()
    if len(values) < LEAST_IN_GROUP:
        reason = f"{len(values)} {kind}; an interval needs {LEAST_IN_GROUP}"
        return Estimate(float(values.mean()), reason=reason).as_dict()
    return mean_interval(values, confidence=confidence).as_dict()


def _compounded(returns: Array) -> float:
    return float(np.prod(1 + returns) - 1)


def _thinned_places(at: Array) -> Array:
    """At most 160 of these positions, evenly spaced, the last among them."""
    step = max(1, int(np.ceil(len(at) / N_POINTS)))
    return at[::-1][::step][::-1]


def _columns(estimates: Sequence[Estimate], scale: float) -> Line:
    def scaled(value: float | None) -> float | None:
        return None if value is None else float(f"{value * scale:.5g}")

    return {
        "value": [scaled(e.value) for e in estimates],
        "low": [scaled(e.low) for e in estimates],
        "high": [scaled(e.high) for e in estimates],
    }
