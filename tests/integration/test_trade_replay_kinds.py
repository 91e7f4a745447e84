"""Replay is the backtest for every kind of bundle: own sides, pools, seven symbols, funding, long and short."""

import numpy as np
import polars as pl
import pytest

from tests.integration.test_trade_replay import NO_LIMITS, Remembered, assert_same
from tests.small_bundle import HISTORY, hourly_bars, logistic_bundle, pooled_bundle
from tradsys.features.side import BreakoutSide, MomentumSide, ReversionSide
from tradsys.market.bars import mark_gaps
from tradsys.ops.trading.bot import Plan, run_replay
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.paper import PaperBroker
from tradsys.serving.strategy import BreakEvenRule, BreakoutRule, ExpansionSizing, Profile, Strategy, ThresholdRule

N_BARS = 60
SEVEN = tuple("ABCDEFG")
LABEL = {"atr_bars": 14, "upper": 2, "lower": 1, "horizon_bars": 6}
EXPANSION = LABEL | {"kind": "expansion", "range_bars": 12}
MEAN = LABEL | {"kind": "mean_reached", "mean_bars": 24, "lower": 1.5}
LONG, BOTH = Profile(ThresholdRule(0.5, "score")), Profile(ThresholdRule(0.5, "score", short=True), size=0.7)
BREAK_EVEN = Profile(BreakEvenRule(-0.3))


def plain(folder):
    return logistic_bundle(folder)


def momentum(folder):
    return logistic_bundle(folder, (MomentumSide(24, 0.3),))


def reversion(folder):
    return logistic_bundle(folder, (ReversionSide(24, 1.0),), label=MEAN)


def breakout(folder):
    return logistic_bundle(folder, (BreakoutSide(12),), label=EXPANSION)


EXPLODING = Profile(BreakoutRule(0.4, "probability"), sizing=ExpansionSizing(0.4))
CASES = {
    "seven symbols": (plain, SEVEN, (LONG, BOTH, BREAK_EVEN)),
    "own side, momentum": (momentum, ("A", "B"), (LONG, BREAK_EVEN)),
    "own side, back to the mean": (reversion, ("A", "B"), (LONG, BREAK_EVEN)),
    "own side, breakouts with sizing": (breakout, ("A", "B"), (EXPLODING,)),
    "a pool": (pooled_bundle, ("A", "B"), (LONG, BOTH)),
}


@pytest.mark.parametrize("funded", [False, True])
@pytest.mark.parametrize("kind", list(CASES))
def test_replay_is_the_backtest(kind, funded, tmp_path):
    make, symbols, profiles = CASES[kind]
    bundle, costs = make(tmp_path / "bundle"), Costs(fee_bps=3, slippage_bps=1, borrow_bps_per_year=500)
    bars = hourly_bars(HISTORY + N_BARS, symbols)
    if funded:
        at_eight = pl.col("time").dt.hour() % 8 == 0
        rate = pl.Series(np.random.default_rng(1).normal(0, 3e-3, bars.height))
        bars = bars.with_columns(funding_due=pl.when(at_eight).then(rate).otherwise(0.0))
    since, sessions, n_trades = bars["time"][HISTORY], Remembered(), 0
    for k, profile in enumerate(profiles):
        strategy = Strategy(f"profile {k}", bundle, profile, costs.round_trip)
        plan = Plan("bot", "replay", tmp_path / str(k), strategy, symbols, 1.0, costs, NO_LIMITS)
        state = run_replay(plan, StoredFeed(bars, since, symbols), PaperBroker(costs), sessions=sessions)
        traded = mark_gaps(bars, bundle.max_gap).filter(pl.col("time") >= since)
        want = simulate(traded, strategy.targets(bars, since), costs)
        assert_same(state.ledger(), want)
        n_trades += want.trades.height
    assert n_trades > 5
