"""The page of a bot: one self-contained file, written atomically after every bar."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tradsys.core.runs import write_text
from tradsys.reports.page import render_page
from tradsys.reports.trading import charts

POSITIONS = (
    "symbol",
    "side",
    "state",
    "since",
    "quantity",
    "entry",
    "last",
    "gain",
    "stop",
    "target",
    "bars",
    "resting",
)
DECISIONS = ("time", "symbol", "probability", "regime", "audit", "action")
WATCH = ("check", "state", "live", "reported", "note")
WORDS = ("action", "live", "reported", "note")  # columns of sentences
LEFT = ("symbol", "side", "state", "since", "time", "regime", "resting", "check", "entry_time", "exit_time", "reason")
SHARES = ("gain", "net_return")
PROBABILITIES = ("probability", "audit")
TRADES = ("symbol", "side", "entry_time", "exit_time", "entry_price", "exit_price", "net_return", "reason", "bars_held")

NOT_COMPARED = "No comparison yet: forecasts, signals and features are compared with the run's every 24 bars."
NOT_WATCHED = "Only on live bars are forecasts, signals and features compared with what the run reported."


def write_page(page: Any, path: Path) -> None:
    """Writes the page.

    page: an `ops.trading.summary.Summary`; every text in it is escaped.
    """
    write_text(path, render(page))


def render(page: Any) -> str:
    """The page as HTML."""
    figures = {}
    replay = page.settings["mode"] == "replay"
    if page.equity:
        figures["equity"] = charts.equity(page)
    if page.live and page.live["date"]:
        figures["live"] = charts.live_record(page.live)
    if page.slippage:
        figures["slippage"] = charts.slippage(page.slippage)
    tables = [
        ("positions", "Open positions", POSITIONS, page.positions, "No position is open."),
        ("decisions", "Last decisions", DECISIONS, page.decisions, "No bar has been decided on yet."),
        (
            "model",
            "The model compared with its run",
            WATCH,
            getattr(page, "watch", []),
            NOT_WATCHED if replay else NOT_COMPARED,
        ),
        ("trades", "Last closed trades", TRADES, page.trades, "No trade is closed yet."),
    ]
    filters = {"shown": shown}
    return render_page(
        "trading/trading.html.j2",
        figures=figures,
        synthetic=page.settings.get("synthetic"),
        in_sample=page.settings.get("in_sample"),
        filters=filters,
        page=page,
        tables=tables,
        columns=used,
        words=WORDS,
        left=LEFT,
        record="Record of the replay" if replay else "Live record",
    )


def used(names: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of which some row has a value."""
    return [name for name in names if any(row.get(name) is not None for row in rows)]


def shown(value: Any, name: str = "") -> str:
    """A value as the page shows it."""
    if value is None:
        return ""
    if name == "side" and value in (1, -1):
        return "long" if value > 0 else "short"
    if isinstance(value, float):
        return f"{100 * value:+.2f} %" if name in SHARES else f"{value:{'.3f' if name in PROBABILITIES else '.6g'}}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value).replace("_", " ") if name == "reason" else str(value)
    return text[:16].replace("T", " ") if len(text) > 18 and text[4:5] == "-" and text[10:11] in "T " else text
