"""Paper and live trading: runs a bot on an exchange's feed from its start to its end."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import tenacity

from tradsys.core.errors import BundleError, TradsysError
from tradsys.ops.notify import Notifier
from tradsys.ops.trading.bot import Plan, engine_of, opened
from tradsys.ops.trading.engine import Engine, Predictor
from tradsys.ops.trading.events import Body, Listener
from tradsys.ops.trading.loop import Ending, Loop, signals, stop_line
from tradsys.ops.trading.state import State
from tradsys.ops.trading.watch import ModelWatch
from tradsys.serving.brokers import Broker
from tradsys.serving.bundle import Bundle
from tradsys.serving.exchange.broker import ExchangeBroker
from tradsys.serving.exchange.client import Client, Exchange, UnreachableError
from tradsys.serving.exchange.feed import ExchangeFeed
from tradsys.serving.exchange.stream import stream_of
from tradsys.serving.joined import JoinedSession, StaleColumnsError
from tradsys.serving.paper import PaperBroker
from tradsys.serving.session import Session
from tradsys.serving.strategy import Strategy

NEWS = {
    "fill": "fill",
    "halt": "HALT",
    "stop": "stopped",
    "reject": "rejected",
    "swap": "new bundle",
    "foreign": "position",
}


def run_live(
    plan: Plan,
    exchange: Exchange,
    feed_symbols: Sequence[str],
    *,
    adopt: bool,
    follow: str | None,
    page: Callable[[State], None],
    sessions: Callable[..., Predictor] = Session,
) -> tuple[int, str]:
    """Trades until it is stopped; returns the exit code and the last line.

    Raises TradsysError before anything is sent for bad keys, symbols, balance, bar length or journal.
    """
    minutes = minutes_of(plan.bundle)
    client = exchange.connect(private=plan.mode == "live")
    patient = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(UnreachableError),
        wait=tenacity.wait_fixed(exchange.poll_seconds),
        stop=tenacity.stop_after_delay(exchange.start_seconds),
        reraise=True,
    )
    patient(client.time)  # signed calls use the exchange's clock
    for symbol in feed_symbols:
        patient(client.market, symbol)
    watch = ModelWatch(plan.bundle)
    feed = ExchangeFeed(client, feed_symbols, minutes, plan.bundle.history + 1 + watch.n_bars)
    broker: Broker = PaperBroker(replace(plan.costs, capital=1.0))  # its accounts are in money, not in shares of 1.0
    if plan.mode == "live":
        broker = ExchangeBroker(client, plan.costs, minutes)
        patient(broker.check_rights)
    notifier, ending = Notifier.from_environment(), Ending()
    feed.stream = stream_of(client, feed_symbols, minutes, ending.wake, private=plan.mode == "live")
    with opened(plan) as (journal, state):
        if plan.mode == "live" and not state.accounts:
            patient(_check_balance, plan, broker, client)

        def watched(bundle: Bundle, past: pl.DataFrame) -> Predictor:
            watch.begin(bundle, past)
            return sessions(bundle, past)

        engine = patient(
            engine_of, plan, feed, broker, journal, state, listen=_listener(notifier, plan.name), sessions=watched
        )
        check_columns(engine)
        engine.on_predictions = watch.add

        def after(engine: Engine) -> None:
            watch.step(engine)
            if follow is not None:
                swapped(engine, plan, feed, Path(follow), watched)
            page(engine.state)

        with signals(ending), feed.stream or contextlib.nullcontext():
            Loop(engine, feed, client, ending, after_step=after, adopt=adopt, stream=feed.stream).run()
        line = stop_line(engine, ending.why)
        page(engine.state)
    return ending.code, line


def check_columns(engine: Engine) -> None:
    """Raises StaleColumnsError where joined columns are too old to begin.

    A bot with open positions goes on.
    """
    held = any(account.position is not None for account in engine.state.accounts.values())
    if held or not isinstance(engine.predictor, JoinedSession):
        return
    try:
        engine.predictor.check()
    except StaleColumnsError as error:
        engine.record(("stop", {"why": str(error)}))
        raise


def minutes_of(bundle: Bundle) -> int:
    """Bar length that the bundle was trained on; BundleError where its card lacks it."""
    found = bundle.bar_minutes
    if not found:
        raise BundleError(f"trade: {bundle.folder} has no bar length in its card; export it again with this code")
    return int(found)


def _check_balance(plan: Plan, broker: Any, client: Client) -> None:
    free = broker.free_quote()
    if free < plan.capital:
        raise TradsysError(
            f"trade live: the free balance is {free:.2f}, capital={plan.capital:.2f}; capital must not exceed it; "
            f"give capital={free:.0f} or less, or fund the account at {client.spec.id}"
        )


def _listener(notifier: Notifier, name: str) -> Listener:
    """A listener that sends notices: fills, halts, stops, and one summary a day."""
    noted: dict[str, Any] = {"day": None, "stale": False}

    def listen(kind: str, body: Body) -> None:
        if kind == "decision":
            day = body["time"][:10]
            if noted["day"] not in (None, day):
                actions = [f"{s}: {row['action']}" for s, row in body["rows"].items()]
                notifier.send(f"{name}: {noted['day']} is over", "; ".join(actions) or "no bar")
            noted["day"] = day
        elif kind in NEWS or (kind == "note" and body.get("what") in ("exchange", "stream", "model", "recovery")):
            words = body.get("why") or " ".join(
                f"{k}={body[k]}" for k in ("symbol", "leg", "reason", "quantity", "price") if k in body
            )
            notifier.send(f"{name}: {NEWS.get(kind, body.get('what', kind))}", words)
        elif kind == "note" and body.get("what") == "columns":
            if not noted["stale"]:  # once, not at every bar
                notifier.send(f"{name}: no forecasts", body["why"])
            noted["stale"] = True
        elif kind == "prediction":
            noted["stale"] = False

    return listen


def newest_of(folder: Path) -> Path | None:
    """The numbered bundle with the highest number in a folder of models, or None."""
    numbered = [p for p in folder.glob("*") if _bundle_number(p) >= 0 and (p / "card.json").is_file()]
    return max(numbered, key=_bundle_number, default=None)


def _bundle_number(folder: Path) -> int:
    """The number in a promoted bundle's folder name; -1 for any other name."""
    return int(folder.name) if folder.name.isascii() and folder.name.isdecimal() else -1


def swapped(
    engine: Engine,
    plan: Plan,
    feed: ExchangeFeed,
    follow: Path,
    sessions: Callable[..., Predictor] = Session,
) -> bool:
    """Switches to a newer promoted bundle between two bars.

    Open positions keep their exits. A bundle that is damaged, of another bar length, with columns of other data, or
    without the verdict needed for live trading is refused with a note.
    """
    newest = newest_of(follow)
    current = Path(str(engine.state.settings["bundle_path"]))
    if newest is None or newest.resolve() == current.resolve():
        return False
    if current.parent.resolve() == follow.resolve() and _bundle_number(newest) <= _bundle_number(current):
        return False
    if engine.refused.get(str(newest)):
        return False
    with contextlib.suppress(TradsysError, OSError):
        bundle = Bundle.load(newest)
        verdict = bundle.card.get("verdict", {}).get("kind", "not evaluated")
        same_data = bundle.data_config() == engine.strategy.primary.data_config()
        fits = minutes_of(bundle) == feed.minutes and (same_data or not bundle.features.columns)
        if fits and (plan.mode != "live" or verdict == "edge" or plan.extra.get("accept_verdict")):
            feed.n_history = max(feed.n_history, bundle.history + 1)
            engine.predictor = sessions(bundle, feed.history(engine.state.decided))
            engine.strategy = Strategy(
                plan.strategy.name, bundle, plan.strategy.profile, plan.costs.round_trip, plan.costs.borrow_per_year
            )
            engine.digest = str(bundle.card["card_sha256"])
            body = {"bundle": engine.digest, "bundle_path": str(newest), "verdict": verdict}
            engine.record(("swap", {**body, "why": f"{newest} is newer than {current}"}))
            return True
    engine.refused[str(newest)] = True
    engine.record(
        ("note", {"what": "swap", "why": f"{newest} was refused: damaged, other bars or columns, or no edge"})
    )
    return False
