"""The websocket ends a wait and does nothing else: whatever it sends, the bot's bars, decisions and orders stay."""

import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("ccxt", reason="the live extra is not installed: pip install 'tradsys[live]'")

from tests.conftest import walk_bars
from tests.exchange.coin import CoinSession, coin_plan, rows_of
from tests.exchange.market import Market
from tests.exchange.server import KEY, SECRET, Api, serving
from tests.exchange.streams import Misbehaviour, Paced, Streams
from tradsys.core.errors import TradsysError
from tradsys.ops.trading import live
from tradsys.ops.trading.bot import JOURNAL
from tradsys.ops.trading.live import run_live
from tradsys.ops.trading.state import State
from tradsys.ops.trading.store import TradeJournal
from tradsys.ops.trading.summary import summary
from tradsys.serving.exchange import stream as stream_module
from tradsys.serving.exchange.client import Exchange
from tradsys.serving.exchange.feed import ExchangeFeed
from tradsys.serving.exchange.stream import BarStream, stream_of

HOUR = 3_600_000
WARM_UP = 60
ROWS = rows_of(walk_bars(140, ("AAAUSDT", "BBBUSDT"), seed=3))
START = ROWS["AAAUSDT"][WARM_UP][0]
N_STEPS = 14
FOR_EVER = 600.0  # seconds between polls: the test would not end


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("TEST_SECRET", SECRET)
    monkeypatch.delenv("TRADSYS_NOTIFY", raising=False)


@dataclass
class Outcome:
    """What a bot left, and how often it asked."""

    journal: TradeJournal
    state: State
    api: Api

    @cached_property
    def deeds(self):
        """Everything that may not depend on how bars are awaited; read once, after the bot has ended."""
        bars = [(b["time"], b["late"], b["bars"]) for b in self._bodies("bars")]
        return {
            "bars": bars,
            "predictions": self._bodies("prediction"),
            "decisions": self._bodies("decision"),
            "orders": self._bodies("intent"),
            "fills": [{k: v for k, v in b.items() if k != "trade_id"} for b in self._bodies("fill")],
            "at the exchange": [(o.client_id, o.symbol, o.side, o.type, str(o.quantity), o.time)
                                for o in self.api.market.orders.values()],
            "gaps and corrections": [*self._bodies("gap"), *self._bodies("correction")],
            "trades": self.state.trades,
        }  # fmt: skip

    def _bodies(self, kind):
        return [e.body for e in self.journal.events(kinds=[kind])]


def trade(
    folder,
    errs=None,
    *,
    kind="linear",
    stream=True,
    poll_seconds=0.02,
    n_steps=N_STEPS,
    on_step=None,
    listened=False,
    **changed,
):
    """Runs the bot on paced time until it has taken n_steps."""
    market = Market(ROWS, kind=kind, start_ms=START + 1000, tick_ms=0, cash="5000")
    streams = Streams(market, errs or Misbehaviour())
    api = Api(market, streams, Paced(market, streams, listened=listened))
    plan = coin_plan(folder, "live", shorts=kind == "linear")
    settings = {"wait_seconds": 0.005, "patience_seconds": 0.0, "attempts": 8, **changed}
    steps = Counter()

    def page(_state):
        steps["n"] += 1
        if on_step is not None:
            on_step(steps["n"], api)
        if steps["n"] == n_steps:
            TradeJournal(folder / JOURNAL).ask("stop")
        api.pace.ready()

    with serving(market, api) as url:
        exchange = Exchange(
            "binance", kind=kind, key="TEST_KEY", secret="TEST_SECRET", address=url, stream=stream,
            poll_seconds=poll_seconds, **settings,
        )  # fmt: skip
        code, _ = run_live(plan, exchange, plan.symbols, adopt=False, follow=None, page=page, sessions=CoinSession)
    assert code == 0
    assert not [t for t in threading.enumerate() if t.name == "bar-stream"]
    journal = TradeJournal(folder / JOURNAL, create=False)
    return Outcome(journal, State().replay(journal.events()), api)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same weeks by polling alone, by kind of market."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", KEY)
        patch.setenv("TEST_SECRET", SECRET)
        return {
            kind: trade(tmp_path_factory.mktemp("calm") / "bot", kind=kind, stream=False) for kind in ("linear", "spot")
        }


def assert_same(found, wanted):
    assert len(wanted.deeds["orders"]) > 4
    for name, deeds in wanted.deeds.items():
        assert found.deeds[name] == deeds, name


@pytest.mark.parametrize("kind", ["linear", "spot"])
def test_bars_are_read_at_their_close_without_a_poll(tmp_path, undisturbed, kind):
    """With ten minutes between polls every step is the stream's: at most one question more per bar than by luck."""
    found = trade(tmp_path / "bot", kind=kind, poll_seconds=FOR_EVER, listened=True)
    assert_same(found, undisturbed[kind])
    sources = [e.body["source"] for e in found.journal.events(kinds=["bars"])]
    assert {s["by"] for s in sources} == {"websocket"}
    assert all(s["age_seconds"] == 1.0 for s in sources)  # the exchange's time when the stream spoke
    assert all(a["last_message"] < b["last_message"] for a, b in pairwise(sources))
    assert found.api.n_times <= 3 * N_STEPS + 5
    assert found.api.streams.n_connections == 1


MISBEHAVIOURS = [
    "refused",
    "closes",
    "late",
    "repeated",
    "disordered",
    "early",
    "unreadable",
    "stalled",
    "other_symbol",
]


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_whatever_the_stream_sends_changes_nothing(tmp_path, undisturbed, name):
    found = trade(tmp_path / "bot", Misbehaviour(**{name: True}), listened=name != "refused")
    streams = found.api.streams
    assert streams.n_messages > N_STEPS or name in ("refused", "stalled")
    assert (streams.n_connections > 2) == (name in ("closes", "unreadable"))
    assert_same(found, undisturbed["linear"])


def test_exchanges_that_stream_one_symbol_at_a_time(tmp_path, undisturbed, monkeypatch):
    binance = pytest.importorskip("ccxt.pro").binance
    describe = binance.describe
    one_by_one = {"has": {"watchOHLCVForSymbols": False}}
    monkeypatch.setattr(binance, "describe", lambda self: self.deep_extend(describe(self), one_by_one))
    found = trade(tmp_path / "bot", poll_seconds=FOR_EVER, listened=True)
    assert_same(found, undisturbed["linear"])


class BelievingStream(BarStream):
    """Hands on the newest prices of messages."""

    def _heard(self, symbol, candles):
        self.believed = {**getattr(self, "believed", {}), **{(symbol, row[0]): row for row in candles}}
        super()._heard(symbol, candles)


class BelievingFeed(ExchangeFeed):
    """Takes the bar of a message where it has one: what the feed must never do."""

    def _read(self, symbol, after, newest):
        name = self.client.market(symbol)["symbol"]
        bars = super()._read(symbol, after, newest)
        believed = getattr(self.stream, "believed", {})
        opened = [int((bar.time - self.length).timestamp() * 1000) for bar in bars]
        return [
            bar._replace(close=believed[(name, at)][4]) if (name, at) in believed else bar
            for bar, at in zip(bars, opened, strict=True)
        ]


def test_a_feed_that_believed_the_stream_would_be_noticed(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(live, "ExchangeFeed", BelievingFeed)
    monkeypatch.setattr(stream_module, "BarStream", BelievingStream)
    found = trade(tmp_path / "bot", listened=True)
    with pytest.raises(AssertionError, match="bars"):
        assert_same(found, undisturbed["linear"])


def test_a_broken_stream_is_one_note_and_its_return_another(tmp_path):
    def on_step(n, api):
        if n == 4:
            wait_until(lambda: any(e.body.get("what") == "stream" for e in notes(tmp_path / "bot")))
            api.streams.errs.refused = False

    found = trade(tmp_path / "bot", Misbehaviour(refused=True), n_steps=60, on_step=on_step)
    said = [e.body["why"] for e in found.journal.events(kinds=["note"]) if e.body["what"] == "stream"]
    assert said == [said[0], "the websocket is back"]
    assert said[0].startswith("the websocket broke: ")
    assert said[0].endswith("; bars come by polling every 0.02 s until it is back")
    assert "\n" not in said[0]


def test_a_stream_without_messages_is_opened_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "GRACE_SECONDS", 0.2 - 3600)  # a bar of an hour and this: a fifth of a second

    def on_step(n, api):
        if n == 3:
            wait_until(lambda: api.streams.n_connections > 3)

    found = trade(tmp_path / "bot", Misbehaviour(stalled=True), listened=True, on_step=on_step)
    said = [e.body["why"] for e in found.journal.events(kinds=["note"]) if e.body["what"] == "stream"]
    assert said[0].startswith("the websocket broke: no message arrived for 0 s")
    assert len(said) == 1
    health = summary(found.state, None).health["bars come by"]
    assert health.startswith("polling, the websocket broke: no message arrived")
    assert "newest bar read 1.0 s after its close" in health


@pytest.mark.parametrize(("name", "shown"), [("bitso", "bitso"), ("coinbase", "coinbase")])
def test_a_stream_that_ccxt_does_not_have(name, shown):
    """coinbase is among ccxt's websockets, without bars; bitso is not among them."""
    with pytest.raises(TradsysError, match=f"^exchange: stream=true, but ccxt streams no bars of {shown}; set exch"):
        stream_of(Exchange(name, stream=True).connect(private=False), (), 60, print, private=False)
    client = Exchange(name, stream="auto").connect(private=False)
    with stream_of(client, (), 60, print, private=False) as stream:
        stream._thread.join(10)
        assert stream.source().by == "polling"
        assert stream.source().why == f"ccxt streams no bars of {shown}"
        assert stream.news() == []


def test_the_stream_carries_no_keys_and_follows_the_sandbox():
    exchange = Exchange("binance", kind="linear", key="TEST_KEY", secret="TEST_SECRET")
    demo, paper = exchange.websockets(private=True), exchange.websockets(private=False)
    assert not demo.apiKey
    assert not demo.secret
    assert demo.urls["api"]["ws"]["future"] != paper.urls["api"]["ws"]["future"] == "wss://fstream.binance.com/ws"


def test_a_flood_of_messages_wakes_the_bot_twice_a_bar():
    """Once when the first symbol's next bar opens, once when the last one's does."""
    woken = []
    market = SimpleNamespace(market=lambda s: {"symbol": s}, spec=None)
    stream = BarStream(market, ("A", "B", "C"), 60, lambda: woken.append(1), private=False)
    due = datetime(2026, 1, 1, 5, tzinfo=UTC)
    stamp = due.timestamp() * 1000
    stream._heard("A", [[stamp]])
    assert not woken  # the feed waits for nothing yet
    stream.due = due
    for at in (stamp - HOUR, stamp + HOUR, stamp + 1e9, None, "x"):
        stream._heard("A", [[at]])
    assert not woken
    for _ in range(100):
        stream._heard("A", [[stamp - HOUR], [stamp]])
    assert len(woken) == 1
    for _ in range(100):
        stream._heard("B", [[stamp]])
        stream._heard("A", [[stamp]])
    assert len(woken) == 1
    for _ in range(100):
        stream._heard("C", [[stamp]])
    assert len(woken) == 2
    stream.due = due + timedelta(hours=1)
    stream._heard("C", [[stamp + HOUR]])
    assert len(woken) == 3


ALONE = """
import gc, sys, time
sys.path.insert(0, {root!r})
from tradsys.serving.exchange.client import Exchange
from tradsys.serving.exchange.stream import BarStream, stream_of
client = Exchange("binance", kind="linear", address={url!r}, wait_seconds=0.01).connect(private=False)
with BarStream(client, ("AAAUSDT", "BBBUSDT"), 60, print, private=False) as stream:
    end = time.monotonic() + 20
    while {until} and time.monotonic() < end:
        client.time()
        time.sleep(0.01)
    assert time.monotonic() < end, stream.source()
    begun = time.monotonic()
print("closed in", time.monotonic() - begun, file=sys.stdout)
assert not stream._thread.is_alive()
client.raw.session.close()
del stream, client
gc.collect()
"""


@pytest.mark.parametrize(
    ("errs", "until"),
    [
        ({}, "stream.last_message is None"),
        ({"refused": True}, "stream.n_breaks < 3"),
        ({"unreadable": True}, "stream.n_breaks < 3"),
        ({"stalled": True}, "time.monotonic() < end - 18.5"),
        ({"deaf": True}, "stream.last_message is None"),
        ({}, "False"),  # at once: while ccxt is still being imported
    ],
    ids=["healthy", "refused", "unreadable", "stalled", "deaf to a close", "at once"],
)
def test_a_stream_ends_at_once_and_leaves_nothing_open(errs, until):
    """With every warning an error, in a process of its own."""
    market = Market(ROWS, start_ms=START + 1000, tick_ms=900_000)
    api = Api(market, Streams(market, Misbehaviour(**errs)))
    with serving(market, api) as url:
        code = ALONE.format(root=str(Path(live.__file__).parents[3]), url=url, until=until)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout.split()[-1]) < 2.0


LEAN = """
import sys
import tradsys.ops.trading.commands
from tradsys.serving.exchange.client import Exchange
from tradsys.serving.exchange.stream import stream_of
client = Exchange("binance", stream=False).connect(private=False)
assert stream_of(client, (), 60, print, private=False) is None
print([name for name in ("ccxt.pro", "ccxt.async_support", "aiohttp") if name in sys.modules])
"""


def test_a_bot_without_a_stream_loads_no_websockets():
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def notes(folder):
    return TradeJournal(folder / JOURNAL, create=False).events(kinds=["note"])


def wait_until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
