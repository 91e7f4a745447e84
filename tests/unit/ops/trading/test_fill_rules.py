"""The bot over stored bars follows every fill rule of `simulate`: volume, prints, carry, participation, gaps, cuts."""

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tests.exchange.coin import CoinSession, coin_plan
from tradsys.market.bars import mark_gaps
from tradsys.market.events.actions import SCHEMA
from tradsys.market.store import BarStore, StoredBars
from tradsys.ops.trading.bot import run_replay
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.serving.brokers import Bar
from tradsys.serving.exchange.feed import splits_in
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.paper import PaperBroker

SYMBOLS = ("AAAUSDT", "BBBUSDT")
PLAIN = Costs()


def walk(seed):
    return walk_bars(220, SYMBOLS, seed=seed)


def at_random(bars, seed, share):
    return pl.Series(np.random.default_rng(seed).random(bars.height) < share)


def idle(seed):
    """Bars in which nothing traded."""
    bars = walk(seed)
    return bars.with_columns(volume=pl.when(at_random(bars, seed, 0.15)).then(0.0).otherwise("volume"))


def never_recorded(seed):
    return walk(seed).with_columns(volume=pl.lit(0.0))


def prints(seed):
    """Opens and extremes far from anything around them."""
    bars = walk(seed)
    high = pl.when(at_random(bars, seed, 0.05)).then(pl.col("high") * 12).otherwise("high")
    low = pl.when(at_random(bars, seed + 1, 0.03)).then(pl.col("low") / 12).otherwise("low")
    far = at_random(bars, seed + 2, 0.05)
    bars = bars.with_columns(high=high, low=low)
    opens = bars.with_columns(open=pl.when(far).then(pl.col("open") * 11).otherwise("open"))
    return opens.with_columns(high=pl.max_horizontal("high", "open"))


def carried(seed):
    """Funding every eighth bar, a dividend now and then."""
    bars = walk(seed)
    rate = np.where(np.arange(bars.height) % 8 == 0, np.random.default_rng(seed).normal(0, 3e-3, bars.height), 0.0)
    money = pl.when(at_random(bars, seed, 0.04)).then(0.4).otherwise(0.0)
    return bars.with_columns(funding_due=pl.Series(rate), dividend_due=money)


def holed(seed):
    bars = walk(seed)
    hour = (pl.col("time").dt.epoch("s") // 3600) % 50
    return bars.filter(~(hour.is_between(10, 18) & (pl.col("symbol") == "AAAUSDT")) & (hour != 30))


def dying(seed):
    """One symbol pauses twice, once for longer than a death takes, and then ends."""
    bars = walk(seed)
    clock = bars["time"].unique().sort()
    at = clock.search_sorted(bars["time"])
    silent = at.is_between(60, 62) | at.is_between(90, 110) | (at > 170)
    return bars.filter(~silent | (bars["symbol"] != "AAAUSDT"))


CASES = {
    "plain": (walk, PLAIN),
    "no costs": (walk, Costs(0, 0)),
    "idle bars": (idle, PLAIN),
    "no volumes": (never_recorded, PLAIN),
    "prints": (prints, PLAIN),
    "carry": (carried, Costs(borrow_bps_per_year=4000)),
    "participation": (walk, Costs(max_participation=0.2, capital=60_000)),
    "participation and idle bars": (idle, Costs(max_participation=0.1, capital=60_000)),
    "gaps": (holed, PLAIN),
    "deaths": (dying, Costs(dead_after_bars=4, delisting_return=-0.3)),
}


def replayed(folder, bars, costs, *, cut=None):
    plan = replace(coin_plan(folder, "replay", capital=1.0, horizon_bars=5), costs=costs)
    feed = StoredFeed(bars, bars["time"].unique().sort()[20], SYMBOLS)

    class Cut(StoredFeed):
        def moments(self, after):
            return itertools.islice(super().moments(after), cut)

    if cut is None:
        return plan, run_replay(plan, feed, PaperBroker(costs), sessions=CoinSession)
    for _ in range(200 // cut + 1):
        state = run_replay(plan, Cut(feed.bars, feed.since, SYMBOLS), PaperBroker(costs), sessions=CoinSession)
    return plan, state


def assert_same(got, want):
    for mine, theirs in ((got.trades, want.trades), (got.open_trades, want.open_trades)):
        assert mine.height == theirs.height
        for name, kind in theirs.schema.items():
            if kind.is_float():
                np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)
            else:
                assert mine[name].equals(theirs[name]), name
    np.testing.assert_allclose(got.equity["equity"], want.equity["equity"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(got.equity["exposure"], want.equity["exposure"], rtol=0, atol=1e-9)
    assert got.n_cancelled == want.n_cancelled


@pytest.mark.parametrize("cut", [None, 37], ids=["in one go", "stopped every 37 bars"])
@pytest.mark.parametrize("case", CASES)
def test_the_bot_is_the_simulator(tmp_path, case, cut):
    make, costs = CASES[case]
    bars = make(4)
    plan, state = replayed(tmp_path / "bot", bars, costs, cut=cut)
    traded = mark_gaps(bars, plan.bundle.max_gap).filter(pl.col("time") >= bars["time"].unique().sort()[20])
    want = simulate(traded, plan.strategy.targets(traded), costs)
    assert want.trades.height > 20
    if case == "deaths":
        assert "delisted" in want.trades["reason"]
    if case == "carry":
        assert (want.trades["carry"] != 0).sum() > 10
    assert_same(state.ledger(), want)


def test_replay_of_stored_shares_is_the_backtest_over_dividends_and_a_split(tmp_path):
    """Stored as traded: twice the price before the split. The ledger is that of bars worked out by hand."""
    today = walk(9)
    times = today["time"].unique().sort()
    before = (pl.col("symbol") == "AAAUSDT") & (pl.col("time") < times[100])
    raw = today.with_columns(*(pl.when(before).then(pl.col(n) * 2).otherwise(n).alias(n) for n in PRICES),
                             volume=pl.when(before).then(pl.col("volume") / 2).otherwise("volume"))  # fmt: skip
    found = [("split", 100, 2.0), *(("dividend", k, 1.6 if k < 100 else 0.8) for k in range(30, 210, 9))]
    rows = [("AAAUSDT", times[k], kind, value, "file", times[-1]) for kind, k, value in found]
    store = BarStore(tmp_path)
    store.write("mine", raw, {"source": "test"})
    store.add_events("mine", pl.DataFrame(rows, schema=SCHEMA, orient="row"), {"source": "test"})
    stored = StoredBars(str(tmp_path), "mine").bars()
    plan, state = replayed(tmp_path / "bot", stored, PLAIN)
    due = [(pl.col("symbol") == "AAAUSDT") & (pl.col("time") == times[k]) for k in range(30, 210, 9)]
    by_hand = today.with_columns(dividend_due=pl.when(pl.any_horizontal(due)).then(0.8).otherwise(0.0))
    traded = mark_gaps(by_hand, plan.bundle.max_gap).filter(pl.col("time") >= times[20])
    want = simulate(traded, plan.strategy.targets(traded), PLAIN)
    assert (want.trades["carry"] != 0).sum() > 5
    assert ((want.trades["entry_time"] < times[100]) & (want.trades["exit_time"] >= times[100])).any()
    assert_same(state.ledger(), want)


class SplitFeed(StoredFeed):
    """Bars as they were before a split of ten for one, then in new units, as a live feed sees one."""

    def __init__(self, bars, since, symbols, at):
        super().__init__(bars, since, symbols)
        self.at = at

    def moments(self, after):
        for moment in super().moments(after):
            if moment.time < self.at:
                old = [bar._replace(**{n: getattr(bar, n) * 10 for n in PRICES}, volume=bar.volume / 10)
                       for bar in moment.bars]  # fmt: skip
                yield replace(moment, bars=tuple(old))
            else:
                yield replace(moment, splits=tuple((s, 10.0) for s in SYMBOLS) if moment.time == self.at else ())


PRICES = ("open", "high", "low", "close")


def test_a_split_while_a_position_is_open_converts_it_and_stops_new_entries(tmp_path):
    """In the simulator's data every bar is in today's units: the trades that were open come to the same returns."""
    bars = carried(6).drop("dividend_due")
    times = bars["time"].unique().sort()
    plan, want = replayed(tmp_path / "one", bars, PLAIN)
    at = want.ledger().trades.filter(pl.col("bars_held") > 2)["entry_time"][8] + (times[1] - times[0])
    plan = replace(plan, folder=tmp_path / "two")
    state = run_replay(plan, SplitFeed(bars, times[20], SYMBOLS, at), PaperBroker(PLAIN), sessions=CoinSession)
    got, unsplit = state.ledger().trades, want.ledger().trades
    open_then = (got["entry_time"] < at) & (got["exit_time"] >= at)
    assert open_then.any()
    unsplit = unsplit.filter(pl.col("signal_time") < at)
    for name in ("symbol", "entry_time", "exit_time", "reason"):
        assert got[name].to_list() == unsplit[name].to_list()
    np.testing.assert_allclose(got["net_return"], unsplit["net_return"], rtol=1e-9)
    np.testing.assert_allclose(got["net_pnl"], unsplit["net_pnl"], rtol=1e-9)
    assert "10 new units for one" in state.halts["split"]


def test_a_history_rewritten_by_one_factor_is_a_split_and_a_correction_is_none():
    def bar(k, factor=1.0):
        prices = (100 + k, 103 + k, 98 + k, 101 + k)
        return Bar("AAAUSDT", times[k], *(p / factor for p in prices), 5.0)

    times = walk(1)["time"].unique().sort().head(4).to_list()
    rewritten = tuple((bar(k), bar(k, 3.0)) for k in range(4))
    assert splits_in(rewritten) == (("AAAUSDT", pytest.approx(3.0)),)
    assert splits_in(rewritten[:1]) == ()
    assert splits_in(tuple((bar(k), bar(k, 1.05)) for k in range(4))) == ()
    assert splits_in(((bar(0), bar(0, 3.0)), (bar(1), bar(1)._replace(close=101.5)))) == ()
