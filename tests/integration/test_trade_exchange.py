"""The live bot through ccxt's own Binance class against an exchange of our own: fills, faults, requests, refusals."""

import json
import os
import signal
import threading
from collections import Counter
from datetime import UTC, datetime

import polars as pl
import pytest

pytest.importorskip("ccxt", reason="the live extra is not installed: pip install 'tradsys[live]'")

from tests.conftest import walk_bars
from tests.exchange.coin import OFF, CoinSession, coin_plan, rows_of
from tests.exchange.market import Faults, Market, RefusedError
from tests.exchange.server import KEY, SECRET, serving
from tradsys.core.errors import DataError, TradsysError
from tradsys.market.events.corporate_actions import with_events
from tradsys.ops.trading.bot import JOURNAL
from tradsys.ops.trading.live import run_live
from tradsys.ops.trading.risk import Risk
from tradsys.ops.trading.state import State
from tradsys.ops.trading.store import TradeJournal
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.serving.brokers import Account, Order
from tradsys.serving.exchange.broker import ExchangeBroker
from tradsys.serving.exchange.client import Exchange

HOUR = 3_600_000
WARM_UP = 60
BARS = walk_bars(140, ("AAAUSDT", "BBBUSDT"), seed=3)
ROWS = rows_of(BARS)
START = ROWS["AAAUSDT"][WARM_UP][0]


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("TEST_SECRET", SECRET)
    monkeypatch.delenv("TRADSYS_NOTIFY", raising=False)


def exchange_at(url, kind, **changed):
    settings = {"poll_seconds": 0.001, "wait_seconds": 0.005, "patience_seconds": 0.0, "attempts": 8, **changed}
    return Exchange("binance", kind=kind, key="TEST_KEY", secret="TEST_SECRET", address=url, **settings)


def trade(folder, market, n_steps, *, mode="live", risk=OFF, adopt=False, on_step=None, capital=1000.0, **changed):
    """Runs the bot for some steps; its exit code, last line and journal."""
    plan = coin_plan(folder, mode, risk, capital=capital, shorts=market.kind == "linear")
    steps = Counter()

    def page(state):
        steps["n"] += 1
        if on_step is not None:
            on_step(steps["n"], TradeJournal(folder / JOURNAL))
        if steps["n"] == n_steps:
            TradeJournal(folder / JOURNAL).ask("stop")

    with serving(market) as url:
        exchange = exchange_at(url, market.kind, **changed)
        code, line = run_live(plan, exchange, plan.symbols, adopt=adopt, follow=None, page=page, sessions=CoinSession)
    journal = TradeJournal(folder / JOURNAL, create=False)
    return code, line, journal, State().replay(journal.events())


def market_of(kind, **changed):
    return Market(ROWS, kind=kind, start_ms=START + 1000, **{"cash": "5000", **changed})


def assert_in_step(market, state, journal, cash=1000.0):
    """Journal and exchange tell the same: fills, positions, money, no order twice, the chain whole."""
    assert journal.verify() == []
    booked = [e.body["trade_id"] for e in journal.events(kinds=["fill"])]
    assert sorted(booked) == sorted(f"{t.symbol}:{t.id}" for t in market.trades)
    assert max(Counter((o.client_id, o.conditional) for o in market.orders.values()).values(), default=0) <= 1
    for symbol, account in state.accounts.items():
        held = account.position.order.side * account.position.left if account.position else 0.0
        coins = market.positions[symbol] if market.kind == "linear" else market.balances[symbol.removesuffix("USDT")]
        assert held + account.dust == pytest.approx(float(coins), abs=1e-9)
    if not any(a.position for a in state.accounts.values()):
        assert state.total - cash == pytest.approx(float(market.balances["USDT"]) - 5000, abs=1e-6)


@pytest.mark.parametrize("kind", ["linear", "spot"])
def test_journal_and_exchange_agree_after_a_day_and_a_half(tmp_path, kind):
    market = market_of(kind)
    code, line, journal, state = trade(tmp_path / "bot", market, 37)
    assert code == 0
    assert "stop was requested" in line
    assert len(state.trades) > 6
    assert_in_step(market, state, journal)


def test_live_trades_are_the_simulators(tmp_path):
    """Same entries, exits and reasons as `simulate` on the same bars; sizes differ by the exchange's rounding."""
    market = market_of("linear")
    _, _, _, state = trade(tmp_path / "bot", market, 37)
    plan = coin_plan(tmp_path / "other")
    first, last = state.times[0], state.times[-1]
    bars = _as_the_exchange_has_them().filter(_between(first, last))
    want = simulate(bars, plan.strategy.targets(bars), Costs(fee_bps=10, slippage_bps=0)).trades
    key = ["symbol", "side", "signal_time", "entry_time", "reason"]
    got = state.ledger().trades.filter(_not_timeout()).select(key)
    assert set(got.rows()) <= set(want.select(key).rows())
    assert len(got) > 5


def _as_the_exchange_has_them():
    rows = [(s, datetime.fromtimestamp(r[0] / 1000 + 3600, UTC), *r[1:]) for s, own in ROWS.items() for r in own]
    return pl.DataFrame(rows, schema=BARS.schema, orient="row").sort("symbol", "time")


def _between(first, last):
    return pl.col("time").is_between(first, last)


def _not_timeout():
    return pl.col("reason") != "timeout"


RATES = {
    symbol: [(row[0] + 3, 0.004 * (-1) ** (k // 8) + 0.001) for k, row in enumerate(own) if row[0] // HOUR % 8 == 0]
    for symbol, own in ROWS.items()
}


def funded(bars):
    """The bars with the funding that `RATES` settles at their close."""
    rows = [(s, datetime.fromtimestamp(t // 1000, UTC), rate) for s, own in RATES.items() for t, rate in own]
    events = pl.DataFrame(
        rows, schema={"symbol": pl.String, "time": bars.schema["time"], "value": pl.Float64}, orient="row"
    )
    return with_events(bars, events, "funding_due")


def test_paper_books_funding_as_the_simulator_does(tmp_path):
    """Perpetuals: the ledger of the bot on the exchange's feed is the backtest's on bars that know the funding."""
    market = market_of("linear", funding=RATES)
    _, _, _, state = trade(tmp_path / "bot", market, 60, mode="paper")
    bars = funded(_as_the_exchange_has_them()).filter(_between(state.times[0], state.times[-1]))
    plan = coin_plan(tmp_path / "other")
    want = simulate(bars, plan.strategy.targets(bars), Costs(fee_bps=10, slippage_bps=0)).trades
    got = state.ledger().trades
    assert (want["carry"] != 0).sum() > 3
    key = ["symbol", "side", "entry_time", "exit_time", "reason"]
    assert got.select(key).rows() == want.select(key).rows()
    for name in ("carry", "net_return"):
        assert got[name].to_list() == pytest.approx(want[name].to_list(), rel=1e-9, abs=1e-12)


def test_live_books_no_more_funding_than_the_exchange_pays(tmp_path):
    """What is held at a settlement pays or receives it; an exit inside that bar owes it and does not receive it."""
    market = market_of("linear", funding=RATES)
    _, _, journal, state = trade(tmp_path / "bot", market, 60)
    carried = [e.body for e in journal.events(kinds=["carry"])]
    assert len({(c["symbol"], c["time"]) for c in carried}) == len(carried) > 3
    assert {c["time"][11:13] for c in carried} <= {"00", "08", "16"}
    if not any(a.position for a in state.accounts.values()):
        assert state.total - 1000 <= float(market.balances["USDT"]) - 5000 + 1e-6
    assert state.ledger().trades["carry"].abs().sum() > 0


def test_perpetuals_without_readable_funding_are_refused(tmp_path, monkeypatch):
    binance = pytest.importorskip("ccxt").binance
    describe = binance.describe
    no_funding = {"has": {"fetchFundingRateHistory": False}}
    monkeypatch.setattr(binance, "describe", lambda self: self.deep_extend(describe(self), no_funding))
    with pytest.raises(DataError, match="settled funding rates cannot be read"):
        trade(tmp_path / "bot", market_of("linear"), 3, mode="paper")


def test_every_fault_at_once_loses_nothing(tmp_path):
    faults = Faults(
        too_many=0.02, banned=0.005, server_error=0.03, lost_answer=0.3, partial=0.4, duplicate_trades=0.3,
        retry_after=0.002, maintenance=((START + 8 * HOUR, START + 8 * HOUR + 600_000),),
        holes=(("AAAUSDT", START + 12 * HOUR),), corrected=(("BBBUSDT", START + 15 * HOUR),), clock_offset_ms=2000,
    )  # fmt: skip
    market = market_of("linear", faults=faults, seed=5)
    _, _, journal, state = trade(tmp_path / "bot", market, 30)
    assert {k for k, n in market.happened.items() if n} >= {"lost_answer", "partial", "server_error", "maintenance"}
    assert [e.body["symbols"] for e in journal.events(kinds=["gap"])] == [["AAAUSDT"]]
    assert [e.body["before"][0] for e in journal.events(kinds=["correction"])] == ["BBBUSDT"]
    assert_in_step(market, state, journal)


def test_a_bar_that_has_not_closed_is_never_seen(tmp_path):
    market = market_of("linear")
    _, _, journal, _ = trade(tmp_path / "bot", market, 12, mode="paper")
    known = {(r[0], r[1].isoformat()): r[2:6] for r in _as_the_exchange_has_them().iter_rows()}
    for event in journal.events(kinds=["bars"]):
        for symbol, closed, *numbers in event.body["bars"]:
            assert tuple(numbers[:4]) == known[(symbol, closed)]


def test_flatten_closes_and_stays_closed_until_resume(tmp_path):
    market = market_of("linear")
    seen = {}

    def on_step(n, journal):
        if n == 12:
            journal.ask("flatten")
        if n == 20:
            seen["positions"] = dict(market.positions)
            journal.ask("resume")

    _, _, journal, state = trade(tmp_path / "bot", market, 32, on_step=on_step)
    assert all(not p for p in seen["positions"].values())
    entries = [e.body["signal_time"] for e in journal.events(kinds=["intent"]) if e.body["leg"] == "entry"]
    halted = [e.body["time"] for e in journal.events(kinds=["halt"])]
    assert len(halted) == 1
    assert any(t > halted[0] for t in entries)
    assert_in_step(market, state, journal)


def test_a_loss_limit_halts_and_a_restart_keeps_the_halt(tmp_path):
    market = market_of("linear")
    strict = Risk(max_drawdown=0.001, max_bar_age_seconds=None, max_clock_seconds=None, model_band="off")
    _, _, _, state = trade(tmp_path / "bot", market, 25, risk=strict)
    assert set(state.halts) >= {"drawdown"}
    n_before = len(state.trades) + sum(a.position is not None for a in state.accounts.values())
    _, _, journal, state = trade(tmp_path / "bot", market, 5, risk=strict)
    assert "drawdown" in state.halts
    assert len(state.trades) + sum(a.position is not None for a in state.accounts.values()) <= n_before
    assert_in_step(market, state, journal)


def test_a_position_that_is_not_ours_is_left_alone(tmp_path):
    market = market_of("linear")
    order = market.place("AAAUSDT", "BUY", "MARKET", "1.5", "somebody-else")
    assert order.status == "FILLED"
    _, _, journal, state = trade(tmp_path / "bot", market, 15)
    assert state.accounts["AAAUSDT"].foreign
    assert {e.body["symbol"] for e in journal.events(kinds=["intent"])} == {"BBBUSDT"}
    assert float(market.positions["AAAUSDT"]) == 1.5


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"key": "ABSENT_KEY"}, r"environment variable ABSENT_KEY is empty"),
        ({"id": "nowhere"}, r"'nowhere' is unknown to ccxt"),
        ({"secret": "WRONG_SECRET"}, r"it failed|the keys are wrong|Signature"),
        ({"rights": False}, r"may not trade"),
        ({"capital": 1e6}, r"the free balance is 5000.00, capital=1000000.00"),
        ({"symbols": ("CCCUSDT",)}, r"no linear market 'CCCUSDT'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(tmp_path, monkeypatch, broken, words):
    monkeypatch.setenv("WRONG_SECRET", "not-the-secret")
    monkeypatch.delenv("ABSENT_KEY", raising=False)
    market = market_of("linear", can_trade=broken.get("rights", True))
    plan = coin_plan(tmp_path / "bot", capital=broken.get("capital", 1000.0))
    changed = {k: v for k, v in broken.items() if k in ("key", "secret", "id")}
    with serving(market) as url:
        settings = {"id": "binance", "key": "TEST_KEY", "secret": "TEST_SECRET"} | changed
        exchange = Exchange(
            kind="linear",
            address=url,
            poll_seconds=0.001,
            wait_seconds=0.001,
            attempts=2,
            start_seconds=0.0,
            **settings,
        )
        with pytest.raises(TradsysError, match=words) as refused:
            run_live(
                plan, exchange, broken.get("symbols", plan.symbols), adopt=False, follow=None,
                page=lambda _state: None, sessions=CoinSession,
            )  # fmt: skip
    assert "\n" not in str(refused.value)
    assert not market.orders


@pytest.mark.parametrize(
    ("code", "words"),
    [(-1121, "Invalid symbol"), (-9999, "Nobody knows this"), (-2015, "the keys are wrong or may not trade")],
    ids=["a listing that is gone", "a code that ccxt does not know", "a key that was revoked"],
)
def test_a_refusal_that_ccxt_does_not_expect_is_journaled_and_the_bot_goes_on(tmp_path, code, words):
    market = market_of("linear")
    klines, refusals = market.klines, []

    def refusing(*args):
        if market.now > START + 5 * HOUR and len(refusals) < 4:
            refusals.append(RefusedError(code, words))
            raise refusals[-1]
        return klines(*args)

    market.klines = refusing
    _, _, journal, state = trade(tmp_path / "bot", market, 20)
    assert len(refusals) == 4  # while the exchange's time is answered all along
    notes = [e.body["why"] for e in journal.events(kinds=["note"]) if e.body["what"] == "exchange"]
    assert len(notes) == 1
    assert words in notes[0]
    assert "\n" not in notes[0]
    assert len(state.times) > 10
    assert_in_step(market, state, journal)


def test_one_kind_of_call_that_keeps_failing_halts_the_bot(tmp_path):
    """Questions for the time succeed between: what counts is that no turn of the loop comes to its end."""
    market = market_of("linear")
    klines, seen = market.klines, []

    def refusing(*args):
        if market.now > START + 5 * HOUR and len(seen) < 12:
            seen.append(args)
            raise RefusedError(-9999, "not today")
        return klines(*args)

    market.klines = refusing
    strict = Risk(*[None] * 7, max_errors=10, model_band="off")
    _, _, journal, state = trade(tmp_path / "bot", market, 20, risk=strict)
    assert set(state.halts) == {"errors"}
    assert state.halts["errors"].startswith("10 tries in a row failed; the last: exchange binance: ")
    assert sum(e.body["what"] == "exchange" for e in journal.events(kinds=["note"])) == 1


def unreachable_after(market, hours):
    """Questions for bars are refused for good from then on, as in an outage; a list that grows with each."""
    klines, refused = market.klines, []

    def refusing(*args):
        if market.now > START + hours * HOUR:
            refused.append(args)
            raise RefusedError(-1001, "System maintenance", 503)
        return klines(*args)

    market.klines = refusing
    return refused


def test_a_signal_ends_the_bot_in_the_middle_of_an_outage(tmp_path):
    """The waits between tries of one call add up to minutes, and nothing is half done meanwhile."""
    market = market_of("linear")
    refused, until_then = unreachable_after(market, 5), []

    def stop():
        until_then.append(len(refused))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Timer(3.0, stop).start()
    code, line, journal, state = trade(tmp_path / "bot", market, 999, wait_seconds=60.0, mode="paper")
    assert len(refused) <= until_then[0] + 1, "it goes on trying"
    assert code == 143
    assert line.startswith("stopped: SIGTERM received")
    assert len(state.times) > 3
    assert [e.kind for e in journal.events()][-1] == "stop"


def test_a_request_to_stop_is_taken_in_the_middle_of_an_outage(tmp_path):
    market = market_of("linear")
    unreachable_after(market, 5)
    code, line, _, _ = trade(
        tmp_path / "bot", market, 999, attempts=2, mode="paper",
        on_step=lambda n, journal: n == 4 and threading.Timer(0.5, journal.ask, ("stop",)).start(),
    )  # fmt: skip
    assert code == 0
    assert line.startswith("stopped: stop was requested")


def test_a_flatten_that_the_exchange_did_not_take_is_tried_again(tmp_path):
    """The first tries to close fail; the request was taken, so its end may not depend on a second one."""
    market = market_of("linear")
    place, refusals, asked = market.place, [], []

    def failing(symbol, side, kind, *args, **kwargs):
        if asked and len(refusals) < 4:
            refusals.append(kind)
            raise RefusedError(-1001, "Internal error; unable to process your request.", 503)
        return place(symbol, side, kind, *args, **kwargs)

    market.place = failing
    held = []

    def on_step(_n, journal):
        if not asked and all(market.positions[s] for s in ("AAAUSDT", "BBBUSDT")):
            journal.ask("flatten")
            asked.append(True)
        held.append([str(p) for p in market.positions.values() if p])

    _, _, journal, state = trade(tmp_path / "bot", market, 30, on_step=on_step, attempts=2)
    assert len(refusals) == 4  # two tries of each symbol
    assert held[-1] == []
    assert [t["reason"] for t in state.trades[-2:]] == ["flatten", "flatten"]
    assert set(state.halts) == {"flatten"}
    assert_in_step(market, state, journal)


@pytest.mark.parametrize("address", ["", "127.0.0.1:80", "ftp://x", "https://", "https://a b"])
def test_an_address_without_scheme_and_host_is_refused(address):
    with pytest.raises(TradsysError, match=r"^exchange: address="):
        Exchange("binance", address=address)


@pytest.mark.parametrize("stream", ["maybe", None, 2.5])
def test_a_stream_that_is_neither_auto_nor_true_nor_false_is_refused(stream):
    with pytest.raises(TradsysError, match=r"^exchange: stream=.*; it must be auto, true or false"):
        Exchange("binance", stream=stream)


def test_no_secret_reaches_the_journal(tmp_path):
    market = market_of("linear")
    _, _, journal, _ = trade(tmp_path / "bot", market, 3)
    text = json.dumps([e.body for e in journal.events()])
    assert KEY not in text
    assert SECRET not in text


def test_protective_orders_cover_all_that_is_held(tmp_path):
    """Entries that fill in two parts: stop and target follow to the last step of the quantity."""
    market = market_of("linear", faults=Faults(partial=1.0))
    seen = []

    def on_step(_n, _journal):
        for symbol, held in market.positions.items():
            for order in market.open_orders(symbol, conditional=True):
                seen.append((order.quantity, abs(held)))

    _, _, journal, state = trade(tmp_path / "bot", market, 30, on_step=on_step)
    assert len(seen) > 10
    assert all(resting == held for resting, held in seen)
    assert_in_step(market, state, journal)


def test_a_sum_of_fills_just_below_a_step_can_be_sold():
    market = market_of("linear")
    with serving(market) as url:
        client = exchange_at(url, "linear").connect(private=True)
        broker = ExchangeBroker(client, Costs(), 60)
        order = Order("x", "AAAUSDT", "exit", 1, datetime(2020, 1, 3, tzinfo=UTC), quantity=0.3 - 0.1 - 0.19999)
        assert order.quantity < 1e-5
        quantity, why = broker._quantity(order, Account("AAAUSDT", 1.0, 1.0), client.market("AAAUSDT"))
    assert (quantity, why) == (1e-5, "")
