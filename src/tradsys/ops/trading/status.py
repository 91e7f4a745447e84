"""Output of `trade status`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tradsys.ops.trading.state import State
from tradsys.ops.trading.summary import summary
from tradsys.reports.terminal import print_in_sample, print_made_up, print_table, table


def print_status(console: Console, folder: Path, state: State, *, running: bool) -> None:
    """Prints the bot's positions, halts, last decisions and health."""
    shown = summary(state, None)
    s = shown.settings
    print_made_up(console, s.get("synthetic"))
    print_in_sample(console, s.get("in_sample"))
    console.print(
        f"{folder.name}: {'running' if running else 'not running'}, {s.get('mode')} of {s.get('bundle_path')}, "
        f"profile {s.get('strategy')}, verdict {s.get('verdict')}"
    )
    if shown.equity:
        console.print(
            f"equity {shown.equity[-1]:.4f} of 1 at {shown.time[-1][:16]}, exposure {shown.exposure[-1]:.0%}, "
            f"{shown.n_trades} trades closed"
        )
    for rule, why in shown.halts.items():
        console.print(f"HALTED by {rule}: {why}; lift it with: trade resume name={folder.name}", style="red")
    _print(
        console,
        "Positions",
        shown.positions,
        ("symbol", "side", "state", "quantity", "entry", "last", "gain", "stop", "target", "bars"),
    )
    newest = shown.decisions[: max(1, len(state.accounts))]
    _print(console, "Last decisions", newest, ("time", "symbol", "probability", "regime", "audit", "action"))
    _print(console, "Model", getattr(shown, "watch", []), ("check", "state", "live", "reported", "note"))
    _print(
        console,
        "Health",
        [{"what": k, "value": v} for k, v in shown.health.items() if v is not None],
        ("what", "value"),
    )
    for note in shown.notes[:5]:
        console.print(f"{note['written'][:19]} {note['kind']}: {note['words']}", markup=False)
    console.print(str(folder / "report.html"))


def _print(console: Console, title: str, rows: Sequence[Mapping[str, Any]], columns: tuple[str, ...]) -> None:
    if not rows:
        return
    kept = [c for c in columns if any(row.get(c) is not None for row in rows)]
    out = table(title, tuple(kept), left=tuple(kept))
    for row in rows:
        out.add_row(*(Text(text(row.get(c))) for c in kept))
    print_table(console, out)


def text(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    shown = str(value)
    return shown[:16].replace("T", " ") if len(shown) > 18 and shown[4:5] == "-" else shown
