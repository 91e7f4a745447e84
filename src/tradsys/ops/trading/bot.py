"""Opens a bot's folder, lock and journal, rebuilds its state and builds the engine."""

import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from tradsys.core.clock import utc
from tradsys.core.errors import BundleError, DataError, TradsysError
from tradsys.core.masking import masked
from tradsys.core.received import plain_text, plain_texts, refused_in_one_line
from tradsys.core.runs import code_sha
from tradsys.market.bars import bar_length
from tradsys.ops.trading.engine import Engine, Predictor
from tradsys.ops.trading.events import Settings
from tradsys.ops.trading.risk import Risk
from tradsys.ops.trading.state import State
from tradsys.ops.trading.store import RESTORE, Event, TradeJournal
from tradsys.portfolio.costs import Costs
from tradsys.serving.brokers import Broker
from tradsys.serving.bundle import Bundle
from tradsys.serving.feeds import Feed
from tradsys.serving.session import Session
from tradsys.serving.strategy import Strategy

JOURNAL, LOCK = "journal.db", ".lock"
# settings that must not change between two starts on one journal
FIXED = ("bundle", "mode", "strategy", "symbols", "capital", "bar_minutes", "exchange")


@dataclass(frozen=True)
class Plan:
    """Settings of one bot.

    mode: replay, paper or live. symbols: as named by the bundle and the journal.
    """

    name: str
    mode: str
    folder: Path
    strategy: Strategy
    symbols: tuple[str, ...]
    capital: float
    costs: Costs
    risk: Risk
    journal: str | None = None
    exchange: str = ""
    extra: Settings = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.capital > 0:
            raise TradsysError(f"trade: capital={self.capital}; it must be above 0 quote units; set capital=10000")

    @property
    def bundle(self) -> Bundle:
        """The bundle that forecasts."""
        return self.strategy.primary

    def settings(self, bar_minutes: float) -> Settings:
        """The settings stored in the start event."""
        gap = self.bundle.max_gap
        return {
            "name": self.name,
            "mode": self.mode,
            "bundle": self.bundle.card["card_sha256"],
            "bundle_path": str(self.bundle.folder),
            "verdict": self.bundle.card.get("verdict", {}).get("kind", "not evaluated"),
            "strategy": self.strategy.name,
            "profile": self.strategy.profile.describe(),
            "symbols": list(self.symbols),
            "capital": self.capital,
            "costs": {"fee_bps": self.costs.fee_bps, "slippage_bps": self.costs.slippage_bps},
            "bar_minutes": bar_minutes,
            "max_gap_minutes": None if gap is None else gap.total_seconds() / 60,
            "exchange": self.exchange,
            "code_sha": code_sha(),
            **masked(self.extra),
        }


@contextlib.contextmanager
def opened(plan: Plan) -> Iterator[tuple[TradeJournal, State]]:
    """Yields the journal, locked for this process, and the rebuilt state.

    Rebuilt from its events. Raises TradsysError where another bot has the folder or the journal, or where the hash
    chain is broken.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(plan.folder / LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TradsysError(
            f"trade: another bot runs in {plan.folder}; one bot per journal; stop it with `trade stop "
            f"name={plan.name}`, or give another name=..."
        ) from error
    journal = None
    try:
        journal = TradeJournal(plan.journal or plan.folder / JOURNAL).lock()
        yield journal, replayed(journal)
    finally:
        gc.unfreeze()
        if journal is not None:
            journal.close()
        lock.release()


def replayed(journal: TradeJournal) -> State:
    """The state rebuilt from a journal.

    Raises DataError where its hash chain or an event is invalid. Control characters in texts of an exchange are
    removed, so that they reach neither a terminal nor a page.
    """
    if broken := journal.verify():
        raise DataError(
            f"trade journal {journal.shown}: {broken[0]}; the record was changed outside the bot and is "
            "not used; keep it as evidence and start with another name=..."
        )
    plain = (Event(e.id, plain_text(e.written), plain_text(e.kind), plain_texts(e.body)) for e in journal.events())
    with refused_in_one_line(f"trade journal {journal.shown}", RESTORE, DataError):
        return State().replay(plain)


def check_same_bot(plan: Plan, state: State, bar_minutes: float) -> None:
    """Raises BundleError where the journal belongs to another bot.

    Another bundle, profile, mode or set of symbols.
    """
    if not state.settings:
        return
    new = plan.settings(bar_minutes)
    fixed = [key for key in FIXED if key != "bundle" or not plan.extra.get("follow")]
    changed = [key for key in fixed if state.settings.get(key) != new[key]]
    if changed:
        old = {key: state.settings.get(key) for key in changed}
        raise BundleError(
            f"trade: the journal of {plan.name!r} was written with {_plan_line(old)}, this start has "
            f"{_plan_line({key: new[key] for key in changed})}; a journal belongs to one bot; give another name=..."
        )


def _plan_line(values: Settings) -> str:
    return ", ".join(f"{k}={str(v)[:12] if k == 'bundle' else v}" for k, v in values.items())


def engine_of(
    plan: Plan,
    feed: Feed,
    broker: Broker,
    journal: TradeJournal,
    state: State,
    *,
    sessions: Callable[[Bundle, pl.DataFrame], Predictor] = Session,
    **kwargs: Any,
) -> Engine:
    """The engine in the journal's last state; journals the start."""
    history = feed.history(state.decided)
    plan.bundle.check_bar_length(history)
    minutes = bar_length(history).total_seconds() / 60
    check_same_bot(plan, state, minutes)
    session = sessions(plan.bundle, history)
    digest = str(plan.bundle.card["card_sha256"])
    engine = Engine(plan.strategy, session, broker, journal, state, plan.risk, digest=digest, **kwargs)
    engine.record(("start", plan.settings(minutes)))
    gc.freeze()  # these objects last as long as the bot; garbage collection would otherwise scan them during a step
    return engine


def run_replay(plan: Plan, feed: Feed, broker: Broker, **kwargs: Any) -> State:
    """Runs the engine over every stored moment; returns the final state."""
    with opened(plan) as (journal, state):
        engine = engine_of(plan, feed, broker, journal, state, **kwargs)
        for moment in feed.moments(state.decided):
            if moment is not None:
                engine.step(moment)
        engine.record(("stop", {"why": "the stored bars end"}))
    return state


def span_of(bundle: Bundle, since: str | None) -> datetime:
    """The first bar to decide on: `since`, else the start of the bundle's test span."""
    return utc(str(since or bundle.card["span"]["test"][0]), "since")


def in_sample_note(bundle: Bundle, since: datetime, last: datetime) -> str | None:
    """What figures from `since` to `last` are not: out of sample. None where they are.

    Model, calibration and levels were fitted on bars from the training span to the test span.
    """
    first, test = (utc(str(bundle.card["span"][part][0]), part) for part in ("train", "test"))
    if since >= test or last < first:
        return None
    return (
        f"the bundle was fitted on bars from {first:%Y-%m-%d} to {test:%Y-%m-%d}, and the decisions begin on "
        f"{since:%Y-%m-%d}; these figures are better than those of new bars"
    )
