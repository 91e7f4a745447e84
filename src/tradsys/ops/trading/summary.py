"""The summary of a bot for the page and the terminal, as one frozen value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from tradsys.core.plurals import counted
from tradsys.core.received import read_json
from tradsys.core.tables import Array
from tradsys.evidence.sharpe import is_flat
from tradsys.market.calendars import session_of
from tradsys.ops.trading import events
from tradsys.ops.trading.events import Row
from tradsys.ops.trading.state import State
from tradsys.serving.brokers import Account

N_DRAWS = 500
BAND = (0.05, 0.95)
SHOWN_TRADES = 25
Health = dict[str, str | int | datetime | None]  # what is shown by its name in words


class PositionRow(TypedDict):
    """A position or a waiting entry, as shown.

    `bars` counts those held, `resting` the orders at the exchange.
    """

    symbol: str
    side: str
    state: str
    since: datetime
    quantity: NotRequired[float]
    entry: NotRequired[float]
    last: NotRequired[float]
    gain: NotRequired[float]
    stop: NotRequired[float]
    target: NotRequired[float]
    bars: NotRequired[str]
    resting: NotRequired[str]


class LiveRecord(TypedDict):
    """The live record in words, and by date mean, low and high of a day's return.

    expected: the backtest's mean day.
    """

    text: str
    date: list[str]
    mean: list[float]
    low: list[float]
    high: list[float]
    expected: float | None


@dataclass(frozen=True, eq=False)
class Summary:
    """One bot at one moment.

    Money in units of the initial capital unless stated otherwise. time, equity, exposure [T]. band: (date, low, high)
    of the equity predicted from the backtest's daily returns, or None. live: the daily record, see `live_record`.
    positions, decisions, trades, notes, slippage, watch: rows of the tables, values as shown.
    """

    settings: events.Settings
    time: list[str]
    equity: list[float]
    exposure: list[float]
    band: tuple[list[str], list[float], list[float]] | None
    positions: list[PositionRow]
    decisions: list[Row]
    trades: list[Row]
    slippage: list[events.Slippage]
    notes: list[Row]
    halts: dict[str, str]
    health: Health
    n_trades: int
    live: LiveRecord | None = None
    watch: list[events.WatchRow] = field(default_factory=list)


def summary(state: State, expected: Array | None) -> Summary:
    """The bot's summary.

    expected: daily returns of the backtest, for the band, or None.
    """
    unit = 1.0 / state.capital
    return Summary(
        settings=state.settings,
        time=[t.isoformat() for t in state.times],
        equity=[e * unit for e in state.equity],
        exposure=list(state.exposure),
        band=None if expected is None or not state.times else predicted_band(state.times, expected),
        positions=[_position(a) for _, a in sorted(state.accounts.items()) if a.position or a.pending],
        decisions=_decisions(state),
        trades=[{**t, "net_pnl": t["net_pnl"] * unit} for t in state.trades[-SHOWN_TRADES:][::-1]],
        slippage=list(state.slippage_bps)[-SHOWN_TRADES:][::-1],
        notes=[note | {"words": _note_text(note)} for note in state.notes][::-1],
        halts=dict(state.halts),
        health=_health(state),
        n_trades=len(state.trades),
        live=live_record(state, expected) if state.times else None,
        watch=list(state.watch.get("checks", [])),
    )


def live_record(state: State, expected: Array | None) -> LiveRecord:
    """The bot's daily returns with bounds on their mean.

    The bounds are valid at all times at once. A day's return runs from close to close of its last bar, UTC, as in the
    backtest: a bar that closes at midnight ends its day. The current day is left out. expected: daily returns of the
    backtest; their deviation is the least that the bounds assume.
    Bounds begin on the 60th day.
    """
    from tradsys.evidence.sequential import MIN_PERIODS, followed, live_state  # noqa: PLC0415

    closes: dict[str, float] = {}
    for time, equity in zip(state.times, state.equity, strict=True):
        closes[session_of(time).isoformat()] = equity
    values = np.array([state.capital, *list(closes.values())[:-1]], dtype=np.float64)
    before = values[:-1]  # after ruin nothing can be earned or lost
    returns = np.divide(values[1:], before, out=np.ones_like(before), where=before > 0) - 1
    promised, deviation = (None, 0.0) if expected is None else (float(expected.mean()), float(expected.std(ddof=1)))
    mean, low, high = followed(returns, expected_deviation=deviation)
    # bounds without width, of a bot that has not traded, are no bounds
    shown = slice(0) if is_flat(returns) and not deviation else slice(MIN_PERIODS - 1, None)
    return {
        "text": live_state(returns, promised, expected_deviation=deviation),
        "date": list(closes)[:-1][shown],
        "mean": mean[shown].tolist(),
        "low": low[shown].tolist(),
        "high": high[shown].tolist(),
        "expected": promised,
    }


def expected_daily(place: str | None, state: State) -> Array | None:
    """Daily returns [D] of the same profile in a backtest's report.json.

    None where there is no such report. place: a run folder of train or backtest; by default the run that contains the
    bundle.
    """
    folder = Path(place) if place else Path(str(state.settings.get("bundle_path", "")).replace("\0", "")).parent
    try:
        report = read_json(folder / "report.json", "")
        name = state.settings["strategy"]
        if {row["name"]: row["settings"] for row in report["strategies"]}[name] != state.settings["profile"]:
            return None  # the same name with other levels is another strategy
        values = np.array([1.0, *map(float, report["equity"]["curves"][name])])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    returns: Array = values[1:] / values[:-1] - 1
    return returns if len(returns) > 4 and np.isfinite(returns).all() and not is_flat(returns) else None


def predicted_band(times: Sequence[datetime], returns: Array) -> tuple[list[str], list[float], list[float]]:
    """Moments, low and high quantiles of equity by the backtest's daily returns [D].

    Stationary block bootstrap, Politis and Romano 1994. times [T]: closes of the record's bars. A day of the record is
    one with bars, as a day of the backtest is: a week of shares has five. The band ends after as many as the backtest
    has.
    """
    from tradsys.evidence.bootstrap import automatic_block_length, bootstrap_indices  # noqa: PLC0415 - loads arch

    last_bars = {session_of(time): time for time in times}
    ends = list(last_bars.values())[: len(returns)]
    length = automatic_block_length(returns)
    draws = bootstrap_indices(len(returns), length, N_DRAWS, seed=0)
    paths = np.array([np.cumprod(1 + returns[draw[: len(ends)]]) for draw in draws])
    low, high = np.quantile(paths, BAND, axis=0)
    return [moment.isoformat() for moment in (times[0], *ends)], [1.0, *low.tolist()], [1.0, *high.tolist()]


def _position(account: Account) -> PositionRow:
    held = account.position
    if held is None:
        assert account.pending is not None, account
        side = "long" if account.pending.side > 0 else "short"
        return {"symbol": account.symbol, "side": side, "state": "entry waits", "since": account.pending.signal_time}
    gain = held.order.side * (account.last_close / held.entry_price - 1)
    return {
        "symbol": account.symbol,
        "side": "long" if held.order.side > 0 else "short",
        "state": "open",
        "since": held.entry_time,
        "quantity": held.left,
        "entry": held.entry_price,
        "last": account.last_close,
        "gain": gain,
        "stop": held.stop,
        "target": held.target,
        "bars": f"{held.bars_held} of {held.order.horizon_bars}",
        "resting": ", ".join(sorted(held.protective)) or "none",
    }


def _decisions(state: State) -> list[Row]:
    rows = []
    for body in reversed(state.decisions):
        for symbol, one in sorted(body["rows"].items()):
            rows.append({"time": body["time"], "symbol": symbol, **one})
    return rows[:40]


def _health(state: State) -> Health:
    last = max((a.last_time for a in state.accounts.values() if a.last_time), default=None)
    return {
        "newest bar": last,
        "bars come by": _source(state.source),
        "events in the journal": state.last_event,
        "stopped": state.stopped or "no",
        "orders cancelled": state.n_cancelled,
        "foreign positions": ", ".join(a.symbol for a in state.accounts.values() if a.foreign) or "none",
        "share of bars with a signal": None if state.signal_share is None else f"{100 * state.signal_share:.1f} %",
        "model compared at": state.watch.get("time"),
    }


def _source(source: Mapping[str, Any]) -> str | None:
    """The source of bars in words; None where the journal lacks it."""
    if not source:
        return None
    last, n_breaks, age = source["last_message"], source["n_breaks"], source.get("age_seconds")
    parts = [f"{source['by']}, {source['why']}" if source["why"] else source["by"]]
    if last is not None:
        parts.append(f"last message {last[:19].replace('T', ' ')}")
    if n_breaks:
        parts.append(f"{counted(n_breaks, 'connection')} lost")
    if age is not None:
        parts.append(f"newest bar read {age:.1f} s after its close")
    return "; ".join(parts)


def _note_text(note: Mapping[str, Any]) -> str:
    """An event of the journal as text."""
    if note["kind"] == "start":
        return f"{note.get('mode')} of {note.get('bundle_path')}, profile {note.get('strategy')}"
    if note["kind"] == "gap":
        return f"no bar of {', '.join(note['symbols'])} at {note['time'][:16]}"
    if note["kind"] == "correction":
        before, after = note["before"], note["after"]
        return (
            f"{after[0]} at {after[1][:16]}: open, high, low, close {_four_prices(before)} became {_four_prices(after)}"
        )
    if note["kind"] == "foreign":
        fate = "is not the bot's and is not touched" if note["foreign"] else "is not the bot's; the symbol is traded"
        return f"{note['quantity']:.8g} {note['symbol']} at the exchange {fate}"
    if note["kind"] == "split":
        return f"{note['symbol']} at {note['time'][:16]}, ratio {note['ratio']:g}"
    return str(note.get("why") or note.get("what") or "")


def _four_prices(bar: Sequence[Any]) -> str:
    """Open, high, low and close of a bar's body."""
    return " ".join(f"{price:g}" for price in bar[2:6])
