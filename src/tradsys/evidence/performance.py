"""Performance of a strategy after costs, with the uncertainty of each number. Plain arrays in, JSON out.

Returns are simple returns of the equity per period, after costs. Sharpe is arithmetic: mean /
deviation (ddof 1) times sqrt(periods_per_year); growth is compounded. Nothing is ever NaN or infinite: None,
and `reasons` states why.
"""

from typing import TypedDict, cast

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.headline import EstimateRow
from tradsys.core.plurals import counted
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap, cosines, sharpe
from tradsys.evidence.deflation import Deflation
from tradsys.evidence.track_record.drawdowns import DeepestFall, drawdown_span, equity_curve
from tradsys.evidence.track_record.risk import risk_statistics
from tradsys.evidence.track_record.win_rate import Spans, win_rate

DAYS_PER_YEAR = 365.25
MICROSECONDS_A_DAY = 86_400e6
# under a year, annualising a compounded return is misleading (GIPS 2020, provision 2.A.12)
SHORTEST_ANNUALISED_YEARS = 1.0


class Growth(DeepestFall):
    """Growth and drawdown of the account; see `performance`."""

    total_return: float
    cagr: float | None


class Risk(TypedDict):
    """Risk, the Sharpe's probabilities, and the luck they are compared with."""

    expected_max_sharpe: float
    volatility: float | None
    sharpe_per_period: float | None
    psr: float | None
    dsr: float | None
    min_track_record_periods: float | None
    min_track_record_years: float | None


class SharpeRatio(TypedDict):
    """Annualised Sharpe ratio, its interval, and P(it exceeds the luck)."""

    sharpe: EstimateRow
    dsr_bootstrap: float | None
    block_length: float | None


class Ratios(TypedDict):
    """Ratios and tails; see `track_record.risk`."""

    sortino: EstimateRow
    calmar: EstimateRow
    omega: EstimateRow
    tail_ratio: EstimateRow
    value_at_risk: EstimateRow
    cvar: EstimateRow
    exposure_adjusted_return: EstimateRow


class Trades(TypedDict):
    """Statistics of closed trades."""

    n_trades: int
    n_open_trades: int
    win_rate: EstimateRow
    profit_factor: float | None
    mean_trade: float | None


class Activity(TypedDict):
    """Exposure, turnover and costs; None where not recorded."""

    exposure: float | None
    time_in_market: float | None
    turnover_per_year: float | None
    costs_paid: float | None


class Performance(Growth, Risk, SharpeRatio, Ratios, Trades, Activity):
    """All metrics of one strategy in a report. reasons: by field, why it is None."""

    n_periods: int
    years: float
    periods_per_year: float
    n_trials: float
    n_effective: float | None
    reasons: dict[str, str]


def performance(
    returns_T: Array,
    *,
    periods_per_year: float,
    trade_returns: Array,
    trade_spans: Spans | None = None,
    days_T: Array | None = None,
    n_open_trades: int = 0,
    exposure_T: Array | None = None,
    turnover_T: Array | None = None,
    costs_T: Array | None = None,
    drawdown: DeepestFall | None = None,
    n_trials: float = 1,
    sharpe_variance: float = 0.0,
    n_effective: float | None = None,
    min_trades: int = sharpe.MIN_TRADES,
    min_block: float = 1.0,
    confidence: float = 0.95,
) -> Performance:
    """All metrics of one strategy in a report, ready for JSON.

    returns_T: [T] per period, after costs. days_T: date of each, datetime64 [T]; years, drawdown_days and
    turnover_per_year are then of the time that passed, holes included, not of the periods counted.
    trade_returns: [M] net result of CLOSED trades, in any one unit. trade_spans: their decisions and exits, where some
    were open together (`track_record.win_rate`). exposure_T: position over equity, signed.
    turnover_T, costs_T: traded notional and costs over equity, per period. drawdown: where it was measured on finer
    periods than these returns; Calmar divides by it.
    n_trials, sharpe_variance, n_effective: of every trial on these data, for the DSR; see
    `deflation.Deflation`. min_trades: closed trades below which no probability is given; 0 for buy and
    hold. min_block: shortest block in periods, at least the holding time.

    Growth: total_return, cagr (None under a year), max_drawdown in [0, 1] from an equity that starts at 1, so a
    first-bar loss counts; drawdown_periods and drawdown_days from its last period at the peak to recovery or the end.
    Risk: volatility (annualised), sharpe {value, low, high, reason} (annualised, cosine estimator, see `cosines`),
    sharpe_per_period, psr, dsr, dsr_bootstrap (confidence that it exceeds the luck: the DSR of dependent returns),
    expected_max_sharpe (annualised luck of n_trials), min_track_record_periods and _years (for the DSR to reach 0.95 at
    this Sharpe). Below `min_trades` trades or 30 periods with a return the probabilities and the minimum record are
    None; below 30 periods with a return so is the Sharpe ratio. Trades: n_trades, n_open_trades, win_rate {value, low,
    high, reason} (`win_rate`), profit_factor, mean_trade. Ratios and tails, each {value, low, high, reason}, without a
    value below `min_trades` trades: sortino, calmar, omega, tail_ratio, value_at_risk, cvar, exposure_adjusted_return
    (see `risk`).
    Activity: exposure (mean of absolute), time_in_market, turnover_per_year, costs_paid. Raises DataError on NaN.
    """
    returns = sharpe.checked_returns(returns_T, "performance", least=1)
    if returns.ndim != 1 or not periods_per_year > 0:
        raise DataError(
            f"performance: returns {returns.shape} at {periods_per_year} periods a year; give [T] and a rate > 0"
        )
    days = None if days_T is None else _checked_days(days_T, len(returns))
    years, reasons = years_passed(len(returns), periods_per_year, days), dict[str, str]()
    fallen = _drawdown(returns, days, float(periods_per_year)) if drawdown is None else drawdown
    growth = _growth(returns, years, fallen, reasons)
    luck = Deflation(n_trials, sharpe_variance, n_effective).luck(len(returns))
    little = _too_little(returns, np.size(trade_returns), min_trades)
    risk = _risk(returns, luck, float(n_trials), little, float(periods_per_year), reasons)
    interval = _sharpe_interval(returns, luck, float(periods_per_year), min_block, confidence, reasons)
    too_little = _too_few_active(sharpe.active_periods(returns), len(returns))
    ratios = risk_statistics(
        returns, periods_per_year=periods_per_year, cagr=growth["cagr"], max_drawdown=growth["max_drawdown"],
        exposure_T=exposure_T, min_block=min_block, confidence=confidence, too_little=too_little,
    )  # fmt: skip
    if (few := _too_few_trades(np.size(trade_returns), min_trades)) is not None:
        ratios = dict.fromkeys(ratios, bootstrap.Estimate(None, reason=few))
    return {
        "n_periods": len(returns),
        "years": years,
        "periods_per_year": float(periods_per_year),
        "reasons": reasons,
        **growth,
        "n_trials": float(n_trials),
        "n_effective": None if n_effective is None else float(n_effective),
        **risk,
        **interval,
        **cast(Ratios, {name: one.as_dict() for name, one in ratios.items()}),
        **_trades(trade_returns, trade_spans, n_open_trades, confidence, reasons),
        **_activity(len(returns), years, exposure_T, turnover_T, costs_T, reasons),
    }


def days_between(time_T: Array, start: int, end: int) -> float:
    """Calendar days between the ends of two periods; 0 is the series' start.

    The start lies one median step before the first stamp.
    """
    stamps = np.asarray(time_T).astype("datetime64[us]").astype(np.int64)
    if not len(stamps):
        raise DataError("performance: no day; a span needs at least one; give data of the span")
    step = int(np.median(np.diff(stamps))) if len(stamps) > 1 else 0
    stamps = np.concatenate([[stamps[0] - step], stamps])
    return float(stamps[end] - stamps[start]) / MICROSECONDS_A_DAY


def years_passed(n_periods: int, periods_per_year: float, days_T: Array | None = None) -> float:
    """Years of a record: by its periods or by its days, the larger.

    So a year's sessions count as a year though the last ends before the calendar's, and a hole of 11 months counts.
    """
    counted = n_periods / periods_per_year
    if days_T is None:
        return counted
    return max(counted, days_between(days_T, 0, n_periods) / DAYS_PER_YEAR)


def _checked_days(days_T: Array, n_periods: int) -> Array:
    days = np.asarray(days_T)
    if days.shape != (n_periods,) or (np.diff(days) <= np.timedelta64(0)).any():
        raise DataError(
            f"performance: days {days.shape} for {n_periods} periods; give one day per period, in order, none twice"
        )
    return days


def _drawdown(returns: Array, days: Array | None, periods_per_year: float) -> DeepestFall:
    depth, peak, end, recovered = drawdown_span(returns)
    counted = (end - peak) / periods_per_year * DAYS_PER_YEAR
    return {
        "max_drawdown": depth,
        "drawdown_periods": end - peak,
        "drawdown_days": counted if days is None else days_between(days, peak, end),
        "drawdown_recovered": recovered,
    }


def _growth(returns: Array, years: float, fallen: DeepestFall, reasons: dict[str, str]) -> Growth:
    final = float(equity_curve(returns)[-1])
    cagr = None
    if years >= SHORTEST_ANNUALISED_YEARS:
        cagr = final ** (1 / years) - 1
    else:
        reasons["cagr"] = f"a record of {years:.2f} years is not annualised; one year is the least"
    if final == 0:
        reasons["total_return"] = "the account lost all it had"
    return {"total_return": final - 1, "cagr": cagr, **fallen}


def _too_little(returns: Array, n_trades: int, min_trades: int) -> str | None:
    """Why these returns give no probability about their Sharpe ratio; None where they do."""
    if n_trades < min_trades:
        return f"{counted(n_trades, 'closed trade')}; a probability needs at least {min_trades}"
    return _too_few_active(sharpe.active_periods(returns), len(returns))


def _too_few_trades(n_trades: int, min_trades: int) -> str | None:
    """Why ratios and tails are left out; None where there are enough trades, or none are expected."""
    if n_trades >= min_trades:
        return None
    return f"{counted(n_trades, 'closed trade')}; ratios and tails need at least {min_trades}"


def _too_few_active(active: int, n_periods: int) -> str | None:
    if active >= sharpe.MIN_ACTIVE_PERIODS:
        return None
    return (
        f"{active} of {n_periods} periods have a return; at least {sharpe.MIN_ACTIVE_PERIODS} are needed; "
        "a longer record or more trades"
    )


def _risk(
    returns: Array,
    luck: float,
    n_trials: float,
    too_little: str | None,
    periods_per_year: float,
    reasons: dict[str, str],
) -> Risk:
    scale = np.sqrt(periods_per_year)
    names = ("psr", "dsr", "min_track_record_periods", "min_track_record_years")
    result: Risk = {
        "expected_max_sharpe": float(luck * scale),
        "volatility": float(returns.std(ddof=1) * scale) if len(returns) > 1 else None,
        "sharpe_per_period": None,
        "psr": None,
        "dsr": None,
        "min_track_record_periods": None,
        "min_track_record_years": None,
    }
    why = None
    if len(returns) < 4:
        why = f"{len(returns)} periods; a Sharpe ratio and its error need at least 4"
    elif sharpe.is_flat(returns):
        why = "the returns never differ, as of a strategy that never traded; a Sharpe ratio needs risk"
    if why:
        reasons |= dict.fromkeys(("sharpe", "sharpe_per_period", "dsr_bootstrap", *names), why)
        return result
    moments = sharpe.sharpe_moments(returns)
    result["sharpe_per_period"] = float(moments.sharpe)
    if too_little:
        reasons |= dict.fromkeys(("dsr_bootstrap", *names), too_little)
        return result
    needed = float(sharpe.min_track_record_length(moments, luck))
    result["psr"] = float(sharpe.probabilistic_sharpe_ratio(moments))
    result["dsr"] = float(sharpe.probabilistic_sharpe_ratio(moments, luck))
    if np.isfinite(needed):
        result["min_track_record_periods"] = needed
        result["min_track_record_years"] = needed / periods_per_year
    else:
        why = f"the Sharpe is within the luck of {n_trials:g} trials; at this Sharpe no record is long enough"
        reasons |= dict.fromkeys(names[2:], why)
    return result


def _sharpe_interval(
    returns: Array, luck: float, periods_per_year: float, min_block: float, confidence: float, reasons: dict[str, str]
) -> SharpeRatio:
    """The interval, where `_risk` gave no reason against it; its reasons for the confidence are kept."""
    if undefined := reasons.get("sharpe"):
        none = bootstrap.Estimate(None, reason=undefined).as_dict()
        return {"sharpe": none, "dsr_bootstrap": None, "block_length": None}
    scale = np.sqrt(periods_per_year)
    found = cosines.sharpe_spread(returns, min_block=min_block)
    few = _too_few_active(sharpe.active_periods(returns), len(returns))
    reason, above = few or found.reason, None
    if reason:
        reasons.setdefault("dsr_bootstrap", reason)
    elif "dsr_bootstrap" not in reasons:
        above = float(found.above(float(luck * scale) / scale)[0])
    known = _scaled(found.estimates(confidence, [reason])[0], scale)
    shown = bootstrap.Estimate(None, reason=few) if few else known
    return {"sharpe": shown.as_dict(), "dsr_bootstrap": above, "block_length": found.block_length}


def _scaled(estimate: bootstrap.Estimate, factor: float) -> bootstrap.Estimate:
    value, low, high = (None if v is None else v * factor for v in (estimate.value, estimate.low, estimate.high))
    return bootstrap.Estimate(value, low, high, estimate.reason)


def _trades(
    trade_returns: Array, spans: Spans | None, n_open_trades: int, confidence: float, reasons: dict[str, str]
) -> Trades:
    trades = np.asarray(trade_returns, dtype=np.float64)
    if trades.ndim != 1 or not np.isfinite(trades).all():
        n_bad = int((~np.isfinite(trades)).sum())
        raise DataError(
            f"performance: trade results of shape {trades.shape} with {n_bad} not finite; "
            "give [M] results of closed trades"
        )
    won, mean, factor = win_rate(trades, spans, confidence=confidence), None, None
    if len(trades):
        mean = float(trades.mean())
        if (lost := float(-trades[trades < 0].sum())) > 0:
            factor = float(trades[trades > 0].sum() / lost)
        else:
            reasons["profit_factor"] = f"none of the {len(trades)} closed trades lost; a factor needs losses"
    else:
        reasons |= dict.fromkeys(("win_rate", "profit_factor", "mean_trade"), "no trade was closed")
    return {
        "n_trades": len(trades),
        "n_open_trades": int(n_open_trades),
        "win_rate": won.as_dict(),
        "profit_factor": factor,
        "mean_trade": mean,
    }


def _activity(
    n_periods: int,
    years: float,
    exposure_T: Array | None,
    turnover_T: Array | None,
    costs_T: Array | None,
    reasons: dict[str, str],
) -> Activity:
    given = {"exposure": exposure_T, "turnover": turnover_T, "costs": costs_T}
    arrays: dict[str, Array | None] = {}
    for name, values in given.items():
        arrays[name] = None if values is None else sharpe.checked_returns(values, f"performance {name}", least=1)
        if values is not None and np.shape(values) != (n_periods,):
            raise DataError(f"performance: {name} {np.shape(values)} for {n_periods} periods; give one each")
    exposure, turnover, costs = arrays["exposure"], arrays["turnover"], arrays["costs"]
    result: Activity = {
        "exposure": None if exposure is None else float(np.abs(exposure).mean()),
        "time_in_market": None if exposure is None else float((exposure != 0).mean()),
        "turnover_per_year": None if turnover is None else float(turnover.sum() / years),
        "costs_paid": None if costs is None else float(costs.sum()),
    }
    reasons |= {key: "not recorded" for key, value in result.items() if value is None}
    return result
