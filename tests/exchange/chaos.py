"""Kills the bot at random moments of simulated weeks on a faulty exchange, then audits what is left.

    python -m tests.exchange.chaos kills=200 bars=336 seed=1
    python -m tests.exchange.chaos kills=200 bars=336 seed=1 stream=1

The bot is the real one, live mode, through ccxt; its decisions come from a seeded coin. A forked child is the bot, so
that every kill is a SIGKILL of a process that holds the journal and talks to the exchange over HTTP. With stream=1 it
also listens to a websocket, each connection of which errs in ways of its own.
"""

import atexit
import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.conftest import walk_bars
from tests.exchange.coin import CoinSession, coin_plan, rows_of
from tests.exchange.market import Faults, Market
from tests.exchange.server import KEY, SECRET, Api, serving
from tests.exchange.streams import Streams
from tradsys.ops.trading.bot import JOURNAL
from tradsys.ops.trading.state import State
from tradsys.ops.trading.store import TradeJournal

HOUR = 3_600_000
RATES = Faults(
    too_many=0.01,
    banned=0.002,
    server_error=0.02,
    lost_answer=0.15,
    partial=0.2,
    duplicate_trades=0.1,
    retry_after=0.01,
)
WARM_UP = 60
QUIET_BARS = 12  # longer than the coin holds


def main(argv: list[str]) -> int:
    """Runs, prints the figures as JSON; exit code 1 where an invariant is broken."""
    reported = dict(a.split("=") for a in argv)
    figures = run(**{k: int(v) for k, v in reported.items()})
    print(json.dumps(figures, indent=2))  # noqa: T201 - a command
    return 0 if not figures["broken"] else 1


def run(kills: int = 200, bars: int = 336, seed: int = 1, stream: int = 0) -> dict:
    """The figures of one chaos run and of the undisturbed one, by polling alone, beside it."""
    with tempfile.TemporaryDirectory() as folder:
        faults = scheduled(bars)
        disturbed, market = simulate(
            Path(folder) / "chaos", bars, seed, kills=kills, faults=faults, stream=bool(stream)
        )
        return figures_of(disturbed, undisturbed(bars, seed), market)


@functools.cache
def undisturbed(bars: int, seed: int) -> State:
    """The bot's state after a run by polling that nothing disturbs: the same for every chaos of these bars."""
    with tempfile.TemporaryDirectory() as folder:
        found, _ = simulate(Path(folder) / "calm", bars, seed, kills=0, faults=Faults())
        return found["state"]


def scheduled(bars: int) -> Faults:
    """The random faults, and one of each that needs a time."""
    start = rows_of(walk_bars(1, ("AAAUSDT",)))["AAAUSDT"][0][0]

    def at(share: float) -> int:
        return start + (WARM_UP + int(bars * share)) * HOUR

    return replace(
        RATES,
        maintenance=((at(0.2) + HOUR // 2, at(0.2) + HOUR // 2 + 600_000),),
        holes=(("AAAUSDT", at(0.35)), ("BBBUSDT", at(0.5)), ("BBBUSDT", at(0.5) + HOUR)),
        corrected=(("AAAUSDT", at(0.6)), ("BBBUSDT", at(0.7))),
        clock_offset_ms=2000,
    )


def simulate(
    folder: Path, bars: int, seed: int, *, kills: int, faults: Faults, stream: bool = False
) -> tuple[dict, Market]:
    """Runs bots, one after the other where they are killed, until the simulated span is over."""
    rows = rows_of(walk_bars(WARM_UP + bars + 30, ("AAAUSDT", "BBBUSDT"), seed=seed))
    start = rows["AAAUSDT"][WARM_UP][0]
    market = Market(rows, start_ms=start + 1000, tick_ms=450_000, cash="5000", faults=faults, seed=seed)
    end, dice, n_kills, codes = start + bars * HOUR, random.Random(seed), 0, Counter()
    streams = Streams(market, dice=random.Random(seed))
    bots = zygote()
    with serving(market, Api(market, streams)) as url:
        while market.now < end:
            pid = bots.begin(url, folder, stream)
            if n_kills < kills:
                # spread over the span: this kill comes at a random moment of its share of the time
                share = (end - start) / kills
                moment = start + (n_kills + dice.random()) * share
                deadline = time.monotonic() + 60
                while market.now < moment and time.monotonic() < deadline:
                    time.sleep(0.001)
                time.sleep(dice.random() * 0.05)
                n_kills += kill(pid, signal.SIGKILL)
            else:
                while market.now < end:
                    time.sleep(0.01)
                kill(pid, signal.SIGTERM)
            codes[bots.wait()] += 1
        market.faults = Faults(clock_offset_ms=faults.clock_offset_ms)
        pid = bots.begin(url, folder, stream)  # a last start on a quiet exchange: everything is reconciled
        settle(folder, market)
        kill(pid, signal.SIGTERM)
        codes[bots.wait()] += 1
    journal = TradeJournal(folder / JOURNAL, create=False)
    state = State().replay(journal.events())
    return {"journal": journal, "state": state, "n_kills": n_kills, "codes": codes, "streams": streams}, market


def settle(folder: Path, market: Market, patience_seconds: float = 60.0) -> None:
    """Returns once the bot has decided on what no trade can follow and has booked every trade of the exchange.

    Without bars it enters nothing, and what it holds was to be left `QUIET_BARS` after the last of them.
    """
    journal = TradeJournal(folder / JOURNAL, create=False)
    quiet_ms = max(opens[-1] for opens in market.opens.values()) + (1 + QUIET_BARS) * market.length
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if market.now < quiet_ms:
            continue
        state = State().replay(journal.events())
        decided_ms = state.decided.timestamp() * 1000 if state.decided is not None else 0
        n_fills = sum(1 for _ in journal.events(kinds=["fill"]))
        if decided_ms >= quiet_ms and n_fills >= len(market.trades):
            return


def kill(pid: int, number: int) -> int:
    """1 where the process was there to be killed."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return 1
    return 0


def figures_of(disturbed: dict, calm: State, market: Market) -> dict:
    """Counts and every broken invariant, in words."""
    journal, state = disturbed["journal"], disturbed["state"]
    broken = journal.verify()
    twice = {k: n for k, n in Counter((o.client_id, o.conditional) for o in market.orders.values()).items() if n > 1}
    if twice:
        broken.append(f"orders executed twice: {list(twice)[:5]}")
    fills = [e.body["trade_id"] for e in journal.events(kinds=["fill"])]
    there = {f"{t.symbol}:{t.id}" for t in market.trades}
    if len(fills) != len(set(fills)):
        broken.append("a fill was booked twice")
    if set(fills) != there:
        broken.append(f"fills lost {sorted(there - set(fills))[:5]}, invented {sorted(set(fills) - there)[:5]}")
    for symbol, account in state.accounts.items():
        held = account.position.order.side * account.position.left if account.position else 0.0
        if abs(held + account.dust - float(market.positions[symbol])) > 1e-9:
            broken.append(f"{symbol}: journal {held}, exchange {market.positions[symbol]}")
    if not any(a.position for a in state.accounts.values()):
        apart = (state.total - 1000.0) - float(market.balances["USDT"] - 5000)
        if abs(apart) > 1e-6:
            broken.append(f"money: journal and exchange are {apart} apart")

    def keys(found):
        return {(t["symbol"], t["signal_time"], t["side"], t["entry_time"], t["exit_time"], t["reason"])
                for t in found.trades}  # fmt: skip

    same = keys(state) & keys(calm)
    named = Counter("late bar" for e in journal.events(kinds=["bars"]) if e.body["late"]) + Counter(
        e.kind for e in journal.events(kinds=["gap", "correction", "halt"])
    )
    named["order refused"] = sum(e.body["status"] == "rejected" for e in journal.events(kinds=["order"]))
    reasons = Counter(
        f"{e.kind}: {e.body['why'][:70]}" for e in journal.events(kinds=["order", "halt"])
        if e.kind == "halt" or e.body["status"] == "rejected"
    )  # fmt: skip
    missed = keys(calm) - same
    if missed and not sum(named.values()):
        broken.append(f"{len(missed)} trades differ and nothing in the journal says why")
    return {
        "kills": disturbed["n_kills"], "exits": {str(k): v for k, v in disturbed["codes"].items()},
        "orders": len(market.orders), "fills": len(there), "trades": len(state.trades),
        "trades of the undisturbed run": len(calm.trades), "the same": len(same),
        "faults": dict(market.happened), "named in the journal": dict(named), "reasons": dict(reasons),
        "events": state.last_event, "broken": broken, "connections of the stream": disturbed["streams"].n_connections,
        "messages of the stream": disturbed["streams"].n_messages,
        "bars with the stream open": sum(
            e.body["source"]["by"] == "websocket" for e in journal.events(kinds=["bars"])
        ),
    }  # fmt: skip


class Zygote:
    """A process that has everything imported and forks one bot after the other."""

    def __init__(self) -> None:
        environment = {**os.environ, "CHAOS_KEY": KEY, "CHAOS_SECRET": SECRET, "POLARS_MAX_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.exchange.chaos", "--zygote"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment, bufsize=1,
        )  # fmt: skip
        self._alive: int | None = None

    def begin(self, url: str, folder: Path, stream: bool) -> int:
        """The pid of a new bot; one that a failed run left behind is killed first."""
        self._end()
        self._process.stdin.write(json.dumps([url, str(folder), stream]) + "\n")
        self._alive = int(self._process.stdout.readline())
        return self._alive

    def wait(self) -> int:
        """The exit status of the bot that was begun last, once it has ended."""
        self._alive = None
        return int(self._process.stdout.readline())

    def _end(self) -> None:
        if self._alive is not None:
            kill(self._alive, signal.SIGKILL)
            self.wait()

    def close(self) -> None:
        self._end()
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@functools.cache
def zygote() -> Zygote:
    """The one of this process, ended with it."""
    one = Zygote()
    atexit.register(one.close)
    return one


def serve_forks() -> None:
    """Forks a bot per line; writes its pid, then its exit status."""
    import ccxt.pro  # noqa: F401 - imported once, before the forks

    import tradsys.ops.trading.live  # noqa: F401

    for line in sys.stdin:
        url, folder, stream = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = bot(url, Path(folder), stream)
            except Exception:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def bot(url: str, folder: Path, stream: bool) -> int:
    """One life of the bot."""
    from tradsys.ops.trading.live import run_live
    from tradsys.serving.exchange.client import Exchange

    exchange = Exchange(
        "binance", kind="linear", key="CHAOS_KEY", secret="CHAOS_SECRET", address=url, stream=stream,
        poll_seconds=0.02 if stream else 0.001, wait_seconds=0.01, patience_seconds=300, attempts=8, start_seconds=60.0,
    )  # fmt: skip
    plan = coin_plan(folder)
    code, _ = run_live(
        plan, exchange, plan.symbols, adopt=False, follow=None, page=lambda _state: None, sessions=CoinSession
    )
    return code


if __name__ == "__main__":
    if sys.argv[1:2] == ["--zygote"]:
        serve_forks()
    else:
        sys.exit(main(sys.argv[1:]))
