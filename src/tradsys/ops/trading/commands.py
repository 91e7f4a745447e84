"""The verbs of `trade`: what each needs from the configuration, and what it prints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from tradsys.core.clock import utc_stamp
from tradsys.core.errors import DataError, TradsysError
from tradsys.ops.trading.bot import Plan, run_replay, span_of
from tradsys.serving.bundle import Bundle
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.paper import PaperBroker
from tradsys.serving.strategy import Strategy

CONSOLE = Console(soft_wrap=True, highlight=False, markup=False)
Config = dict[str, Any]
Source = Callable[[Config, Bundle], Any]


def plan_of(mode: str, plain: Config, parts: Config, bundle: Bundle, symbols: list[str], **extra: Any) -> Plan:
    """The plan that a configuration describes."""
    if len(parts["strategy"]) != 1:
        raise TradsysError(
            f"trade: strategy={sorted(parts['strategy'])}; a bot trades one profile; give strategy=audited or another"
        )
    ((profile_name, profile),) = parts["strategy"].items()
    stamp = f"-{utc_stamp()}" if mode == "replay" else ""
    name = plain["name"] or f"{mode}-{bundle.folder.parent.name}-{profile_name}{stamp}"
    if "/" in name or name.startswith("."):
        raise TradsysError(f"trade: name={name!r}; it becomes a folder of runs/trade; use letters, digits, - and _")
    strategy = Strategy(profile_name, bundle, profile, parts["costs"].round_trip)
    folder = Path(plain["paths"]["runs"]) / "trade" / name
    return Plan(
        name=name,
        mode=mode,
        folder=folder,
        strategy=strategy,
        symbols=tuple(symbols),
        capital=float(plain["capital"]),
        costs=parts["costs"],
        risk=parts["risk"],
        journal=plain["journal"],
        extra=extra,
    )


def replay(plain: Config, parts: Config, source: Source) -> None:
    """Stored bars through the runtime; the ledger is the backtest's."""
    bundle = Bundle.load(str(plain["bundle"]))
    bars: pl.DataFrame = source(plain, bundle).bars()
    since = span_of(bundle, plain["since"])
    if plain["until"] is not None:
        bars = bars.filter(pl.col("time") <= span_of(bundle, plain["until"]))
    there = bars.filter(pl.col("time") >= since)["symbol"].unique().sort().to_list()
    symbols = [s for s in there if not plain["symbols"] or s in plain["symbols"]]
    if not symbols or len(symbols) < len(plain["symbols"] or ()):
        raise DataError(
            f"trade replay: the data have {there} at or after {since}, wanted {plain['symbols'] or 'any'}; give an "
            "earlier since=, newer data=, or other symbols="
        )
    plan = plan_of("replay", {**plain, "capital": 1.0}, parts, bundle, symbols, since=since.isoformat())
    state = run_replay(plan, StoredFeed(bars, since, symbols), PaperBroker(parts["costs"]))
    ledger = state.ledger()
    CONSOLE.print(
        f"{len(ledger.trades)} trades, {len(ledger.open_trades)} open, equity {ledger.final_equity:.6f} after "
        f"{len(ledger.equity)} bars, {ledger.n_cancelled} orders canceled"
    )
    CONSOLE.print(str(plan.folder))


VERBS: dict[str, Callable[[Config, Config, Source], None]] = {"replay": replay}
