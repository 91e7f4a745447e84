"""The bot over stored bars is the backtest, trade for trade: profiles, gaps, one coin and several, stops and starts."""

import itertools
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tests.integration.conftest import inside
from tradsys.config.compose import build, compose
from tradsys.core.errors import BundleError
from tradsys.market.bars import mark_gaps
from tradsys.market.synthetic import SyntheticMarket
from tradsys.ops.trading.bot import JOURNAL, Plan, run_replay
from tradsys.ops.trading.risk import Risk
from tradsys.ops.trading.state import State
from tradsys.ops.trading.store import TradeJournal
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.ledger import Ledger
from tradsys.portfolio.simulator import simulate
from tradsys.serving.bundle import Bundle
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.paper import PaperBroker
from tradsys.serving.session import Session
from tradsys.serving.strategy import AuditMask, BreakEvenRule, Profile, RegimeMask, Strategy, ThresholdRule

NO_LIMITS = Risk(*[None] * 8, model_band="off")
N_BARS = 90
BUSY = {
    "both_ways": Profile(ThresholdRule(0.3, "quantile", short=True)),
    "masked_half": Profile(ThresholdRule(0.2, "score"), [RegimeMask(["calm"]), AuditMask(0.3)], size=0.5),
    "break_even": Profile(BreakEvenRule(-0.3)),
}


class Remembered:
    """Sessions as one: several profiles share one pass over the same bars, and one warm-up before them.

    A moment that the first session did not see is a KeyError.
    """

    def __init__(self):
        self._kept, self._session = {}, None

    def __call__(self, bundle, past):
        if self._session is None:
            self._session = Session(bundle, past)
            return self
        return SimpleNamespace(step=lambda closed: self._kept[closed["time"][0]])

    def step(self, closed):
        predictions = self._kept[closed["time"][0]] = self._session.step(closed)
        return predictions


def assert_same(got: Ledger, want: Ledger):
    for mine, theirs in ((got.trades, want.trades), (got.open_trades, want.open_trades)):
        assert mine.height == theirs.height
        for name, kind in theirs.schema.items():
            if kind.is_float():
                np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)
            else:
                assert mine[name].equals(theirs[name]), name
    assert got.equity["time"].equals(want.equity["time"])
    np.testing.assert_allclose(got.equity["equity"], want.equity["equity"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(got.equity["exposure"], want.equity["exposure"], rtol=0, atol=1e-9)
    assert got.n_cancelled == want.n_cancelled


@pytest.fixture(scope="module")
def bundle(run_folder):
    return Bundle.load(run_folder / "bundle")


@pytest.fixture(scope="module")
def bars(bundle):
    config = {k: v for k, v in bundle.data_config()["source"].items() if k != "_target_"}
    return SyntheticMarket(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}).bars()


@pytest.fixture(scope="module")
def holed(bundle, bars):
    """The last bars with a hole that breaks the segment, and one that does not; one symbol ends early."""
    times = bars["time"].unique().sort()
    hole, small = times[-30:-20], times[-50:-48]
    ends = (pl.col("symbol") == "SYN2") & (pl.col("time") > times[-8])
    gap = pl.col("time").is_in(hole.implode()) & (pl.col("symbol") == "SYN0")
    return bars.filter(~ends & ~gap & ~(pl.col("time").is_in(small.implode()) & (pl.col("symbol") == "SYN1")))


def plan(folder, bundle, name, profile, symbols, costs):
    strategy = Strategy(name, bundle, profile, costs.round_trip)
    return Plan("bot", "replay", folder, strategy, tuple(symbols), 1.0, costs, NO_LIMITS)


def backtested(bundle, bars, since, name, profile, costs):
    traded = mark_gaps(bars, bundle.max_gap).filter(pl.col("time") >= since)
    return simulate(traded, Strategy(name, bundle, profile, costs.round_trip).targets(bars, since), costs)


def profiles():
    parts = build(compose("backtest", ["levels=score"]))
    return {**parts["strategy"], **BUSY}


@pytest.mark.parametrize("kind", ["as_made", "holed"])
def test_replay_is_the_backtest_for_every_profile(bundle, bars, holed, tmp_path, kind):
    rows = bars if kind == "as_made" else holed
    since, costs = rows["time"].unique().sort()[-N_BARS], Costs()
    symbols = rows["symbol"].unique().sort().to_list()
    n_trades, sessions = {}, Remembered()
    for name, profile in profiles().items():
        made = plan(tmp_path / name, bundle, name, profile, symbols, costs)
        state = run_replay(made, StoredFeed(rows, since, symbols), PaperBroker(costs), sessions=sessions)
        want = backtested(bundle, rows, since, name, profile, costs)
        assert_same(state.ledger(), want)
        n_trades[name] = want.trades.height
    assert {"sniper", "audited", "reckless", "cost_aware"} < set(n_trades)
    assert all(n_trades[name] > 5 for name in BUSY), n_trades
    if kind == "holed":
        assert want.n_spanning_gap or want.n_cancelled or n_trades["both_ways"] > 5


def test_one_symbol_holds_the_whole_capital(bundle, bars, tmp_path):
    own, costs = bars.filter(pl.col("symbol") == "SYN0"), Costs(fee_bps=2, slippage_bps=1)
    since = own["time"][-N_BARS]
    made = plan(tmp_path / "one", bundle, "both_ways", BUSY["both_ways"], ["SYN0"], costs)
    state = run_replay(made, StoredFeed(own, since, ["SYN0"]), PaperBroker(costs))
    assert_same(state.ledger(), backtested(bundle, own, since, "both_ways", BUSY["both_ways"], costs))


def test_a_replay_cut_anywhere_goes_on_to_the_same_ledger(bundle, bars, tmp_path):
    """Stopped after any number of bars and started again: the journal alone carries the state."""
    costs, symbols = Costs(), ["SYN0", "SYN1", "SYN2"]
    since = bars["time"].unique().sort()[-N_BARS]

    class Cut(StoredFeed):
        def moments(self, after):
            return itertools.islice(super().moments(after), 17)

    made = plan(tmp_path / "cut", bundle, "both_ways", BUSY["both_ways"], symbols, costs)
    for _ in range(N_BARS // 17 + 1):
        state = run_replay(made, Cut(bars, since, symbols), PaperBroker(costs))
    assert_same(state.ledger(), backtested(bundle, bars, since, "both_ways", BUSY["both_ways"], costs))
    journal = TradeJournal(made.folder / JOURNAL)
    assert journal.verify() == []
    assert_same(State().replay(journal.events()).ledger(), state.ledger())


def test_a_journal_belongs_to_one_bot(bundle, bars, tmp_path):
    costs = Costs()
    since = bars["time"].unique().sort()[-3]
    feed = StoredFeed(bars, since, ["SYN0"])
    run_replay(plan(tmp_path / "a", bundle, "x", BUSY["break_even"], ["SYN0"], costs), feed, PaperBroker(costs))
    other = plan(tmp_path / "a", bundle, "y", BUSY["break_even"], ["SYN0"], costs)
    with pytest.raises(BundleError, match=r"strategy=x, this start has strategy=y; a journal belongs to one bot"):
        run_replay(other, feed, PaperBroker(costs))


def test_the_command_replays_the_test_span(run_folder, capsys):
    from tradsys.trade import work

    kept = run_folder.parents[1] / "trade"  # other tests replay the same run
    before = set(kept.glob("replay-*"))
    with inside(run_folder.parents[2]):
        work(["replay", "strategy=reckless", "symbols=[SYN0]", "until=2023-02-25"])
    (folder,) = set(kept.glob("replay-*")) - before
    out = capsys.readouterr().out
    assert "trades" in out
    assert TradeJournal(folder / JOURNAL, create=False).verify() == []
