"""Strategy profiles on one bundle: one vectorbt call, one ledger row each, one verdict each."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.headline import EstimateRow
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, FeatureTable
from tradsys.evidence.cosines import mean_interval
from tradsys.evidence.joint_test import JointTest
from tradsys.evidence.performance import days_between, performance
from tradsys.evidence.sharpe import is_flat
from tradsys.evidence.track_record.drawdowns import DeepestFall, drawdown_span
from tradsys.evidence.track_record.passive import beyond_passive
from tradsys.evidence.verdict import Verdict, verdict_of_strategy
from tradsys.market.bars import mark_gaps
from tradsys.market.calendars import days_in_a_year, session_date
from tradsys.market.events.actions import returns_basis
from tradsys.market.universe import decided_span, traded_rows
from tradsys.portfolio.book_simulator import BookLedger
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.ledger import TRADES_SCHEMA, Ledger
from tradsys.portfolio.simulator import simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many
from tradsys.research.pipeline.records.rows import (
    BenchmarkRow,
    EquityCurves,
    StrategyPerformance,
    StrategyRow,
    TrialRow,
    equity_curves,
)
from tradsys.research.pipeline.records.tear_sheet import TearSheet, tear_sheets
from tradsys.research.pipeline.settings import Evaluation
from tradsys.research.pipeline.span_test import CHOSEN, STRATEGY, joint_tests_on_span
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger, deflation_of_trials
from tradsys.serving.bundle import Bundle
from tradsys.serving.strategy import Profile, Strategy

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Backtest:
    """Strategies on one span: rows, equity curves, trades, trials."""

    rows: list[StrategyRow]
    verdicts: dict[str, Verdict]
    benchmark: BenchmarkRow
    equity: EquityCurves
    trades: pl.DataFrame
    trials: Json
    costs: Json
    tear_sheet: TearSheet = field(default_factory=TearSheet)
    cut: str = ""  # of `universe.decided_span`

    def as_dict(self) -> Json:
        """The backtest's part of the report."""
        return {
            "strategies": self.rows,
            "benchmark": self.benchmark,
            "equity": self.equity,
            "ledger": self.trials,
            "costs": self.costs,
            "tear_sheet": self.tear_sheet or None,
        }


def backtest(
    bundle: Bundle,
    bars: pl.DataFrame,
    profiles: Mapping[str, Profile],
    costs: Costs,
    evaluation: Evaluation,
    *,
    ledger: TrialLedger,
    source: Mapping[str, Any],
    run: str,
    skill_low: float | None,
    since: datetime,
    until: datetime,
    with_tear_sheet: bool = True,
    table: FeatureTable | None = None,
) -> Backtest:
    """Backtests profiles from `since` to `until`; earlier bars are warm-up.

    Every strategy's daily return series enters the ledger before any is evaluated, the best on the bundle's validation
    decisions first, so that each is tested among all trials on this span, including those of its run. The tested
    returns are after costs, less those of holding the strategy's average exposure. Without profiles there is the
    benchmark alone; with them all are compared from the first to the last decision (`cut`). A symbol that the source
    names as its reference is read and neither traded nor held as benchmark.
    with_tear_sheet: also records over time, which do not affect the verdict. table: the bundle's features of these bars
    where they were computed already. Raises DataError where the span holds no bar.
    """
    marked = mark_gaps(bars, bundle.max_gap).filter(pl.col("time").is_between(since, until))
    only_read = source["data"].get("reference")
    traded = traded_rows(marked, only_read)
    if traded.is_empty():
        raise DataError(f"backtest: no bar between {since} and {until}; give data that covers the span")
    strategies = {n: Strategy(n, bundle, p, costs.round_trip, costs.borrow_per_year) for n, p in profiles.items()}
    targets, predictions, cut = {}, None, ""
    if strategies:
        table = bundle.table(bars) if table is None else table
        predictions = traded_rows(bundle.predict(bars, since, until, table=table), only_read)
        targets = {n: s.targets(bars, since, predictions) for n, s in strategies.items()}
        traded, since, until, cut = decided_span(traded, predictions, (since, until))
    ledgers = simulate_many(traded, targets, costs)
    market, calendar = (bundle.card["data_config"].get(key) for key in ("market_symbol", "calendar"))
    reference, owned = _benchmark(traded if strategies else marked, bool(strategies), market)
    held = buy_and_hold(owned, costs)
    yearly = days_in_a_year(held.equity["time"], calendar)
    chosen = best_on_validation(bundle, bars, profiles, costs, source["data"], since, table)
    record_trials(ledger, ledgers, source, run, (since, until), yearly, chosen)
    deflation, trials = trials_on_span(ledger, source["data"]["digest"], (since, until), yearly)
    tests = _tests(ledger, ledgers, held, source["data"]["digest"], (since, until))
    rows: list[StrategyRow] = []
    verdicts: dict[str, Verdict] = {}
    for name, strategy in strategies.items():
        row = _strategy_row(ledgers[name], deflation, evaluation, yearly=yearly)
        verdict = verdict_of_strategy(row, tests[name], skill_low=skill_low, min_trades=evaluation.min_trades)
        verdicts[name] = verdict
        rows.append(
            {
                "name": name,
                "settings": strategy.profile.describe(),
                "signals": _signal_share(traded, targets[name], evaluation.confidence),
                "performance": row,
                "verdict": verdict.as_dict(),
            }
        )
    return Backtest(
        rows=rows,
        verdicts=verdicts,
        benchmark={
            "name": reference,
            "returns": returns_basis(owned),
            "performance": _strategy_row(held, deflation, evaluation, min_trades=0, yearly=yearly),
        },
        equity=equity_curves({**ledgers, reference: held}),
        trades=_trades(ledgers),
        trials={**deflation, "n_looks": len(trials), "list": trials},
        costs=costs.as_dict(traded.columns, returns_basis(traded)),
        tear_sheet=_tear_sheet(ledgers, traded, predictions, evaluation, yearly) if with_tear_sheet else TearSheet(),
        cut=cut,
    )


def _signal_share(traded: pl.DataFrame, targets: pl.DataFrame, confidence: float) -> EstimateRow:
    """Share of bars with a signal of the strategy, with its interval over time."""
    wanted = targets.group_by("time").len("wanted")
    share = traded.group_by("time").len("bars").join(wanted, on="time", how="left").sort("time")
    return mean_interval((share["wanted"].fill_null(0) / share["bars"]).to_numpy(), confidence=confidence).as_dict()


def best_on_validation(
    bundle: Bundle,
    bars: pl.DataFrame,
    profiles: Mapping[str, Profile],
    costs: Costs,
    data: Mapping[str, Any],
    since: datetime,
    table: FeatureTable | None = None,
) -> str | None:
    """The profile with the highest Sharpe after costs on validation.

    None where there is no choice, where the data are not the bundle's own or validation is not over before `since`,
    and where no profile traded. data: as the source describes them (digest, reference). table: the bundle's features of
    these bars where they were computed already.
    """
    span = bundle.card.get("span", {}).get("valid")
    if len(profiles) < 2 or span is None or data["digest"] != bundle.card["data"]["digest"]:
        return next(iter(profiles), None)
    first, last = (datetime.fromisoformat(text) for text in span)
    if last >= since:
        return None
    sharpes = validation_sharpes(bundle, bars, profiles, costs, (first, last), data.get("reference"), table)
    best = max(sharpes, key=sharpes.__getitem__)
    return best if np.isfinite(sharpes[best]) else None


def validation_sharpes(
    bundle: Bundle,
    bars: pl.DataFrame,
    profiles: Mapping[str, Profile],
    costs: Costs,
    span: tuple[datetime, datetime],
    reference: str | None = None,
    table: FeatureTable | None = None,
) -> dict[str, float]:
    """Yearly Sharpe after costs of each profile on that span, -inf unless traded.

    reference: a symbol that is only read. table: as in `best_on_validation`.
    """
    since, until = span
    inside = traded_rows(mark_gaps(bars, bundle.max_gap), reference).filter(pl.col("time").is_between(since, until))
    predictions = traded_rows(bundle.predict(bars, since, until, table=table), reference)
    strategies = {
        name: Strategy(name, bundle, p, costs.round_trip, costs.borrow_per_year) for name, p in profiles.items()
    }
    targets = {name: s.targets(bars, since, predictions) for name, s in strategies.items()}
    ledgers = simulate_many(inside, targets, costs)
    yearly = days_in_a_year(
        next(iter(ledgers.values())).equity["time"], bundle.card.get("data_config", {}).get("calendar")
    )
    return {name: _traded_sharpe(result.daily_returns()[1]) * np.sqrt(yearly) for name, result in ledgers.items()}


def _traded_sharpe(returns: Array) -> float:
    return -np.inf if is_flat(returns) else float(returns.mean() / returns.std(ddof=1))


def _tests(
    ledger: TrialLedger,
    ledgers: Mapping[str, Ledger],
    held: Ledger,
    data_digest: str,
    span: tuple[datetime, datetime],
) -> dict[str, JointTest]:
    """The joint test of every strategy's returns beyond passive holding."""
    if not ledgers:
        return {}
    market = held.daily_returns()[1]
    returns = {name: result.daily_returns()[1] for name, result in ledgers.items()}
    beyond = {name: beyond_passive(returns[name], _daily_exposure(ledgers[name]), market) for name in ledgers}
    return joint_tests_on_span(ledger, data_digest, span, returns, beyond)


def _daily_exposure(result: Ledger) -> Array:
    """Mean signed exposure of each UTC day that has bars: longs less shorts over equity."""
    time = result.equity["time"]
    n = len(time)
    net, gross = np.zeros(n + 1), np.zeros(n + 1)
    for trades, end in ((result.trades, "exit_time"), (result.open_trades, "mark_time")):
        notional = (trades["quantity"] * trades["entry_price"]).to_numpy()
        first, last = (time.search_sorted(trades[name]).to_numpy() for name in ("entry_time", end))
        for total, size in ((net, notional * trades["side"].to_numpy()), (gross, notional)):
            np.add.at(total, first, size)
            np.add.at(total, np.minimum(last, n), -size)
    share = np.divide(np.cumsum(net[:n]), np.cumsum(gross[:n]), out=np.zeros(n), where=np.cumsum(gross[:n]) > 1e-9)
    day = session_date().alias("day")
    signed = result.equity.with_columns(pl.col("exposure") * pl.Series(share))
    return signed.group_by(day, maintain_order=True).agg(pl.col("exposure").mean())["exposure"].to_numpy()


def _benchmark(bars: pl.DataFrame, traded: bool, market: str | None) -> tuple[str, pl.DataFrame]:
    """Name and bars of the benchmark: the strategies' own symbols; where none trades, the market's alone."""
    own = bars.clear() if market is None else bars.filter(pl.col("symbol") == market)
    return ("buy and hold", bars) if traded or own.is_empty() else (f"buy and hold {market}", own)


def bounds(estimate: Mapping[str, Any]) -> tuple[float, float] | None:
    """Low and high of an estimate, None where it has no interval."""
    return None if estimate["low"] is None else (estimate["low"], estimate["high"])


def buy_and_hold(bars: pl.DataFrame, costs: Costs) -> Ledger:
    """Every symbol bought at its second open and held to the last bar."""
    first = bars.group_by("symbol", maintain_order=True).first()
    wanted = first.select(
        "symbol",
        "time",
        side=pl.lit(1, dtype=pl.Int8),
        size=pl.lit(1.0),
        take_profit=pl.lit(np.inf),
        stop_loss=pl.lit(np.inf),
        horizon_bars=pl.lit(len(bars) + 1, dtype=pl.Int64),
    )
    return simulate(bars.drop("segment", strict=False), wanted, costs)


def record_trials(
    ledger: TrialLedger,
    ledgers: Mapping[str, Ledger | BookLedger],
    source: Mapping[str, Any],
    run: str,
    span: tuple[datetime, datetime],
    periods_per_year: float,
    chosen: str | None = None,
) -> None:
    """Records each daily series as a trial of the span, before evaluation.

    chosen: the strategy with the best validation result; it is recorded first and tested on its own.
    """
    for name, result in sorted(ledgers.items(), key=lambda item: item[0] != chosen):
        entry = LedgerEntry(
            purpose=CHOSEN if name == chosen else STRATEGY,
            subject=name,
            data_digest=source["data"]["digest"],
            span_start=span[0],
            span_end=span[1],
            config_digest=source["config_digest"],
            run=run,
            measure="return",
            periods_per_year=periods_per_year,
            code_sha=source["code_sha"],
        )
        ledger.append(entry, result.daily_returns()[1])


def trials_on_span(
    ledger: TrialLedger, data_digest: str, span: tuple[datetime, datetime], periods_per_year: float
) -> tuple[dict[str, float | None], list[TrialRow]]:
    """Deflation of a Sharpe on this span, and its distinct trials as rows."""
    sharpes = ledger.trial_sharpes(data_digest, *span, periods_per_year=periods_per_year)
    trials = ledger.trials(data_digest, *span)
    entries = {entry["id"]: entry for entry in ledger.entries()}
    rows: list[TrialRow] = [
        {"when": e["when"], "subject": e["subject"], "who": e["who"], "run": e["run"], "sharpe": float(sharpe)}
        for e, sharpe in zip([entries[trial.id] for trial in trials], sharpes, strict=True)
    ]
    return deflation_of_trials(trials, periods_per_year).as_dict(), rows


def _strategy_row(
    result: Ledger,
    deflation: Mapping[str, Any],
    evaluation: Evaluation,
    min_trades: int | None = None,
    *,
    yearly: float,
) -> StrategyPerformance:
    """Performance of one ledger on daily UTC returns; the drawdown is measured on bars, not day closes.

    yearly: days with bars in a year. min_trades: None is the evaluation's own.
    """
    days, daily = result.daily_returns()
    activity = _activity(result, days)
    depth, peak, end, recovered = drawdown_span(result.returns())
    fell_days = days_between(result.equity["time"].to_numpy(), peak, end)
    out = performance(
        daily,
        periods_per_year=yearly,
        trade_returns=result.trades["net_return"].to_numpy(),
        trade_spans=(result.trades["signal_time"].to_numpy(), result.trades["exit_time"].to_numpy()),
        days_T=days,
        n_open_trades=len(result.open_trades),
        exposure_T=activity["exposure"].to_numpy(),
        turnover_T=activity["turnover"].to_numpy(),
        costs_T=activity["cost"].to_numpy(),
        drawdown=DeepestFall(
            max_drawdown=depth, drawdown_periods=fell_days, drawdown_days=fell_days, drawdown_recovered=recovered
        ),
        min_trades=evaluation.least_trades if min_trades is None else min_trades,
        confidence=evaluation.confidence,
        **deflation,
    )
    return {**out, "n_cancelled": result.n_cancelled, "n_spanning_gap": result.n_spanning_gap}


def _tear_sheet(
    ledgers: Mapping[str, Ledger],
    bars: pl.DataFrame,
    predictions: pl.DataFrame | None,
    evaluation: Evaluation,
    yearly: float,
) -> TearSheet:
    """Records over time, trades and prices; empty without a strategy."""
    if not ledgers:
        return {}
    has_regime = predictions is not None and "regime" in predictions.columns
    return tear_sheets(
        ledgers,
        {name: _activity(ledger, ledger.daily_returns()[0]) for name, ledger in ledgers.items()},
        bars,
        predictions if has_regime else None,
        periods_per_year=yearly,
        confidence=evaluation.confidence,
    )


def _activity(result: Ledger, days: Array) -> pl.DataFrame:
    """Mean exposure, traded notional over equity, and costs over equity, per UTC day."""
    day = session_date().alias("day")
    equity = result.equity.group_by(day).agg(pl.col("exposure").mean(), pl.col("equity").last())
    notional = pl.col("quantity") * pl.col("entry_price")
    fills = pl.concat(
        [
            result.trades.select(time="entry_time", notional=notional, cost=pl.lit(0.0)),
            result.trades.select(time="exit_time", notional=pl.col("quantity") * pl.col("exit_price"), cost="cost"),
            result.open_trades.select(time="entry_time", notional=notional, cost="cost"),
        ]
    )
    traded = fills.group_by(day).agg(pl.col("notional", "cost").sum())
    daily = pl.DataFrame({"day": days}).join(equity, on="day", how="left").join(traded, on="day", how="left")
    per_equity = pl.col("notional", "cost").fill_null(0.0) / pl.col("equity")
    return daily.sort("day").with_columns(per_equity).rename({"notional": "turnover"})


def _trades(ledgers: Mapping[str, Ledger]) -> pl.DataFrame:
    none = pl.DataFrame(schema={"strategy": pl.String, **TRADES_SCHEMA})
    own = [ledger.trades.select(pl.lit(name).alias("strategy"), pl.all()) for name, ledger in ledgers.items()]
    return pl.concat([none, *own])
