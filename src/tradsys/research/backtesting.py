"""Strategy profiles on one bundle: one vectorbt call, one ledger row each, one verdict each."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.performance import performance
from tradsys.evidence.sharpe import trial_variance
from tradsys.evidence.verdict import Verdict, judge
from tradsys.market.bars import mark_gaps
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.ledger import Ledger
from tradsys.portfolio.simulator import simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many
from tradsys.research.ledger import LedgerEntry, TrialLedger
from tradsys.research.parts import Evaluation
from tradsys.serving.bundle import Bundle
from tradsys.serving.strategy import Profile, Strategy

LOG = logging.getLogger(__name__)
DAYS_PER_YEAR = 365.0  # daily UTC returns of markets that never close; stated in the report


@dataclass(frozen=True, eq=False)
class Backtest:
    """Strategies judged on one span: rows of the table, equity curves, trades, the ledger's trials."""

    rows: list[dict[str, Any]]
    verdicts: list[Verdict]
    benchmark: dict[str, Any]
    equity: dict[str, Any]
    trades: pl.DataFrame
    trials: dict[str, Any]
    costs: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The backtest's share of the report."""
        return {
            "strategies": self.rows,
            "benchmark": self.benchmark,
            "equity": self.equity,
            "ledger": self.trials,
            "costs": self.costs,
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
    seed: int,
) -> Backtest:
    """Backtests profiles on decisions from `since` to `until`; bars may start earlier, for warm-up only.

    Every strategy's daily return series enters the ledger before any is judged, so each Sharpe is deflated by all
    trials on this span, its own companions included. Raises DataError where the span holds no bar.
    """
    gap = bundle.card["max_gap_minutes"]
    marked = mark_gaps(bars, None if gap is None else timedelta(minutes=gap))
    traded = marked.filter(pl.col("time").is_between(since, until))
    if traded.is_empty():
        raise DataError(f"backtest: no bar between {since} and {until}; give data that covers the span")
    predictions = bundle.predict(bars, since).filter(pl.col("time") <= until)
    strategies = {n: Strategy(n, bundle, p, costs.round_trip) for n, p in profiles.items()}
    targets = {n: s.targets(bars, since, predictions) for n, s in strategies.items()}
    ledgers = simulate_many(traded, targets, costs)
    held = buy_and_hold(traded, costs)
    _record(ledger, ledgers, source, run, since, until)
    trials = ledger.trials(source["data"]["digest"], since, until)
    sharpes = ledger.trial_sharpes(source["data"]["digest"], since, until)
    deflation = {"n_trials": max(1, len(sharpes)), "sharpe_variance": trial_variance(sharpes)}
    rows, verdicts = [], []
    for name, strategy in strategies.items():
        row = _row(ledgers[name], deflation, evaluation, seed)
        verdict = judge(row, skill_low=skill_low, min_trades=evaluation.min_trades)
        verdicts.append(verdict)
        rows.append(
            {"name": name, "settings": strategy.profile.describe(), "performance": row, "verdict": verdict.as_dict()}
        )
    return Backtest(
        rows=rows,
        verdicts=verdicts,
        benchmark={"name": "buy and hold", "performance": _row(held, deflation, evaluation, seed)},
        equity=_equity({**ledgers, "buy and hold": held}),
        trades=_trades(ledgers),
        trials={**deflation, "list": trials},
        costs={"fee_bps": costs.fee_bps, "slippage_bps": costs.slippage_bps},
    )


def buy_and_hold(bars: pl.DataFrame, costs: Costs) -> Ledger:
    """Every symbol bought at its second open with its share of the capital and held to the last bar."""
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


def _record(
    ledger: TrialLedger,
    ledgers: Mapping[str, Ledger],
    source: Mapping[str, Any],
    run: str,
    since: datetime,
    until: datetime,
) -> None:
    for name, result in ledgers.items():
        ledger.append(
            LedgerEntry(
                purpose="strategy on test",
                subject=name,
                code_sha=source["code_sha"],
                config_digest=source["config_digest"],
                data_digest=source["data"]["digest"],
                span_start=since,
                span_end=until,
                run=run,
            ),
            series=result.daily_returns()[1],
        )


def _row(result: Ledger, deflation: Mapping[str, float], evaluation: Evaluation, seed: int) -> dict[str, Any]:
    """Performance of one ledger, on daily UTC returns."""
    _, daily = result.daily_returns()
    closed, notional = result.trades, pl.col("quantity") * pl.col("entry_price")
    return performance(
        daily,
        periods_per_year=DAYS_PER_YEAR,
        trade_returns=closed["net_return"].to_numpy(),
        trade_pnl=closed["net_pnl"].to_numpy(),
        exposure=result.equity["exposure"].to_numpy(),
        traded_notional=float(2 * closed.select(notional.sum()).item() + result.open_trades.select(notional.sum()).item()),
        costs_paid=float(closed["cost"].sum() + result.open_trades["cost"].sum()),
        equity=result.equity["equity"].to_numpy(),
        n_draws=evaluation.n_draws,
        confidence=evaluation.confidence,
        seed=seed,
        **deflation,
    ) | {"n_cancelled": result.n_cancelled, "n_spanning_gap": result.n_spanning_gap}


def _equity(ledgers: Mapping[str, Ledger]) -> dict[str, Any]:
    """Daily equity of every curve on one list of dates."""
    curves = {name: _daily(ledger) for name, ledger in ledgers.items()}
    dates = next(iter(curves.values()))[0]
    return {"time": [str(d) for d in dates], "curves": {name: values.tolist() for name, (_, values) in curves.items()}}


def _daily(ledger: Ledger) -> tuple[Array, Array]:
    dates, returns = ledger.daily_returns()
    return dates, np.cumprod(1 + returns)


def _trades(ledgers: Mapping[str, Ledger]) -> pl.DataFrame:
    return pl.concat([ledger.trades.select(pl.lit(name).alias("strategy"), pl.all()) for name, ledger in ledgers.items()])
