"""The bot's life: signals and their exit codes, a clock that jumps, and a newer bundle taken between two bars."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest

from tests.small_bundle import HISTORY, hourly_bars, logistic_bundle
from tradsys.core.errors import TradsysError
from tradsys.ops.trading import loop as loop_module
from tradsys.ops.trading.bot import Plan, engine_of
from tradsys.ops.trading.live import swapped
from tradsys.ops.trading.loop import Ending, Loop, signals, stop_line
from tradsys.ops.trading.risk import Risk
from tradsys.ops.trading.state import State
from tradsys.ops.trading.store import TradeJournal
from tradsys.portfolio.costs import Costs
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.paper import PaperBroker
from tradsys.serving.strategy import Profile, Strategy, ThresholdRule

OFF = Risk(*[None] * 8, model_band="off")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_bot_after_its_step_with_its_exit_code(number, code):
    ending, before = Ending(), signal.getsignal(number)
    with signals(ending):
        os.kill(os.getpid(), number)
        ending.wait(5)
    assert (ending.code, ending.why) == (code, f"{number.name} received")
    assert signal.getsignal(number) is before


STORM = """
import signal, time
from tradsys.ops.trading.loop import Ending
ending, end = Ending(), time.monotonic() + 3
signal.signal(signal.SIGALRM, lambda *_: ending.ask("a signal", 0))
signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
while time.monotonic() < end:
    ending.wait(0.001)
signal.setitimer(signal.ITIMER_REAL, 0)
print(ending.why)
"""


def test_a_signal_at_any_point_of_a_wait_does_not_lock_the_bot():
    """Some thousand signals; with a `threading.Event` one of them waits for the lock of the wait it interrupted."""
    done = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "a signal"


@pytest.mark.parametrize(
    ("wall", "is_refused"),
    [(3600.0, True), (-3600.0, True), (61.0, True), (2.0, False), (-2.0, False)],
    ids=["an hour forward", "an hour back", "a minute", "an NTP step forward", "an NTP step back"],
)
def test_a_system_clock_that_jumps_ends_the_bot_in_one_line(monkeypatch, wall, is_refused):
    now = SimpleNamespace(wall=1e9, steady=50.0)
    clock = SimpleNamespace(time=lambda: now.wall, monotonic=lambda: now.steady)
    monkeypatch.setattr(loop_module, "time", clock)
    engine = SimpleNamespace(risk=OFF)
    client = SimpleNamespace(offset=timedelta(0))
    loop = Loop(engine, None, client, Ending(), after_step=lambda _: None)
    for _ in range(3):  # an hour between two looks is no jump where both clocks tell it
        now.wall, now.steady = now.wall + 3600, now.steady + 3600
        loop._check_clocks()
    now.wall, now.steady = now.wall + 5 + wall, now.steady + 5
    if not is_refused:
        loop._check_clocks()
        return
    with pytest.raises(TradsysError, match=rf"^trade: the system clock jumped by {wall:.0f} s; .*; set the clock") as e:
        loop._check_clocks()
    assert "\n" not in str(e.value)


@pytest.fixture
def followed(tmp_path):
    """An engine on the first bundle of a folder of models, with its plan, its feed and the folder."""
    models, bars, symbols = tmp_path / "models", hourly_bars(HISTORY + 5, ("A",)), ("A",)
    bundle, costs = logistic_bundle(models / "1"), Costs()
    strategy = Strategy("often", bundle, Profile(ThresholdRule(0.5, "score")), costs.round_trip)
    plan = Plan("bot", "paper", tmp_path / "bot", strategy, symbols, 1.0, costs, OFF, extra={"follow": str(models)})
    feed = StoredFeed(bars, bars["time"][HISTORY], symbols)
    feed.minutes, feed.n_history = 60, bundle.history
    (tmp_path / "bot").mkdir()
    engine = engine_of(plan, feed, PaperBroker(costs), TradeJournal(tmp_path / "bot" / "journal.db"), State())
    return engine, plan, feed, models


def steps(engine, feed, n):
    for moment in [moment for moment in feed.moments(engine.state.decided) if moment is not None][:n]:
        engine.step(moment)


def test_a_newer_bundle_is_taken_between_two_bars_and_positions_keep_their_exits(followed):
    engine, plan, feed, models = followed
    steps(engine, feed, 3)
    assert not swapped(engine, plan, feed, models)
    held = {s: (a.position, a.pending) for s, a in engine.state.accounts.items()}
    newer = logistic_bundle(models / "2", data={"digest": "newer"})
    assert swapped(engine, plan, feed, models)
    assert engine.digest == newer.card["card_sha256"]
    assert engine.predictor.bundle.folder == engine.strategy.primary.folder == models / "2"
    assert engine.state.settings["bundle_path"] == str(models / "2")
    assert {s: (a.position, a.pending) for s, a in engine.state.accounts.items()} == held
    steps(engine, feed, 2)
    assert [event.kind for event in engine.journal.events()].count("swap") == 1
    assert not swapped(engine, plan, feed, models)


@pytest.mark.parametrize("fault", ["damaged", "other bars"])
def test_a_bundle_that_does_not_fit_is_noted_once_and_left(followed, fault):
    engine, plan, feed, models = followed
    steps(engine, feed, 1)
    changes = {"bar_minutes": 5.0} if fault == "other bars" else {}
    logistic_bundle(models / "2", **changes)
    if fault == "damaged":
        (models / "2" / "model.onnx").write_bytes(b"other")
    assert not swapped(engine, plan, feed, models)
    assert not swapped(engine, plan, feed, models)
    notes = [event.body for event in engine.journal.events(kinds=["note"]) if event.body["what"] == "swap"]
    assert len(notes) == 1
    assert engine.predictor.bundle.folder == models / "1"


def test_the_last_line_says_what_stays_open_and_that_the_command_goes_on(followed):
    engine, _, feed, _ = followed
    steps(engine, feed, 4)
    line = stop_line(engine, "SIGINT received")
    assert line.startswith("stopped: SIGINT received; ")
    assert "\n" not in line
    assert line.endswith("; the same command resumes here")
    assert ("open positions: A" in line) == any(a.position for a in engine.state.accounts.values())
