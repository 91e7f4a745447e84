"""The verbs of the daily command and their output."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tradsys.core.errors import TradsysError
from tradsys.core.masking import MaskingFilter
from tradsys.core.plurals import counted
from tradsys.core.progress.stages import screen_level
from tradsys.core.received import read_json
from tradsys.ops.daily import publishing
from tradsys.ops.daily.day_data import DailyBars
from tradsys.ops.daily.event_log import RunLog
from tradsys.ops.daily.lock import holder
from tradsys.ops.daily.operations import commands as operations
from tradsys.ops.daily.operations.notices import signals_alert, with_notices
from tradsys.ops.daily.partitions import STOPPED, Partitions
from tradsys.ops.daily.report import missing
from tradsys.ops.daily.run import STAGES, DayDone, nothing_done, run_days
from tradsys.ops.daily.stages import DailySettings
from tradsys.ops.notify import Notifier
from tradsys.reports.terminal import LogLines, print_made_up, print_table, prose, table
from tradsys.reports.wording import interval, listed, number, percent

Verb = Callable[[DailySettings, Mapping[str, Any]], None]
N_SHOWN = 8  # sessions in the status table
FORECAST = (("auc", "AUC", 3), ("skill_beyond_level", "skill beyond the level", 4), ("rank_ic", "rank IC", 3))
COLOURS = {"pass": "green", "warn": "yellow", "stop": "red"}


def run(settings: DailySettings, parts: Mapping[str, Any]) -> None:
    """Runs the sessions of date= and until=, or those due by when=.

    Sends a notice of the result.
    """
    first, last = session_named(parts["date"], "date"), session_named(parts["until"], "until")
    if last is not None and first is None:
        raise TradsysError(f"daily: until={last} without date=; a back-fill needs both ends; give date=")
    if parts["when"] is not None:
        if first is not None:
            raise TradsysError(
                f"daily: when={parts['when']} with date={first}; when= chooses the sessions itself; give one of the two"
            )
        due = operations.due(settings, parts)
        prose().print(f"due      {due.reason}")
        if due.first is None:
            return
        first, last = due.first, due.last
    with_notices(Notifier.from_environment(), settings.name, lambda: _run(settings, first, last))


def _run(settings: DailySettings, first: date | None, last: date | None) -> tuple[Mapping[str, Any], Path] | None:
    """Runs and prints; the newest report and its page, None where nothing was due."""
    with _on_the_terminal():
        done = run_days(settings, first, last)
    console, store = prose(), Partitions(settings.folder)
    idle = nothing_done(done)
    if idle:
        console.print(f"all stages of {_span_of_days(done)} are done; nothing to do")
    for one in done:
        if one.stages:
            console.print(f"{one.day}: {', '.join(f'{name} {seconds:.2f} s' for name, _, seconds in one.stages)}")
    document = store.document("report", done[-1].day, "report")
    page = store.folder("report", done[-1].day) / "report.html"
    _print_report(console, document, page)
    return None if idle else (document | {"new": operations.new_names(store, done[-1].day)}, page)


def report(settings: DailySettings, parts: Mapping[str, Any]) -> None:
    """Draws the report of `date` from what its run left, prints its core.

    The default is the newest report.
    """
    store = Partitions(settings.folder)
    day = session_named(parts["date"], "date") or publishing.latest(store)
    if day is None:
        raise TradsysError(f"daily: no report in {settings.folder}; run first: python -m tradsys.daily run")
    path = publishing.redraw(store, day)
    _print_report(prose(), store.document("report", day, "report"), path)
    if reported := publishing.old(store, day):
        prose().print(f"old      {_old_line(reported)}", style="red")


def status(settings: DailySettings, _: Mapping[str, Any]) -> None:
    """Prints the stages done, the newest report, and who holds the folder.

    The stages are those of the last sessions.
    """
    store, console = Partitions(settings.folder), prose()
    console.print(f"folder   {settings.folder}")
    if note := holder(settings.folder):
        console.print(f"running  process {note['pid']} on {note['host']} since {note['since']}")
    else:
        console.print("running  nobody")
    days = sorted({day for stage in STAGES for day in store.dates(stage.name)} | _stopped_days(store))
    if not days:
        console.print("done     no session yet; python -m tradsys.daily run")
        return
    print_table(console, _table(store, days[-N_SHOWN:]))
    if gaps := missing(store, DailyBars(settings.first).closes, days[-1]):
        console.print(
            f"missing  {counted(len(gaps), 'session')} between the first and the last: {', '.join(map(str, gaps[:6]))}"
        )
    shown = publishing.latest(store)
    reported = publishing.old(store, shown) if shown else None
    path = store.root / "report" / "latest" / "report.html"
    console.print(f"latest   {shown or 'no report yet'}" + (f"  {path}" if shown else ""))
    if reported:
        console.print(f"old      {_old_line(reported)}", style="red")
    for line in RunLog(settings.folder).lines(event="failed")[-1:]:
        console.print(f"failed   {line['date']} at {line['at']}: {line['error']}")


def evaluate(settings: DailySettings, parts: Mapping[str, Any]) -> None:
    """Walks the stack forward over years and prints every horizon and book.

    The last line is the market.
    """
    from tradsys.ops.daily import evaluation  # noqa: PLC0415 - loads the books and their backtests

    with _on_the_terminal():
        folder = evaluation.evaluate(settings, parts)
    document, console = read_json(folder / "report.json", "evaluate again"), prose()
    _print_notes(console, document)
    for name, one in document["horizons"].items():
        shown = ", ".join(f"{title} {interval(one[key], digits)}" for key, title, digits in FORECAST)
        console.print(f"{name:<8} {shown}")
    console.print(f"returns  {document['costs']['returns']}")
    for row in document["strategies"]:
        result = row["performance"]
        reported = f"return {percent(result['total_return'])}, Sharpe {interval(result['sharpe'], 2)}"
        console.print(f"{row['name']:<20} {reported}: {row['verdict']['kind']}")
        for note in filter(None, (row.get("unsold"), row.get("behind"))):
            console.print(f"{'':<20} {note}")
    if held := document["benchmark"]:
        console.print(f"{held['name']:<20} return {percent(held['performance']['total_return'])}")
    if words := document["span"]["words"]:
        console.print(f"span     {words}")
    refit = document["refit"]
    console.print(f"refit    {counted(refit['n'], 'difference')} on data cut at {refit['at'][:10]}")
    console.print(f"report   {folder / 'report.html'}")


def signals(settings: DailySettings, parts: Mapping[str, Any]) -> None:
    """Writes the signals table of a session and prints the folds' results.

    The results are those of its two models.
    """
    from tradsys.ops.daily import evaluation  # noqa: PLC0415 - as above

    with _on_the_terminal():
        path, metrics = evaluation.signals(settings, parts)
    console = prose()
    _print_notes(console, metrics)
    for name in ("auc", "rmse", "rmse_ratio"):
        one = metrics[name]
        shown = {key: number(one[key], 4) for key in ("mean", "sd", "low", "high")}
        console.print("{:<11}{mean}, sd {sd}, folds {low} to {high}".format(name, **shown))
    if metrics["importance"] is not None:
        shares = ", ".join(f"{source} {percent(share)}" for source, share in metrics["importance"]["by_source"].items())
        console.print(f"importance {shares}")
    if metrics["new"]:
        console.print(f"new        {', '.join(metrics['new'])}")
        Notifier.from_environment().send(*signals_alert(settings.name, metrics, path))
    console.print(f"signals    {path}")


def session_named(value: Any, key: str) -> date | None:
    """A date of the config; TradsysError where it is none."""
    if value is None:
        return None
    try:
        return date.fromisoformat(str(value))
    except ValueError as error:
        raise TradsysError(f"daily: {key}={value}; a session is a date such as 2022-12-30; give one") from error


def _table(store: Partitions, days: list[date]) -> Table:
    names = [stage.name for stage in STAGES]
    out = table("", ("session", *names), left=tuple(names))
    for day in days:
        out.add_row(str(day), *(_cell(store, name, day) for name in names))
    return out


def _cell(store: Partitions, stage: str, day: date) -> str | Text:
    manifest = store.manifest(stage, day)
    if manifest is None:
        return "damaged" if store.folder(stage, day).exists() else ""
    if manifest["facts"].get(STOPPED):
        return Text("stopped", style="red")
    return f"{manifest['seconds']:.2f} s"


def _stopped_days(store: Partitions) -> set[date]:
    return {date.fromisoformat(p.name.partition("=")[2]) for p in (store.root / "gates").glob("date=*")}


def _old_line(old: Mapping[str, Any]) -> str:
    return f"the report of {old['of']} is the newest, but {old['failed']} could not be published: {old['because']}"


def _print_report(console: Console, document: Mapping[str, Any], path: Path) -> None:
    _print_notes(console, document)
    verdict = document["verdict"]
    console.print(f"verdict  {verdict['kind']}: {'; '.join(verdict['reasons'])}")
    for check in document["gates"]:
        if check["outcome"] != "pass":
            of = f" {check['subject']}" if check["subject"] else ""
            line = f"{check['outcome']:<8} {check['gate']}{of}: {check['said']}"
            console.print(line, style=COLOURS[check["outcome"]])
    rows = document["plan"]["rows"]
    kind = "watch" if document["plan"].get("kind") == "watch-list" else "plan"
    each = [r["symbol"] if r["weight"] is None else f"{r['symbol']} {percent(r['weight'])}" for r in rows]
    names = f"{counted(len(rows), 'name')} by {document['plan']['ranked_by']}: {listed(each, 5)}" if rows else "no name"
    console.print(f"{kind:<8} {names}")
    console.print(f"report   {path}", soft_wrap=True)


def _print_notes(console: Console, document: Mapping[str, Any]) -> None:
    print_made_up(console, document["synthetic"])
    for note in document["notes"]:
        console.print(f"note     {note}", style="yellow")


def _span_of_days(done: list[DayDone]) -> str:
    return str(done[0].day) if len(done) == 1 else f"{done[0].day} to {done[-1].day} ({len(done)} sessions)"


@contextlib.contextmanager
def _on_the_terminal() -> Iterator[None]:
    """The tradsys logger on standard error while a run goes on."""
    logger = logging.getLogger("tradsys")
    screen = LogLines()
    logger.setLevel(logging.INFO)
    screen.setLevel(screen_level())
    screen.addFilter(MaskingFilter())
    logger.addHandler(screen)
    try:
        yield
    finally:
        logger.removeHandler(screen)


VERBS: Mapping[str, Verb] = {
    "run": run, "report": report, "status": status, "evaluate": evaluate, "signals": signals,
    "schedule": operations.write_units, "preflight": operations.check_before, "health": operations.report_health,
    "clean": operations.clean_up,
}  # fmt: skip
