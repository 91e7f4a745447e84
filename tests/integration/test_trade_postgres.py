"""The trade journal on a PostgreSQL server: two bots on one journal, and a bot that is killed and started again."""

import signal

import pytest

from tests.forks import run
from tests.integration.test_trade_replay import assert_same
from tests.postgres import change
from tests.small_bundle import HISTORY, hourly_bars, logistic_bundle
from tradsys.core.errors import DataError
from tradsys.ops.trading.bot import Plan, opened, run_replay
from tradsys.ops.trading.risk import Risk
from tradsys.ops.trading.store import TradeJournal
from tradsys.portfolio.costs import Costs
from tradsys.serving.bundle import Bundle
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.paper import PaperBroker
from tradsys.serving.strategy import Profile, Strategy, ThresholdRule

SYMBOLS = ("A", "B")
N_BARS = 40
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.integration import test_trade_postgres as t
from tradsys.ops.trading.engine import Engine
from tradsys.serving.bundle import Bundle
left, real = int(sys.argv[4]), Engine.step
def step(self, moment):
    global left
    left -= 1
    if left == 0:
        real_decide = self._decide
        def decide(moment):
            os.kill(os.getpid(), signal.SIGKILL)
        self._decide = decide
    real(self, moment)
Engine.step = step
t.replayed(Bundle.load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return logistic_bundle(tmp_path_factory.mktemp("logistic") / "bundle")


def plan(bundle: Bundle, folder, journal, name="bot"):
    profile, costs = Profile(ThresholdRule(0.5, "score", short=True)), Costs()
    strategy = Strategy("often", bundle, profile, costs.round_trip)
    return Plan(name, "replay", folder, strategy, SYMBOLS, 1.0, costs, Risk(*[None] * 8, model_band="off"), journal)


def replayed(bundle, folder, journal):
    bars = hourly_bars(HISTORY + N_BARS, SYMBOLS)
    feed = StoredFeed(bars, bars["time"][HISTORY], SYMBOLS)
    return run_replay(plan(bundle, folder, journal), feed, PaperBroker(Costs()))


def test_a_second_bot_on_the_journal_is_refused_in_one_line(url, bundle, tmp_path):
    with opened(plan(bundle, tmp_path / "a", url)) as (journal, _):
        with (
            pytest.raises(DataError, match=r"^trade journal postgresql.*: another bot writes it; .*") as refused,
            opened(plan(bundle, tmp_path / "b", url, name="other")),
        ):
            pass
        assert "\n" not in str(refused.value)
        assert "secret" not in str(refused.value)
        assert "secret" not in journal.shown
    with opened(plan(bundle, tmp_path / "b", url, name="other")):
        pass


def test_a_bot_killed_within_a_step_goes_on_to_the_same_ledger(url, bundle, tmp_path):
    want = replayed(bundle, tmp_path / "whole", None)
    done = run("-c", KILLED, str(bundle.folder), str(tmp_path / "bot"), url, "23")
    assert done.returncode == -signal.SIGKILL, done.stderr
    journal = TradeJournal(url, create=False)
    n_before = sum(1 for _ in journal.events())
    assert n_before
    assert journal.verify() == []
    got = replayed(bundle, tmp_path / "bot", url)
    assert journal.verify() == []
    assert want.ledger().trades.height > 5
    assert_same(got.ledger(), want.ledger())


def test_a_row_changed_on_the_server_is_seen(url, bundle, tmp_path):
    replayed(bundle, tmp_path / "bot", url)
    change(url, "UPDATE events SET body = '{}' WHERE id = 7")
    assert TradeJournal(url, create=False).verify() == [
        "event 7 does not match the hash of its content and of the previous event"
    ]
