"""The verbs of `trade`: their settings from the configuration, and their output."""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from tradsys.core.clock import utc, utc_stamp
from tradsys.core.errors import BundleError, DataError, GateError, TradsysError
from tradsys.core.plain_data import Config
from tradsys.core.plurals import counted
from tradsys.core.received import check_folder_name, refused_in_one_line
from tradsys.market.universe import untraded_of
from tradsys.ops.trading.bot import JOURNAL, LOCK, Plan, in_sample_note, replayed, run_replay, span_of
from tradsys.ops.trading.engine import Predictor
from tradsys.ops.trading.live import newest_of, run_live
from tradsys.ops.trading.state import State
from tradsys.ops.trading.status import print_status
from tradsys.ops.trading.store import RESTORE, TradeJournal
from tradsys.ops.trading.summary import expected_daily, summary
from tradsys.reports.terminal import print_in_sample, print_made_up, prose
from tradsys.serving.bundle import Bundle
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.joined import JoinedSession, LiveColumns, StoredColumns
from tradsys.serving.paper import PaperBroker
from tradsys.serving.session import Session
from tradsys.serving.strategy import Strategy, profiles_of

CONSOLE = prose()
ANSWER_SECONDS = 30.0
Source = Callable[[Config, Bundle], Any]


def plan_of(mode: str, plain: Config, parts: Config, bundle: Bundle, symbols: list[str], **extra: Any) -> Plan:
    """The plan that a configuration describes."""
    profiles = profiles_of(parts)
    if len(profiles) != 1:
        raise TradsysError(
            f"trade: strategy={sorted(profiles)}; a bot trades one profile; give strategy=audited or another"
        )
    ((profile_name, profile),) = profiles.items()
    stamp = f"-{utc_stamp()}" if mode == "replay" else ""
    name = plain["name"] or f"{mode}-{bundle.folder.parent.name}-{profile_name}{stamp}"
    return Plan(
        name=name,
        mode=mode,
        folder=_bot_folder(plain, name),
        strategy=Strategy(profile_name, bundle, profile, parts["costs"].round_trip, parts["costs"].borrow_per_year),
        symbols=tuple(symbols),
        capital=float(plain["capital"]),
        costs=parts["costs"],
        risk=parts["risk"],
        journal=plain["journal"],
        exchange=extra.pop("exchange", ""),
        extra=extra,
    )


def _bot_folder(plain: Config, name: str) -> Path:
    check_folder_name("trade: name", name, TradsysError)
    return Path(plain["paths"]["runs"]) / "trade" / name


def of_the_bundle(verb: str, plain: Config) -> tuple[str, Config]:
    """The level setting and data config of the bundle's run.

    `score` and {} without a bundle.
    """
    if verb not in ("replay", "paper", "live"):
        return "score", {}
    bundle = Bundle.load(_bundle_of(plain))
    return bundle.levels, bundle.data_config()


def _bundle_of(plain: Config) -> str | Path:
    if plain["follow"] and not Path(plain["follow"]).is_dir():
        raise BundleError(
            f"trade: follow={plain['follow']}: no such folder; give a folder of promoted bundles, such as models/btc"
        )
    newest = newest_of(Path(plain["follow"])) if plain["follow"] else None
    return newest or str(plain["bundle"])


def replay(plain: Config, parts: Config, source: Source) -> None:
    """Runs the bot on stored bars; its trade ledger equals the backtest's."""
    from tradsys.research.pipeline.settings import synthetic_note  # noqa: PLC0415 - a live bot needs no experiment

    wanted = _wanted_symbols("replay", plain)
    bundle = Bundle.load(str(plain["bundle"]))
    data = source(plain, bundle)
    bars: pl.DataFrame = data.bars()
    since = span_of(bundle, plain["since"])
    if plain["until"] is not None:
        bars = bars.filter(pl.col("time") <= span_of(bundle, plain["until"]))
    there = bars.filter(pl.col("time") >= since)["symbol"].unique().sort().to_list()
    only_read = untraded_of(data)
    symbols = [s for s in there if (s in wanted if wanted else s != only_read)]
    if not symbols or len(symbols) < len(wanted):
        raise DataError(
            f"trade replay: the data have {there} at or after {since}, wanted {wanted or 'any'}; give an "
            "earlier since=, newer data=, or other symbols="
        )
    made_up = synthetic_note({"source": data})
    seen = in_sample_note(bundle, since, utc(bars["time"].max(), "time"))  # type: ignore[arg-type]
    notes = {"synthetic": made_up, "in_sample": seen}
    extra = {"since": since.isoformat(), **{name: note for name, note in notes.items() if note}}
    plan = plan_of("replay", {**plain, "capital": 1.0}, parts, bundle, symbols, **extra)
    sessions = partial(JoinedSession, columns=StoredColumns(bars)) if bundle.features.columns else Session
    state = run_replay(plan, StoredFeed(bars, since, symbols), PaperBroker(parts["costs"]), sessions=sessions)
    ledger = state.ledger()
    print_made_up(CONSOLE, made_up)
    print_in_sample(CONSOLE, seen)
    CONSOLE.print(
        f"{counted(len(ledger.trades), 'trade')}, {len(ledger.open_trades):,} open, equity "
        f"{ledger.final_equity:.6f} after {counted(len(ledger.equity), 'bar')}, "
        f"{counted(ledger.n_cancelled, 'order')} cancelled"
    )
    _write_report(plan.folder, state, plain)
    CONSOLE.print(str(plan.folder / "report.html"))


def _wanted_symbols(mode: str, plain: Config) -> list[str]:
    """The symbols of the command, one or a list; [] for those of the bundle."""
    given = plain["symbols"]
    if given in ([], ""):
        raise DataError(f"trade {mode}: symbols=[] names nothing to trade; null trades those of the bundle")
    return [given] if isinstance(given, str) else list(given or [])


def paper(plain: Config, parts: Config, source: Source) -> None:
    """Trades on a live feed with simulated fills."""
    _trade("paper", plain, parts, source)


def live(plain: Config, parts: Config, source: Source) -> None:
    """Trades with real orders.

    Needs confirm=live, and the verdict `edge` or accept_verdict=true.
    """
    if plain["confirm"] != "live":
        raise GateError(
            f"trade live: confirm={plain['confirm']!r}; real orders need confirm=live; paper trading needs none: "
            "python -m tradsys.trade paper"
        )
    _trade("live", plain, parts, source)


def _trade(mode: str, plain: Config, parts: Config, source: Source) -> None:
    bundle = Bundle.load(_bundle_of(plain))
    sessions = _live_sessions(plain, bundle, source)
    verdict = bundle.card.get("verdict", {}).get("kind", "not evaluated")
    if mode == "live" and verdict != "edge" and not plain["accept_verdict"]:
        raise GateError(
            f"trade live: the verdict of {bundle.folder} is {verdict!r}; only `edge` may trade real money; "
            "accept_verdict=true overrides this, and the journal records it"
        )
    data = bundle.card["data"]
    known = list(data.get("symbols") or [])
    symbols = _wanted_symbols(mode, plain) or [s for s in known if s != data.get("reference")]
    if not symbols:
        raise DataError("trade: the bundle names no symbols; give symbols=[BTCUSDT]")
    exchange = parts["exchange"]
    plan = plan_of(
        mode,
        plain,
        parts,
        bundle,
        symbols,
        exchange=f"{exchange.id}/{exchange.kind}",
        accept_verdict=bool(plain["accept_verdict"]),
        follow=plain["follow"],
    )
    begun: list[bool] = []

    def page(state: State) -> None:
        _write_report(plan.folder, state, plain)
        if not begun:
            begun.append(True)
            CONSOLE.print(
                f"{plan.name} trades {', '.join(symbols)} at {plan.exchange} ({mode}, {plan.strategy.name}); page: "
                f"{plan.folder / 'report.html'}; from another terminal: trade status, stop, flatten, resume"
            )

    code, line = run_live(
        plan,
        exchange,
        feed_symbols=sorted({*known, *symbols}) if mode == "paper" or bundle.features.reads_market else symbols,
        adopt=bool(plain["adopt"]),
        follow=plain["follow"],
        page=page,
        sessions=sessions,
    )
    CONSOLE.print(line)
    sys.exit(code)


def _live_sessions(plain: Config, bundle: Bundle, source: Source) -> Callable[..., Predictor]:
    """A factory of sessions of the bundle, with the joined columns of its training data."""
    if not bundle.features.columns:
        return Session
    data = source(plain, bundle)
    if not hasattr(data, "join"):
        raise BundleError(
            f"trade: {bundle.folder} reads {list(bundle.features.columns)[:6]} besides prices and volume, and the data "
            "do not join them; give the data= it was trained on, such as data=crypto_hourly_macro"
        )
    limit = plain["max_age_hours"]
    if limit is not None and not (isinstance(limit, int | float) and limit > 0):
        raise DataError(f"trade: max_age_hours={limit!r}; it is null or hours above 0; set max_age_hours=100")
    return partial(JoinedSession, columns=LiveColumns(data), max_age_hours=limit)


def status(plain: Config, _parts: Config, _source: Source) -> None:
    """Prints the state of a running or finished bot."""
    folder = _only_bot(plain)
    state = _state(folder, plain)
    with refused_in_one_line(f"trade: the journal of {folder.name}", RESTORE, DataError):
        print_status(CONSOLE, folder, state, running=_running(folder))


def report(plain: Config, _parts: Config, _source: Source) -> None:
    """Writes the page again from the journal."""
    folder = _only_bot(plain)
    _write_report(folder, _state(folder, plain), plain)
    CONSOLE.print(str(folder / "report.html"))


def _request(kind: str) -> Callable[[Config, Config, Source], None]:
    def ask(plain: Config, _parts: Config, _source: Source) -> None:
        folder = _only_bot(plain)
        journal = TradeJournal(plain["journal"] or folder / JOURNAL, create=False)
        number = journal.ask(kind)
        if not _running(folder):
            CONSOLE.print(f"{folder.name} is not running; `{kind}` takes effect when it starts again")
            return
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            done = [e for e in journal.events(kinds=["request"]) if e.body["id"] == number]
            if done:
                CONSOLE.print(f"{folder.name}: {kind} accepted at {done[0].written}")
                return
            time.sleep(0.2)
        CONSOLE.print(
            f"{folder.name}: {kind} was requested, but the bot has not answered within {ANSWER_SECONDS:.0f} s"
        )

    ask.__doc__ = f"Sends the request `{kind}` to the bot and waits until it is accepted."
    return ask


def _only_bot(plain: Config) -> Path:
    root = Path(plain["paths"]["runs"]) / "trade"
    if plain["name"]:
        folder = _bot_folder(plain, str(plain["name"]))
        if not folder.is_dir():
            there = sorted(p.name for p in root.glob("*") if p.is_dir())
            raise DataError(f"trade: no bot {plain['name']!r} in {root}; there are {there[:12]}; give one of them")
        return folder
    found = sorted((p for p in root.glob("*") if (p / LOCK).exists()), key=lambda p: -(p / LOCK).stat().st_mtime)
    newest = next((folder for folder in found if plain["journal"] or _has_begun(folder)), None)
    if newest is None:
        raise DataError(f"trade: no bot has run in {root} yet; start one with: python -m tradsys.trade paper")
    return newest


def _has_begun(folder: Path) -> bool:
    """Whether the journal has events; a refused start leaves an empty one or none."""
    if not (folder / JOURNAL).is_file():
        return False
    journal = TradeJournal(folder / JOURNAL, create=False)
    try:
        return bool(journal.newest("start"))
    finally:
        journal.close()


def _state(folder: Path, plain: Config) -> State:
    state = replayed(TradeJournal(plain["journal"] or folder / JOURNAL, create=False))
    if not state.settings:
        raise DataError(f"trade: {folder.name} has not begun, its journal is empty; start it, or give another name=...")
    return state


def _running(folder: Path) -> bool:
    lock = FileLock(str(folder / LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _write_report(folder: Path, state: State, plain: Config) -> None:
    from tradsys.reports.trading.page import write_page  # noqa: PLC0415 - loads plotly, once the bot is ready

    with refused_in_one_line(f"trade: the journal of {folder.name}", RESTORE, DataError):
        expected = expected_daily(plain["expected"], state)
        write_page(summary(state, expected), folder / "report.html")


VERBS: dict[str, Callable[[Config, Config, Source], None]] = {
    "replay": replay,
    "paper": paper,
    "live": live,
    "status": status,
    "stop": _request("stop"),
    "flatten": _request("flatten"),
    "resume": _request("resume"),
    "report": report,
}
