"""Notices of a daily run: a published session, one stopped by its gates, an error."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tradsys.core.errors import GateError
from tradsys.ops.notify import Notifier

N_ROWS = 5  # of the plan


def with_notices(notifier: Notifier, name: str, work: Callable[[], tuple[Mapping[str, Any], Path] | None]) -> None:
    """Runs `work` and sends one notice of its result.

    Exceptions of `work` are raised again. work: returns the newest report and its page, or None where nothing was to do
    (no notice is sent).
    """
    try:
        result = work()
    except GateError as error:
        notifier.send(f"tradsys daily {name}: stopped", str(error))
        raise
    except Exception as error:  # also what a library raises in a retraining
        notifier.send(f"tradsys daily {name}: failed", f"{type(error).__name__}: {error}")
        raise
    if result is not None:
        notifier.send(*summary(name, *result))


def summary(name: str, document: Mapping[str, Any], page: Path) -> tuple[str, str]:
    """Title and text of the notice of a published session."""
    plan = document["plan"]
    lines = [f"verdict: {document['verdict']['kind']}"]
    lines += [
        f"{c['outcome']}: {c['gate']} {c['subject'] or ''} {c['said']}"
        for c in document["gates"]
        if c["outcome"] != "pass"
    ]
    lines += [
        f"{row['symbol']} {row['weight']:.1%}" if row.get("weight") else row["symbol"] for row in plan["rows"][:N_ROWS]
    ]
    if document.get("new"):
        lines.append(f"new in the plan: {', '.join(document['new'])}")
    if document["synthetic"]:
        lines.insert(0, "SYNTHETIC DATA")
    return f"tradsys daily {name}: {document['date']}", "\n".join([*lines, str(page)])


def signals_alert(name: str, metrics: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """Title and text of the notice of names that are newly above the signal threshold."""
    lines = [f"new above the bar: {', '.join(metrics['new'])}", str(path)]
    if metrics["synthetic"]:
        lines.insert(0, "SYNTHETIC DATA")
    return f"tradsys daily {name}: signals", "\n".join(lines)


def newcomers(before: Mapping[str, Any] | None, document: Mapping[str, Any]) -> list[str]:
    """Symbols of the plan that the previous plan did not hold.

    None without a previous plan.
    """
    if before is None:
        return []
    known = {row["symbol"] for row in before["plan"]["rows"]}
    return [row["symbol"] for row in document["plan"]["rows"] if row["symbol"] not in known]
